"""`python -m sqzlab track FOLDER --to NAME`: a study's epochs in TensorBoard or Weights & Biases."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sqzlab.errors import ConfigError, UnavailableError, choices

if TYPE_CHECKING:
    from sqzlab.tracking.epochs import Signature
    from sqzlab.tracking.tensorboard import TensorBoard
    from sqzlab.tracking.wandb import WeightsAndBiases

    Tracker = TensorBoard | WeightsAndBiases

TRACKERS = {"tensorboard": "event files, a folder a run", "wandb": "Weights & Biases, offline folders for `wandb sync`"}
POLL_S = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Reads the files that the runs write, at any time and on any machine that sees them; training knows nothing of "
        "it. Repeating it adds what is new and nothing twice. What it writes can be deleted and written again."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a study, such as results/squeeze_ablation")
    listed = "; ".join(f"{name}: {what}" for name, what in TRACKERS.items())
    parser.add_argument("--to", required=True, metavar="NAME", help=listed)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write into DIR/<study>; default: FOLDER/tensorboard or FOLDER/wandb"
    )
    parser.add_argument("--follow", action="store_true", help="go on until all planned runs have ended, or Ctrl-C")
    parser.add_argument("--project", metavar="NAME", help="W&B's project; default: the study's folder")
    parser.add_argument("--online", action="store_true", help="send to W&B at once, by your `wandb login`")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 where a file or a line had to be left out."""
    from sqzlab.tracking.epochs import check_study

    if arguments.to not in TRACKERS:
        raise ConfigError(f"--to: unknown name {arguments.to!r}; {choices(TRACKERS, arguments.to)}")
    if arguments.to != "wandb" and (arguments.project is not None or arguments.online):
        raise ConfigError("--project and --online apply to --to wandb only")
    check_study(arguments.folder)
    tracker = _tracker(arguments)
    with _alone(tracker.home), contextlib.closing(tracker):
        following = Following(arguments.folder, tracker)
        try:
            following.look()
            while arguments.follow and not following.over():
                time.sleep(POLL_S)
                following.look()
        except KeyboardInterrupt:
            print(following.told(), flush=True)
            raise
        print(following.told())
    return 1 if following.faults else 0


class Following:
    """Looks at a study's folder again and again, and hands on each run that has changed."""

    def __init__(self, folder: Path, tracker: Tracker) -> None:
        self.folder, self.tracker = folder, tracker
        self.seen: dict[str, Signature] = {}
        self.runs: dict[str, tuple[int, bool]] = {}  # epochs, and whether it has ended
        self.done: set[str] = set()  # nothing can change in these
        self.written: set[str] = set()
        self.faults: set[str] = set()

    def look(self) -> None:
        from sqzlab.tracking.epochs import read_run, run_ids, signature

        for run_id in run_ids(self.folder):
            if run_id in self.done:
                continue
            now = signature(self.folder / run_id)  # before the files are read: what comes later is seen the next time
            if now == self.seen.get(run_id):
                continue
            tracked, faults = read_run(self.folder / run_id)
            self.seen[run_id], self.runs[run_id] = now, (len(tracked.epochs), tracked.ended)
            if tracked.state == "done":
                self.done.add(run_id)
            if self.tracker.track(tracked):
                self.written.add(run_id)
                print(f"{run_id}: {len(tracked.epochs)} epochs, {tracked.state}", flush=True)
            for fault in faults:
                if fault not in self.faults:
                    print(f"warning: {fault}", file=sys.stderr, flush=True)
            self.faults.update(faults)

    def over(self) -> bool:
        """Whether nothing more is to come: every run that is planned or there has ended."""
        from sqzlab.tracking.epochs import planned_ids

        ended = {run_id for run_id, (_, has_ended) in self.runs.items() if has_ended}
        return {*self.runs, *planned_ids(self.folder)} <= ended

    def told(self) -> str:
        from sqzlab.tracking.epochs import planned_ids

        epochs = sum(count for count, _ in self.runs.values())
        waiting = len(set(planned_ids(self.folder)) - self.runs.keys())
        others = len(self.runs) - len(self.written)
        found = f"{_counted(len(self.runs), 'run')} with {_counted(epochs, 'epoch')}"
        found += f", {waiting:,} not begun" if waiting else ""
        there = f", {others:,} {'was' if others == 1 else 'were'} there" if others else ""
        return f"{found}: {len(self.written):,} written{there}\n{self.tracker.look}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("s" if count != 1 else "")


def _tracker(arguments: argparse.Namespace) -> Tracker:
    folder: Path = arguments.folder
    home = arguments.out / folder.resolve().name if arguments.out else folder / arguments.to
    if arguments.to == "tensorboard":
        from sqzlab.tracking.tensorboard import TensorBoard

        return TensorBoard(home)

    from sqzlab.tracking.wandb import WeightsAndBiases

    return WeightsAndBiases(home, arguments.project, arguments.online)


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Keeps a second command out of the folder."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UnavailableError(f"{home}: another `sqzlab track` is writing there") from None
        yield
