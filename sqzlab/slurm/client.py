"""Slurm's commands, each with a time limit, and their answers as values. What Slurm refuses is told in its words."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqzlab.errors import UnavailableError

AT_ONCE = 500  # job ids in one command line
UNCHANGED = (": No error", "already finished", "Job/step already completing or completed")


class SilentError(UnavailableError):
    """A command of Slurm failed. `lines` is all that it said."""

    def __init__(self, said: str, lines: Sequence[str] = ()) -> None:
        super().__init__(said)
        self.lines = tuple(lines)


@dataclass(frozen=True)
class Listed:
    """A line of squeue."""

    job_id: str  # `12_3`
    state: str
    reason: str
    name: str

    @property
    def array(self) -> str:
        return self.job_id.partition("_")[0]

    @property
    def index(self) -> int:
        return int(self.job_id.partition("_")[2] or 0)


def answers() -> bool:
    """Whether a Slurm controller answers. Takes up to 9 s where one is configured but down."""
    return why_silent() is None


def require() -> None:
    """Raises UnavailableError where no controller answers."""
    if (reason := why_silent()) is not None:
        raise UnavailableError(f"no Slurm cluster: {reason}; valid here: --cluster local or --cluster inline")


def why_silent() -> str | None:
    """Why no controller answers, or None where one does."""
    conf = os.environ.get("SLURM_CONF")
    if conf and not Path(conf).exists():  # Slurm's commands look for it elsewhere, for a minute
        return f"SLURM_CONF names {conf}, which does not exist"
    try:
        said = ask("scontrol", "ping", timeout_s=30)
    except SilentError as error:
        return error.lines[0] if error.lines else str(error)  # a banner follows
    return None if " UP" in said else said.strip().partition("\n")[0] or "the controller does not answer"


def ask(*command: str, timeout_s: float = 60.0) -> str:
    """What the command prints. Raises SilentError with Slurm's last words, or why there are none."""
    if shutil.which(command[0]) is None:
        raise SilentError(f"{command[0]} is not installed")
    try:
        said = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=timeout_s, env=_environment()
        )
    except subprocess.TimeoutExpired:
        raise SilentError(f"{command[0]} does not end") from None
    if said.returncode != 0:
        lines = (said.stderr or said.stdout).strip().splitlines() or [f"exit code {said.returncode}"]
        raise SilentError(lines[-1], lines)
    return said.stdout


def _environment() -> dict[str, str]:
    """Without the user's own filters for what squeue and its like show."""
    filters = ("SQUEUE_", "SACCT_", "SCONTROL_")
    return {key: value for key, value in os.environ.items() if not key.startswith(filters)}


def listed() -> list[Listed]:
    """All jobs of this user that wait, run or end, array tasks one by one."""
    said = ask("squeue", "--noheader", "--all", "--array", "--user", str(os.getuid()), "--format", "%i|%T|%j|%r")
    lines = [line.strip().split("|", 3) for line in said.splitlines()]
    return [Listed(job_id, state, reason, name) for job_id, state, name, reason in (x for x in lines if len(x) == 4)]


def accounted(arrays: Sequence[str]) -> dict[str, str]:
    """Last state of each task of these arrays by job id, as the accounting has it; empty where there is none.

    It is 1 to 5 s behind squeue.
    """
    try:
        said = "".join(
            ask("sacct", "-XnP", "-o", "JobID,State", "-j", ",".join(some), timeout_s=20) for some in _parts(arrays)
        )
    except SilentError:
        return {}
    return dict(line.split("|", 1) for line in said.splitlines() if "|" in line)


def state_of(job_id: str) -> tuple[str, int]:
    """`RUNNING`, `COMPLETING`, ... of one job, and how often it was started again. Raises SilentError."""
    fields = _fields(ask("scontrol", "--oneliner", "show", "job", job_id))
    return fields.get("JobState", ""), int(fields.get("Restarts", "0"))


def max_array_size() -> int:
    """How many tasks one array may have (indices 0 to one less). Raises UnavailableError where arrays are off."""
    said = ask("scontrol", "show", "config")
    sizes = [line.partition("=")[2].strip() for line in said.splitlines() if line.startswith("MaxArraySize")]
    size = int(sizes[0]) if sizes else 1001
    if size < 1:
        raise UnavailableError("this cluster has job arrays switched off (MaxArraySize 0)")
    return size


def requeue(job_id: str) -> None:
    ask("scontrol", "requeue", job_id)


def hold(job_ids: Sequence[str]) -> None:
    for some in _parts(job_ids):
        _change("scontrol", "hold", *some)


def release(job_ids: Sequence[str]) -> None:
    for some in _parts(job_ids):
        _change("scontrol", "release", *some)


def throttle(array: str, most: int) -> None:
    """At most so many tasks of the array at once, from now on; 0: no limit."""
    _change("scontrol", "update", f"JobId={array}", f"ArrayTaskThrottle={most}")


def start_after(array: str, before: Sequence[str]) -> None:
    """The array waits for the end of these and for nothing else."""
    _change("scontrol", "update", f"JobId={array}", f"Dependency={after_all(before)}")


def after_all(arrays: Sequence[str]) -> str:
    """Slurm's word for a job that begins when these have ended, however they did."""
    return f"afterany:{':'.join(arrays)}" if arrays else ""


def _change(*command: str) -> None:
    """Slurm fails for an array of which one task has ended, whatever it has done with the others."""
    try:
        ask(*command)
    except SilentError as error:
        if not error.lines or not all(line.endswith(UNCHANGED) for line in error.lines):
            raise


def cancel(job_ids: Sequence[str]) -> None:
    """Whether they are gone, the queue tells: scancel itself fails where one of many has just ended."""
    for some in _parts(job_ids):
        with suppress(SilentError):
            ask("scancel", *some)


def _parts(job_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (job_ids[at : at + AT_ONCE] for at in range(0, len(job_ids), AT_ONCE))


def _fields(line: str) -> dict[str, str]:
    """`JobId=7 JobState=RUNNING` as a mapping; a value with spaces keeps its first word."""
    return {key: value for key, equals, value in (word.partition("=") for word in line.split()) if equals}
