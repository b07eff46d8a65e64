"""The figures for a notebook: from any rows of a frame of `load_records` to a matplotlib Figure, without pyplot.

A notebook shows it as the value of a cell, and `figure.savefig(path)` writes it as the report's are. All raise
ConfigError, in one line, for an argument that is not valid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from sqzlab.analysis.arms import Group
from sqzlab.analysis.compare import frame_groups
from sqzlab.analysis.curves import load_curves
from sqzlab.analysis.figure_list import MOST_SEEDS, why_not_drawn
from sqzlab.analysis.figures.curves import learning_curves
from sqzlab.analysis.figures.depth import excitation_by_stage
from sqzlab.analysis.figures.gain import gain_over_baseline
from sqzlab.analysis.figures.looks import in_style
from sqzlab.analysis.figures.pareto import COSTS, accuracy_against_cost
from sqzlab.analysis.figures.seeds import seeds_as_dots
from sqzlab.analysis.figures.sweep import accuracy_over_axis, sweep_axes
from sqzlab.errors import ConfigError, choices

Baseline = Mapping[str, Any] | str | None


def plot_differences(
    frame: pd.DataFrame, baseline: Baseline = None, *, confidence: float = 0.95, correction: str = "dunnett"
) -> Figure:
    """Difference of every arm's Top-1 from the baseline's, in points; the arguments are those of `sqzlab.compare`."""
    groups = _groups(frame, baseline, confidence, correction)
    return _drawn(lambda: gain_over_baseline(groups, confidence))


def plot_seeds(frame: pd.DataFrame, baseline: Baseline = None) -> Figure:
    """Top-1 of every seed as a dot, by arm."""
    groups = _groups(frame, baseline)
    return _drawn(lambda: seeds_as_dots(groups))


def plot_curves(frame: pd.DataFrame, baseline: Baseline = None, *, folder: Path | str | None = None) -> Figure:
    """Training loss and validation error by epoch; `folder` is the study's, by default the one of each row."""
    groups = _groups(frame, baseline)
    curves = _curves(groups, folder)
    return _drawn(lambda: learning_curves(groups, curves))


def plot_pareto(frame: pd.DataFrame, baseline: Baseline = None, *, cost: str = "macs") -> Figure:
    """Mean Top-1 against `macs`, or against `images_per_s` where all runs were measured on the same hardware."""
    if cost not in COSTS:
        raise ConfigError(f"cost: {cost!r}; {choices(COSTS, cost)}")
    groups = _groups(frame, baseline)
    return _drawn(lambda: accuracy_against_cost(groups, (cost,)))


def plot_sweep(frame: pd.DataFrame, axis: str, baseline: Baseline = None) -> Figure:
    """Mean Top-1 with its interval against an axis of the study, `model.reduction` say, a line for each squeeze."""
    groups = _groups(frame, baseline)
    if axis not in (axes := sweep_axes(groups)):
        valid = choices(axes, axis) if axes else "no axis of this frame has two values beside squeeze and backbone"
        raise ConfigError(f"axis: {axis!r}; {valid}")
    return _drawn(lambda: accuracy_over_axis(groups, axis))


def plot_excitation(folder: Path | str) -> Figure:
    """How the gates depend on the class by stage, from what `python -m sqzlab excitation` wrote into a study."""
    return _drawn(lambda: excitation_by_stage(Path(folder)))


def _curves(groups: Sequence[Group], folder: Path | str | None) -> pd.DataFrame:
    """The epochs of the runs that are drawn; what is damaged, the figure names."""
    homes: dict[str, str] = {}
    runs: dict[str, list[str]] = {}
    for row in (row for group in groups for arm in group.arms for row in arm.done[:MOST_SEEDS]):
        where = str(row["folder"] if folder is None else folder)
        if homes.setdefault(row["run_id"], where) != where:
            told = f"{row['run_id']} is in {homes[row['run_id']]!r} and in {where!r}"
            raise ConfigError(f"frame: {told}; valid: for curves, rows of one of them")
        runs.setdefault(where, []).append(row["run_id"])
    if absent := [where for where in runs if not Path(where).is_dir()]:
        raise ConfigError(f"folder: {absent[0]!r} is not there; valid: the folder of the study")
    return pd.concat([load_curves(Path(where), run_ids)[0] for where, run_ids in runs.items()], ignore_index=True)


def _groups(
    frame: pd.DataFrame, baseline: Baseline, confidence: float = 0.95, correction: str = "dunnett"
) -> tuple[Group, ...]:
    groups = frame_groups(frame, baseline, "top1", confidence, correction)
    if (why := why_not_drawn(groups)) is not None:
        raise ConfigError(f"frame: {why}")
    return groups


def _drawn(draw: Callable[[], Figure]) -> Figure:
    """Ticks are made when they are first drawn, and take the style of that moment: so here."""
    with in_style():
        figure = draw()
        figure.draw_without_rendering()
    return figure
