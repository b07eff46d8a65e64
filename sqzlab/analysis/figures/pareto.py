"""Accuracy against cost: which arms no other arm beats in both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sqzlab.analysis.arms import Arm, Group
from sqzlab.analysis.figure_list import FAINT, INK, PAPER
from sqzlab.analysis.figures.looks import Look, arm_looks
from sqzlab.analysis.figures.panels import (
    NOTE,
    WIDTH,
    Heads,
    absent,
    edge_room,
    height_for,
    list_names,
    listed,
    names_of,
    panels,
    say_instead,
    wrapped,
)
from sqzlab.analysis.metrics import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


HIDDEN = 2.0  # points between markers of which one hides the other


@dataclass(frozen=True)
class Cost:
    word: str  # for notes
    of: Callable[[Arm], float | None]
    sign: int  # 1: less is better, -1: more is better


def accuracy_against_cost(groups: Sequence[Group], costs: Sequence[str] = ("macs", "images_per_s")) -> Figure:
    """Mean Top-1 against these costs (keys of COSTS), a row for each group and a panel for each cost."""
    looks, names = arm_looks(groups), names_of(groups)
    right, between = edge_room(list(names.values())), 0.65
    width = (WIDTH - 0.6 - right - (len(costs) - 1) * between) / len(costs)
    notes = [[_note(group, key) for key in costs] for group in groups]
    texts = [
        (group.title if not i else "", [note, "" if i else absent(group)])
        for group, row in zip(groups, notes, strict=True)
        for i, note in enumerate(row)
    ]
    heads = Heads(texts, width + between - 0.1)
    heights = [height_for(len(groups), [names[arm.label] for arm in group.arms]) for group in groups]
    figure, axes = panels(heights, len(costs), left=0.6, right=right, between=between, head=heads.room)
    for number, (row, group) in enumerate(zip(axes, groups, strict=True)):
        for i, (ax, key) in enumerate(zip(row, costs, strict=True)):
            heads.write(ax, number * len(costs) + i)
            _panel(ax, group, key, looks)
        done = sorted((arm for arm in group.arms if arm.n), key=lambda arm: -(arm.mean("top1") or 0.0))
        list_names(row[-1], [(names[arm.label], looks[arm.label]) for arm in done])
    return figure


def front(points: Sequence[tuple[float, float]], sign: int = 1) -> list[bool]:
    """Which of these (cost, value) no other beats; one beats another if it is as good in both and better in one.

    `sign` -1 is for a cost of which more is better. Points that are equal in both are on the front together.
    """
    kept, best, before = [False] * len(points), -np.inf, np.inf
    for i in sorted(range(len(points)), key=lambda i: (sign * points[i][0], -points[i][1])):
        cost, value = points[i]
        if value > best or (value == best and cost == before):
            kept[i], best, before = True, value, cost
    return kept


def why_not_comparable(group: Group) -> str | None:
    """Why the speeds of this group's runs do not belong on one axis, or None."""
    places = {tuple(row[key] for key in ("device", "gpu", "precision")) for arm in group.arms for row in arm.done}
    if len(places) > 1:
        told = "; ".join(
            sorted(", ".join(str(part) for part in place if _there(part)) or "unknown" for place in places)
        )
        return f"throughput is not drawn: it was measured on different hardware or in different precision ({told})"
    if not any(_there(row["train_images_per_s"]) for arm in group.arms for row in arm.done):
        return "throughput is not drawn: no run has recorded it"
    return None


