"""The one style of all figures: colours, markers, formats, and which look an arm has."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

from sqzlab.analysis.arms import Arm, Group, describe
from sqzlab.analysis.figure_list import FORMATS, INK

Look = tuple[str, str]  # colour, marker


def in_style() -> AbstractContextManager[None]:
    """Within it figures are drawn and saved as the style says, whatever a matplotlibrc or a notebook has set."""
    return matplotlib.style.context(STYLE, after_reset=True)


def saved(figure: Figure) -> dict[str, bytes]:
    """The figure in every format, by its ending; to be called within `in_style`."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, not again in each format
    contents = {}
    for kind, metadata in FORMATS.items():
        file = io.BytesIO()
        figure.savefig(file, format=kind, metadata=dict(metadata))
        contents[kind] = file.getvalue()
    return contents


def arm_looks(groups: Sequence[Group]) -> Mapping[str, Look]:
    """A look for every arm by its label, the same in all groups; see `looks_of`."""
    arms = {arm.label: (squeeze_of(arm), beyond_squeeze(arm, group)) for group in groups for arm in group.arms}
    return dict(zip(arms, looks_of(*zip(*arms.values(), strict=True)), strict=True)) if arms else {}


def beyond_squeeze(arm: Arm, group: Group, *axes: str) -> str:
    """What else tells the arm from others of its group, "reduction 8" perhaps; not these axes."""
    left_out = {"model.squeeze", *group.fixed, *axes}
    return describe({axis: value for axis, value in arm.cell.items() if axis not in left_out})


def squeeze_of(arm: Arm) -> str:
    """The squeeze that the arm's cell or its runs name, else its label."""
    named = [arm.cell.get("model.squeeze"), *(row["squeeze"] for row in arm.done)]
    return next((str(squeeze) for squeeze in named if squeeze is not None), arm.label)


def looks_of(squeezes: Iterable[str], others: Iterable[str] | None = None) -> list[Look]:
    """A look for each arm: its squeeze's own, or, where squeezes have several arms, one of the squeeze's colour.

    `others` says what else tells an arm from the others of its squeeze, "" for nothing: the marker tells that, the same
    in all squeezes as far as squeezes of one colour leave it free.
    """
    named = list(squeezes)
    beside = [""] * len(named) if others is None else list(others)
    own = _own_looks(list(dict.fromkeys(named)))
    several = len(set(zip(named, beside, strict=True))) > len(own)
    markers = dict(zip(dict.fromkeys(filter(None, beside)), MARKERS, strict=False)) if several else {}
    wanted = [
        (own[squeeze][0], markers.get(other, own[squeeze][1])) for squeeze, other in zip(named, beside, strict=True)
    ]
    kept: dict[int, Look] = {}
    taken: set[Look] = set()
    for i in sorted(range(len(named)), key=lambda i: beside[i] != ""):
        if wanted[i] not in taken:
            kept[i] = wanted[i]
            taken.add(wanted[i])
    spare = sorted((*MARKERS, *LETTERS), key=lambda marker: marker in markers.values())
    for i in range(len(named)):
        if i not in kept:
            free = ((colour, marker) for colour in (wanted[i][0], *COLOURS) for marker in spare)
            kept[i] = next((look for look in free if look not in taken), OTHER_LOOK)
            taken.add(kept[i])
    return [kept[i] for i in range(len(named))]


def _own_looks(squeezes: Sequence[str]) -> dict[str, Look]:
    """By squeeze; one that has none in LOOKS gets a colour that is free, else another marker."""
    looks = {squeeze: LOOKS[squeeze] for squeeze in squeezes if squeeze in LOOKS}
    for squeeze in squeezes:
        if squeeze not in looks:
            colours = {colour for colour, _ in looks.values()}
            free = [spare for spare in SPARE_LOOKS if spare not in looks.values()] or [OTHER_LOOK]
            looks[squeeze] = min(free, key=lambda spare: spare[0] in colours)
    return looks


STYLE = str(Path(__file__).parents[1] / "print.mplstyle")
# Okabe and Ito's colours without the yellow, which vanishes on paper.
BLUE, ORANGE, GREEN, SKY, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#CC79A7"
GREY, BROWN = "#888888", "#7F6000"
LOOKS = {
    "baseline": (INK, "s"),
    "gap": (BLUE, "o"),
    "gmp": (ORANGE, "^"),
    "std": (GREEN, "D"),
    "gapXstd": (SKY, "v"),
    "random": (GREY, "X"),
    "SP": (VERMILION, "P"),
    "RG": (PURPLE, "p"),
    "rms": (GREEN, "^"),
    "gem": (BLUE, "D"),
    "avgmax": (ORANGE, "o"),
    "attention": (PURPLE, "<"),
    "dct": (GREY, "o"),
    "constant": (VERMILION, "d"),
    "frozen_random": (GREEN, "v"),
    "random_train": (ORANGE, "D"),
    "no_squeeze": (VERMILION, "h"),
    "CBAM": (SKY, "s"),
    "SRM": (GREEN, "s"),
    "ECA": (BLUE, "^"),
    "GCT": (ORANGE, "s"),
    "GSoP": (PURPLE, ">"),
    "GC": (SKY, "D"),
}
OTHER_LOOK = (BROWN, "*")
COLOURS = (BROWN, GREEN, VERMILION, SKY, PURPLE, ORANGE, BLUE, GREY, INK)
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "<", ">", "p", "*", "d", "h", "8")  # from those that differ most
LETTERS = tuple(f"${letter}$" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")  # where shapes run out
_MIXED = ((COLOURS[1 + i % 8], ("<", ">", "d", "X", "H")[i % 5]) for i in range(40))
SPARE_LOOKS = (OTHER_LOOK, *(look for look in _MIXED if look not in LOOKS.values()))
"""For squeezes that have no look."""
