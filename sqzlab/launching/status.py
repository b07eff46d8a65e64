"""The state of every run, told by its files first and by Slurm second.

Metrics make a run done and a live lease makes it running, whatever Slurm says. Slurm tells what waits, begins, ends
or is lost. Where it does not answer, what was submitted counts as queued: never as lost, never as to be run again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqzlab.analysis.records import why_unusable
from sqzlab.run import CHECKPOINT, FAILURE, LEASE, METRICS, PREVIOUS_CHECKPOINT, PROGRESS, PROVENANCE, Run
from sqzlab.runs.files import read_json
from sqzlab.runs.lease import TTL_S, expired, now
from sqzlab.slurm.queue import EMPTY, Job, Queue

LOCAL_LOG = "log.txt"  # in the folder of a run that shares its launcher or its job with others


class State(StrEnum):
    DONE = "done"
    RUNNING = "running"
    QUEUED = "queued"
    PREEMPTED = "preempted"
    FAILED = "failed"
    LOST = "lost"
    INTERRUPTED = "interrupted"
    MISSING = "not started"


COLOURS = {
    State.DONE: "green",
    State.RUNNING: "cyan",
    State.QUEUED: "blue",
    State.PREEMPTED: "magenta",
    State.FAILED: "red",
    State.LOST: "red",
    State.INTERRUPTED: "yellow",
    State.MISSING: "default",
}
UNDER_WAY = (State.RUNNING, State.QUEUED, State.PREEMPTED)  # they go on without a launch


@dataclass(frozen=True)
class Status:
    state: State
    detail: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)  # metrics if done, failure if failed, else progress
    log: Path | None = None  # of what failed or was lost
    used_s: float = 0.0  # seconds of training so far, over all segments

    @property
    def text(self) -> str:
        """`interrupted at step 40`."""
        between = ", " if self.detail.startswith("cancelled") else " "
        return between.join(filter(None, [self.state, self.detail]))


def status_of(folder: Path, queue: Queue = EMPTY) -> Status:
    """State of the run in `folder`."""
    metrics = read_json(folder / METRICS)
    if metrics is not None and why_unusable(metrics, folder.name) is None:
        return Status(State.DONE, f"top-1 {100 * metrics['top1']:.2f} %", metrics, used_s=metrics.get("time_s") or 0.0)
    return _Unfinished(folder, queue).status()


def statuses(study_folder: Path, runs: Iterable[Run], queue: Queue = EMPTY) -> dict[str, Status]:
    return {run_id: status_of(study_folder / run_id, queue) for run_id in (run.run_id for run in runs)}


def summary(found: Mapping[str, Status]) -> str:
    """`12 done, 1 failed, 3 not started`."""
    counts = Counter(status.state for status in found.values())
    return ", ".join(f"{counts[state]} {state}" for state in State if counts[state])


class _Unfinished:
    """The files and the jobs of a run without usable metrics, and what they say together."""

    def __init__(self, folder: Path, queue: Queue) -> None:
        self.folder, self.queue = folder, queue
        try:
            self.names = frozenset(os.listdir(folder))  # noqa: PTH208 (one look; Path.iterdir takes thrice the time)
        except (FileNotFoundError, NotADirectoryError):
            self.names = frozenset()
        self.progress = self._read(PROGRESS)
        self.segments: Sequence[Mapping[str, Any]] = self._read(PROVENANCE).get("segments", ())
        self.job, self.past = queue.jobs.get(folder.name), queue.past.get(folder.name)

    def status(self) -> Status:
        held, failure, job = self._read(LEASE), self._read(FAILURE), self.job
        if not expired(self.folder, held):
            return self._told(State.RUNNING, _pace(self.progress) if self.progress else "starting")
        if job is not None and job.state in AT_WORK and not failure:
            return self._told(State.RUNNING, f"{self._silence(held, job)}, job {job.job_id}")
        if job is not None and job.state not in AT_WORK and not (failure and job.state == UNKNOWN):
            return self._waiting(job)
        if failure:
            last_line = (str(failure.get("error", "")).splitlines() or [""])[-1]
            return Status(State.FAILED, last_line, failure, self._log(), self._used_s())
        saved = bool({CHECKPOINT, PREVIOUS_CHECKPOINT} & self.names)
        if self.folder.name in self.queue.cancelled:
            state, at = (State.INTERRUPTED, self._at) if saved else (State.MISSING, "")
            return self._told(state, f"cancelled {at}".rstrip())
        if self.past is not None and self._left_alone():
            said = f"{self.past.state} without a result" if self.past.state else "no result"
            return self._told(State.LOST, _listed(said, self._at, f"job {self.past.job_id}"), self._log())
        return self._told(State.INTERRUPTED, self._at) if saved else self._told(State.MISSING, "")

    def _told(self, state: State, detail: str, log: Path | None = None) -> Status:
        return Status(state, detail, self.progress, log, self._used_s())

    def _read(self, name: str) -> dict[str, Any]:
        return (read_json(self.folder / name) if name in self.names else None) or {}

    def _waiting(self, job: Job) -> Status:
        if job.state == UNKNOWN:
            return self._told(State.QUEUED, f"job {job.job_id} when last asked; Slurm does not answer")
        if (error := self.queue.held.get(self.folder.name)) is not None:
            return self._told(State.QUEUED, f"held: the first runs failed alike: {error}; job {job.job_id}")
        reason = plain(job.reason) if job.state == "PENDING" else job.state.lower()
        same_job = (
            bool(self.segments) and self.segments[-1].get("slurm_job") == job.job_id
        )  # else it was launched again
        preempted = same_job and not self._failed_last()
        detail = _listed(self._at, reason, f"job {job.job_id}")
        return self._told(State.PREEMPTED if preempted else State.QUEUED, detail)

    def _silence(self, held: Mapping[str, Any], job: Job) -> str:
        """Why a run that Slurm has at work has no live lease."""
        if job.state != "RUNNING":
            return "ending"
        if not held or held.get("released"):
            return "starting"
        try:
            silent_s = now(self.folder) - (self.folder / LEASE).stat().st_mtime
        except FileNotFoundError:
            return "starting"
        return "starting" if silent_s <= TTL_S else f"no heartbeat for {duration(silent_s)}"

    def _by_slurm(self) -> bool:
        return bool(self.segments) and self.segments[-1].get("slurm_job") is not None

    def _failed_last(self) -> bool:
        return bool(self.segments) and str(self.segments[-1].get("why")).startswith("failed")

    def _left_alone(self) -> bool:
        """Whether the job that is gone was the last to work on the run, and did not end it by an error."""
        return not self.segments or (self._by_slurm() and not self._failed_last())

    @property
    def _at(self) -> str:
        """`at step 40 of 100` by the newest saved state; the heartbeat may be a second behind or ahead of it."""
        if not self.segments:
            return ""
        of = f" of {self.progress['steps']}" if "steps" in self.progress else ""
        return f"at step {self.segments[-1]['last_step']}{of}"

    def _log(self) -> Path | None:
        """Of the newest attempt: its own, if it wrote one after its other files, or that of its job."""
        own = self.folder / LOCAL_LOG if LOCAL_LOG in self.names else None
        job = next((job.log for job in (self.job, self.past) if job is not None and job.log.exists()), None)
        if own is None or job is None:
            return own or job
        others = [self.folder / name for name in (FAILURE, PROVENANCE) if name in self.names]
        return own if all(own.stat().st_mtime >= path.stat().st_mtime for path in others) else job

    def _used_s(self) -> float:
        """Seconds over all segments; the open one counts to its last heartbeat."""
        ends = [segment["end"] for segment in self.segments]
        if ends and ends[-1] is None:
            ends[-1] = self.progress.get("updated")
        spans = [_span_s(segment["start"], end) for segment, end in zip(self.segments, ends, strict=True) if end]
        return sum(max(0.0, span) for span in spans)  # below 0: a heartbeat of the segment before


def _listed(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _span_s(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


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


# ---- Slurm's words -----------------------------------------------------------------------------

UNKNOWN = "UNKNOWN"  # ours, for a job whose cluster does not answer
AT_WORK = ("RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT")


def plain(reason: str) -> str:
    """What a waiting job waits for, with Slurm's own word; that alone where it is an unusual one."""
    known = next((text for word, text in REASONS.items() if reason.startswith(word)), None)
    return f"{known} ({reason})" if known else reason


REASONS = {  # by how the word begins; the longer of two such words first
    "None": "not looked at yet",
    "Resources": "waits for free resources",
    "Priority": "behind jobs of higher priority",
    "BeginTime": "requeued, waits for its time",
    "JobArrayTaskLimit": "throttled: as many of its array run as may",
    "DependencyNeverSatisfied": "what it depends on has failed",
    "Dependency": "waits for another job",
    "PartitionNodeLimit": "asks for more nodes than its partition has",
    "PartitionTimeLimit": "asks for more time than its partition gives",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition is inactive",
    "ReqNodeNotAvail": "a node that it needs is not available",
    "NodeDown": "a node that it needs is down",
    "Reservation": "waits for its reservation",
    "QOSMax": "a limit of its quality of service is reached",
    "QOSGrp": "a limit of its quality of service is reached",
    "AssocMax": "a limit of the account is reached",
    "AssocGrp": "a limit of the account is reached",
    "JobHeldUser": "held by its user",
    "JobHeldAdmin": "held by an administrator",
    "launch failed requeued held": "could not be started and is held",
    "job requeued in held state": "could not be started and is held",
    "Licenses": "waits for a license",
}
