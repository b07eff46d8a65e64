"""Panels on a page as wide as a text column, and what every panel has: a head, names at its edge, ticks.

Rooms are measured from the texts that go into them, in inches, so that nothing touches and nothing is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from sqzlab.analysis.arms import Arm, Group
from sqzlab.analysis.figure_list import FAINT, INK, PAPER
from sqzlab.analysis.figures.looks import Look
from sqzlab.analysis.figures.shown import ShownFigure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

End = tuple[float, float, str, Look]  # x, y, name, look

WIDTH = 7.0  # inches, a text column
TITLE, NAME, NOTE = 9.5, 7.5, 7.0  # points
LINE = 1.25  # height of a line of text in its size
NO_BREAK = "\u00a0"  # a space at which lines do not break
WIDEST_NAME = 1.7  # inches; a longer name is written in several lines


def panels(
    heights: Sequence[float],
    columns: int,
    *,
    left: float = 0.55,
    right: float = 0.22,
    between: float = 0.6,
    head: float = 0.3,
    foot: float = 0.45,
    below: float = 0.0,
) -> tuple[Figure, Any]:
    """A figure of a text column's width: (figure, axes of (rows, columns)).

    All in inches: `left` and `foot` hold a panel's tick labels, `head` its title and notes, `right` what stands beside
    the last column, `below` the lines under all panels.
    """
    width = (WIDTH - left - right - (columns - 1) * between) / columns
    total = sum(heights) + len(heights) * (head + foot) + below
    figure = ShownFigure(figsize=(WIDTH, total))
    FigureCanvasAgg(figure)
    axes, top = np.empty((len(heights), columns), dtype=object), total
    for row, height in enumerate(heights):
        top -= head + height
        for column in range(columns):
            x = left + column * (width + between)
            axes[row, column] = figure.add_axes((x / WIDTH, top / total, width / WIDTH, height / total))
        top -= foot
    return figure, axes


def subplots(rows: int, columns: int, *, height: float, shared: bool = False) -> tuple[Figure, Any]:
    """Panels that matplotlib lays out, where a legend stands below; `shared`: one y for all, one x a column."""
    figure = ShownFigure(figsize=(WIDTH if columns > 1 else WIDTH / 2, rows * height + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    across: Literal["col", "none"] = "col" if shared else "none"
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=across, sharey=shared)


def height_for(rows: int, names: Sequence[str] = ()) -> float:
    """Inches of a panel among so many rows of them, beside which these names stand: five rows fill a page."""
    return max(2.2 if rows < 3 else 1.7 if rows < 4 else 1.3, edge_height(names))


# ---- text --------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def inches(text: str, size: float = NAME) -> float:
    """Width of a line of text in this size in points."""
    width, _, _ = TextToPath().get_text_width_height_descent(
        text, FontProperties(family="DejaVu Sans", size=size), False
    )
    return float(width) / 72


def wrapped(text: str, width: float, size: float = NAME) -> str:
    """The text in lines of at most this width in inches; a word that is wider by itself is broken."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and inches(f"{lines[-1]} {word}", size) > width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
        while inches(lines[-1], size) > width and len(lines[-1]) > 1:
            whole = lines[-1]
            fits = next((n for n in range(len(whole) - 1, 1, -1) if inches(whole[:n], size) <= width), 1)
            lines[-1:] = [whole[:fits], whole[fits:]]
    return "\n".join(lines)


def height_of(text: str, size: float = NAME) -> float:
    """Inches that the lines of this text take."""
    return (text.count("\n") + 1) * size * LINE / 72 if text else 0.0


def widest(names: Sequence[str], size: float = NAME) -> float:
    return max((inches(line, size) for name in names for line in name.split("\n")), default=0.0)


def name_lines(name: str, width: float = WIDEST_NAME) -> str:
    """A name in lines of at most this width, broken after its commas where that is enough."""
    return wrapped(_whole(name), width).replace(NO_BREAK, " ")


def names_of(groups: Sequence[Group]) -> dict[str, str]:
    """Every arm's label, broken into lines where it is long."""
    return {arm.label: name_lines(arm.label) for group in groups for arm in group.arms}


def listed(names: Sequence[str]) -> str:
    """Names in a row, which break between them; with semicolons where a name has a comma itself."""
    fit = [name.replace(" ", NO_BREAK) if inches(name, NOTE) < WIDEST_NAME else _whole(name) for name in names]
    return ("; " if any("," in name for name in names) else ", ").join(fit)


def _whole(name: str) -> str:
    return ", ".join(part.replace(" ", NO_BREAK) for part in name.split(", "))


# ---- a panel's head ----------------------------------------------------------------------------


class Heads:
    """Titles of panels with notes below them, broken to the width of a panel."""

    def __init__(self, texts: Sequence[tuple[str, Sequence[str]]], width: float) -> None:
        self.texts = [
            (wrapped(title, width, TITLE), "\n".join(wrapped(note, width, NOTE) for note in notes if note))
            for title, notes in texts
        ]

    @property
    def room(self) -> float:
        """Inches above a panel."""
        return max(height_of(title, TITLE) for title, _ in self.texts) + self._notes + 0.16

    @property
    def _notes(self) -> float:
        return max(height_of(notes, NOTE) for _, notes in self.texts)

    def write(self, ax: Axes, number: int) -> None:
        """Titles of all panels stand at one height, and the notes right below them."""
        title, notes = self.texts[number]
        ax.set_title(title, pad=6 + 72 * self._notes)
        if notes:
            ax.annotate(
                notes, (0, 1), (0, 3 + 72 * self._notes), xycoords="axes fraction", textcoords="offset points",
                va="top", fontsize=NOTE, color=FAINT, linespacing=LINE / 1.17,
            )  # fmt: skip


