"""Accuracy against one axis of a study, such as the reduction ratio, the placement or the stages of the blocks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy import special

from sqzlab.analysis.arms import Arm, Group, describe
from sqzlab.analysis.figure_list import PAPER
from sqzlab.analysis.figures.looks import Look, beyond_squeeze, looks_of, squeeze_of
from sqzlab.analysis.figures.panels import (
    NO_BREAK,
    NOTE,
    WIDTH,
    Heads,
    edge_room,
    height_for,
    height_of,
    inches,
    list_names,
    listed,
    name_lines,
    panels,
    say_below,
    wrapped,
)
from sqzlab.analysis.metrics import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NO_SWEEP = ("model.squeeze", "model.backbone", "seed")


@dataclass(frozen=True)
class Point:
    """An arm with a result at its value of the axis; None where it has none."""

    value: Any
    arm: Arm
    mean: float  # Top-1 in percent
    half: float  # half-width of the interval of the mean; NaN without a known spread
    other: str  # what else tells the arm from those of its squeeze, but not this axis


@dataclass(frozen=True)
class Panel:
    title: str
    lines: Mapping[str, tuple[Point, ...]]  # by what the arms of a line share, "gap"
    flat: Mapping[str, Point]  # arms that have no value of the axis, the baseline
    notes: tuple[str, ...]

    @property
    def points(self) -> tuple[Point, ...]:
        return *self.flat.values(), *(point for line in self.lines.values() for point in line)


def sweep_axes(groups: Sequence[Group]) -> tuple[str, ...]:
    """Axes with at least two values among the finished arms, in the order of the plan; not squeeze and backbone."""
    values: dict[str, set[Any]] = {}
    for group in groups:
        for arm in group.arms:
            for axis, value in arm.cell.items() if arm.n else ():
                values.setdefault(axis, set()).add(value)
    return tuple(axis for axis, found in values.items() if len(found) > 1 and axis not in NO_SWEEP)


def accuracy_over_axis(groups: Sequence[Group], axis: str, confidence: float = 0.95) -> Figure:
    """Mean Top-1 with its interval, a line for each squeeze; a baseline without this axis is a level with a band."""
    shown = _panels(groups, axis, confidence)
    scale = Scale(list(dict.fromkeys(p.value for panel in shown for line in panel.lines.values() for p in line)))
    firsts = {name: point for panel in shown for name, point in panel.flat.items()}
    firsts |= {name: line[0] for panel in shown for name, line in panel.lines.items()}
    others = [point.other for point in firsts.values()]
    looks = dict(zip(firsts, looks_of([squeeze_of(point.arm) for point in firsts.values()], others), strict=True))
    flat = {name for panel in shown for name in panel.flat}
    names = {name: name_lines(f"{name} (dashed)" if name in flat else name) for name in firsts}
    right = edge_room(list(names.values()))
    columns = 2 if len(shown) > 1 and right < 1.3 and len(scale.values) < 6 else 1
    rows = -(-len(shown) // columns)
    width = (WIDTH - 0.6 - columns * right - (columns - 1) * 0.65) / columns
    foot = scale.fit(width)
    heads = Heads([(panel.title, panel.notes) for panel in shown], width + right - 0.1)
    told = wrapped(_told(shown, confidence), WIDTH - 0.12, NOTE)
    heights = [height_for(rows, list(names.values()))] * rows
    below = height_of(told, NOTE) + 0.06
    figure, axes = panels(
        heights, columns, left=0.6, right=right, between=0.65 + right, head=heads.room, foot=foot, below=below
    )
    for number, (ax, panel) in enumerate(zip(axes.flat, shown, strict=False)):
        _draw(ax, panel, scale, looks)
        scale.ticks(ax)
        ax.set(xlabel=axis.rpartition(".")[2].replace("_", " "), ylabel=f"mean {METRICS['top1'].label}")
        list_names(ax, [(names[name], looks[name]) for name in (*panel.flat, *panel.lines)])
        heads.write(ax, number)
    for ax in axes.flat[len(shown) :]:
        ax.remove()
    say_below(figure, told)
    return figure


class Scale:
    """Where the values of an axis stand: positive numbers by their logarithm to base 2, others at equal distances."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        self.values = sorted(values) if self.numeric else list(values)
        self.log = self.numeric and all(value > 0 for value in values)
        self.names = [str(value).lower() if isinstance(value, bool) else f"{value}" for value in self.values]
        self.upright = False

    def place(self, value: Any) -> float:
        if not self.numeric:
            return float(self.values.index(value))
        return float(np.log2(value)) if self.log else float(value)

    @property
    def step(self) -> float:
        """The least distance between two values."""
        places = sorted(map(self.place, self.values))
        return min((b - a for a, b in itertools.pairwise(places)), default=0.0)

    def fit(self, width: float) -> float:
        """Breaks or turns the names so that they fit below a panel of this width; returns the inches that they need."""
        slot = width / max(1, len(self.values)) - 0.06
        if self.numeric or max(map(inches, self.names)) <= slot:
            return 0.45
        broken = [wrapped(name.replace("+", "+ "), slot).replace("+ ", "+") for name in self.names]
        self.upright = any(inches(part) > slot for name in self.names for part in _parts(name))
        if self.upright:
            return 0.35 + max(map(inches, self.names))
        self.names = broken
        return 0.35 + max(map(height_of, broken))

    def ticks(self, ax: Axes) -> None:
        places = [self.place(value) for value in self.values]
        margin = 0.08 * ((max(places) - min(places)) or 1.0) if self.numeric else 0.5
        ax.set_xlim(min(places) - margin, max(places) + margin)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticks(places, self.names, rotation=90 if self.upright else 0)
        if not self.numeric:
            ax.xaxis.grid(False)


