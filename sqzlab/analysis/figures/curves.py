"""Learning curves of every arm: the mean over its seeds, in a band from the least to the greatest of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sqzlab.analysis.arms import Arm, Group
from sqzlab.analysis.figure_list import MOST_SEEDS, PAPER
from sqzlab.analysis.figures.looks import Look, arm_looks
from sqzlab.analysis.figures.panels import (
    WIDTH,
    End,
    Heads,
    absent,
    edge_room,
    height_for,
    listed,
    log_ticks,
    name_ends,
    names_of,
    panels,
)
from sqzlab.analysis.metrics import METRICS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

SHOWN = ("train_loss", "top1_err")


def learning_curves(groups: Sequence[Group], curves: pd.DataFrame) -> Figure:
    """Training loss and validation error by epoch, a row for each group; `curves` as `load_curves` gives them."""
    by_run = {str(run_id): epochs for run_id, epochs in curves.groupby("run_id")}
    looks, names = arm_looks(groups), names_of(groups)
    right = edge_room(list(names.values()))
    heads = Heads([(group.title, _notes(group, by_run)) for group in groups], WIDTH - 0.7)
    heights = [height_for(len(groups), [names[arm.label] for arm in group.arms]) for group in groups]
    figure, axes = panels(heights, 2, right=right, head=heads.room)
    for number, (row, group) in enumerate(zip(axes, groups, strict=True)):
        for ax, metric in zip(row, SHOWN, strict=True):
            ends = [
                (*end, names[arm.label], looks[arm.label])
                for arm in group.arms
                if (end := _curve(ax, arm, metric, by_run, looks[arm.label])) is not None
            ]
            _axes(ax, metric, ends, named=metric == SHOWN[-1])
        heads.write(row[0], number)
    return figure


def _curve(
    ax: Axes, arm: Arm, metric: str, by_run: Mapping[str, pd.DataFrame], look: Look
) -> tuple[float, float] | None:
    """Draws an arm's band and mean; returns where the mean ends, or None without any epoch."""
    shown = METRICS[metric]
    runs = [by_run[row["run_id"]] for row in arm.done[:MOST_SEEDS] if row["run_id"] in by_run]
    if not runs:
        return None
    epochs = np.unique(np.concatenate([run["epoch"] for run in runs]))
    lines = np.full((len(runs), len(epochs)), np.nan)
    for line, run in zip(lines, runs, strict=True):
        line[np.searchsorted(epochs, run["epoch"])] = shown.transform(run[shown.key].to_numpy())
    whole = np.isfinite(lines).all(axis=0)  # a mean over fewer seeds would jump where a file is cut
    epochs, lines = epochs[whole], lines[:, whole]
    if not len(epochs):
        return None
    colour, marker = look
    if len(lines) > 1:
        ax.fill_between(epochs, lines.min(axis=0), lines.max(axis=0), color=colour, alpha=0.14, lw=0)
    mean = lines.mean(axis=0)
    every = list(range(len(epochs) - 1, -1, -max(1, len(epochs) // 8)))
    ax.plot(epochs, mean, color=colour, marker=marker, markevery=every, ms=3.5, mec=PAPER, mew=0.4)
    return float(epochs[-1]), float(mean[-1])


def _axes(ax: Axes, metric: str, ends: Sequence[End], *, named: bool) -> None:
    ax.set(xlabel="epoch", ylabel=METRICS[metric].label)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if ends:
        log_ticks(ax)
    if ends and named:
        name_ends(ax, ends)


def _notes(group: Group, by_run: Mapping[str, pd.DataFrame]) -> list[str]:
    """Which arms have no result, and which have one without a record of its epochs."""
    without = []
    for arm in group.arms:
        runs = arm.done[:MOST_SEEDS]
        lost = sum(row["run_id"] not in by_run for row in runs)
        if lost:
            without.append(arm.label if lost == len(runs) else f"{lost} of {len(runs)} seeds of {arm.label}")
    return [absent(group), f"no record of the epochs: {listed(without)}" if without else ""]
