from __future__ import annotations

import numpy as np
import pytest
from drawn_studies import groups_of, points, squeezes, texts
from hypothesis import given
from hypothesis import strategies as st

from sqzlab.analysis.figures.looks import LOOKS
from sqzlab.analysis.figures.pareto import accuracy_against_cost, front

CELLS = squeezes(baseline=[0.90, 0.90], gap=[0.94, 0.96], SP=[0.93, 0.93], RG=["failed", "failed"])
COSTS = {"macs": [10**9, 2 * 10**9, 3 * 10**9, 0], "train_images_per_s": [900.0, 700.0, 950.0, 0.0]}


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12), st.sampled_from([1, -1]))
def test_the_front_is_what_no_other_point_beats(drawn: list[tuple[int, int]], sign: int) -> None:
    def beats(one: tuple[int, int], other: tuple[int, int]) -> bool:
        as_good = sign * one[0] <= sign * other[0] and one[1] >= other[1]
        return as_good and one != other

    assert front(drawn, sign) == [not any(beats(one, point) for one in drawn) for point in drawn]


def test_each_arm_stands_at_its_cost_and_its_mean() -> None:
    left, right = accuracy_against_cost(groups_of(CELLS, **COSTS)).axes
    for name, macs, speed, mean in (("baseline", 1, 900, 90), ("gap", 2, 700, 95), ("SP", 3, 950, 93)):
        np.testing.assert_allclose(points(left, LOOKS[name][1]), [(macs, mean)])
        np.testing.assert_allclose(points(right, LOOKS[name][1]), [(speed, mean)])
    assert left.get_xlabel().startswith("GMACs")


def test_the_front_is_a_line_with_steps_and_its_arms_are_named() -> None:
    left, right = accuracy_against_cost(groups_of(CELLS, **COSTS)).axes
    (line,) = [line for line in left.lines if line.get_drawstyle() == "steps-post"]
    np.testing.assert_allclose(line.get_xydata()[:2], [(1, 90), (2, 95)])
    (line,) = [line for line in right.lines if line.get_drawstyle() == "steps-post"]
    np.testing.assert_allclose(line.get_xydata()[:2], [(950, 93), (700, 95)])
    assert "front by MACs: baseline, gap\nno result: RG (failed)" in texts(left)
    assert "front by images/s: gap, SP" in texts(right)


def test_a_dominated_arm_is_fainter_than_those_on_the_front() -> None:
    left, _ = accuracy_against_cost(groups_of(CELLS, **COSTS)).axes
    faces = {line.get_marker(): line.get_markerfacecolor() for line in left.lines if len(line.get_xdata()) == 1}
    inside = [line for line in left.lines if line.get_transform() == left.transData]
    faces = {line.get_marker(): line.get_markerfacecolor() for line in inside}
    assert faces[LOOKS["gap"][1]] == LOOKS["gap"][0]
    assert faces[LOOKS["SP"][1]][3] < 0.5


def test_the_speed_of_an_arm_is_the_median_of_its_runs() -> None:
    groups = groups_of(squeezes(gap=[0.9, 0.9, 0.9]))
    for row, speed in zip(groups[0].arms[0].rows, (100.0, 900.0, 200.0), strict=True):
        row["train_images_per_s"] = speed  # type: ignore[index]
    _, right = accuracy_against_cost(groups).axes
    np.testing.assert_allclose(points(right, "o"), [(200, 90)])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"gpu": [None, "H200", "H200", None], "device": ["cpu", "cuda", "cuda", "cpu"]}, "(cpu, fp32; cuda, H200,"),
        ({"gpu": ["A100", "H200", "H200", None]}, "different hardware"),
        ({"precision": ["fp32", "bf16", "fp32", None]}, "(cpu, bf16; cpu, fp32)"),
        ({"train_images_per_s": None}, "no run has recorded it"),
    ],
)
def test_speeds_that_cannot_be_compared_are_not_drawn_and_it_is_said(values: dict[str, object], said: str) -> None:
    left, right = accuracy_against_cost(groups_of(CELLS, **values)).axes
    told = " ".join(texts(right).split())
    assert "throughput is not drawn" in told
    assert said in told
    assert not [line for line in right.lines if line.get_transform() == right.transData]
    assert [line for line in left.lines if line.get_transform() == left.transData]


def test_an_arm_of_unknown_cost_is_named() -> None:
    speeds = [900.0, None, 700.0, None]
    _, right = accuracy_against_cost(groups_of(CELLS, train_images_per_s=speeds)).axes
    assert "images/s unknown: gap" in " ".join(texts(right).split())


def test_arms_at_one_point_are_named_there() -> None:
    cells = squeezes(baseline=[0.90], gap=[0.94], std=[0.94], gmp=[0.93], SP=[0.94])
    macs, speeds = [10**9, 2 * 10**9, 2 * 10**9, 2 * 10**9, 3 * 10**9], [900.0, 800.0, 700.0, 600.0, 700.0]
    left, right = accuracy_against_cost(groups_of(cells, macs=macs, train_images_per_s=speeds)).axes
    assert "gap, std" in texts(left).split("\n")
    assert "std, SP" in texts(right).split("\n")
    assert {"gap", "gmp", "SP"} <= set(texts(right).split("\n"))  # each beside the panel
