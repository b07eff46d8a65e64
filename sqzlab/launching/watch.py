"""What a person sees of the states of a study: once (`--status`), or until nothing is under way (`--watch`)."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sqzlab.launching.display import say
from sqzlab.launching.estimate import figure, fraction_done, unit, used_hours
from sqzlab.launching.status import COLOURS, UNDER_WAY, State, Status, duration, status_of, summary
from sqzlab.run import Run
from sqzlab.slurm.queue import EMPTY, Queue
from sqzlab.study.slurm import Slurm

MOST_ROWS = 200
MOST_LOGS = 20
LINE_EVERY_S = 30.0
BAD = (State.FAILED, State.LOST)
FIRST = (*BAD, State.RUNNING, State.PREEMPTED, State.INTERRUPTED, State.QUEUED, State.MISSING, State.DONE)


Resources = Callable[[Run], Slurm] | None
"""`Study.resources`, where the hours of runs that share a job are to be shared too."""


# ---- once --------------------------------------------------------------------------------------


def show(
    console: Console,
    study_folder: Path,
    runs: Sequence[Run],
    found: Mapping[str, Status],
    queue: Queue = EMPTY,
    resources: Resources = None,
) -> None:
    """Every run's state, how many there are of each, and what they took."""
    console.print(status_table(found))
    say(console, f"{study_folder}: {summary(found)}")
    for line in sums(runs, found, queue, resources):
        say(console, line)


def status_table(found: Mapping[str, Status], most: int = MOST_ROWS) -> Table:
    """A row a run, in the plan's order; of more than `most` runs those first that want to be looked at."""
    return _table(_picked(found, most), len(found), overflow="fold")


def sums(
    runs: Sequence[Run], found: Mapping[str, Status], queue: Queue = EMPTY, resources: Resources = None
) -> list[str]:
    """Lines below the table: hours used, time left, logs of what failed or was lost, and that Slurm is silent."""
    logs = [f"log of {run_id}: {status.log}" for run_id, status in found.items() if status.log and status.state in BAD]
    more = [f"... and {len(logs) - MOST_LOGS:,} more logs"] if len(logs) > MOST_LOGS else []
    return [_pace(runs, found, resources), *_compiling(queue), *logs[:MOST_LOGS], *more, *_silence(queue)]


def _compiling(queue: Queue) -> list[str]:
    if not (count := len(queue.compiling)):
        return []
    return [f"{count} graph{'s are' if count > 1 else ' is'} compiled first; the runs that share them wait for it"]


def _silence(queue: Queue) -> list[str]:
    return [] if queue.silent is None else [f"Slurm does not answer ({queue.silent}): what is queued is as last known"]


def left_s(runs: Iterable[Run], found: Mapping[str, Status]) -> float | None:
    """Seconds until all that can still run is done, with as many runs at a time as now; None where nobody can say.

    From the runs' own pace, and for those that wait from how long others of their backbone take.
    """
    running = [status for status in found.values() if status.state is State.RUNNING]
    took: dict[str, list[float]] = defaultdict(list)
    rest: list[tuple[str, Status]] = []  # of those without a pace of their own
    paces: list[float] = []
    for run in runs:
        if (status := found[run.run_id]).state is State.FAILED:
            continue
        backbone, eta_s = run.config.model.backbone, status.values.get("eta_s")
        if status.state is State.DONE:
            took[backbone].append(status.used_s)
        elif status.state is State.RUNNING and eta_s is not None:
            took[backbone].append(status.used_s + eta_s)
            paces.append(eta_s)
        else:
            rest.append((backbone, status))
    every = [seconds for times in took.values() for seconds in times]
    if not running or not every:
        return None
    for backbone, status in rest:
        times = took.get(backbone, every)
        paces.append((1 - fraction_done(status)) * sum(times) / len(times))
    return max(sum(paces) / len(running), *paces)


def _pace(runs: Sequence[Run], found: Mapping[str, Status], resources: Resources) -> str:
    text = f"{figure(used_hours(runs, found, resources))} {unit(runs)} used"
    if (seconds := left_s(runs, found)) is not None:
        running = sum(status.state is State.RUNNING for status in found.values())
        text += f", about {duration(seconds)} left with {running} at a time"
    return text


