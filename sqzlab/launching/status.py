"""The state of every run, read from its files first; Slurm is asked only about runs that have not begun."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqzlab.analysis.records import why_unusable
from sqzlab.run import CHECKPOINT, FAILURE, LEASE, METRICS, PROGRESS, PROVENANCE, Run
from sqzlab.runs.files import read_json
from sqzlab.runs.lease import expired


class State(StrEnum):
    DONE = "done"
    RUNNING = "running"
    QUEUED = "queued"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    MISSING = "not started"


COLOURS = {
    State.DONE: "green",
    State.RUNNING: "cyan",
    State.QUEUED: "blue",
    State.FAILED: "red",
    State.INTERRUPTED: "yellow",
    State.MISSING: "default",
}


@dataclass(frozen=True)
class Status:
    state: State
    detail: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)  # metrics, progress or failure, by state


def status_of(folder: Path, queue: Mapping[str, str] | None = None) -> Status:
    """State of the run in `folder`; `queue` maps run ids to what Slurm says of their waiting jobs."""
    if not folder.is_dir():
        return _waiting(folder.name, queue) or Status(State.MISSING)
    metrics = read_json(folder / METRICS)
    if metrics is not None and why_unusable(metrics, folder.name) is None:
        return Status(State.DONE, f"top-1 {100 * metrics['top1']:.2f} %", metrics)
    held = read_json(folder / LEASE) or {}
    progress = read_json(folder / PROGRESS) or {}
    if not expired(folder, held):
        return Status(State.RUNNING, _pace(progress) if progress else "starting", progress)
    if waiting := _waiting(folder.name, queue):
        return waiting
    if (failed := read_json(folder / FAILURE)) is not None:
        return Status(State.FAILED, str(failed.get("error", "")), failed)
    if (folder / CHECKPOINT).exists():
        return Status(State.INTERRUPTED, _reached(folder), progress)
    return Status(State.MISSING)


def statuses(study_folder: Path, runs: Iterable[Run], queue: Mapping[str, str] | None = None) -> dict[str, Status]:
    return {run.run_id: status_of(study_folder / run.run_id, queue) for run in runs}


def summary(found: Mapping[str, Status]) -> str:
    """`12 done, 1 failed, 3 not started`."""
    counts = Counter(status.state for status in found.values())
    return ", ".join(f"{counts[state]} {state}" for state in State if counts[state])


def _waiting(run_id: str, queue: Mapping[str, str] | None) -> Status | None:
    return Status(State.QUEUED, queue[run_id]) if queue and run_id in queue else None


def _reached(folder: Path) -> str:
    """The step of the newest saved state; the heartbeat may be a second behind or ahead of it."""
    segments = (read_json(folder / PROVENANCE) or {}).get("segments")
    return f"at step {segments[-1]['last_step']}" if segments else ""


def _pace(progress: Mapping[str, Any]) -> str:
    text = f"epoch {min(progress['epoch'] + 1, progress['epochs'])}/{progress['epochs']}"
    if progress.get("images_per_s"):
        text += f", {progress['images_per_s']:,.0f} img/s"
    if progress.get("eta_s") is not None:
        text += f", {duration(progress['eta_s'])} left"
    return text


def duration(seconds: float) -> str:
    """`45 s`, `3:05 min` or `7:30 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"