def absent(group: Group) -> str:
    """Names the arms that have no result, and why; "" where all have one."""
    named = [f"{arm.label} ({arm.note()})" for arm in group.arms if arm.n == 0]
    return f"no result: {listed(named)}" if named else ""


def counted(arm: Arm) -> str:
    """ "n = 1 of 3" where seeds are absent, else ""."""
    return f"n = {arm.n} of {len(arm.rows)}" if 0 < arm.n < len(arm.rows) else ""


def say_below(figure: Figure, text: str) -> None:
    """Writes this in the lowest lines of the figure; the room for it is `height_of` and a margin of 0.06."""
    height = figure.get_figheight()
    figure.text(0.06 / WIDTH, 0.05 / height, text, fontsize=NOTE, color=FAINT, va="bottom", linespacing=LINE / 1.17)


def say_instead(ax: Axes, text: str) -> None:
    """A panel that cannot be drawn says why."""
    ax.set_axis_off()
    width = ax.get_position().width * WIDTH
    ax.text(0, 0.95, wrapped(text, width), transform=ax.transAxes, va="top", fontsize=NAME, color=FAINT)


# ---- names beside a panel ----------------------------------------------------------------------


def edge_room(names: Sequence[str]) -> float:
    """Inches beside a panel that the widest name, its marker and its leader take."""
    return 0.28 + widest(names)


def edge_height(names: Sequence[str]) -> float:
    """Inches that a panel must have so that its names stand above each other without touching."""
    return _pitch(names) * len(names)


def name_ends(ax: Axes, ends: Sequence[End]) -> None:
    """Names each end at the right edge beside its marker, moved apart so that no two names touch."""
    ax.set_xlim(ax.get_xlim())
    ax.set_ylim(ax.get_ylim())
    ordered = sorted(ends, key=lambda end: end[1])
    points = ax.transAxes.inverted().transform(ax.transData.transform([end[:2] for end in ordered]))
    box = ax.get_position()
    width, height = box.width * WIDTH, box.height * ax.figure.get_figheight()  # type: ignore[union-attr]
    x = 1 + 0.15 / width
    places = apart(points[:, 1], _pitch([end[2] for end in ends]) / height)
    leaders = [[point, (x, place)] for point, place in zip(points, places, strict=True)]
    ax.add_collection(
        LineCollection(leaders, transform=ax.transAxes, clip_on=False, lw=0.6, ls=":", colors=FAINT, zorder=1.5)
    )
    for (_, _, name, look), place in zip(ordered, places, strict=True):
        _named(ax, x, place, name, look, width)


def list_names(ax: Axes, names: Sequence[tuple[str, Look]]) -> None:
    """Names and markers beside the panel, from the top down."""
    box = ax.get_position()
    width, height = box.width * WIDTH, box.height * ax.figure.get_figheight()  # type: ignore[union-attr]
    pitch = _pitch([name for name, _ in names]) / height
    for number, (name, look) in enumerate(names):
        _named(ax, 1 + 0.15 / width, 1 - pitch * (number + 0.5), name, look, width)


def apart(wanted: Any, gap: float) -> list[float]:
    """Rising places near the wanted ones, at least `gap` apart, between 0 and 1 as far as there is room."""
    clusters: list[tuple[float, int]] = []  # (centre, members)
    for place in wanted:
        clusters.append(_inside(float(place), 1, gap))
        while len(clusters) > 1:
            (low, n), (high, m) = clusters[-2:]
            if high - low >= gap * (n + m) / 2 - 1e-9:
                break
            clusters[-2:] = [_inside((low * n + high * m) / (n + m), n + m, gap)]
    return [centre + gap * (i - (n - 1) / 2) for centre, n in clusters for i in range(n)]


def _inside(centre: float, members: int, gap: float) -> tuple[float, int]:
    half = min(gap * (members - 1) / 2, 0.5)
    return min(max(centre, half), 1 - half), members


def _named(ax: Axes, x: float, y: float, name: str, look: Look, width: float) -> None:
    colour, marker = look
    ax.plot(x, y, transform=ax.transAxes, color=colour, marker=marker, ms=4.5, mec=PAPER, mew=0.4, clip_on=False)
    middle = "center" if "\n" in name else "center_baseline"
    ax.text(x + 0.07 / width, y, name, transform=ax.transAxes, va=middle, fontsize=NAME, linespacing=1.0, color=INK)


def _pitch(names: Sequence[str]) -> float:
    return max((height_of(name) for name in names), default=0.0) + 0.01


# ---- ticks -------------------------------------------------------------------------------------


def log_ticks(ax: Axes) -> None:
    """A logarithmic axis, with numbers at 1, 2 and 5, so that late differences show; linear where a value is 0."""
    if min(np.nanmin(np.asarray(line.get_ydata(), dtype=float)) for line in ax.lines) <= 0:
        return
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ticks = [m * 10.0**e for e in range(-6, 4) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    ax.yaxis.set_major_locator(FixedLocator(ticks) if len(ticks) > 1 else MaxNLocator(4))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def row_ticks(ax: Axes, names: Sequence[str]) -> None:
    """A row for each name from the top down, named at the left."""
    ax.set_yticks(range(len(names)), list(names), linespacing=1.0)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.yaxis.grid(False)
    ax.tick_params(axis="y", length=0)
