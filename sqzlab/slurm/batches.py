"""What was submitted: one folder for each array of jobs, written before Slurm is asked.

    <study>/slurm/<batch>/batch.json      which run each task of the array trains, or compiles for: the intent
                          job_id          the array's id, once Slurm has said it
                          cancelled.json  runs that `--cancel` took back: no job brings them to life again
                          held.json       why the first failed runs hold the rest

A job of Slurm carries its batch in its name. So whatever was killed when, and whatever ids a restarted controller gives
out twice, the queue's own answer says which run a job trains; the id is kept only to look back.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqzlab.errors import UnavailableError
from sqzlab.runs.files import read_json, write_json, write_whole

FOLDER = "slurm"  # of a study
BATCH, JOB_ID, CANCELLED, HELD, LOCK = "batch.json", "job_id", "cancelled.json", "held.json", "lock"
WRITTEN = ("job_name", "created", "launch", "resource_class", "after", "runs", "graphs")
LOCK_WAIT_S = 60.0


@dataclass(frozen=True)
class Batch:
    """One array of jobs, submitted or about to be."""

    folder: Path  # <study>/slurm/<batch>
    job_name: str
    created: str
    launch: str  # the same for all arrays of one launch
    resource_class: int  # number of it in its launch; an array that is too long for the cluster is several of one class
    runs: tuple[tuple[str, ...], ...]  # by array index: the runs of that job
    after: str | None  # the batch that must have ended before this one begins
    job_id: str | None = None
    graphs: tuple[str, ...] = ()  # by array index: what it compiles, which those runs wait for; it trains none of them

    @property
    def study_folder(self) -> Path:
        return self.folder.parents[1]

    def write(self, about: dict[str, Any]) -> None:
        """Leaves the intent on the disk. `about` is for people to read."""
        values = {
            "batch": self.folder.name,
            **{key: getattr(self, key) for key in WRITTEN},
            **about,
        }
        self.folder.mkdir(parents=True)
        write_json(self.folder / BATCH, values)

    def write_job_id(self, job_id: str) -> None:
        write_whole(self.folder / JOB_ID, lambda file: file.write(job_id.encode()))

    def log(self, job_id: str, rank: int = 0) -> Path:
        """Of one task of the array; `job_id` is `12_3`."""
        return self.folder / f"{job_id}_{rank}_log.out"

    def cancelled(self) -> frozenset[str]:
        return frozenset((read_json(self.folder / CANCELLED) or {}).get("runs", ()))

    def held(self) -> str | None:
        """The error for which the rest of the array is held, or None."""
        return (read_json(self.folder / HELD) or {}).get("error")

    @classmethod
    def read(cls, folder: Path) -> Batch | None:
        """None where there is no whole intent: Slurm was not asked then."""
        values = read_json(folder / BATCH)
        if values is None:
            return None
        job_id = folder / JOB_ID
        return cls(
            folder,
            values["job_name"],
            values["created"],
            values["launch"],
            values["resource_class"],
            tuple(tuple(runs) for runs in values["runs"]),
            values["after"],
            job_id.read_text() if job_id.exists() else None,
            tuple(values.get("graphs", ())),
        )


def read_all(study_folder: Path) -> list[Batch]:
    """The oldest first, by the file system's clock: those of two hosts may be apart."""
    found = []
    for path in (study_folder / FOLDER).glob(f"*/{BATCH}"):
        with suppress(FileNotFoundError):  # Slurm has refused it, and a launch is removing it
            found.append((path.stat().st_mtime_ns, path.parent))
    return [batch for batch in (Batch.read(folder) for _, folder in sorted(found)) if batch is not None]


def newest_first(batches: Sequence[Batch]) -> Iterator[tuple[str, Batch, int]]:
    """(run id, its newest batch, index in it) for every run that was ever submitted."""
    seen = set()
    for batch in reversed([batch for batch in batches if not batch.graphs]):
        for index, run_ids in enumerate(batch.runs):
            for run_id in run_ids:
                if run_id not in seen:
                    seen.add(run_id)
                    yield run_id, batch, index


def submitted(batches: Iterable[Batch]) -> set[str]:
    """Every run that was ever submitted, or for which a job compiles."""
    return {run_id for batch in batches for run_ids in batch.runs for run_id in run_ids}


def awaited(after: str | None, batches: Mapping[str, Batch]) -> list[Batch]:
    """What ends before an array begins that comes after this one, by its folder's name.

    One that only compiles may be cancelled alone, so what it comes after is awaited, too.
    """
    found: list[Batch] = []
    while after is not None and after in batches:
        found.append(batches[after])
        after = found[-1].after if found[-1].graphs else None
    return found


def mark_cancelled(batch: Batch, run_ids: Iterable[str]) -> None:
    write_json(batch.folder / CANCELLED, {"runs": sorted(batch.cancelled().union(run_ids))})


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


@contextmanager
def locked(study_folder: Path, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """One process at a time compares and submits. Raises UnavailableError where another one does for too long."""
    folder = study_folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("ab") as file:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise UnavailableError(
                        f"{study_folder}: another launch has been submitting for {wait_s:g} s; try again later"
                    ) from None
                time.sleep(0.05)
        yield  # closing the file gives the lock back
