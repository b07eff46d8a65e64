"""Figures on the role of excitation (arXiv:1709.01507, section 7.2), from recorded gates.

`classes` is its figure 6, the mean gates of chosen classes and of all images; `within` its figure 7, their spread
within a class; `depth` says where in a network the gates depend on the class, and compares networks. Drawn without
pyplot and without dates: equal gates, equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from sqzlab.analysis.figure_list import FAINT, INK, PAPER
from sqzlab.analysis.figures.depth import MOST_NETWORKS, Network, legend, over_depth, place
from sqzlab.analysis.figures.looks import LOOKS, in_style, saved
from sqzlab.analysis.figures.panels import subplots
from sqzlab.analysis.gates import HIGH, LOW, BlockGates, Gates, block_rows, stage_name
from sqzlab.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def activation_by_class(gates: Gates, classes: Sequence[int], channels: int) -> Figure:
    """Mean gate of sampled channels in the last block of each stage: a line for each class, and one for all images."""
    blocks = gates.last_of_stages()
    figure, axes = subplots(-(-len(blocks) // 2), min(2, len(blocks)), height=1.9)
    for ax, block in zip(axes.flat, blocks, strict=False):
        at = sampled(block.channels, channels)
        for number, (colour, marker) in zip(classes, CLASS_LOOKS, strict=False):
            ax.plot(at, block.mean[number, at], color=colour, marker=marker, ms=2.6, lw=0.8, mec=PAPER, mew=0.2)
        ax.plot(at, block.overall[at], color=INK, lw=1.4)
        _title(ax, block)
        ax.set(xlabel=_channels(at, block), ylabel="mean gate")
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.ticklabel_format(useOffset=False)
    for ax in axes.flat[len(blocks) :]:
        ax.remove()
    looks = [*((gates.classes[number], look) for number, look in zip(classes, CLASS_LOOKS, strict=False))]
    legend(figure, axes.flat[0], [*looks, ("all images", (INK, ""))])
    return figure


def spread_within_classes(gates: Gates, classes: Sequence[int], channels: int) -> Figure:
    """Mean and standard deviation of the gates within each class, a row for each class and a column for each stage."""
    blocks = gates.last_of_stages()
    figure, axes = subplots(len(classes), len(blocks), height=1.15, shared=True)
    for row, number, (colour, marker) in zip(axes, classes, CLASS_LOOKS, strict=False):
        for ax, block in zip(row, blocks, strict=True):
            at = sampled(block.channels, channels)
            ax.errorbar(
                at, block.mean[number, at], block.std[number, at],
                color=colour, marker=marker, ms=2, lw=0, elinewidth=0.7, mec=PAPER, mew=0.1,
            )  # fmt: skip
            ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))
            if number == classes[0]:
                _title(ax, block)
            if number == classes[-1]:
                ax.set_xlabel(_channels(at, block), fontsize=7)
        row[0].set_ylabel(f"gate: {_short(gates.classes[number])}")
    told = "marker: mean; bar: ± one standard deviation over the images of the class"
    figure.supxlabel(told, x=0.01, ha="left", fontsize=7, color=FAINT)
    return figure


def dependence_by_depth(several: Sequence[Gates]) -> Figure:
    """Share of variance between classes, spread over the images and saturation by block, a line for each network."""
    networks = [
        Network(
            label, gates.squeeze, {row["block"]: row | {"std": _std(row)} for row in block_rows(gates)}, gates.chance
        )
        for label, gates in zip(labels(several), several, strict=True)
    ]
    return over_depth(networks, DEPTH)


def draw(several: Sequence[Gates], classes: Sequence[int], channels: int) -> dict[str, bytes]:
    """All figures in all formats, by file name. Raises ConfigError where there are too many to be told apart."""
    if len(classes) > len(CLASS_LOOKS):
        raise ConfigError(f"--classes: {len(classes)} classes cannot be told apart; valid: at most {len(CLASS_LOOKS)}")
    if len(several) > MOST_NETWORKS:
        raise ConfigError(f"{len(several)} networks cannot be told apart in one figure; valid: at most {MOST_NETWORKS}")
    files: dict[str, bytes] = {}
    with in_style():
        drawn = {"depth": dependence_by_depth(several)}
        for gates in several:
            drawn[f"{gates.run}-classes"] = activation_by_class(gates, classes, channels)
            drawn[f"{gates.run}-within"] = spread_within_classes(gates, classes, channels)
        for name, figure in drawn.items():
            files |= {f"{name}.{kind}": content for kind, content in saved(figure).items()}
    return files


def sampled(channels: int, most: int) -> NDArray[np.int64]:
    """At most so many of the channels, evenly spaced: the same ones in every run."""
    count = min(channels, most)
    return np.arange(count) * channels // count


def labels(several: Sequence[Gates]) -> list[str]:
    """The squeeze where it tells the networks apart, else the run."""
    squeezes = [gates.squeeze for gates in several]
    return squeezes if len(set(squeezes)) == len(several) else [gates.run for gates in several]


# ---- parts of a figure -------------------------------------------------------------------------


def _std(row: Mapping[str, Any]) -> float:
    """Standard deviation of a gate over all images: its variance is that within classes plus that between them."""
    return math.hypot(row["std_within"], row["std_between"])


def _title(ax: Axes, block: BlockGates) -> None:
    ax.set_title(f"{stage_name(block)}_{place(block.name)[1] + 1}")


def _channels(at: NDArray[np.int64], block: BlockGates) -> str:
    return "channel" if len(at) == block.channels else f"channel ({len(at)} of {block.channels})"


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"


DEPTH = {
    "between_share": "between-class share of variance",
    "std": "std of a gate over the images",
    "saturated_low": f"gates below {LOW}",
    "saturated_high": f"gates above {HIGH}",
}
"""Panels of the figure by depth."""
CLASS_LOOKS = tuple(LOOKS[squeeze] for squeeze in ("gap", "SP", "std", "gmp", "RG", "gapXstd"))
