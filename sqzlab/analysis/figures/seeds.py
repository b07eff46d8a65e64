"""Every seed of every arm as a dot, and the mean of each arm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from sqzlab.analysis.arms import Group
from sqzlab.analysis.figure_list import FAINT, INK
from sqzlab.analysis.figures.looks import Look, arm_looks
from sqzlab.analysis.figures.panels import (
    NOTE,
    WIDTH,
    Heads,
    absent,
    height_of,
    listed,
    names_of,
    panels,
    row_ticks,
    say_below,
    widest,
)
from sqzlab.analysis.metrics import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOT = 4.0  # points
ROOM = 0.72  # of a row's height that stacked dots may take


def seeds_as_dots(groups: Sequence[Group]) -> Figure:
    """Top-1 of every seed by arm, a panel for each group: dots that would touch stand above each other."""
    looks, names = arm_looks(groups), names_of(groups)
    left = widest(list(names.values())) + 0.12
    columns = 2 if len(groups) > 1 and left < 1.25 else 1
    rows = -(-len(groups) // columns)
    heads = Heads([(group.title, _notes(group)) for group in groups], (WIDTH - left) / columns - left / 2)
    row = max(0.27, max(map(height_of, names.values()), default=0.0) + 0.05)
    heights = [row * max(len(g.arms) for g in groups[i * columns : (i + 1) * columns]) + 0.05 for i in range(rows)]
    figure, axes = panels(heights, columns, left=left, between=left + 0.1, head=heads.room, foot=0.42, below=0.18)
    for number, (ax, group) in enumerate(zip(axes.flat, groups, strict=False)):
        _draw(ax, group, names, looks)
        heads.write(ax, number)
    for ax in axes.flat[len(groups) :]:
        ax.remove()
    say_below(figure, "dot: one seed; tick: mean of the arm; dots that would touch are moved up or down")
    return figure


def stacked(values: NDArray[np.float64], width: float) -> NDArray[np.int64]:
    """Levels 0, 1, -1, 2, -2, ... such that no two dots of this width on one level touch; the same for equal values."""
    levels = np.zeros(len(values), dtype=np.int64)
    last: dict[int, float] = {}  # level to its rightmost dot
    for i in np.argsort(values, kind="stable"):
        step = 0
        while (level := (step + 1) // 2 * (1 if step % 2 else -1)) in last and values[i] - last[level] < width:
            step += 1
        levels[i], last[level] = level, float(values[i])
    return levels


def _draw(ax: Axes, group: Group, names: Mapping[str, str], looks: Mapping[str, Look]) -> None:
    row_ticks(ax, [names[arm.label] for arm in group.arms])
    found = [arm.values("top1") for arm in group.arms]
    ax.set_xlabel(METRICS["top1"].label)
    if there := [values for values in found if len(values)]:
        low, high = (float(end(np.concatenate(there))) for end in (np.min, np.max))
        margin = 0.06 * (high - low) or 1.0
        ax.set_xlim(low - margin, high + margin)
    box, (low, high) = ax.get_position(), ax.get_xlim()
    dot = DOT / 72 / (box.width * WIDTH) * (high - low)  # a dot's width in data
    row = box.height * ax.figure.get_figheight() / (len(group.arms) + 0.2) * 72  # type: ignore[union-attr]  # points
    for y, (arm, values) in enumerate(zip(group.arms, found, strict=True)):
        if not len(values):
            ax.text(low, y, f" {arm.note()}", va="center", fontsize=NOTE, color=FAINT)
            continue
        levels = stacked(values, dot)
        step = min(DOT, row * ROOM / (2 * max(1, int(np.abs(levels).max())))) / row
        ax.plot(values, y - levels * step, color=looks[arm.label][0], marker="o", ms=DOT, mew=0, alpha=0.85, ls="none")
        ax.plot([values.mean()] * 2, [y - 0.36, y + 0.36], color=INK, lw=1.4, solid_capstyle="butt", zorder=1.9)
    ax.xaxis.set_major_locator(MaxNLocator(5))


def _notes(group: Group) -> list[str]:
    """How many seeds the arms have, and which arms have another number or none."""
    counts = Counter(arm.n for arm in group.arms if arm.n)
    if not counts:
        return [absent(group)]
    usual = counts.most_common(1)[0][0]
    others: dict[int, list[str]] = {}
    for arm in group.arms:
        if arm.n not in (0, usual):
            others.setdefault(arm.n, []).append(repr(arm.label) if "," in arm.label else arm.label)
    told = "; ".join(f"{n} for {listed(labels)}" for n, labels in sorted(others.items()))
    return [f"n = {usual} {'seed' if usual == 1 else 'seeds'} an arm" + (f" ({told})" if told else ""), absent(group)]