def _parts(name: str) -> list[str]:
    """Of "conv2+conv3" what may stand on a line of its own."""
    return name.replace("+", "+ ").split(" ")


def _panels(groups: Sequence[Group], axis: str, confidence: float) -> tuple[Panel, ...]:
    """A panel for all groups that share everything but the axis, where any of their arms has it."""
    members: dict[str, list[Group]] = {}
    for group in groups:
        title = describe({key: value for key, value in group.fixed.items() if key != axis})
        members.setdefault(title or group.backbone or "all arms", []).append(group)
    made = (_panel(title, part, axis, confidence) for title, part in members.items())
    return tuple(panel for panel in made if panel.lines)


def _panel(title: str, groups: Sequence[Group], axis: str, confidence: float) -> Panel:
    lines: dict[str, list[Point]] = {}
    flat, absent = {}, []
    for group in groups:
        apart = f"{group.title}, " if axis in group.fixed else ""
        for arm in group.arms:
            mean = arm.mean("top1")
            if mean is None:
                absent.append(f"{apart}{arm.label} ({arm.note()})")
                continue
            point = Point(
                arm.cell.get(axis), arm, mean, _half(group, arm, confidence), beyond_squeeze(arm, group, axis)
            )
            if point.value is None:
                flat[arm.label] = point
                continue
            shared = {key: value for key, value in arm.cell.items() if key != axis and key not in group.fixed}
            lines.setdefault(describe(shared) or squeeze_of(arm), []).append(point)
    panel = Panel(title, {name: tuple(line) for name, line in lines.items()}, flat, ())
    unknown = all(np.isnan(point.half) for point in panel.points)
    notes = ["no spread over the seeds is known: no interval" if unknown else ""]
    notes.append(f"no result: {listed(absent)}" if absent else "")
    return replace(panel, notes=tuple(notes))


def _half(group: Group, arm: Arm, confidence: float) -> float:
    """Half the interval of the arm's mean, from the spread pooled over its group, in points."""
    pooled = group.pooled
    if not pooled.sd:
        return float("nan")
    return float(-100 * special.stdtrit(pooled.df, (1 - confidence) / 2) * pooled.sd / np.sqrt(arm.n))


def _draw(ax: Axes, panel: Panel, scale: Scale, looks: Mapping[str, Look]) -> None:
    for name, point in panel.flat.items():
        colour, _ = looks[name]
        if not np.isnan(point.half):
            ax.axhspan(point.mean - point.half, point.mean + point.half, color=colour, alpha=0.1, lw=0)
        ax.axhline(point.mean, color=colour, lw=1, ls="--")
    for number, (name, line) in enumerate(panel.lines.items()):
        colour, marker = looks[name]
        ordered = sorted(line, key=lambda point: scale.place(point.value))
        x = np.array([scale.place(point.value) for point in ordered])
        x += scale.step * min(0.12, 0.5 / len(panel.lines)) * (number - (len(panel.lines) - 1) / 2)
        y, half = ([getattr(point, part) for point in ordered] for part in ("mean", "half"))
        ax.errorbar(
            x, y, None if np.isnan(half).all() else half, color=colour, marker=marker, ms=5.5, mec=PAPER, mew=0.4,
            capsize=2.5, elinewidth=1, lw=1.2 if scale.numeric else 0.6, ls="-" if scale.numeric else ":",
        )  # fmt: skip


def _told(shown: Sequence[Panel], confidence: float) -> str:
    bars = any(not np.isnan(point.half) for panel in shown for point in panel.points)
    interval = f"{100 * confidence:g}{NO_BREAK}% interval of each mean, from the spread pooled over its group"
    parts = [f"bars: {interval}"] if bars else []
    if any(panel.flat for panel in shown):
        parts.append("dashed: without this axis" + (", with the same interval" if bars else ""))
    return "; ".join(parts)
