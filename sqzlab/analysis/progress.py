"""How far a study is that has not ended: what each unfinished run has reached, told by the files in its folder."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqzlab.analysis.records import Records
from sqzlab.run import CHECKPOINT, CONFIG, EPOCHS, LEASE, PREVIOUS_CHECKPOINT, PROGRESS, PROVENANCE

SILENT_S = 60.0  # a heartbeat older than this is a dead writer's, as for the lease of a run
STATES = ("done", "in progress", "interrupted", "failed", "damaged", "not started")
BEGUN = frozenset({PROGRESS, EPOCHS, PROVENANCE, CHECKPOINT, PREVIOUS_CHECKPOINT})


@dataclass(frozen=True)
class Progress:
    """A run that has begun and has no result."""

    alive: bool  # its writer's heart beats
    epoch: int | None  # epochs that are over
    epochs: int | None  # of so many

    @property
    def state(self) -> str:
        return "in progress" if self.alive else "interrupted"

    def __str__(self) -> str:
        """ "in progress, epoch 3 of 10" or "interrupted after epoch 2 of 10"."""
        if self.epoch is None:
            return f"{self.state}, starting" if self.alive else self.state
        of = "" if self.epochs is None else f" of {self.epochs}"
        if self.alive:
            return f"in progress, epoch {self.under_way}{of}"
        return f"interrupted after epoch {self.epoch}{of}" if self.epoch else "interrupted in its first epoch"

    @property
    def under_way(self) -> int | None:
        """The epoch that is being trained, counted from 1."""
        return None if self.epoch is None else min(self.epoch + 1, self.epochs or self.epoch + 1)


def read_progress(records: Records) -> Mapping[str, Progress]:
    """The unfinished runs of the plan that have begun, by run id; a failed one only while it is tried again."""
    clock: list[float] = []  # asked once, and only where a writer may live
    found = {}
    for row in records.counted:
        run_id, state = row["run_id"], row["state"]
        if state == "done":
            continue
        folder = records.folder / run_id
        try:
            names = frozenset(os.listdir(folder))  # noqa: PTH208 (one look; Path.iterdir takes thrice the time)
        except OSError:
            continue
        alive = LEASE in names and _is_held(folder, clock)
        if alive or (state == "missing" and names & BEGUN):
            found[run_id] = Progress(alive, *_reached(folder))
    return found


def count_states(records: Records, progress: Mapping[str, Progress]) -> dict[str, int]:
    """How many of the counted runs are in which of STATES, those with any."""
    of = Counter(
        progress[row["run_id"]].state if row["run_id"] in progress else NAMES.get(row["state"], row["state"])
        for row in records.counted
    )
    return {state: of[state] for state in STATES if of[state]}


def describe_progress(records: Records, progress: Mapping[str, Progress]) -> str | None:
    """ "Still running: 5 of 16 runs done, 2 in progress (epoch 3 of 10), 9 not started"; None where all have ended."""
    counts, total = count_states(records, progress), len(records.counted)
    if not any(counts.get(state) for state in ("in progress", "interrupted", "not started")):
        return None
    parts = [f"{counts.get('done', 0):,} of {total:,} runs done"]
    for state in STATES[1:]:
        if state in counts:
            at = _span([one for one in progress.values() if one.state == state])
            parts.append(f"{counts[state]:,} {state}" + (f" ({at})" if at else ""))
    if "in progress" in counts:
        return f"Still running: {', '.join(parts)}"
    return f"Not finished, and no run is being trained: {', '.join(parts)}"


def _span(found: Sequence[Progress]) -> str:
    """ "epoch 3 of 10", "epochs 1 to 3 of 10", "after epoch 2 of 10" of ended ones, "" where nothing is known."""
    reached = [one.under_way if one.alive else one.epoch for one in found]
    known = sorted({epoch for epoch in reached if epoch})
    if not known:
        return ""
    totals = {one.epochs for one in found}
    of = f" of {totals.pop()}" if len(totals) == 1 and None not in totals else ""
    after = "" if found[0].alive else "after "
    return after + (f"epoch {known[0]}" if len(known) == 1 else f"epochs {known[0]} to {known[-1]}") + of


def _is_held(folder: Path, clock: list[float]) -> bool:
    held = read_object(folder / LEASE)
    if not held or held.get("released"):
        return False
    if not clock:
        clock.append(_now(folder.parent))
    try:
        return clock[0] - (folder / LEASE).stat().st_mtime <= SILENT_S
    except OSError:
        return False


def _now(folder: Path) -> float:
    """The file system's own clock: that of another node may be off. The reader's clock where it cannot write."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def _reached(folder: Path) -> tuple[int | None, int | None]:
    """Epochs that are over, and of how many."""
    progress = read_object(folder / PROGRESS)
    epoch, epochs = _whole(progress.get("epoch")), _whole(progress.get("epochs"))
    if epochs is None:
        train = read_object(folder / CONFIG).get("config", {})
        train = train.get("train") if isinstance(train, dict) else None
        epochs = _whole(train.get("epochs")) if isinstance(train, dict) else None
    if epoch is None:
        try:
            epoch = (folder / EPOCHS).read_bytes().count(b"\n") or None
        except OSError:
            epoch = None
    return epoch, epochs


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, {} where there is none or it is damaged."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


NAMES = {"missing": "not started"}
