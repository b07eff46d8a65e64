from __future__ import annotations

import re

import numpy as np
import pytest
from drawn_studies import groups_of, points, squeezes, texts
from matplotlib.colors import to_hex
from scipy import stats

from sqzlab.analysis.figure_list import PAPER
from sqzlab.analysis.figures.gain import gain_over_baseline
from sqzlab.analysis.figures.looks import LOOKS

SEEDS = squeezes(baseline=[0.90, 0.91, 0.92], gap=[0.95, 0.96, 0.97], SP=[0.91, 0.93, 0.92], RG=["missing"] * 3)


def test_the_bars_are_the_intervals_that_scipy_finds() -> None:
    ax = gain_over_baseline(groups_of(SEEDS)).axes[0]
    values = {cell["model.squeeze"]: np.array(top1) for cell, top1 in SEEDS[:3]}
    thick = [line.get_xdata() for line in ax.lines if line.get_linewidth() > 2]
    thin = [line.get_xdata() for line in ax.lines if line.get_marker() == "|"]
    squares = sum(((v - v.mean()) ** 2).sum() for v in values.values())
    half = stats.t.ppf(0.975, 6) * np.sqrt(squares / 6 * 2 / 3)
    joint = stats.dunnett(values["gap"], values["SP"], control=values["baseline"]).confidence_interval()
    for i, name in enumerate(("gap", "SP")):
        difference = values[name].mean() - values["baseline"].mean()
        np.testing.assert_allclose(thick[i], [100 * (difference - half), 100 * (difference + half)])
        np.testing.assert_allclose(thin[i], [100 * joint.low[i], 100 * joint.high[i]], atol=0.02)


def test_a_separated_arm_is_filled_and_named_and_another_is_open() -> None:
    ax = gain_over_baseline(groups_of(SEEDS)).axes[0]
    faces = {line.get_marker(): to_hex(line.get_markerfacecolor()) for line in ax.lines}
    assert faces[LOOKS["gap"][1]] == LOOKS["gap"][0].lower()
    assert faces[LOOKS["SP"][1]] == PAPER
    assert "separated: gap\n" in texts(ax)


def test_every_seed_is_a_dot_and_the_baselines_own_stand_around_zero() -> None:
    ax = gain_over_baseline(groups_of(SEEDS)).axes[0]
    dots = points(ax, ".")
    np.testing.assert_allclose([x for x, _ in dots], [-1, 0, 1, 4, 5, 6, 0, 2, 1], atol=1e-9)


def test_an_arm_without_a_result_is_named_in_its_row_and_above() -> None:
    ax = gain_over_baseline(groups_of(SEEDS)).axes[0]
    assert [text.get_text() for text in ax.texts if text.get_text() == "missing"] == ["missing"]
    assert "no result: RG (missing)" in texts(ax)


def test_an_arm_of_which_seeds_are_absent_says_how_many_there_are() -> None:
    ax = gain_over_baseline(groups_of(squeezes(baseline=[0.9, 0.91], gap=[0.9, "failed"]))).axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["baseline", "gap\n(n = 1 of 2)"]


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ({"baseline": [0.9], "gap": [0.95]}, "one seed an arm: no interval"),
        ({"baseline": [0.9, 0.9], "gap": [0.95, 0.95]}, "no arm varies over its seeds: no interval"),
        ({"baseline": ["failed"], "gap": [0.95]}, "the baseline has no result: no difference"),
        ({"gap": [0.95], "SP": [0.95]}, "no baseline in the study: no difference"),
        ({"baseline": [0.9, 0.95], "gap": [0.95, 0.9]}, "no arm is separated from the baseline"),
        ({"baseline": [0.1, 0.101], "gap": [0.9, 0.901], "SP": [0.9, 0.901], "RG": [0.9, 0.9]}, "separated: all arms"),
    ],
)
def test_what_cannot_be_told_is_said_in_words(seeds: dict[str, list[float]], said: str) -> None:
    ax = gain_over_baseline(groups_of(squeezes(**seeds))).axes[0]
    assert said in texts(ax)
    drawn = [line for line in ax.lines if line.get_linewidth() > 2 or line.get_marker() == "|"]
    assert bool(drawn) == ("interval" not in said and "difference" not in said)


@pytest.mark.parametrize(("correction", "said"), [("dunnett", "Dunnett"), ("holm", "Holm"), ("none", "not adjusted")])
def test_the_legend_line_names_the_correction_and_the_level(correction: str, said: str) -> None:
    from dataclasses import replace

    groups = [replace(group, correction=correction) for group in groups_of(SEEDS)]
    told = re.sub(r"\s", " ", texts(gain_over_baseline(groups, 0.9)))
    assert f"p < 0.1 ({said}" in told
    assert "90 % interval of this difference" in told
