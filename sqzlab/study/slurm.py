"""What a job asks of Slurm. Partition, account and whatever else names a cluster never stand in a study."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqzlab.config import KEYS, SECTIONS
from sqzlab.errors import choices
from sqzlab.study.baseline import Cell, describe, token
from sqzlab.study.faults import Faults
from sqzlab.study.layout import flat, is_value, mapping, unknown
from sqzlab.study.yamlfile import Mark, Node

INCLUDE = "slurm.include"


@dataclass(frozen=True)
class Slurm:
    """What one job asks for; its `runs_per_job` runs share all of it. None: whatever the cluster gives by default."""

    gpus: int = 0
    cpus: int = 1
    memory_gb: float | None = None
    time_min: int | None = None
    runs_per_job: int = 1


RESOURCES = {
    "gpus": "GPUs of one job; a run that trains on several shares every batch among them",
    "cpus": "CPU cores of one job",
    "memory": "memory of one job, such as 32GB",
    "time": "longest time of one job as hours:minutes:seconds or days-hours:minutes:seconds, such as 8:00:00",
    "runs_per_job": "runs that share one job and its resources, trained at the same time",
}
LIMITS = {"gpus": (0, 16), "cpus": (1, 1024), "runs_per_job": (1, 64)}
MEMORY = r"[1-9][0-9]{0,5} ?[MGT]B?"
TIME = r"([0-9]{1,3}-(?=[01][0-9]|2[0-3]))?[0-9]{1,3}:[0-5][0-9]:[0-5][0-9]"
_GB = {"M": 1 / 1024, "G": 1.0, "T": 1024.0}
_FIELDS = {"memory": "memory_gb", "time": "time_min"}

Stated = dict[str, Node]
"""Resources as the file gives them, each valid."""


@dataclass(frozen=True)
class ArmItem:
    """An element of `include`: what the arms with these axis values get instead."""

    mark: Mark
    arms: Mapping[str, Node]  # axis to value
    stated: Stated
    sound: bool  # false: some of its axes could not be read, and so it is not known which arms it means


@dataclass(frozen=True)
class Section:
    """The `slurm` section, its faulty parts left out."""

    stated: Stated
    items: tuple[ArmItem, ...] = ()

    def of(self, cell: Cell) -> Stated:
        """What is stated for the arm with these axis values: later items win."""
        stated = dict(self.stated)
        for item in self.items:
            if item.sound and _selects(item, cell):
                stated |= item.stated
        return stated

    def check(self, cells: Iterable[Cell], axes: Iterable[str], faults: Faults) -> None:
        """Reports every item that selects none of the arms; one that another profile's arms need is no fault."""
        cells, axes = list(cells), list(axes)
        values = {axis: {token(cell[axis]): cell[axis] for cell in cells} for axis in axes} if self.items else {}
        for item in self.items:
            for axis, node in item.arms.items():
                if axis not in values:
                    faults.idle(node.key_mark, axis, f"is no axis; {choices(axes)}")
                    continue
                faults.used(node.key_mark, axis)
                if node.token in values[axis]:
                    faults.used(node.mark, axis)
                else:
                    there = choices(map(str, values[axis].values()), node.plain)
                    faults.idle(node.mark, axis, f"{node.plain!r} is no value of this axis; {there}")
            if any(_selects(item, cell) for cell in cells):
                faults.used(item.mark, INCLUDE)
            elif item.sound and all(axis in values and node.token in values[axis] for axis, node in item.arms.items()):
                asked = describe({axis: node.plain for axis, node in item.arms.items()})
                faults.idle(item.mark, INCLUDE, f"matches nothing: no arm has {asked}; valid: values of one arm")


def read_slurm(given: Mapping[str, Node], faults: Faults) -> Section:
    """The section, reporting each value that is wrong."""
    resources = {key: node for key, node in given.items() if key != "include"}
    for key in [key for key in resources if key not in RESOURCES]:
        own = "partition, account and the like come from --slurm or your own file"
        text = f"unknown key; {choices((*RESOURCES, 'include'), key)}; {own}"
        faults.add(resources.pop(key).key_mark, f"slurm.{key}", text)
    return Section(_stated(resources, faults), _items(given.get("include"), faults))


