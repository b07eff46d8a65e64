"""What a person sees of a run that trains in this process: a line an epoch, and a live bar on a terminal."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from sqzlab.launching.display import LINE_EVERY_S, say
from sqzlab.launching.status import duration
from sqzlab.run import EPOCHS, PROGRESS
from sqzlab.runs.files import read_json
from sqzlab.runs.stop import StopFlag

POLL_S = 0.5


class Following:
    """A thread that reads the files which the run writes, while the run has the main thread. A context manager."""

    def __init__(self, console: Console, folder: Path, stop: StopFlag) -> None:
        self.console, self.folder, self.stop = console, folder, stop
        self.live = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=14),
            TextColumn("{task.fields[detail]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal or console.is_dumb_terminal,
        )
        self.bar = self.live.add_task("training", total=1.0, detail="starting")
        self.told = {closed["epoch"] for closed in self._epochs()}
        self.said_at = time.monotonic()
        self.told_stop = False
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Following:
        self.live.start()
        self.thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.ended.set()
        self.thread.join()
        self._look()
        self.live.stop()

    def _follow(self) -> None:
        while not self.ended.wait(POLL_S):
            self._look()

    def _look(self) -> None:
        for closed in self._epochs():
            if closed["epoch"] not in self.told:
                self.told.add(closed["epoch"])
                self.said_at = time.monotonic()
                say(self.live.console, _line(closed))
        progress = read_json(self.folder / PROGRESS)
        if progress:
            detail = _pace(progress)
            self.live.update(self.bar, completed=progress["step"] / progress["steps"], detail=detail)
            if self.live.disable and time.monotonic() - self.said_at > LINE_EVERY_S:
                self.said_at = time.monotonic()
                say(self.live.console, detail)
        if self.stop.why and not self.told_stop:
            self.told_stop = True
            say(self.live.console, "stopping: the run saves its state (Ctrl-C again ends it at once)")

    def _epochs(self) -> list[dict[str, Any]]:
        """The whole lines of epochs.jsonl."""
        try:
            lines = (self.folder / EPOCHS).read_bytes().splitlines(keepends=True)
        except OSError:
            return []
        return [json.loads(line) for line in lines if line.endswith(b"\n")]


def _line(closed: dict[str, Any]) -> str:
    speed = f"  {closed['images_per_s']:,.0f} images/s" if closed["images_per_s"] else ""
    losses = f"loss {closed['train_loss']:.4f}  val {closed['val_loss']:.4f}"
    return f"epoch {closed['epoch']:>3}  {losses}  top-1 {closed['top1']:.2%}  top-5 {closed['top5']:.2%}{speed}"


def _pace(progress: dict[str, Any]) -> str:
    epoch = min(progress["epoch"] + 1, progress["epochs"])
    parts = [f"epoch {epoch} of {progress['epochs']}, step {progress['step']:,} of {progress['steps']:,}"]
    if progress["images_per_s"]:
        parts.append(f"{progress['images_per_s']:,.0f} images/s, {duration(progress['eta_s'])} left")
    return ", ".join(parts)
