"""Groups a study's runs into arms (the seeds of one cell) and groups of arms that share a baseline.

A group is what the baseline mapping leaves fixed (a backbone, say); an arm is named by what is left of its cell.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sqzlab.analysis.metrics import METRICS
from sqzlab.analysis.records import STATES, Records

Cell = Mapping[str, Any]


@dataclass(frozen=True)
class Arm:
    """One cell of the matrix with all its seeds."""

    label: str  # "gap", or "gap, reduction 8"
    cell: Cell
    rows: tuple[Mapping[str, Any], ...]  # every counted run, whatever its state

    @cached_property
    def done(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(row for row in self.rows if row["state"] == "done")

    @property
    def n(self) -> int:
        return len(self.done)

    @cached_property
    def states(self) -> Mapping[str, int]:
        return Counter(row["state"] for row in self.rows)

    def values(self, metric: str) -> NDArray[np.float64]:
        """The metric of every finished run, transformed as METRICS says."""
        shown = METRICS[metric]
        return np.array([shown.transform(row[shown.key]) for row in self.done], dtype=np.float64)

    def mean(self, metric: str) -> float | None:
        values = self.values(metric)
        return float(values.mean()) if len(values) else None

    def sd(self, metric: str) -> float | None:
        """Sample standard deviation over the seeds; None with fewer than two."""
        values = self.values(metric)
        return float(values.std(ddof=1)) if len(values) > 1 else None

    def count(self, key: str) -> int | None:
        """`params` or `macs`: of the runs, else as planned."""
        found = next((row[key] for row in self.done + self.rows if not pd.isna(row[key])), None)
        return None if found is None else int(found)

    def note(self) -> str:
        """What is not there, in words: "", "missing", "1 of 2 failed", "1 of 3 failed, 1 of 3 missing"."""
        absent = [(state, self.states[state]) for state in STATES[1:] if self.states[state]]
        if len(absent) == 1 and absent[0][1] == len(self.rows):
            return absent[0][0]
        return ", ".join(f"{count} of {len(self.rows)} {state}" for state, count in absent)


@dataclass(frozen=True)
class Group:
    """Arms that are compared with one baseline; `baseline` is None where the study has none for them."""

    title: str  # "resnet18"
    fixed: Cell
    arms: tuple[Arm, ...]
    baseline: Arm | None

    @property
    def backbone(self) -> str | None:
        named = {self.fixed.get("model.backbone"), *(row["backbone"] for arm in self.arms for row in arm.done)}
        named -= {None}
        return named.pop() if len(named) == 1 else None

    def improved(self, arm: Arm) -> float | None:
        """Difference of the mean Top-1 from the baseline's, in percentage points."""
        ours, reference = arm.mean("top1"), None if self.baseline is None else self.baseline.mean("top1")
        return None if arm is self.baseline or ours is None or reference is None else ours - reference


def group_arms(records: Records) -> tuple[Group, ...]:
    """Every counted run in its arm, every arm in its group, in the order of the plan."""
    cells: dict[tuple[tuple[str, Any], ...], list[Mapping[str, Any]]] = {}
    for row in records.counted.to_dict("records"):
        key = tuple((axis, row[axis]) for axis in records.axes if not _absent(row[axis]))
        cells.setdefault(key, []).append({str(column): value for column, value in row.items()})
    baselines = _Baselines([dict(items) for items in cells], records.baseline)
    members: dict[tuple[tuple[str, Any], ...], list[Arm]] = {}
    for items, rows in cells.items():
        cell = dict(items)
        fixed = baselines.fixed(cell)
        own = {axis: value for axis, value in cell.items() if axis not in fixed}
        label = describe(own) if own else _squeeze(rows)
        members.setdefault(tuple(fixed.items()), []).append(Arm(label, cell, tuple(rows)))
    groups = []
    for shared, arms in members.items():
        baseline = next((arm for arm in arms if baselines.is_baseline(arm.cell)), None)
        ordered = ([baseline] if baseline else []) + [arm for arm in arms if arm is not baseline]
        backbones = {row["backbone"] for arm in arms for row in arm.done} - {None}
        title = describe(dict(shared)) or ", ".join(sorted(map(str, backbones))) or "all arms"
        groups.append(Group(title, dict(shared), tuple(ordered), baseline))
    return tuple(groups)


def describe(cell: Cell) -> str:
    """ "resnet18" or "gap, reduction 8": backbone and squeeze speak for themselves, other axes are named."""
    return ", ".join(
        str(value) if axis in SPEAKING else f"{axis.rpartition('.')[2]} {_plain(value)}" for axis, value in cell.items()
    )


class _Baselines:
    """Finds the baseline of a cell: its axes as the mapping says, the others equal as far as the baseline has them."""

    def __init__(self, cells: Sequence[Cell], mapping: Cell) -> None:
        self.mapping = mapping
        self.known: dict[tuple[str, ...], set[tuple[Any, ...]]] = {}
        for cell in filter(self.is_baseline, cells):
            axes = tuple(axis for axis in cell if axis not in mapping)
            self.known.setdefault(axes, set()).add(tuple(cell[axis] for axis in axes))

    def is_baseline(self, cell: Cell) -> bool:
        return bool(self.mapping) and all(cell.get(axis) == value for axis, value in self.mapping.items())

    def fixed(self, cell: Cell) -> Cell:
        """What the cell shares with its baseline; without one, all that is not the squeeze."""
        for axes in sorted(self.known, key=len, reverse=True):
            if all(axis in cell for axis in axes) and tuple(cell[axis] for axis in axes) in self.known[axes]:
                return {axis: cell[axis] for axis in axes}
        return {axis: value for axis, value in cell.items() if axis == "model.backbone"}


def _squeeze(rows: Sequence[Mapping[str, Any]]) -> str:
    return next((str(row["squeeze"]) for row in rows if row["state"] == "done"), "the only arm")


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


SPEAKING = ("model.backbone", "model.squeeze")