def slurm_of(stated: Stated) -> Slurm:
    """The resources, the defaults where nothing is stated."""
    return Slurm(**{_FIELDS.get(key, key): _read(key, node) for key, node in stated.items()})  # type: ignore[arg-type]


def memory_gb(value: object) -> float | None:
    """`32GB` as 32.0; None where it is no size with a unit."""
    if not isinstance(value, str) or not re.fullmatch(MEMORY, value):
        return None
    number, unit = re.fullmatch(r"([0-9]+) ?([MGT])B?", value).groups()  # type: ignore[union-attr]
    return int(number) * _GB[unit]


def time_min(value: object) -> int | None:
    """`8:00:00` as 480, seconds rounded up; None where it is no such time or nothing."""
    if not isinstance(value, str) or not re.fullmatch(TIME, value):
        return None
    days, _, clock = value.rpartition("-")
    hours, minutes, seconds = map(int, clock.split(":"))
    return int(days or 0) * 1440 + hours * 60 + minutes + (seconds > 0) or None


# ---- reading -----------------------------------------------------------------------------------


def _items(node: Node | None, faults: Faults) -> tuple[ArmItem, ...]:
    if node is None or node.value is None:
        return ()
    example = "such as - {model.backbone: resnet50, time: 24:00:00}"
    if not isinstance(node.value, list):
        faults.add(node.mark, INCLUDE, f"is not a list; valid: a list of mappings, {example}")
        return ()
    items = []
    for child in node.value:
        entries = mapping(child, INCLUDE, faults)
        stated = {key: value for key, value in entries.items() if key in RESOURCES}
        others = {key: value for key, value in entries.items() if key not in RESOURCES}
        if child.value is None or (isinstance(child.value, dict) and not (stated and others)):
            lacking = " and ".join(["no axis"] * (not others) + ["no resource"] * (not stated))
            faults.add(child.mark, INCLUDE, f"names {lacking}; valid: axes with values and resources, {example}")
        arms = flat(others, faults, _why_no_axis)
        kept = {key: value for key, value in arms.items() if is_value(key, value, faults, lists=())}
        items.append(ArmItem(child.mark, kept, _stated(stated, faults), 0 < len(kept) == _named(others)))
    return tuple(items)


def _named(entries: Mapping[str, Node]) -> int:
    """How many keys the entries name, nested ones counted singly."""
    return sum(len(n.value) if key in SECTIONS and isinstance(n.value, dict) else 1 for key, n in entries.items())


def _why_no_axis(key: str) -> str | None:
    if key in KEYS:
        return None
    if key in SECTIONS:
        return unknown(key)
    valid = f"valid: axes of the matrix, {', '.join(RESOURCES)}"
    if key == "include":
        return f"does not stand inside {INCLUDE}; {valid}"
    return f"unknown key; {choices((*KEYS, *RESOURCES), key).partition('valid: ')[0]}{valid}"


def _stated(given: Mapping[str, Node], faults: Faults) -> Stated:
    stated = {}
    for key, node in given.items():
        if _read(key, node) is not None:
            stated[key] = node
        elif key in LIMITS:
            low, high = LIMITS[key]
            faults.add(node.mark, f"slurm.{key}", f"{node.plain!r}; valid: a whole number from {low} to {high}")
        elif key == "memory":
            faults.add(node.mark, "slurm.memory", f"{node.plain!r}; valid: a number and MB, GB or TB, such as 32GB")
        else:
            wanted = "hours:minutes:seconds or days-hours:minutes:seconds, such as 8:00:00"
            faults.add(node.mark, "slurm.time", f"{node.plain!r}; valid: {wanted}")
    return stated


def _read(key: str, node: Node) -> int | float | None:
    """The resource in the units of `Slurm`; None where the value is wrong."""
    value = node.value
    if key in LIMITS:
        low, high = LIMITS[key]
        whole = isinstance(value, int) and not isinstance(value, bool)
        return value if whole and low <= value <= high else None  # type: ignore[operator, return-value]
    return memory_gb(value) if key == "memory" else time_min(value)


def _selects(item: ArmItem, cell: Cell) -> bool:
    return all(axis in cell and token(cell[axis]) == node.token for axis, node in item.arms.items())
