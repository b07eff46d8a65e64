"""What a run tells a tracker, read from its folder: the files stay the truth, a tracker has a copy that can be redone.

Training never sees a tracker, so that no result, speed or failure can depend on one.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqzlab.analysis.records import is_study, why_unusable
from sqzlab.errors import ConfigError
from sqzlab.run import CONFIG, EPOCHS, FAILURE, METRICS, PLAN, PROVENANCE

SERIES = ("train_loss", "train_top1", "val_loss", "top1", "top5", "lr", "images_per_s")
FINAL = ("top1", "top5", "val_loss", "train_loss", "params", "macs", "train_images_per_s", "time_s")
LAST = 2**31 - 1  # no run has so many epochs, and trackers crash at a step of more than 64 bits
Signature = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class Epoch:
    number: int  # from 1
    time_s: float  # when it ended, seconds since 1970; only as exact as the run's own clock
    values: Mapping[str, float]  # of SERIES, those that the record has


@dataclass(frozen=True)
class TrackedRun:
    """A run as far as it has come."""

    run_id: str
    study: str  # the name of the study's folder
    arm: str  # "resnet18-gap": the runs of an arm differ in their seed
    config: Mapping[str, str | int | float | bool]  # by dotted key, without those that are None
    start_s: float  # seconds since 1970; 0 where provenance.json does not tell
    epochs: tuple[Epoch, ...]
    state: str  # done, failed, damaged or unfinished
    final: Mapping[str, float]  # of FINAL, where the run is done

    @property
    def ended(self) -> bool:
        return self.state != "unfinished"


def check_study(folder: Path) -> None:
    """Raises ConfigError where the folder is no study."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; valid: a folder of results that launch.py wrote")
    if not is_study(folder):
        raise ConfigError(f"{folder}: no study (neither {PLAN} nor a run with {METRICS}); launch.py writes both")


def run_ids(folder: Path) -> tuple[str, ...]:
    """Every run of the study that has an epoch or an end."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    return tuple(name for name in names if any((folder / name / file).is_file() for file in (EPOCHS, METRICS, FAILURE)))


def planned_ids(folder: Path) -> tuple[str, ...]:
    """The runs that plan.json names; none where it is absent or damaged."""
    try:
        return tuple(str(run["run_id"]) for run in json.loads((folder / PLAN).read_bytes())["runs"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ()


def signature(folder: Path) -> Signature:
    """Changes whenever a file of the run does that is read here."""
    return tuple(_stat(folder / name) for name in (EPOCHS, METRICS, FAILURE))


def read_run(folder: Path) -> tuple[TrackedRun, tuple[str, ...]]:
    """The run in its folder, and a line for each thing in it that cannot be used."""
    faults: list[str] = []
    values = _object(folder / CONFIG, faults)
    start_s = _start_s(folder / PROVENANCE)
    final = _object(folder / METRICS, faults)
    if final is not None and (fault := why_unusable(final, folder.name)):
        faults.append(f"{METRICS}: {fault}")
    state = "done" if final is not None else "failed" if (folder / FAILURE).is_file() else "unfinished"
    if any(fault.startswith(METRICS) for fault in faults):
        state, final = "damaged", None
    epochs = tuple(_epochs(folder / EPOCHS, start_s, state, faults))
    config = dict(_flat((values or {}).get("config", {})))
    arm = folder.name.rpartition("-s")[0] or folder.name
    shown = {key: float(final[key]) for key in FINAL if final.get(key) is not None} if final else {}
    run = TrackedRun(folder.name, folder.resolve().parent.name, arm, config, start_s, epochs, state, shown)
    return run, tuple(f"{folder.name}: {fault}" for fault in faults)


def _epochs(path: Path, start_s: float, state: str, faults: list[str]) -> Iterator[Epoch]:
    """Of an epoch that is there twice the later line counts: a resumed run writes it again."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        if state == "failed" and isinstance(error, FileNotFoundError):
            return  # before its first epoch
        faults.append(f"{EPOCHS}: {(error.strerror or type(error).__name__).lower()}")
        return
    found: dict[int, dict[str, float]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            found.update([_epoch(json.loads(line))])
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            if line.endswith(b"\n"):
                faults.append(f"{EPOCHS}: line {number} is damaged and left out")
            elif state != "unfinished":  # else it is being written
                faults.append(f"{EPOCHS}: the last line is cut short and left out")
    time_s = start_s
    for number, values in sorted(found.items()):
        time_s += values.pop("time_s", 0.0)
        yield Epoch(number, time_s, values)


def _epoch(values: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    """Raises one of many errors where this is no record of an epoch."""
    number = values["epoch"]
    kept = {key: values[key] for key in (*SERIES, "time_s") if values.get(key) is not None}
    if not isinstance(number, int) or not 0 <= number <= LAST or not {"train_loss", "val_loss", "top1"} <= kept.keys():
        raise ValueError("no epoch")
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in kept.values()):
        raise ValueError("no finite number")
    return number, {key: float(value) for key, value in kept.items()}


def _object(path: Path, faults: list[str]) -> dict[str, Any] | None:
    """The JSON object in the file; None where there is no file, and with a fault where it holds none."""
    try:
        values = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        faults.append(f"{path.name}: {(error.strerror or type(error).__name__).lower()}")
        return None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        faults.append(f"{path.name}: not a whole JSON object")
        return None
    return values


def _start_s(path: Path) -> float:
    try:
        return datetime.fromisoformat(json.loads(path.read_bytes())["segments"][0]["start"]).timestamp()
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return 0.0


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, str | int | float | bool]]:
    for key, value in values.items() if isinstance(values, dict) else ():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value if isinstance(value, str | int | float) else json.dumps(value)


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
