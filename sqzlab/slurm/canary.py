"""The first runs of an array that all fail alike hold the rest: what fails everywhere need fail only a few times."""

from __future__ import annotations

import re

from sqzlab.errors import UnavailableError
from sqzlab.run import FAILURE, METRICS
from sqzlab.runs.files import read_json, write_json
from sqzlab.slurm import client
from sqzlab.slurm.batches import BATCH, HELD, Batch, awaited, locked, read_all

FIRST = 3  # runs that must have failed alike, with none done


def after_failure(batch: Batch) -> None:
    """Called by the job whose run has just failed: nobody else is there to see it."""
    error = failed_alike(batch)
    if error is None:
        return
    try:
        with locked(batch.study_folder):
            alike = [other for other in read_all(batch.study_folder) if _together(other, batch)]
            names = {other.job_name for other in alike}
            waiting = [one for one in client.listed() if one.name in names and one.state == "PENDING"]
            for other in alike:
                write_json(other.folder / HELD, {"error": error})  # first: a killed job leaves no hold without a reason
            client.hold([one.job_id for one in waiting])  # not what runs: a healthy one may be queued again
            ids = {one.name: one.array for one in client.listed()}
            batches = {other.folder.name: other for other in read_all(batch.study_folder)}
            for behind in batches.values():
                before = {other.job_name for other in awaited(behind.after, batches)}
                if behind.job_name in ids and before & names:  # it waits for the end of what is held now
                    client.start_after(ids[behind.job_name], [ids[name] for name in before - names if name in ids])
            print(f"held {len(waiting)} waiting jobs: the first runs of their array failed alike", flush=True)
    except UnavailableError as silent:  # the next run that fails holds them
        print(f"the rest could not be held: {silent}", flush=True)


def failed_alike(batch: Batch) -> str | None:
    """The error of the batch's runs that have ended, if at least `FIRST` have, all failed and all alike."""
    run_ids = [run_id for runs in batch.runs for run_id in runs]
    if any((batch.study_folder / run_id / METRICS).exists() for run_id in run_ids):
        return None
    errors = [error for run_id in run_ids if (error := failed(batch, run_id)) is not None]
    if len(errors) < FIRST or len({_kind(error) for error in errors}) > 1:
        return None
    return errors[-1]


def failed(batch: Batch, run_id: str) -> str | None:
    """The error of a run that has failed since the batch was submitted, by the file system's clock."""
    path = batch.study_folder / run_id / FAILURE
    found = read_json(path)
    try:
        since = path.stat().st_mtime >= (batch.folder / BATCH).stat().st_mtime
    except FileNotFoundError:
        return None
    return str(found.get("error", "")) if found is not None and since else None


def _kind(error: str) -> str:
    """The error without its numbers and paths."""
    return re.sub(r"\S*/\S*|\b[0-9a-f]{8,}\b|\d+", "#", error)


def _together(other: Batch, batch: Batch) -> bool:
    """Whether what fails in one fails in the other. What only compiles is needed whatever fails."""
    return not other.graphs and (other.launch, other.resource_class) == (batch.launch, batch.resource_class)
