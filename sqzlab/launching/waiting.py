"""Looks at a run that was sent to Slurm until it has got where it should, and tells why it does not get there."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from sqzlab.launching.status import UNKNOWN, State, Status, duration, plain, status_of
from sqzlab.run import PROVENANCE, Run
from sqzlab.runs.files import read_json
from sqzlab.slurm import queue
from sqzlab.slurm.queue import Job
from sqzlab.slurm.throttle import WAITING

POLL_S = 3.0
AT_WORK_S = 1200.0  # for a job at work to do what is waited for
LATE_S = 60.0  # what a job wrote before its end may come into sight only now
QUEUED, AT_WORK, GONE = "queued", "at work", "gone"  # where a job is
SLURM_ITSELF = ("srun: ", "slurmstepd: ")


class StoppedError(Exception):
    """What was waited for will not come; `what` is its name."""

    def __init__(self, what: str, said: str) -> None:
        self.what = what
        super().__init__(said)


@dataclass(frozen=True)
class Look:
    """A run as its files and the queue show it now."""

    status: Status
    job: Job | None  # that Slurm has
    segments: Sequence[Mapping[str, Any]]

    @property
    def place(self) -> str:
        if self.job is None:
            return AT_WORK if self.status.state is State.RUNNING else GONE
        return QUEUED if self.job.state in (*WAITING, UNKNOWN) else AT_WORK

    @property
    def trains(self) -> bool:
        """Whether its first words have been seen."""
        return bool(self.status.values) and bool(self.segments)

    @property
    def saved(self) -> Mapping[str, Any] | None:
        """The segment that a signal ended."""
        return next((one for one in self.segments if str(one["why"]).startswith("interrupted")), None)

    @property
    def reason(self) -> str:
        """What is new in a log: not how far a run is."""
        return f"{self.status.state} {self.job.state} {self.job.reason}" if self.job is not None else self.status.state


@dataclass(frozen=True)
class Sent:
    """A run that was submitted."""

    study_folder: Path
    run: Run

    @property
    def folder(self) -> Path:
        return self.study_folder / self.run.run_id

    def look(self) -> Look:
        jobs = queue.read(self.study_folder)
        segments = self.provenance().get("segments", ())
        return Look(status_of(self.folder, jobs), jobs.jobs.get(self.run.run_id), segments)

    def provenance(self) -> dict[str, Any]:
        return read_json(self.folder / PROVENANCE) or {}


def wait(console: Console, what: str, sent: Sent, reached: Callable[[Look], bool], patience_s: float) -> Look:
    """Looks until it is reached. Raises StoppedError where that is in vain, after `patience_s` in the queue at most.

    A terminal shows what is going on, a log gets a line for each change and each minute.
    """
    spent_s = dict.fromkeys((QUEUED, AT_WORK, GONE), 0.0)
    live = console.is_terminal and not console.is_dumb_terminal
    spinner, said = console.status("") if live else None, ""
    with spinner or nullcontext():
        began = time.monotonic()
        while not reached(look := sent.look()):
            if (reason := _why_in_vain(look, sent, spent_s, patience_s)) is not None:
                raise StoppedError(what, reason)
            doing, so_far_s = f"waiting for {what}: {look.status.text}", sum(spent_s.values())
            now = f"{look.reason} {so_far_s // 60}"
            if spinner is not None:
                spinner.update(escape(f"{doing} ({duration(so_far_s)})"))
            elif said != now:
                tell(console, "", "default", doing)
            said = now
            time.sleep(POLL_S)
            began, before = time.monotonic(), began
            spent_s[look.place] += began - before
    return look


def tell(console: Console, word: str, colour: str, text: str) -> None:
    """A line, or more with a hanging indent, that begins with the word."""
    label = f"{word:<13}  "
    width = max(60, console.width) - len(label)
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    said = Text(label, style=colour).append(f"\n{'':<{len(label)}}".join(lines), style="default")
    console.print(said, soft_wrap=True)


def _why_in_vain(look: Look, sent: Sent, spent_s: Mapping[str, float], patience_s: float) -> str | None:
    if look.status.state is State.FAILED:
        return f"the run failed on the node: {look.status.detail}; log: {look.status.log}"
    if look.place == GONE and spent_s[GONE] >= LATE_S:
        return _why_gone(look, sent)
    if look.place == QUEUED and spent_s[QUEUED] >= patience_s:
        reason = plain(look.job.reason) if look.job is not None else look.status.text
        told = f"no start within {duration(patience_s)}: {reason}; the jobs are cancelled"
        return f"{told}; --slurm partition=NAME asks another partition (sinfo lists them)"
    if look.place == AT_WORK and spent_s[AT_WORK] >= AT_WORK_S:
        return f"not within {duration(AT_WORK_S)}; the run is {look.status.text}"
    return None


def _why_gone(look: Look, sent: Sent) -> str:
    log = look.status.log
    if log is not None and log.exists():
        lines = [line for line in log.read_text(errors="replace").splitlines() if not line.startswith(SLURM_ITSELF)]
        return f"the job has ended without a result; log: {log}, which ends with {(lines or [''])[-1]!r}"
    told = f"the run is {look.status.text}, and its job has left nothing in {sent.study_folder}"
    return f"{told}; do the nodes see that folder? --results DIR names another one"
