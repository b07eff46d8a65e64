"""The figures of a study, of one style: for print, for the colour-blind, and the same bytes for equal records.

A panel for each group of arms. Colour and marker follow the squeeze (Okabe and Ito's colours, told apart by marker
too); what is missing is named in its panel. Drawn without pyplot and without dates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from sqzlab.analysis.arms import Group
from sqzlab.analysis.figure_list import SWEEP
from sqzlab.analysis.figures.curves import learning_curves
from sqzlab.analysis.figures.depth import excitation_by_stage, has_excitation
from sqzlab.analysis.figures.gain import gain_over_baseline
from sqzlab.analysis.figures.looks import in_style, saved
from sqzlab.analysis.figures.panels import panels, say_instead
from sqzlab.analysis.figures.pareto import accuracy_against_cost
from sqzlab.analysis.figures.plots import (
    plot_curves,
    plot_differences,
    plot_excitation,
    plot_pareto,
    plot_seeds,
    plot_sweep,
)
from sqzlab.analysis.figures.seeds import seeds_as_dots
from sqzlab.analysis.figures.sweep import accuracy_over_axis, sweep_axes
from sqzlab.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "draw",
    "plot_curves",
    "plot_differences",
    "plot_excitation",
    "plot_pareto",
    "plot_seeds",
    "plot_sweep",
]


def draw(groups: Sequence[Group], curves: pd.DataFrame, folder: Path | None = None) -> dict[str, bytes]:
    """All figures in all formats, by file name; `folder` is the study's, where gates may have been recorded."""
    figures: dict[str, Callable[[], Figure]] = {
        "gain": lambda: gain_over_baseline(groups),
        "seeds": lambda: seeds_as_dots(groups),
        "pareto": lambda: accuracy_against_cost(groups),
        "curves": lambda: learning_curves(groups, curves),
    }
    for name, axis in _sweeps(groups):
        figures[name] = lambda axis=axis: accuracy_over_axis(groups, axis)  # type: ignore[misc]
    if folder is not None and has_excitation(folder):
        figures["excitation"] = lambda: _excitation(folder)
    files: dict[str, bytes] = {}
    with in_style():
        for name, make in figures.items():
            files |= {f"{name}.{kind}": content for kind, content in saved(make()).items()}
    return files


def _sweeps(groups: Sequence[Group]) -> Iterator[tuple[str, str]]:
    """(figure, axis): named by the last part of the axis, or all of it where two end alike."""
    axes = sweep_axes(groups)
    short = [axis.rpartition(".")[2] for axis in axes]
    for axis, name in zip(axes, short, strict=True):
        yield f"{SWEEP}-{name if short.count(name) == 1 else axis}", axis


def _excitation(folder: Path) -> Figure:
    """The figure, or what is wrong with the files that it is drawn from."""
    try:
        return excitation_by_stage(folder)
    except ConfigError as error:
        figure, axes = panels([0.5], 1)
        say_instead(axes[0, 0], f"not drawn: {Path(str(error)).name}")
        return figure