def _picked(found: Mapping[str, Status], most: int) -> list[tuple[str, Status]]:
    """What is bad takes half of the rows at most, so that what runs is seen beside it."""
    rows = list(found.items())
    if len(rows) <= most:
        return rows
    rows.sort(key=lambda row: FIRST.index(row[1].state))
    bad = sum(status.state in BAD for _, status in rows)
    cut = max(0, min(bad - most // 2, len(rows) - most))
    return (rows[: bad - cut] + rows[bad:])[:most]


def _table(rows: Sequence[tuple[str, Status]], total: int, overflow: Literal["fold", "ellipsis"]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("run", no_wrap=True)
    table.add_column("state", overflow=overflow, no_wrap=overflow == "ellipsis")
    for run_id, status in rows:
        text = Text(status.text)
        text.stylize(COLOURS[status.state], 0, len(status.state))
        table.add_row(Text(run_id), text)
    if len(rows) < total:
        table.add_row(f"... and {total - len(rows):,} more", "")
    return table


# ---- all the time ------------------------------------------------------------------------------


def watch(
    study_folder: Path,
    runs: Sequence[Run],
    read_queue: Callable[[], Queue],
    console: Console,
    every_s: float = 2.0,
    ask_every_s: float = 20.0,
    resources: Resources = None,
) -> int:
    """Shows the runs until none is running, preempted or queued (unless held); returns 1 if one failed or was lost.

    Live on a terminal; in a log a line for every change of a state and a sum each half a minute. The files are read
    every `every_s`, Slurm is asked every `ask_every_s`. Ctrl-C leaves the terminal clean and is the caller's.
    """
    run_ids = [run.run_id for run in runs]
    done: dict[str, Status] = {}  # it stays so
    asked_at, queue = float("-inf"), EMPTY
    seen = _Screen if console.is_terminal and not console.is_dumb_terminal else _Log
    with seen(console, runs, resources) as shown:
        while True:
            if fresh := time.monotonic() - asked_at >= ask_every_s:
                queue, asked_at = read_queue(), time.monotonic()
            found = {run_id: done.get(run_id) or status_of(study_folder / run_id, queue) for run_id in run_ids}
            done |= {run_id: status for run_id, status in found.items() if status.state is State.DONE}
            shown.update(found, queue)
            ended = all(status.state in (State.DONE, State.FAILED) for status in found.values())
            # what Slurm said before may not know of a job that has begun since
            moving = [run_id for run_id, status in found.items() if status.state in UNDER_WAY]
            if ended or (fresh and queue.held.keys() >= set(moving)):
                break
            time.sleep(every_s)
    for line in [f"{study_folder}: {summary(found)}", *sums(runs, found, queue, resources)]:
        say(console, line)
    return int(any(status.state in BAD for status in found.values()))


class _Screen:
    """A table that fits the terminal."""

    def __init__(self, console: Console, runs: Sequence[Run], resources: Resources) -> None:
        self.console, self.runs, self.resources = console, runs, resources
        self.live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> _Screen:
        self.live.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.live.stop()

    def update(self, found: Mapping[str, Status], queue: Queue) -> None:
        told = [summary(found), _pace(self.runs, found, self.resources), *_compiling(queue), *_silence(queue)]
        lines = [Text(line, no_wrap=True, overflow="ellipsis") for line in told]
        room = max(1, self.console.height - len(lines) - 3)  # header, "... more" and the cursor's line
        running = {
            run_id: status for run_id, status in found.items() if status.state not in (State.DONE, State.MISSING)
        }
        self.live.update(Group(_table(_picked(running, room), len(running), "ellipsis"), *lines), refresh=True)


class _Log:
    """Lines for a file."""

    def __init__(self, console: Console, runs: Sequence[Run], resources: Resources) -> None:
        self.console, self.runs, self.resources = console, runs, resources
        self.before: dict[str, State] = {}
        self.said_at = float("-inf")

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        pass

    def update(self, found: Mapping[str, Status], queue: Queue) -> None:
        for run_id, status in found.items():
            if self.before.get(run_id, status.state) is not status.state:
                log = f"; log: {status.log}" if status.log and status.state in BAD else ""
                say(self.console, f"{run_id}: {status.text}{log}")
        self.before = {run_id: status.state for run_id, status in found.items()}
        if time.monotonic() - self.said_at > LINE_EVERY_S:
            silent = "; Slurm does not answer" if queue.silent is not None else ""
            say(self.console, f"{summary(found)}; {_pace(self.runs, found, self.resources)}{silent}")
            self.said_at = time.monotonic()
