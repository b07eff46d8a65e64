"""At most N jobs of a study at once over all of its arrays.

Slurm's own limit (`%n`) is one array's. So N is shared among the arrays, and what an array can no longer use is given
to the others by the jobs that run, every `EVERY_S` seconds, and by every launch. Arrays that find no slot begin
after another array has ended (a dependency). An array can never use more slots than it has jobs left, and that number
only falls: so handing out slots by an old answer of Slurm is safe, and the sum never exceeds N, not even for a moment.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqzlab.errors import UnavailableError
from sqzlab.runs.files import read_json, write_json
from sqzlab.runs.lease import now
from sqzlab.slurm import client
from sqzlab.slurm.batches import FOLDER, locked, read_all
from sqzlab.slurm.queue import of_study

FILE = "throttle.json"  # {"jobs": N, "slots": {batch: n}}
STAMP = "balanced"
EVERY_S = 20.0
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")


@dataclass(frozen=True)
class Array:
    """Jobs that are left of one batch and how many of them Slurm may run at once."""

    name: str
    left: int
    slots: int
    after: str | None = None  # the array that ends before this one begins
    running: int = 0

    @property
    def bound(self) -> int:
        """The most jobs of it that run at once from now on; more than its slots run where these were made fewer."""
        return max(self.running, min(self.left, self.slots))


def place(most: int, present: Sequence[Array], sizes: Sequence[int]) -> list[tuple[int, int | str | None]]:
    """Slots of each new array of so many jobs, and what it comes after: None, a present array or a new one's number.

    At most `most` jobs of all arrays run at once.
    """
    free = most - sum(_bounds(present).values())
    if free >= len(sizes):
        return [(slots, None) for slots in _shared(free, sizes)]
    roots: list[tuple[int | str, int]] = [(number, 1) for number in range(max(0, free))]
    placed: list[tuple[int, int | str | None]] = [(1, None) for _ in roots]
    ends = roots or [(tail, bound) for tail, bound in _tails(present)]
    for number in range(len(placed), len(sizes)):
        parent, bound = ends.pop(0)
        placed.append((bound, parent))
        ends.append((number, bound))
    return placed


def share_out(most: int, arrays: Sequence[Array]) -> dict[str, int]:
    """New numbers of slots for arrays that can use more, from what the others can no longer use."""
    bounds = _bounds(arrays)
    free = most - sum(bounds.values())
    present = {array.name for array in arrays if array.left}
    able = [array for array in arrays if array.left > array.slots and array.after not in present]
    slots = {array.name: array.slots for array in able}
    while free > 0 and able:
        for array in able[:free]:
            slots[array.name] += 1
        free -= min(free, len(able))
        able = [array for array in able if slots[array.name] < array.left]
    return {array.name: slots[array.name] for array in arrays if slots.get(array.name, array.slots) != array.slots}


def restrict(most: int, arrays: Sequence[Array]) -> dict[str, int]:
    """Fewer slots for arrays that together have more than `most`. Each keeps one: Slurm's 0 is no limit."""
    chains = _chains(arrays)
    if sum(_bounds(arrays).values()) <= most:
        return {}
    shares = _shared(max(most, len(chains)), [max(array.left for array in chain) for chain in chains])
    pairs = [(array, share) for chain, share in zip(chains, shares, strict=True) for array in chain]
    return {array.name: share for array, share in pairs if share < array.slots}


def _shared(slots: int, sizes: Sequence[int]) -> list[int]:
    """At least one each, the rest one by one to whoever has the most jobs for a slot; none gets more than it has."""
    shares = [1] * len(sizes)
    for _ in range(min(slots, sum(sizes)) - len(sizes)):
        open_ = [number for number, size in enumerate(sizes) if shares[number] < size]
        shares[max(open_, key=lambda number: sizes[number] / shares[number])] += 1
    return shares


def _chains(arrays: Sequence[Array]) -> list[list[Array]]:
    """Arrays that come one after another, each list in that order; an array whose forerunner has ended is a first."""
    present = {array.name: array for array in arrays if array.left}
    chains = {name: [array] for name, array in present.items() if array.after not in present}
    waiting = [array for array in present.values() if array.after in present]
    while waiting:
        for array in list(waiting):
            root = next((name for name, chain in chains.items() if any(a.name == array.after for a in chain)), None)
            if root is not None:
                chains[root].append(array)
                waiting.remove(array)
    return list(chains.values())


