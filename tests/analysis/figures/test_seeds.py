from __future__ import annotations

import itertools

import numpy as np
from drawn_studies import groups_of, squeezes, texts
from hypothesis import given
from hypothesis import strategies as st

from sqzlab.analysis.figures.seeds import seeds_as_dots, stacked


@given(st.lists(st.integers(0, 40), max_size=40), st.floats(0.5, 5))
def test_no_two_dots_of_a_level_touch_and_no_level_is_left_out(places: list[int], width: float) -> None:
    values = np.array(places, dtype=float)
    levels = stacked(values, width)
    for level in set(levels.tolist()):
        assert all(b - a >= width for a, b in itertools.pairwise(np.sort(values[levels == level])))
    assert set(range(min(levels, default=0), max(levels, default=-1) + 1)) == set(levels.tolist())


def test_dots_that_do_not_touch_stay_in_the_middle() -> None:
    assert stacked(np.array([3.0, 1.0, 2.0]), 0.5).tolist() == [0, 0, 0]
    assert stacked(np.array([1.0, 1.0, 1.0]), 0.5).tolist() == [0, 1, -1]


def test_every_seed_is_drawn_once_and_the_tick_is_at_the_mean() -> None:
    seeds = {"baseline": [0.9, 0.9, 0.9, 0.91], "gap": [0.95, 0.92]}
    ax = seeds_as_dots(groups_of(squeezes(**seeds))).axes[0]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    ticks = [line.get_xdata()[0] for line in ax.lines if line.get_marker() != "o"]
    for line, tick, top1 in zip(dots, ticks, seeds.values(), strict=True):
        np.testing.assert_allclose(line.get_xdata(), 100 * np.array(top1))
        np.testing.assert_allclose(tick, 100 * np.mean(top1))
        assert len(set(zip(*line.get_data(), strict=True))) == len(top1)


def test_a_stack_stays_in_the_row_of_its_arm() -> None:
    ax = seeds_as_dots(groups_of(squeezes(baseline=[0.9] * 100, gap=[0.9, 0.95]))).axes[0]
    heights = ax.lines[0].get_ydata()
    assert np.abs(heights).max() < 0.5
    assert len(set(heights)) == 100


def test_another_number_of_seeds_and_an_arm_without_any_are_said() -> None:
    cells = squeezes(baseline=[0.9, 0.91], gap=[0.9, 0.95], SP=[0.9, "failed"], RG=["missing", "missing"])
    told = texts(seeds_as_dots(groups_of(cells)).axes[0])
    assert "n = 2 seeds an arm (1 for SP)\nno result: RG (missing)" in told
    assert " missing" in told.split("\n")


def test_arms_with_another_number_of_seeds_are_told_apart_by_it() -> None:
    cells = squeezes(baseline=[0.9] * 3, gap=[0.9, 0.95], gmp=[0.9], SP=[0.9], RG=[0.9] * 3)
    assert "n = 3 seeds an arm (1 for gmp, SP; 2 for gap)" in texts(seeds_as_dots(groups_of(cells)))
    two = [({"model.squeeze": "gap", "model.reduction": r}, [0.9] * n) for r, n in ((4, 2), (8, 3), (16, 3))]
    assert "n = 3 seeds an arm (2 for 'gap, reduction 4')" in texts(seeds_as_dots(groups_of(two)))
    assert "n = 1 seed an arm" in texts(seeds_as_dots(groups_of(squeezes(gap=[0.9]))))
