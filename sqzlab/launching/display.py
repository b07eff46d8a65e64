"""What a person sees of a local study: a live display on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sqzlab.launching.plan import arm
from sqzlab.launching.status import State, duration, status_of
from sqzlab.run import Run

LINE_EVERY_S = 30.0


class Display:
    """Told what happens, shows it. Use as a context manager."""

    def __init__(self, console: Console, total: int) -> None:
        self.total, self.finished = total, 0
        self.live = Progress(
            TextColumn("{task.description}", table_column=None),
            BarColumn(bar_width=14),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal or console.is_dumb_terminal,
        )
        self.bars: dict[str, TaskID] = {}
        self.all = self.live.add_task("all runs", total=total, detail=f"0 of {total}")
        self.said_at = time.monotonic()

    def __enter__(self) -> Display:
        self.live.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.live.stop()

    def say(self, text: str) -> None:
        self.live.console.print(escape(text), highlight=False, soft_wrap=True)

    def started(self, run: Run) -> None:
        if self.live.disable:
            self.say(f"{run.run_id}: started")
        else:
            self.bars[run.run_id] = self.live.add_task(_name(run), total=1.0, detail="starting")

    def refresh(self, running: Iterable[tuple[Run, Path]], elsewhere: int) -> None:
        """Shows how far the runs are, read from their files; in a log one line each half a minute."""
        due = self.live.disable and time.monotonic() - self.said_at > LINE_EVERY_S
        for run, folder in running:
            if not (due or run.run_id in self.bars):
                continue
            status = status_of(folder)
            if due:
                self.say(f"{run.run_id}: {status.state}, {status.detail}")
            elif status.state is State.RUNNING and status.values:  # not so once metrics.json is there
                done = status.values["step"] / status.values["steps"]
                self.live.update(self.bars[run.run_id], completed=done, detail=status.detail)
        others = f", {elsewhere} in another launch" if elsewhere else ""
        self.live.update(self.all, detail=f"{self.finished} of {self.total}{others}")
        if due:
            self.said_at = time.monotonic()

    def done(self, run: Run, folder: Path, seconds: float | None) -> None:
        took = f" in {duration(seconds)}" if seconds is not None else " by another launch"
        self._close(run, f"[green]done[/] {status_of(folder).detail}{took}")

    def failed(self, run: Run, folder: Path, error: str) -> None:
        self._close(run, f"[red]failed[/] {escape(error)}; log: {escape(str(folder / 'log.txt'))}")

    def _close(self, run: Run, what: str) -> None:
        self.finished += 1
        if run.run_id in self.bars:
            self.live.remove_task(self.bars.pop(run.run_id))
        self.live.update(self.all, completed=self.finished)
        text = f"{escape(run.run_id)}: {what} ({self.finished} of {self.total})"
        self.live.console.print(text, highlight=False, soft_wrap=True)


def _name(run: Run) -> str:
    return f"{run.config.model.backbone} {arm(run)} s{run.config.seed}"


def say(console: Console, text: str) -> None:
    """A line that a terminal wraps, not we: it can be copied and searched."""
    console.print(text, markup=False, soft_wrap=True)
