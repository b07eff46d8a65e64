"""Figures on the role of excitation (arXiv:1709.01507, section 7.2), from recorded gates.

`classes` is its figure 6, the mean gates of chosen classes and of all images; `within` its figure 7, their spread
within a class; `depth` says where in a network the gates depend on the class, and compares networks. Drawn without
pyplot and without dates: equal gates, equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from sqzlab.analysis.figures import FAINT, FORMATS, GRID, INK, LOOKS, OTHER_LOOK, PAPER, STYLE
from sqzlab.analysis.gates import HIGH, LOW, BlockGates, Gates, block_rows, stage_name
from sqzlab.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Look = tuple[str, str]  # colour, marker

WIDTH = 7.0  # inches, a text column


def activation_by_class(gates: Gates, classes: Sequence[int], channels: int) -> Figure:
    """Mean gate of sampled channels in the last block of each stage: a line for each class, and one for all images."""
    blocks = gates.last_of_stages()
    figure, axes = _panels(-(-len(blocks) // 2), min(2, len(blocks)), height=1.9)
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
    _legend(figure, axes.flat[0], [*looks, ("all images", (INK, ""))])
    return figure


def spread_within_classes(gates: Gates, classes: Sequence[int], channels: int) -> Figure:
    """Mean and standard deviation of the gates within each class, a row for each class and a column for each stage."""
    blocks = gates.last_of_stages()
    figure, axes = _panels(len(classes), len(blocks), height=1.15, shared=True)
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
    figure, axes = _panels(2, 2, height=1.9)
    looks = [(label, look) for label, look in zip(labels(several), _looks(several), strict=True)]
    depths = [{block.name: block for block in gates.blocks} for gates in several]
    names = sorted({name for depth in depths for name in depth}, key=_place)
    for gates, (_, (colour, marker)) in zip(several, looks, strict=True):
        at = [names.index(block.name) for block in gates.blocks]
        for ax, key in zip(axes.flat, DEPTH, strict=True):
            values = [np.nan if value is None else value for value in _column(gates, key)]
            every = max(1, len(names) // 16)
            ax.plot(at, values, color=colour, marker=marker, markevery=every, ms=4, mec=PAPER, mew=0.4, lw=1)
    chances = {gates.chance for gates in several}
    if len(chances) == 1:
        (chance,) = chances
        axes[0, 0].axhline(chance, color=FAINT, lw=0.8, ls=":")
        axes[0, 0].annotate(
            "chance", (1, chance), (0, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
            ha="right", fontsize=7, color=FAINT,
        )  # fmt: skip
    for ax, (key, title) in zip(axes.flat, DEPTH.items(), strict=True):
        ax.set_title(title)
        ax.set_ylim(0, None if key == "std" else 1)
        _stages(ax, names)
    for ax in axes[0]:
        ax.tick_params(labelbottom=False)
    _legend(figure, axes[0, 0], looks)
    return figure


def draw(several: Sequence[Gates], classes: Sequence[int], channels: int) -> dict[str, bytes]:
    """All figures in all formats, by file name. Raises ConfigError where there are too many to be told apart."""
    if len(classes) > len(CLASS_LOOKS):
        raise ConfigError(f"--classes: {len(classes)} classes cannot be told apart; valid: at most {len(CLASS_LOOKS)}")
    if len(several) > MOST_RUNS:
        raise ConfigError(f"{len(several)} networks cannot be told apart in one figure; valid: at most {MOST_RUNS}")
    files = {}
    with matplotlib.style.context(STYLE):
        drawn = {"depth": dependence_by_depth(several)}
        for gates in several:
            drawn[f"{gates.run}-classes"] = activation_by_class(gates, classes, channels)
            drawn[f"{gates.run}-within"] = spread_within_classes(gates, classes, channels)
        for name, figure in drawn.items():
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # laid out once, not again in each format
            for kind, metadata in FORMATS.items():
                file = io.BytesIO()
                figure.savefig(file, format=kind, metadata=dict(metadata))
                files[f"{name}.{kind}"] = file.getvalue()
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


def _panels(rows: int, columns: int, *, height: float, shared: bool = False) -> tuple[Figure, Any]:
    """A figure of a text column's width, and its axes (rows, columns); `shared`: one y for all, one x a column."""
    figure = Figure(figsize=(WIDTH if columns > 1 else WIDTH / 2, rows * height + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    across: Literal["col", "none"] = "col" if shared else "none"
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=across, sharey=shared)


def _column(gates: Gates, key: str) -> list[float | None]:
    if key == "std":
        return [float(np.sqrt((block.within + block.between).mean())) for block in gates.blocks]
    return [row[key] for row in block_rows(gates)]


def _stages(ax: Axes, names: Sequence[str]) -> None:
    """Blocks by name where there is room, else stages; a line before each stage but the first."""
    places = [_place(name) for name in names]
    first = [i for i, (stage, _) in enumerate(places) if i == 0 or stage != places[i - 1][0]]
    for start in first[1:]:
        ax.axvline(start - 0.5, color=GRID, lw=0.8)
    if len(names) <= MOST_TICKS:
        ax.set_xticks(range(len(names)), [f"conv{stage + 1}_{index + 1}" for stage, index in places], rotation=90)
    else:
        ax.set_xticks(first, [f"conv{places[i][0] + 1}_1" for i in first], rotation=90)
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.xaxis.grid(False)


def _place(name: str) -> tuple[int, int]:
    """(stage from 1, index from 0) of "layer1.2"."""
    stage, _, index = name.removeprefix("layer").partition(".")
    return int(stage), int(index)


def _title(ax: Axes, block: BlockGates) -> None:
    ax.set_title(f"{stage_name(block)}_{_place(block.name)[1] + 1}")


def _channels(at: NDArray[np.int64], block: BlockGates) -> str:
    return "channel" if len(at) == block.channels else f"channel ({len(at)} of {block.channels})"


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"


def _legend(figure: Figure, ax: Axes, looks: Sequence[tuple[str, Look]]) -> None:
    drawn = (ax.plot([], [], color=colour, marker=marker, ms=4, lw=1, label=name) for name, (colour, marker) in looks)
    handles = [line for (line,) in drawn]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(looks), 7), frameon=False, fontsize=7.5)


def _looks(several: Sequence[Gates]) -> list[Look]:
    """Each network's own: its squeeze's, else one whose colour or at least whose marker is free."""
    own = [LOOKS.get(gates.squeeze) for gates in several]
    kept = [None if look in own[:i] else look for i, look in enumerate(own)]
    taken = [look for look in kept if look is not None]
    for i, look in enumerate(kept):
        if look is None:
            colours = {colour for colour, _ in taken}
            free = [spare for spare in (*SPARE_LOOKS, *LOOKS.values()) if spare not in taken]
            kept[i] = new = next((spare for spare in free if spare[0] not in colours), free[0])
            taken.append(new)
    return [look for look in kept if look is not None]


DEPTH = {
    "between_share": "between-class share of variance",
    "std": "std of a gate over the images",
    "saturated_low": f"gates below {LOW}",
    "saturated_high": f"gates above {HIGH}",
}
"""Panels of the figure by depth."""
CLASS_LOOKS = tuple(LOOKS[squeeze] for squeeze in ("gap", "SP", "std", "gmp", "RG", "gapXstd"))
SPARE_LOOKS = (OTHER_LOOK, ("#0072B2", "<"), ("#D55E00", ">"), ("#009E73", "H"), ("#CC79A7", "d"), ("#56B4E9", "1"))
MOST_RUNS = 12
MOST_TICKS = 20  # block names below an axis
