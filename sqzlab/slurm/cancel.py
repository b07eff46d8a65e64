"""Takes a study's jobs back: the marker first, then scancel, until Slurm has none of them left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from sqzlab.errors import UnavailableError
from sqzlab.slurm import client
from sqzlab.slurm.batches import Batch, mark_cancelled, read_all
from sqzlab.slurm.client import Listed
from sqzlab.slurm.queue import of_study

WAIT_S = 60.0  # for jobs that save their state; Slurm itself kills them after KillWait


def cancel(study_folder: Path, run_ids: Iterable[str]) -> list[str]:
    """Cancels every job of these runs and returns the job ids; runs that share a job with one of them go too.

    The runs keep what they have saved and go on from there with the next launch. The caller holds the study's lock.
    Raises UnavailableError where Slurm does not answer, or still has one of the jobs after `WAIT_S` seconds.
    """
    wanted = set(run_ids)
    cancelled: list[str] = []
    deadline = time.monotonic() + WAIT_S
    while True:
        listed = client.listed()
        jobs = of_study(read_all(study_folder), listed)
        pairs = [(batch, one) for batch, one in jobs if _goes(batch, batch.runs[one.index], wanted)]
        if not pairs:
            return cancelled
        alive = [one for _, one in pairs if one.state != "COMPLETING"]
        if time.monotonic() > deadline:
            if not alive:
                return cancelled
            ids = ", ".join(sorted(one.job_id for one in alive))
            raise UnavailableError(f"Slurm still has jobs {ids} after scancel; see squeue")
        for batch in {batch.folder: batch for batch, _ in pairs}.values():
            theirs = {run_id for b, one in pairs if b is batch for run_id in b.runs[one.index]}
            if not theirs <= batch.cancelled():
                mark_cancelled(batch, theirs)
        client.cancel(_shortest(alive, listed))
        cancelled += [one.job_id for _, one in pairs if one.job_id not in cancelled]
        time.sleep(1.0)


def _goes(batch: Batch, run_ids: tuple[str, ...], wanted: set[str]) -> bool:
    """Whether a job for these runs is to go; one that only compiles for them stays while one of them does."""
    return wanted.issuperset(run_ids) if batch.graphs else not wanted.isdisjoint(run_ids)


def _shortest(jobs: list[Listed], listed: list[Listed]) -> list[str]:
    """One id for an array all of whose jobs go."""
    going, there = Counter(one.array for one in jobs), Counter(one.array for one in listed)
    return list(dict.fromkeys(one.array if going[one.array] == there[one.array] else one.job_id for one in jobs))
