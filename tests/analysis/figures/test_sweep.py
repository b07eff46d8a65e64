from __future__ import annotations

import itertools

import numpy as np
import pytest
from drawn_studies import groups_of, texts
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy import stats

from sqzlab.analysis.figures.looks import LOOKS
from sqzlab.analysis.figures.sweep import accuracy_over_axis, sweep_axes

BASELINE = ({"model.squeeze": "baseline"}, [0.90, 0.92])
REDUCTION = [
    BASELINE,
    *(({"model.squeeze": "gap", "model.reduction": r}, [0.93, 0.93 + r / 1000]) for r in (16, 2, 4)),
    ({"model.squeeze": "SP", "model.reduction": 2}, [0.95, 0.96]),
    ({"model.squeeze": "SP", "model.reduction": 8}, ["missing", "missing"]),
]


def line_of(ax: Axes, squeeze: str) -> Line2D:
    colour, marker = LOOKS[squeeze]
    inside = [line for line in ax.lines if line.get_transform() == ax.transData]
    return next(line for line in inside if line.get_color() == colour and line.get_marker() == marker)


def test_axes_with_two_values_are_swept_but_not_squeeze_and_backbone() -> None:
    cells = [
        ({"model.backbone": b, "model.squeeze": s, "model.gate": "tanh", "train.recipe": r}, [0.9])
        for b, r in (("resnet18", "sprg"), ("resnet50", "ssenet"))
        for s in ("baseline", "gap")
    ]
    assert sweep_axes(groups_of(cells)) == ("train.recipe",)
    assert sweep_axes(groups_of(REDUCTION)) == ("model.reduction",)


def test_a_value_without_a_result_is_no_second_value() -> None:
    cells = [({"model.squeeze": "gap", "model.reduction": r}, seeds) for r, seeds in ((2, [0.9]), (4, ["failed"]))]
    assert sweep_axes(groups_of(cells)) == ()


def test_numbers_stand_by_their_logarithm_in_rising_order() -> None:
    ax = accuracy_over_axis(groups_of(REDUCTION), "model.reduction").axes[0]
    line = line_of(ax, "gap")
    assert np.diff(line.get_xdata()).tolist() == pytest.approx([1, 2])
    np.testing.assert_allclose(line.get_ydata().astype(float), [93.1, 93.2, 93.8])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2", "4", "16"]
    assert ax.get_xticks().tolist() == [1, 2, 4]


def test_bars_and_band_are_the_pooled_interval_of_each_mean() -> None:
    ax = accuracy_over_axis(groups_of(REDUCTION), "model.reduction").axes[0]
    cells = [np.array(seeds) for _, seeds in REDUCTION[:-1]]
    sd = np.sqrt(np.mean([cell.var(ddof=1) for cell in cells]))
    half = 100 * stats.t.ppf(0.975, len(cells)) * sd / np.sqrt(2)
    segments = ax.collections[0].get_segments()
    np.testing.assert_allclose([(high - low) / 2 for (_, low), (_, high) in segments], [half] * 3)
    (band,) = ax.patches
    assert (band.get_y(), band.get_height()) == pytest.approx((91 - half, 2 * half))


def test_the_baseline_without_the_axis_is_a_dashed_level() -> None:
    ax = accuracy_over_axis(groups_of(REDUCTION), "model.reduction").axes[0]
    (level,) = [line for line in ax.lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose(level.get_ydata(), [91, 91])
    assert "baseline (dashed)" in texts(ax)


def test_an_arm_without_a_result_is_named() -> None:
    ax = accuracy_over_axis(groups_of(REDUCTION), "model.reduction").axes[0]
    assert "no result: SP, reduction 8 (missing)" in texts(ax)


def test_words_stand_at_equal_distances_in_the_order_of_the_plan() -> None:
    names = ["standard", "pre", "identity"]
    cells = [BASELINE, *(({"model.squeeze": "gap", "model.placement": p}, [0.9, 0.91]) for p in names)]
    ax = accuracy_over_axis(groups_of(cells), "model.placement").axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == names
    assert ax.get_xticks().tolist() == [0, 1, 2]
    assert line_of(ax, "gap").get_linestyle() == ":"


@pytest.mark.parametrize(
    ("axis", "values"), [("model.fc_bias", [False, True]), ("model.stages", ["all", "conv2+conv3+conv4"] * 7)]
)
def test_names_below_the_panel_do_not_touch(axis: str, values: list[object]) -> None:
    cells = [
        ({"model.squeeze": "gap", axis: value if i < 2 else f"{value}+{i}"}, [0.9]) for i, value in enumerate(values)
    ]
    figure = accuracy_over_axis(groups_of(cells), axis)
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert all(a.x1 <= b.x0 for a, b in itertools.pairwise(boxes))
    assert min(box.y0 for box in boxes) >= figure.axes[0].xaxis.label.get_window_extent().y1 - 1
    assert figure.axes[0].xaxis.label.get_window_extent().y0 >= 0


def test_an_axis_that_the_baseline_has_too_makes_it_a_line_in_one_panel() -> None:
    cells = [
        ({"model.squeeze": s, "train.recipe": r}, [0.9, 0.91])
        for r in ("sprg", "ssenet", "srm")
        for s in ("baseline", "gap")
    ]
    (ax,) = accuracy_over_axis(groups_of(cells), "train.recipe").axes
    assert len(line_of(ax, "baseline").get_xdata()) == len(line_of(ax, "gap").get_xdata()) == 3
    assert ax.get_title("left") == "resnet18"


def test_each_backbone_has_a_panel() -> None:
    cells = [({"model.backbone": b, **cell}, seeds) for b in ("resnet18", "resnet50") for cell, seeds in REDUCTION]
    figure = accuracy_over_axis(groups_of(cells), "model.reduction")
    assert [ax.get_title("left") for ax in figure.axes] == ["resnet18", "resnet50"]


def test_lines_of_one_squeeze_are_told_apart_by_what_else_they_differ_in() -> None:
    cells = [
        BASELINE,
        *(
            ({"model.squeeze": "gap", "model.reduction": r, "model.gate": g}, [0.9])
            for r in (2, 4)
            for g in ("relu", "tanh")
        ),
    ]
    ax = accuracy_over_axis(groups_of(cells), "model.reduction").axes[0]
    assert "gap, gate relu\ngap, gate tanh" in texts(ax)


def test_without_a_spread_there_is_no_bar_and_it_is_said() -> None:
    cells = [({"model.squeeze": "gap", "model.reduction": r}, [0.9 + r / 100]) for r in (2, 4)]
    ax = accuracy_over_axis(groups_of(cells), "model.reduction").axes[0]
    assert not ax.collections
    assert "no interval" in texts(ax)
