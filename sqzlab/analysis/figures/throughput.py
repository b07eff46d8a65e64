"""What a benchmark measured, as a figure: images a second of every network, beside the bound of the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sqzlab.analysis.figure_list import FAINT, INK, PAPER
from sqzlab.analysis.figures.looks import OTHER_LOOK, in_style, looks_of, saved
from sqzlab.analysis.figures.panels import (
    NOTE,
    WIDTH,
    Heads,
    height_of,
    panels,
    row_ticks,
    say_below,
    widest,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = Sequence[Mapping[str, Any]]


def draw(found: Mapping[str, Any]) -> dict[str, bytes]:
    """The figure of a benchmark's JSON as svg and png, by file name; nothing where nothing was measured."""
    if not any(row["images_per_s"] for row in found["rows"]):
        return {}
    with in_style():
        files = saved(throughput(found))
    return {f"bench.{kind}": files[kind] for kind in ("svg", "png")}


def throughput(found: Mapping[str, Any]) -> Figure:
    """A panel for each backbone, mode and kind: markers are medians, bars reach over all rounds, lines are bounds."""
    groups = grouped([row for row in found["rows"] if row["images_per_s"]])
    kinds = list(dict.fromkeys(kind for _, _, kind in groups))
    lines = list(dict.fromkeys((backbone, mode) for backbone, mode, _ in groups))
    left = widest([row["label"] for rows in groups.values() for row in rows]) + 0.12
    titles = [(f"{backbone}, {mode}, {kind}", ()) for backbone, mode in lines for kind in kinds]
    heads = Heads(titles, (WIDTH - left) / len(kinds) - left / 2)
    told = wrapped(_told(found), WIDTH - 0.12, NOTE)
    heights = [0.17 * max(len(groups.get((*line, kind), ())) for kind in kinds) + 0.05 for line in lines]
    figure, axes = panels(
        heights,
        len(kinds),
        left=left,
        between=left + 0.1,
        head=heads.room,
        foot=0.42,
        below=height_of(told, NOTE) + 0.06,
    )
    for i, line in enumerate(lines):
        for j, kind in enumerate(kinds):
            if rows := groups.get((*line, kind)):
                _panel(axes[i, j], rows)
                heads.write(axes[i, j], i * len(kinds) + j)
            else:
                axes[i, j].remove()
    say_below(figure, told)
    return figure


def grouped(rows: Rows) -> dict[tuple[str, str, str], list[Mapping[str, Any]]]:
    """Rows that may be compared with each other: by (backbone, mode, kind)."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["backbone"], row["mode"], row["kind"]), []).append(row)
    return groups


def _panel(ax: Axes, rows: Rows) -> None:
    looks = looks_of([row["squeeze"] for row in rows], ["" if row["form"] == "plain" else row["form"] for row in rows])
    for y, (row, own) in enumerate(zip(rows, looks, strict=True)):
        colour, marker = own if row["source"] == "sqzlab" else OTHER_LOOK
        speed = row["images_per_s"]
        ax.plot([speed["min"], speed["max"]], [y, y], color=colour, lw=1.6, solid_capstyle="butt")
        ax.plot(speed["median"], y, color=colour, marker=marker, ms=5.5, mec=PAPER, mew=0.4)
    plain = next((row for row in rows if row["label"] == "baseline"), None)
    if plain:
        ax.axvline(plain["images_per_s"]["median"], color=FAINT, lw=0.6, ls=":")
    if bound := rows[0]["bound_images_per_s"]:
        ax.axvline(bound, color=INK, lw=0.8)
    ax.set_xlim(left=0)
    row_ticks(ax, [row["label"] for row in rows])
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel("images/s")


def _told(found: Mapping[str, Any]) -> str:
    settings = found["settings"]
    where = found["gpu"] or f"{found['cpu']}, threads: {found['threads']}"
    return (
        f"{where}; torch {found['torch']}; batch {settings['batch']}, {settings['size']} px, {settings['precision']}. "
        f"Marker: median; bar: all of {settings['rounds']} rounds. Dotted: our plain network. Line: bound of the plain "
        "network from the measured copy and product rates (compiled: elementwise operators fused)."
    )
