"""One writer for a run folder: a lease with a heartbeat and a fencing token.

The holder touches `lease.json` every few seconds. A lease may be taken over once its process is gone (same host) or
its heartbeat is older than `TTL_S`; a job that Slurm has started again takes it from its former start at once. Every
take-over raises the token, and every write checks the token under a lock: a writer that was stopped past its lease
and wakes up is told so at its next write and writes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from sqzlab.run import LEASE
from sqzlab.runs.files import read_json, write_json, write_whole

TTL_S = 60.0
LOCK = "lease.lock"
LOCK_WAIT_S = 5.0


class LeaseLostError(RuntimeError):
    """Another process has taken the run over; this one must not write any more."""


class BusyError(RuntimeError):
    """Another live process holds the run. `owner` says which."""

    def __init__(self, owner: dict[str, Any]) -> None:
        self.owner = owner
        super().__init__(f"held by process {owner.get('pid')} on {owner.get('host')}")


class Lease:
    """The right to write in one run folder."""

    def __init__(self, folder: Path, token: int, ttl_s: float = TTL_S) -> None:
        self.folder, self.token, self.ttl_s = folder, token, ttl_s

    @classmethod
    def acquire(cls, folder: Path, ttl_s: float = TTL_S) -> Lease:
        """Takes the folder, or raises BusyError where a live process holds it."""
        with _lock(folder, LOCK_WAIT_S):
            held = read_json(folder / LEASE) or {}
            if not expired(folder, held, ttl_s) and not _former_start(held):
                raise BusyError(held)
            lease = cls(folder, int(held.get("token", 0)) + 1, ttl_s)
            write_json(folder / LEASE, {"token": lease.token, **_this_process()})
            for left in folder.glob(".*.tmp"):  # of writers that were killed
                left.unlink(missing_ok=True)
        return lease

    def write(self, name: str, write: Callable[[IO[bytes]], object], *, durable: bool = True) -> None:
        """Writes the file `name` whole; the token is checked at the moment of the rename."""
        write_whole(self.folder / name, write, rename=self._rename, durable=durable)

    def write_json(self, name: str, values: Any, *, durable: bool = True) -> None:
        write_json(self.folder / name, values, rename=self._rename, durable=durable)

    def append(self, name: str, line: bytes) -> None:
        with self.held(), (self.folder / name).open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def beat(self) -> None:
        """Says that the holder lives."""
        with self.held():
            os.utime(self.folder / LEASE)

    def release(self) -> None:
        """Gives the run back; the token stays, so that the next holder's is higher."""
        with self.held():
            write_json(self.folder / LEASE, {"token": self.token, "released": True})

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds the lock with the token checked; raises LeaseLostError where it is no longer ours.

        A slow disk makes the holder wait, not fail; a lock that it does not get for `ttl_s` has cost it the lease.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(_lock(self.folder, self.ttl_s))
            except BusyError:
                raise LeaseLostError(f"{self.folder.name} was locked for {self.ttl_s:g} s by another process") from None
            if (read_json(self.folder / LEASE) or {}).get("token") != self.token:
                raise LeaseLostError(f"{self.folder.name} was taken over by another process")
            yield

    def _rename(self, aside: Path, path: Path) -> None:
        with self.held():
            aside.replace(path)


def expired(folder: Path, held: dict[str, Any], ttl_s: float = TTL_S) -> bool:
    """Whether nobody alive holds the lease that `held` describes."""
    if not held or held.get("released"):
        return True
    try:
        beaten = (folder / LEASE).stat().st_mtime
    except FileNotFoundError:
        return True
    if now(folder) - beaten > ttl_s:
        return True
    this = _this_process()
    if (held.get("host"), held.get("boot")) != (this["host"], this["boot"]):
        return False
    return _started(int(held.get("pid", 0))) != held.get("started")


def now(folder: Path) -> float:
    """The file system's own clock: that of another node may be off. The reader's clock where it cannot write."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def _this_process() -> dict[str, Any]:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "host": socket.gethostname(),
        "boot": boot.read_text().strip() if boot.exists() else "",
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        **_this_job(),
    }


def _this_job() -> dict[str, Any]:
    return {
        "slurm_cluster": os.environ.get("SLURM_CLUSTER_NAME"),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "restart": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
    }


def _former_start(held: dict[str, Any]) -> bool:
    """Whether the holder is an earlier start of the Slurm job that this process belongs to.

    Slurm has given it up, but a node whose daemon died lets it run on; the token keeps it from writing.
    """
    this = _this_job()
    same = all(held.get(key) == this[key] for key in ("slurm_cluster", "slurm_job"))
    return this["slurm_job"] is not None and same and int(held.get("restart", 0)) < int(this["restart"])


def _started(pid: int) -> str | None:
    """Start time of a process in clock ticks: a process id alone may be somebody else's by now."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _signalled(pid)
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _signalled(pid: int) -> str | None:
    """Where there is no /proc: whether the process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "running"


@contextlib.contextmanager
def _lock(folder: Path, wait_s: float) -> Iterator[None]:
    """The folder's short lock. A holder that was stopped inside it makes the run busy, never written twice."""
    with (folder / LOCK).open("ab") as file:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BusyError(read_json(folder / LEASE) or {}) from None
                time.sleep(0.01)
        yield  # closing the file gives the lock back
