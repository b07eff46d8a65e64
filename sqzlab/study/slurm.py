"""What one run asks of Slurm. Partition, account and whatever else names a cluster never stand in a study."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sqzlab.errors import choices
from sqzlab.study.faults import Faults
from sqzlab.study.yamlfile import Node


@dataclass(frozen=True)
class Slurm:
    """None: whatever the cluster gives by default."""

    gpus: int = 0
    cpus: int = 1
    memory_gb: float | None = None
    time_min: int | None = None


RESOURCES = {
    "gpus": "GPUs of one run",
    "cpus": "CPU cores of one run",
    "memory": "memory of one run, such as 32GB",
    "time": "longest time of one run as hours:minutes:seconds or days-hours:minutes:seconds, such as 8:00:00",
}
LIMITS = {"gpus": (0, 1), "cpus": (1, 1024)}
MEMORY = r"[1-9][0-9]{0,5} ?[MGT]B?"
TIME = r"([0-9]{1,3}-(?=[01][0-9]|2[0-3]))?[0-9]{1,3}:[0-5][0-9]:[0-5][0-9]"
_GB = {"M": 1 / 1024, "G": 1.0, "T": 1024.0}


def read_slurm(given: Mapping[str, Node], faults: Faults) -> Slurm:
    """The resources, reporting each that is wrong."""
    values: dict[str, int | float] = {}
    for key, node in given.items():
        if key not in RESOURCES:
            own = "partition, account and the like come from --slurm or your own file"
            faults.add(node.key_mark, f"slurm.{key}", f"unknown key; {choices(RESOURCES, key)}; {own}")
        elif key in LIMITS:
            low, high = LIMITS[key]
            if isinstance(node.value, int) and not isinstance(node.value, bool) and low <= node.value <= high:
                values[key] = node.value
            else:
                faults.add(node.mark, f"slurm.{key}", f"{node.plain!r}; valid: a whole number from {low} to {high}")
        elif key == "memory":
            if (size := memory_gb(node.value)) is None:
                faults.add(node.mark, "slurm.memory", f"{node.plain!r}; valid: a number and MB, GB or TB, such as 32GB")
            else:
                values["memory_gb"] = size
        elif (minutes := time_min(node.value)) is None:
            wanted = "hours:minutes:seconds or days-hours:minutes:seconds, such as 8:00:00"
            faults.add(node.mark, "slurm.time", f"{node.plain!r}; valid: {wanted}")
        else:
            values["time_min"] = minutes
    return Slurm(**values)  # type: ignore[arg-type]


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
