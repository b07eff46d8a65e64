"""Groups a study's runs into arms (the seeds of one cell) and groups of arms that share a baseline.

A group is what the baseline mapping leaves fixed (a backbone, say); an arm is named by what is left of its cell.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqzlab.analysis.metrics import METRICS
from sqzlab.analysis.records import STATES, Records, Row
from sqzlab.statistics.comparison import Comparison, Pooled, compare_with_baseline, pool

Cell = Mapping[str, Any]


@dataclass(frozen=True)
class Arm:
    """One cell of the matrix with all its seeds."""

    label: str  # "gap", or "gap, reduction 8"
    cell: Cell
    rows: tuple[Row, ...]  # every counted run, whatever its state

    @cached_property
    def finished(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row["state"] == "done")

    @cached_property
    def done(self) -> tuple[Row, ...]:
        """The finished runs that count: of each seed the first, for a seed that is there twice is not two seeds."""
        of: dict[Any, Row] = {}
        for row in self.finished:
            of.setdefault(row["seed"], row)
        return tuple(of.values())

    @property
    def n(self) -> int:
        return len(self.done)

    @cached_property
    def states(self) -> Mapping[str, int]:
        return Counter(row["state"] for row in self.rows)

    def stored(self, column: str) -> NDArray[np.float64]:
        """What every run of `done` has in this column; not to be written to."""
        if column not in self._stored:
            self._stored[column] = np.array([row[column] for row in self.done], dtype=np.float64)
        return self._stored[column]

    def values(self, metric: str) -> NDArray[np.float64]:
        """The metric of every run of `done`, transformed as METRICS says."""
        found: NDArray[np.float64] = METRICS[metric].transform(self.stored(METRICS[metric].key))
        return found

    def mean(self, metric: str) -> float | None:
        return self._mean_and_sd(metric)[0]

    def sd(self, metric: str) -> float | None:
        """Sample standard deviation over the seeds; None with fewer than two."""
        return self._mean_and_sd(metric)[1]

    def _mean_and_sd(self, metric: str) -> tuple[float | None, float | None]:
        if metric not in self._known:
            self._known[metric] = mean_and_sd(self.values(metric))
        return self._known[metric]

    @cached_property
    def _stored(self) -> dict[str, NDArray[np.float64]]:
        return {}

    @cached_property
    def _known(self) -> dict[str, tuple[float | None, float | None]]:
        return {}

    def count(self, key: str) -> int | None:
        """`params` or `macs`: of the runs, else as planned."""
        found = next((row[key] for row in self.done + self.rows if row[key] is not None), None)
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
    correction: str = "dunnett"

    @property
    def backbone(self) -> str | None:
        named = {self.fixed.get("model.backbone"), *(row["backbone"] for arm in self.arms for row in arm.done)}
        named -= {None}
        return named.pop() if len(named) == 1 else None

    @cached_property
    def pooled(self) -> Pooled:
        """Spread of Top-1 over the seeds within the group's arms, a fraction."""
        return pool([arm.stored("top1") for arm in self.arms])

    def compared(self, arm: Arm, column: str = "top1", confidence: float = 0.95) -> Comparison | None:
        """The arm against the group's baseline in a stored metric (fractions stay fractions); None for the baseline.

        The family is all arms of the group with a finished run; the variance is pooled over them and the baseline.
        """
        return self._compared(column, confidence).get(id(arm))

    def _compared(self, column: str, confidence: float) -> Mapping[int, Comparison]:
        if (column, confidence) not in self._known:
            found: dict[int, Comparison] = {}  # by identity: an arm is not hashable
            if self.baseline is not None:
                arms = [arm for arm in self.arms if arm is not self.baseline]
                values = [arm.stored(column) for arm in arms]
                reference = self.baseline.stored(column)
                results = compare_with_baseline(reference, values, confidence=confidence, correction=self.correction)
                found = {id(arm): one for arm, one in zip(arms, results, strict=True) if one is not None}
            self._known[column, confidence] = found
        return self._known[column, confidence]

    @cached_property
    def _known(self) -> dict[tuple[str, float], Mapping[int, Comparison]]:
        return {}

    def improved(self, arm: Arm) -> float | None:
        """Difference of the mean Top-1 from the baseline's, in percentage points."""
        ours, reference = arm.mean("top1"), None if self.baseline is None else self.baseline.mean("top1")
        return None if arm is self.baseline or ours is None or reference is None else ours - reference