def _bounds(arrays: Sequence[Array]) -> dict[str, int]:
    """By the first of each chain: its members run one after another, so the widest one counts."""
    return {chain[0].name: max(array.bound for array in chain) for chain in _chains(arrays)}


def _tails(arrays: Sequence[Array]) -> list[tuple[str, int]]:
    """The last array of each chain and the chain's slots."""
    return [(chain[-1].name, max(array.bound for array in chain)) for chain in _chains(arrays)]


# ---- with Slurm --------------------------------------------------------------------------------


def arrays_now(study_folder: Path) -> tuple[list[Array], dict[str, str]]:
    """The study's arrays that have jobs left, and each one's array id. Raises SilentError."""
    slots = (read_json(study_folder / FOLDER / FILE) or {}).get("slots", {})
    batches = read_all(study_folder)
    left: Counter[str] = Counter()
    running: Counter[str] = Counter()
    ids: dict[str, str] = {}
    held = {batch.folder.name for batch in batches if batch.held() is not None}
    for batch, one in of_study(batches, client.listed()):
        name = batch.folder.name
        if name in held and one.state == "PENDING" and one.reason.startswith("JobHeld"):
            continue  # it takes no slot until it is tried again, as a job of a new array
        left[name] += 1
        running[name] += one.state not in WAITING
        ids[name] = one.array
    arrays = []
    for batch in batches:
        name = batch.folder.name
        if left[name]:
            arrays.append(Array(name, left[name], slots.get(name, len(batch.runs)), batch.after, running[name]))
    return arrays, ids


def limit(study_folder: Path) -> int | None:
    """The N of the last launch that gave one, or None."""
    return (read_json(study_folder / FOLDER / FILE) or {}).get("jobs")


def limit_now(study_folder: Path, asked: int | None, present: bool) -> int | None:
    """The N that holds from now on: the asked one, put into force for what is queued, or the former one while jobs are.

    The caller holds the study's lock. Raises SilentError.
    """
    most = asked if asked is not None else limit(study_folder) if present else None
    if most is None:
        (study_folder / FOLDER / FILE).unlink(missing_ok=True)
    elif present and asked is not None:
        for change in (restrict, share_out):  # first what shrinks; what may grow is known only then
            arrays, ids = arrays_now(study_folder)
            apply(study_folder, most, arrays, ids, change(most, arrays))
    return most


def store(study_folder: Path, most: int | None, slots: Mapping[str, int]) -> None:
    write_json(study_folder / FOLDER / FILE, {"jobs": most, "slots": dict(slots)})


def apply(
    study_folder: Path, most: int, arrays: Sequence[Array], ids: Mapping[str, str], new: Mapping[str, int]
) -> None:
    """Tells Slurm the new numbers of slots. Killed in between, the file names too many rather than too few."""
    slots = {array.name: array.slots for array in arrays}
    for name, wanted in new.items():
        store(study_folder, most, {**slots, name: max(wanted, slots[name])})
        client.throttle(ids[name], wanted)
        slots[name] = wanted
    store(study_folder, most, slots)


class Balancing:
    """A thread of a running job that passes on slots which an array can no longer use."""

    def __init__(self, study_folder: Path) -> None:
        self.study_folder = study_folder
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._balance, daemon=True)

    def __enter__(self) -> Balancing:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join(timeout=1.0)  # it may be waiting for Slurm: the job does not

    def _balance(self) -> None:
        while not self.ended.wait(EVERY_S):
            try:
                balance(self.study_folder)
            except (UnavailableError, OSError) as error:  # the next turn may do better; the run goes on anyway
                print(f"slots were not shared out: {error}", flush=True)


def balance(study_folder: Path) -> None:
    """Shares out what is free, once in `EVERY_S` seconds whoever asks. Raises UnavailableError."""
    folder = study_folder / FOLDER
    most = limit(study_folder)
    stamp = folder / STAMP
    if most is None or (stamp.exists() and now(folder) - stamp.stat().st_mtime < EVERY_S / 2):
        return
    stamp.touch()
    with locked(study_folder):
        arrays, ids = arrays_now(study_folder)
        if new := share_out(most, arrays):
            apply(study_folder, most, arrays, ids, new)
