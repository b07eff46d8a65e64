"""Difference of every arm from its baseline, with the interval of this difference and the joint one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sqzlab.analysis.arms import Arm, Group
from sqzlab.analysis.figure_list import FAINT, INK, MOST_SEEDS, PAPER
from sqzlab.analysis.figures.looks import Look, arm_looks
from sqzlab.analysis.figures.panels import (
    NO_BREAK,
    NOTE,
    WIDTH,
    Heads,
    absent,
    counted,
    height_of,
    listed,
    names_of,
    panels,
    row_ticks,
    say_below,
    widest,
    wrapped,
)
from sqzlab.analysis.metrics import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def gain_over_baseline(groups: Sequence[Group], confidence: float = 0.95) -> Figure:
    """Top-1 differences in points, a panel for each group: thick and thin intervals, seeds as dots.

    A filled marker is an arm that is separated from the baseline, an open one an arm that is not.
    """
    looks, names = arm_looks(groups), names_of(groups)
    labels = [[_name(arm, names) for arm in group.arms] for group in groups]
    left = widest([name for rows in labels for name in rows]) + 0.12
    columns = 2 if len(groups) > 1 and left < 1.25 else 1
    rows = -(-len(groups) // columns)
    heads = Heads([(group.title, _notes(group, confidence)) for group in groups], (WIDTH - left) / columns - left / 2)
    told = wrapped(_told(groups, confidence), WIDTH - 0.12, NOTE)
    heights = [_height(labels[row * columns : (row + 1) * columns]) for row in range(rows)]
    figure, axes = panels(
        heights, columns, left=left, between=left + 0.1, head=heads.room, foot=0.42, below=height_of(told, NOTE) + 0.06
    )
    for number, (ax, group) in enumerate(zip(axes.flat, groups, strict=False)):
        for y, arm in enumerate(group.arms):
            _draw_arm(ax, y, group, arm, looks[arm.label], confidence)
        ax.axvline(0, color=INK, lw=0.6)
        ax.margins(x=0.06)
        row_ticks(ax, labels[number])
        ax.xaxis.set_major_locator(MaxNLocator(5))
        if group.baseline is None or not group.baseline.n:
            ax.set_xticks([])
        ax.set_xlabel(METRICS["improved"].label)
        heads.write(ax, number)
    for ax in axes.flat[len(groups) :]:
        ax.remove()
    say_below(figure, told)
    return figure


def _draw_arm(ax: Axes, y: int, group: Group, arm: Arm, look: Look, confidence: float) -> None:
    colour, marker = look
    reference = None if group.baseline is None else group.baseline.mean("top1")
    if reference is None or arm.n == 0:
        ax.annotate(
            arm.note() or "no baseline", (0, y), (4, 0), textcoords="offset points", va="center", color=FAINT,
            fontsize=NOTE,
        )  # fmt: skip
        return
    compared = group.compared(arm, "top1", confidence)
    if compared is not None:
        point = METRICS["improved"].transform
        if compared.low is not None and compared.joint_low is not None:
            ax.plot([point(compared.joint_low), point(compared.joint_high)], [y, y], color=colour, lw=0.8, marker="|",
                    ms=4.5, mew=0.8)  # fmt: skip
            ax.plot([point(compared.low), point(compared.high)], [y, y], color=colour, lw=2.6, solid_capstyle="butt")
        filled = compared.separated
        ax.plot(
            point(compared.difference), y, color=colour, marker=marker, ms=7 if filled else 6,
            mfc=colour if filled else PAPER, mec=PAPER if filled else colour, mew=0.5 if filled else 1.1,
        )  # fmt: skip
    if arm.n <= MOST_SEEDS:
        ax.plot(arm.values("top1") - reference, np.full(arm.n, y + 0.3), color=colour, marker=".", ms=3.5, ls="none")


def _notes(group: Group, confidence: float) -> list[str]:
    """What a reader would otherwise have to guess: who is separated, why there is no interval, what is absent."""
    if group.baseline is None:
        return ["no baseline in the study: no difference can be shown", absent(group)]
    if group.baseline.n == 0:
        return ["the baseline has no result: no difference can be shown", absent(group)]
    compared = {arm.label: found for arm in group.arms if (found := group.compared(arm, "top1", confidence))}
    separated = [label for label, found in compared.items() if found.separated]
    if not compared:
        said = ""
    elif any(found.low is not None for found in compared.values()):
        named = "all arms" if len(separated) == len(compared) > 2 else listed(separated)
        said = f"separated: {named}" if named else "no arm is separated from the baseline"
    elif group.pooled.df == 0:
        said = "one seed an arm: no interval, nothing can be called separated"
    else:
        said = "no arm varies over its seeds: no interval, nothing can be called separated"
    return [said, absent(group)]


def _told(groups: Sequence[Group], confidence: float) -> str:
    found = [group.compared(arm, "top1", confidence) for group in groups for arm in group.arms]
    corrections = {"dunnett": "Dunnett", "holm": "Holm; the joint interval is Bonferroni's", "none": "not adjusted"}
    parts = ["dots: seeds"]
    if any(one is not None and one.low is not None for one in found):
        level, correction = f"{100 * confidence:g}{NO_BREAK}%", corrections[groups[0].correction]
        parts = [
            f"filled marker: separated from the baseline, p < {1 - confidence:.2g} ({correction})",
            "open: not separated",
            f"thick bar: {level} interval of this difference",
            f"thin bar: {level} interval of all differences jointly",
            *parts,
        ]
    return "; ".join(parts)


def _name(arm: Arm, names: Mapping[str, str]) -> str:
    count = counted(arm)
    return f"{names[arm.label]}\n({count})" if count else names[arm.label]


def _height(labels: Sequence[Sequence[str]]) -> float:
    """Inches of a row of panels whose arms have these names."""
    row = max(0.25, max((height_of(name) for names in labels for name in names), default=0.0) + 0.05)
    return row * max(len(names) for names in labels) + 0.05