def group_arms(records: Records, correction: str = "dunnett") -> tuple[Group, ...]:
    """Every counted run in its arm, every arm in its group, in the order of the plan."""
    return group_rows(records.counted, records.axes, records.baseline, correction)


def group_rows(
    rows: Iterable[Row], axes: Sequence[str], baseline: Cell, correction: str = "dunnett"
) -> tuple[Group, ...]:
    """The same for any rows like those of Records; `baseline` maps axes to the baseline's values."""
    cells: dict[tuple[tuple[str, Any], ...], list[Row]] = {}
    alike: dict[tuple[Any, ...], list[Row]] = {}  # the same lists by values alone, which takes half the time
    for row in rows:
        values = tuple([row[axis] for axis in axes])
        if values not in alike:
            items = tuple((axis, value) for axis, value in zip(axes, values, strict=True) if not _absent(value))
            alike[values] = cells.setdefault(items, [])
        alike[values].append(row)
    baselines = _Baselines([dict(items) for items in cells], baseline)
    members: dict[tuple[tuple[str, Any], ...], list[Cell]] = {}
    for items in cells:
        members.setdefault(tuple(baselines.fixed(dict(items)).items()), []).append(dict(items))
    grouped = [(dict(shared), _arms(dict(shared), own, cells)) for shared, own in members.items()]
    titles = _apart([_title(*one) for one in grouped], [_in_full(shared) for shared, _ in grouped])
    groups = []
    for title, (shared, arms) in zip(titles, grouped, strict=True):
        found = next((arm for arm in arms if baselines.is_baseline(arm.cell)), None)
        ordered = ([found] if found else []) + [arm for arm in arms if arm is not found]
        groups.append(Group(title, shared, tuple(ordered), found, correction))
    return tuple(groups)


def mean_and_sd(values: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """None without a value, and without two."""
    mean = float(values.mean()) if len(values) else None
    return mean, float(values.std(ddof=1)) if len(values) > 1 else None


def describe(cell: Cell) -> str:
    """ "resnet18" or "gap, reduction 8": backbone and squeeze speak for themselves, other axes are named."""
    return ", ".join(
        str(value) if axis in SPEAKING else f"{axis.rpartition('.')[2]} {_plain(value)}" for axis, value in cell.items()
    )


def _arms(shared: Cell, cells: Sequence[Cell], rows: Mapping[tuple[tuple[str, Any], ...], Sequence[Row]]) -> list[Arm]:
    """Arms of one group, each with a label of its own."""
    runs = [rows[tuple(cell.items())] for cell in cells]
    own = [{axis: value for axis, value in cell.items() if axis not in shared} for cell in cells]
    short = [describe(one) if one else _squeeze(found) for one, found in zip(own, runs, strict=True)]
    labels = _apart(short, [_in_full(one) for one in own])
    return [Arm(label, cell, tuple(found)) for label, cell, found in zip(labels, cells, runs, strict=True)]


def _title(shared: Cell, arms: Sequence[Arm]) -> str:
    backbones = {row["backbone"] for arm in arms for row in arm.done} - {None}
    return describe(shared) or ", ".join(sorted(map(str, backbones))) or "all arms"


def _in_full(cell: Cell) -> str:
    """As `describe`, with the whole names of the axes; texts in quotes, that "8" is not 8."""
    return ", ".join(
        str(value) if axis in SPEAKING else f"{axis} {value!r}" if isinstance(value, str) else f"{axis} {_plain(value)}"
        for axis, value in cell.items()
    )


def _apart(names: Sequence[str], in_full: Sequence[str]) -> list[str]:
    """Names of which none is there twice: in full where short ones are equal, then with a number."""
    often, seen = Counter(names), Counter[str]()
    found = [full if often[name] > 1 and full else name for name, full in zip(names, in_full, strict=True)]
    often = Counter(found)
    for i, name in enumerate(found):
        if often[name] > 1:
            seen[name] += 1
            found[i] = f"{name} ({seen[name]})"
    return found


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


def _squeeze(rows: Sequence[Row]) -> str:
    return next((str(row["squeeze"]) for row in rows if row["state"] == "done"), "the only arm")


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


SPEAKING = ("model.backbone", "model.squeeze")
