from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from drawn_studies import groups_of, squeezes
from numpy.typing import NDArray

from sqzlab.analysis.figures.looks import LOOKS, OTHER_LOOK, SPARE_LOOKS, arm_looks, looks_of
from sqzlab.catalog import SQUEEZES

ROOT = Path(__file__).parents[3]
OKABE_ITO = {"#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"}


def test_every_squeeze_of_the_catalog_has_a_look_of_its_own() -> None:
    assert set(LOOKS) == set(SQUEEZES)
    assert len(set(LOOKS.values())) == len(LOOKS)
    assert not set(LOOKS.values()) & set(SPARE_LOOKS)


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_squeezes_of_a_study_differ_in_colour_as_far_as_there_are_colours(path: Path) -> None:
    named = yaml.safe_load(path.read_text())["matrix"].get("model.squeeze", [])
    assert len({LOOKS[name][0] for name in named}) == min(len(named), 8)


def test_colours_are_okabe_and_itos_greys_and_one_brown() -> None:
    for colour, _ in [*LOOKS.values(), *SPARE_LOOKS]:
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        assert colour in OKABE_ITO or colour == OTHER_LOOK[0] or red == green == blue


@pytest.mark.parametrize("sight", ["full", "protanopia", "deuteranopia"])
def test_looks_of_one_marker_differ_to_the_colour_blind_too(sight: str) -> None:
    by_marker: dict[str, list[str]] = {}
    for colour, marker in LOOKS.values():
        by_marker.setdefault(marker, []).append(colour)
    for colours in by_marker.values():
        seen = [cielab(colour, SIGHT[sight]) for colour in colours]
        assert all(np.linalg.norm(a - b) > 20 for a, b in itertools.combinations(seen, 2))  # 2.3 is just noticeable


def cielab(colour: str, sight: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE 1976 L*a*b* of an sRGB colour as it is seen, D65."""
    coded = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    x, y, z = TO_XYZ @ (sight @ linear).clip(0, 1) / (0.9505, 1, 1.089)
    fx, fy, fz = (np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
SIGHT = {  # Machado, Oliveira and Fernandes 2009, severity 1, on linear sRGB
    "full": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


@pytest.mark.parametrize(
    "named",
    [list(SQUEEZES), list(SQUEEZES)[8:20], ["gap"] * 24, ["gap", "no_squeeze", "gap", "ECA"], ["x", "y", "gap"]],
)
def test_no_two_arms_look_alike_and_the_first_of_a_squeeze_keeps_its_look(named: list[str]) -> None:
    looks = looks_of(named)
    assert len(set(looks)) == len(named)
    for i, (squeeze, look) in enumerate(zip(named, looks, strict=True)):
        assert look == LOOKS.get(squeeze, look) or squeeze in named[:i]


@pytest.mark.parametrize("named", [["gap", "std", "random", "SP"], list(SQUEEZES), ["gap"], ["x", "gap", "y"]])
@pytest.mark.parametrize("values", [2, 4])
def test_the_colour_of_every_arm_is_its_squeezes(named: list[str], values: int) -> None:
    arms = [(squeeze, f"reduction {value}") for squeeze in named for value in range(values)]
    looks = looks_of(*zip(*arms, strict=True))
    assert len(set(looks)) == len(arms)
    colours = {
        squeeze: {look[0] for (name, _), look in zip(arms, looks, strict=True) if name == squeeze} for squeeze in named
    }
    assert all(found == {LOOKS[squeeze][0]} for squeeze, found in colours.items() if squeeze in LOOKS)
    assert all(len(found) == 1 for found in colours.values())


def test_the_marker_says_what_else_tells_arms_of_a_squeeze_apart() -> None:
    axes = [{}, *({"model.reduction": r} for r in (4, 8, 16))]
    cells = [({"model.squeeze": s, **axis}, [0.9]) for s in ("baseline", "gap", "std", "SP") for axis in axes
             if (s == "baseline") == (not axis)]  # fmt: skip
    looks = arm_looks(groups_of(cells))
    markers = {r: {looks[f"{s}, reduction {r}"][1] for s in ("gap", "std", "SP")} for r in (4, 8, 16)}
    assert [len(found) for found in markers.values()] == [1, 1, 1]
    assert len(set.union(*markers.values())) == 3
    assert looks["baseline"] == LOOKS["baseline"]


def test_one_arm_a_squeeze_keeps_its_look_whatever_else_its_name_says() -> None:
    cells = [({"model.squeeze": "baseline"}, [0.9]), ({"model.squeeze": "gap", "model.reduction": 4}, [0.9])]
    assert arm_looks(groups_of(cells)) == {"baseline": LOOKS["baseline"], "gap, reduction 4": LOOKS["gap"]}


def test_letters_and_then_other_colours_come_where_shapes_run_out() -> None:
    looks = looks_of(["gap"] * 60)
    assert len(set(looks)) == 60
    colours = Counter(colour for colour, _ in looks)
    assert colours[LOOKS["gap"][0]] == 40


def test_an_arm_looks_alike_in_all_groups() -> None:
    cells = [({"model.backbone": b, **cell}, s) for b in ("resnet18", "resnet34")
             for cell, s in squeezes(baseline=[0.9], gap=[0.9])]  # fmt: skip
    assert arm_looks(groups_of(cells)) == {"baseline": LOOKS["baseline"], "gap": LOOKS["gap"]}
