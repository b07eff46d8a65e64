"""What Slurm has of a study now, by run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqzlab.run import METRICS
from sqzlab.slurm import client
from sqzlab.slurm.batches import JOB_ID, Batch, newest_first, read_all, submitted
from sqzlab.slurm.client import Listed, SilentError


@dataclass(frozen=True)
class Job:
    """A job of Slurm. `state` and `reason` are Slurm's words; "" where it has none."""

    job_id: str  # `12_3`
    state: str
    reason: str
    log: Path


@dataclass(frozen=True)
class Queue:
    """The jobs of one study."""

    jobs: Mapping[str, Job]  # run id: its job that waits, runs or ends now
    past: Mapping[str, Job]  # run id: its newest job that Slurm no longer has
    held: Mapping[str, str]  # run id: the error for which the first failed runs hold its job
    cancelled: frozenset[str]  # runs whose newest job was cancelled by `--cancel`
    silent: str | None  # why Slurm does not answer; then `jobs` is what was last known, with the state UNKNOWN
    compiling: frozenset[str] = frozenset()  # graphs that jobs compile, or will, before the runs that share them begin
    not_started: tuple[str, ...] = ()  # jobs that Slurm holds because a node could not start them


EMPTY = Queue({}, {}, {}, frozenset(), None)
NOT_STARTED = "launch failed requeued held"  # Slurm's words for a job that it never starts again by itself
HELD = (NOT_STARTED, "JobHeld")


def read(study_folder: Path) -> Queue:
    """Asks Slurm once, and only if something was ever submitted from this folder and is not done."""
    batches = read_all(study_folder)
    newest = {run_id: (batch, index) for run_id, batch, index in newest_first(batches)}
    unfinished = {run_id for run_id in submitted(batches) if not (study_folder / run_id / METRICS).exists()}
    if not unfinished:
        return EMPTY
    cancelled = {run_id for run_id, (batch, _) in newest.items() if run_id in batch.cancelled()}
    queue = replace(EMPTY, cancelled=frozenset(cancelled))
    if shutil.which("squeue") is None:
        return replace(queue, silent="squeue is not installed here", jobs=_last_known(newest, cancelled))
    try:
        listed = client.listed()
    except SilentError as error:
        return replace(queue, silent=f"squeue: {error}", jobs=_last_known(newest, cancelled))
    jobs: dict[str, Job] = {}
    held: dict[str, str] = {}
    ours = of_study(batches, listed)
    for batch, one in ours:
        if batch.graphs:
            continue
        log, why_held = batch.log(one.job_id), batch.held()
        for run_id in batch.runs[one.index]:
            jobs[run_id] = Job(one.job_id, one.state, one.reason, log)
            if why_held is not None and one.state == "PENDING" and one.reason.startswith("JobHeld"):
                held[run_id] = why_held
    past = _past({run_id: newest[run_id] for run_id in newest if run_id in unfinished and run_id not in jobs})
    return replace(
        queue,
        jobs=jobs,
        past=past,
        held=held,
        cancelled=queue.cancelled - jobs.keys(),
        compiling=frozenset(graph for graph, _ in _compilations(ours)),
        not_started=tuple(one.job_id for _, one in ours if one.reason.startswith(NOT_STARTED)),
    )


def of_study(batches: Sequence[Batch], listed: Sequence[Listed]) -> list[tuple[Batch, Listed]]:
    """This study's jobs among all listed ones, known by their names alone, those of older batches first."""
    named = {batch.job_name: number for number, batch in enumerate(batches)}
    found = sorted((named[one.name], number) for number, one in enumerate(listed) if one.name in named)
    pairs = [(batches[at], listed[number]) for at, number in found]
    return [(batch, one) for batch, one in pairs if one.index < len(batch.runs)]


def compiled_by(jobs: Sequence[tuple[Batch, Listed]]) -> dict[str, str]:
    """By graph the array that compiles it now or will, unless it is held: nobody knows for how long."""
    return {graph: one.array for graph, one in _compilations(jobs) if not one.reason.startswith(HELD)}


def _compilations(jobs: Sequence[tuple[Batch, Listed]]) -> Iterator[tuple[str, Listed]]:
    return ((batch.graphs[one.index], one) for batch, one in jobs if batch.graphs and one.state != "COMPLETING")


def adopt(study_folder: Path) -> None:
    """Writes down the ids of arrays whose launch was killed before it could. The caller holds the study's lock."""
    batches = read_all(study_folder)
    if any(batch.job_id is None for batch in batches):
        for batch, one in of_study(batches, client.listed()):
            if not (batch.folder / JOB_ID).exists():
                batch.write_job_id(one.array)


def _last_known(newest: Mapping[str, tuple[Batch, int]], cancelled: set[str]) -> dict[str, Job]:
    """Also what a killed launch may have submitted: only Slurm's answer could tell."""
    ids = {run_id: f"{batch.job_id or '?'}_{index}" for run_id, (batch, index) in newest.items()}
    return {
        run_id: Job(job_id, "UNKNOWN", "", newest[run_id][0].log(job_id))
        for run_id, job_id in ids.items()
        if run_id not in cancelled
    }


def _past(gone: Mapping[str, tuple[Batch, int]]) -> dict[str, Job]:
    """A run whose batch never learned its id was never accepted by Slurm, so it has no past."""
    ids = {run_id: f"{batch.job_id}_{index}" for run_id, (batch, index) in gone.items() if batch.job_id is not None}
    states = client.accounted(sorted({job_id.partition("_")[0] for job_id in ids.values()})) if ids else {}
    return {
        run_id: Job(job_id, states.get(job_id, ""), "", gone[run_id][0].log(job_id)) for run_id, job_id in ids.items()
    }
