from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from drawn_studies import groups_of, squeezes, texts

from sqzlab.analysis.figure_list import MOST_SEEDS
from sqzlab.analysis.figures.curves import learning_curves

SEEDS = squeezes(baseline=[0.9, 0.9], gap=[0.9, 0.9], SP=["failed", "failed"])


def curves_of(losses: dict[str, list[float]]) -> pd.DataFrame:
    """Epochs from 1 of every run; its error falls like its loss."""
    rows = [
        {"run_id": run_id, "epoch": epoch, "train_loss": loss, "val_loss": loss, "top1": 1 - loss / 4, "top5": 1.0}
        for run_id, values in losses.items()
        for epoch, loss in enumerate(values, start=1)
    ]
    return pd.DataFrame(rows, columns=["run_id", "epoch", "train_loss", "val_loss", "top1", "top5"])


WHOLE = curves_of(
    {"baseline-s0": [2, 1], "baseline-s1": [2, 0.5], "gap-s0": [2, 1, 0.5], "gap-s1": [1, 0.8], "other": [9, 9]}
)


def test_the_line_is_the_mean_and_the_band_reaches_from_the_least_to_the_greatest() -> None:
    ax = learning_curves(groups_of(SEEDS), WHOLE).axes[0]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [2, 0.75])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [1.5, 0.9])
    corners = ax.collections[1].get_paths()[0].vertices
    assert {(1.0, 1.0), (1.0, 2.0), (2.0, 0.8), (2.0, 1.0)} <= {tuple(corner) for corner in corners.tolist()}


def test_the_right_panel_has_the_error_in_percent_and_the_names() -> None:
    figure = learning_curves(groups_of(SEEDS), WHOLE)
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), [50, 18.75])
    names = [text.get_text() for text in figure.axes[1].texts]
    assert names == ["baseline", "gap"]
    assert not [text.get_text() for text in figure.axes[0].texts if text.get_text() in names]


def test_one_seed_has_no_band() -> None:
    ax = learning_curves(groups_of(squeezes(gap=[0.9])), WHOLE).axes[0]
    assert not ax.collections


def test_arms_without_a_result_and_runs_without_a_record_are_named() -> None:
    lost = WHOLE[~WHOLE["run_id"].isin(["gap-s1", "baseline-s0", "baseline-s1"])]
    told = texts(learning_curves(groups_of(SEEDS), lost).axes[0])
    assert "no result: SP (failed)" in told
    assert "no record of the epochs: baseline, 1 of 2 seeds of gap" in told


def test_no_record_at_all_leaves_empty_panels_that_say_so() -> None:
    figure = learning_curves(groups_of(SEEDS), WHOLE[:0])
    assert "no record of the epochs: baseline, gap" in texts(figure.axes[0])


def test_only_the_first_seeds_of_an_arm_are_drawn_and_none_of_them_is_called_lost() -> None:
    n = MOST_SEEDS + 5
    curves = curves_of({f"gap-s{i}": [2.0 + i, 1.0] for i in range(n)})
    figure = learning_curves(groups_of(squeezes(gap=[0.9] * n)), curves[curves["run_id"] != f"gap-s{n - 1}"])
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [2 + (MOST_SEEDS - 1) / 2, 1])
    assert "no record" not in texts(figure.axes[0])


@pytest.mark.parametrize(("last", "scale"), [(0.0, "linear"), (0.1, "log")])
def test_an_error_of_zero_keeps_the_axis_linear(last: float, scale: str) -> None:
    figure = learning_curves(groups_of(squeezes(gap=[0.9])), curves_of({"gap-s0": [2.0, last]}))
    assert {ax.get_yscale() for ax in figure.axes} == {scale}