def _panel(ax: Axes, group: Group, key: str, looks: Mapping[str, Look]) -> None:
    cost = COSTS[key]
    if key == "images_per_s" and (why := why_not_comparable(group)):
        say_instead(ax, why)
        return
    arms, points = _points(group, cost)
    if not arms:
        say_instead(ax, "nothing to draw: no run has finished")
        return
    scale, label = _unit(key, [x for x, _ in points])
    shown = [(x / scale, y) for x, y in points]
    on_front = front(points, cost.sign)
    for arm, (x, y), best in zip(arms, shown, on_front, strict=True):
        colour, marker = looks[arm.label]
        fill, edge, width = (colour, PAPER, 0.5) if best else (to_rgba(colour, 0.2), to_rgba(colour, 0.6), 0.8)
        ax.plot(x, y, marker=marker, mfc=fill, mec=edge, mew=width, ms=7 if best else 6, ls="none", zorder=2 + best)
    ax.margins(0.12)
    ax.set(xlabel=label, ylabel=f"mean {METRICS['top1'].label}")
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.set_xlim(ax.get_xlim())
    ax.set_ylim(ax.get_ylim())
    _name_hidden(ax, [arm.label for arm in arms], shown)
    steps = sorted((point for point, best in zip(shown, on_front, strict=True) if best), reverse=cost.sign < 0)
    steps.append((ax.get_xlim()[1 if cost.sign > 0 else 0], steps[-1][1]))
    ax.step(*zip(*steps, strict=True), where="post", color=FAINT, lw=1, zorder=1.8)


def _name_hidden(ax: Axes, labels: Sequence[str], points: Sequence[tuple[float, float]]) -> None:
    """Where arms stand at one point, so that only the last marker is seen, all of their names."""
    width, height = (size * 72 for size in ax.figure.get_size_inches() * ax.get_position().size)  # type: ignore[union-attr]
    at: dict[tuple[int, int], list[int]] = {}
    for i, (x, y) in enumerate(ax.transAxes.inverted().transform(ax.transData.transform(points))):
        at.setdefault((round(x * width / HIDDEN), round(y * height / HIDDEN)), []).append(i)
    for (column, row), found in at.items():
        if len(found) > 1:
            right, low = column * HIDDEN > width / 2, row * HIDDEN < height / 2
            ax.annotate(
                wrapped(listed([labels[i] for i in found]), 0.45 * width / 72, NOTE), points[found[0]],
                (-6 if right else 6, 4 if low else -4), textcoords="offset points", fontsize=NOTE, color=INK,
                ha="right" if right else "left", va="bottom" if low else "top", linespacing=1.0, zorder=4,
            )  # fmt: skip


def _points(group: Group, cost: Cost) -> tuple[list[Arm], list[tuple[float, float]]]:
    found = [(arm, cost.of(arm), arm.mean("top1")) for arm in group.arms if arm.n]
    there = [(arm, x, y) for arm, x, y in found if x is not None and y is not None]
    return [arm for arm, _, _ in there], [(x, y) for _, x, y in there]


def _note(group: Group, key: str) -> str:
    """The names on the front, and the arms whose cost is not known."""
    if key == "images_per_s" and why_not_comparable(group):
        return ""
    cost = COSTS[key]
    arms, points = _points(group, cost)
    named = [arm.label for arm, best in zip(arms, front(points, cost.sign), strict=True) if best]
    without = [arm.label for arm in group.arms if arm.n and arm not in arms]
    told = f"front by {cost.word}: {listed(named)}" if named else ""
    return f"{told}; {cost.word} unknown: {listed(without)}" if without else told


def _unit(key: str, costs: Sequence[float]) -> tuple[float, str]:
    if key == "images_per_s":
        return 1.0, "training images/s (median of the runs)"
    metric = METRICS["gflops" if max(costs) >= 1e9 else "mflops"]
    return 1 / metric.transform(1.0), metric.label


def _speed(arm: Arm) -> float | None:
    speeds = [row["train_images_per_s"] for row in arm.done if _there(row["train_images_per_s"])]
    return float(np.median(speeds)) if speeds else None


def _there(value: object) -> bool:
    return value is not None and value == value


COSTS = {
    "macs": Cost("MACs", lambda arm: arm.count("macs"), 1),
    "images_per_s": Cost("images/s", _speed, -1),
}
