"""How the processes of one job on one node find each other: through a store, a file in the temporary folder.

The one of rank 0 makes the store under a new name and puts up a sign to it: a file under a name that all know, in
which the store's name stands, and which it keeps locked until all have come. A sign that nobody has locked is what a
killed start left behind.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from torch.distributed import FileStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import Store

from sqzlab.errors import UnavailableError

POLL_S = 0.02


class LeftError(Exception):
    """A process was told to stop before all had come, so none goes on."""


def meet(rank: int, size: int, job: str, start: int, stopped: Callable[[], bool], patience_s: float) -> Store:
    """A store that all `size` processes share, and that only this user can read; `part` is its end.

    What other starts of the job left here goes, though one may be alive that Slurm has given up. Raises LeftError where
    one `stopped` while others were missing, UnavailableError where they did not come at all.
    """
    deadline = time.monotonic() + patience_s
    here = Path(tempfile.gettempdir()) / f"sqzlab-{os.getuid()}-{job}"
    sign = here.with_name(f"{here.name}.{start}")
    signed = _Sign(sign, sweep=f"{here.name}.*") if rank == 0 else None
    try:
        while (store_file := signed.store_file if signed else _read(sign)) is None:
            _wait(stopped, deadline, "process 0")
        store: Store = FileStore(store_file, size)
        if store.add("come", 1) == size:
            store.compare_set("verdict", "", "go")
        while not store.check(["verdict"]):
            try:
                _wait(stopped, deadline, "the others")
            except (LeftError, UnavailableError):
                if store.compare_set("verdict", "", "left") == b"left":  # else the last has come just now
                    raise
        if store.get("verdict") == b"left":
            raise LeftError
    finally:
        if signed:
            signed.take_down()
    return store


def part(store: Store, size: int) -> None:
    """The last of the processes to do so deletes the store. After a killed one, the job's next start does."""
    if store.add("gone", 1) == size:
        Path(store.path).unlink(missing_ok=True)  # type: ignore[attr-defined]


class _Sign:
    """The locked file that says where the store is."""

    def __init__(self, path: Path, *, sweep: str) -> None:
        self.path = path
        for left in path.parent.glob(sweep):
            left.unlink(missing_ok=True)
        descriptor, self.store_file = tempfile.mkstemp(prefix=f"{path.name}-", dir=path.parent)
        os.close(descriptor)
        descriptor, aside = tempfile.mkstemp(prefix=f"{path.name}-", dir=path.parent)
        self.file = os.fdopen(descriptor, "w")
        self.file.write(self.store_file)
        self.file.flush()
        fcntl.flock(self.file, fcntl.LOCK_EX)
        Path(aside).replace(path)  # so it is never seen unlocked or half written

    def take_down(self) -> None:
        self.path.unlink(missing_ok=True)
        self.file.close()


def _read(sign: Path) -> str | None:
    """Where the store is, or None while nobody alive says so."""
    with suppress(FileNotFoundError), sign.open() as file:
        if os.fstat(file.fileno()).st_uid != os.getuid():
            raise UnavailableError(f"{sign} belongs to another user; valid: another TMPDIR")
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read()
    return None


def _wait(stopped: Callable[[], bool], deadline: float, whom: str) -> None:
    if stopped():
        raise LeftError
    if time.monotonic() > deadline:
        raise UnavailableError(f"this process of the job waited in vain for {whom}")
    time.sleep(POLL_S)
