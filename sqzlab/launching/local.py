"""The local queue: one process a run over cores or GPUs, forked from one preloaded server."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType

from sqzlab.launching.children import python_path
from sqzlab.launching.display import Display
from sqzlab.launching.start import begin
from sqzlab.launching.status import State, status_of
from sqzlab.run import LEASE, PROVENANCE, Run
from sqzlab.runs.files import read_json
from sqzlab.runs.graphs import graph_of, to_compile
from sqzlab.runs.lease import expired

POLL_S = 0.25
STOP_S = 30.0  # how long a worker may take to reach a step boundary and save
_context = multiprocessing.get_context("forkserver")


@dataclass
class Worker:
    run: Run
    folder: Path
    process: ForkServerProcess
    said: connection.Connection
    gpu: str | None
    began: float


def preload() -> None:
    """Starts the server that imports torch once, while this process goes on planning."""
    from multiprocessing import forkserver

    os.environ["PYTHONPATH"] = python_path()  # the server has no other way to find what it preloads
    _context.set_forkserver_preload(["sqzlab.launching.worker", "sqzlab.launching.cli"])
    forkserver.ensure_running()


def work_off(
    runs: Sequence[Run],
    study_folder: Path,
    *,
    slots: Sequence[str | None],
    display: Display,
    elsewhere: Sequence[Run] = (),
    try_resuming: bool = False,
) -> int:
    """Executes the runs, one in each slot (a GPU's name, or None for a core) at a time.

    Returns the exit code: 0, or that of the first run that failed. A failed run stops no other. Runs that another
    launch holds (`elsewhere`, and those found so) are waited for, and taken over should it end without finishing them;
    those that fail there count as failed. Of runs that share a graph one goes first, to compile it; until it trains, or
    has ended, the others let those with other graphs go before.
    Raises KeyboardInterrupt after Ctrl-C or SIGTERM, once every worker has saved its state and ended.
    """
    queue = _Queue(study_folder, list(slots), display, try_resuming)
    queue.waiting.extend(runs)
    queue.elsewhere.extend(elsewhere)
    with _Terminated():
        try:
            queue.drain()
        except BaseException:  # Ctrl-C, or nobody reads what is printed: no worker stays behind
            queue.stop()
            raise
    return queue.exit_code


class _Queue:
    def __init__(self, folder: Path, slots: list[str | None], display: Display, try_resuming: bool) -> None:
        self.folder, self.free, self.display, self.try_resuming = folder, slots, display, try_resuming
        self.waiting: deque[Run] = deque()
        self.elsewhere: list[Run] = []  # held by another launch
        self.workers: list[Worker] = []
        self.exit_code = 0

    def drain(self) -> None:
        while self.waiting or self.workers or self.elsewhere:
            while self.free and (run := self._next()) is not None:
                self._start(run, self.free.pop(0))
            sentinels = [worker.process.sentinel for worker in self.workers]
            if sentinels:
                connection.wait(sentinels, timeout=POLL_S)
            else:
                time.sleep(POLL_S)
            for worker in [worker for worker in self.workers if not worker.process.is_alive()]:
                self._end(worker)
            self._look_elsewhere()
            self.display.refresh([(worker.run, worker.folder) for worker in self.workers], len(self.elsewhere))

    def _next(self) -> Run | None:
        """The first waiting run that nobody compiles for at this moment."""
        at_work = [*(worker.run for worker in self.workers), *self.elsewhere] if self.waiting else []
        compiling = [run for run in at_work if run.config.train.compile and not _trains(self.folder / run.run_id)]
        lacking = to_compile([*self.waiting, *compiling], self.folder) if compiling else {}
        being_compiled = {graph_of(run.config) for run in compiling} & lacking.keys()
        later = {run.run_id for graph in being_compiled for run in lacking[graph]}
        run = next((run for run in self.waiting if run.run_id not in later), None)
        if run is not None:
            self.waiting.remove(run)
        return run

    def stop(self) -> None:
        """Asks every worker to save and end, and waits for it."""
        try:
            for worker in self.workers:
                worker.process.terminate()
            with suppress(SystemExit):  # rich's, into a closed pipe
                self.display.say("stopping: the runs save their state (Ctrl-C again ends them at once)")
            deadline = time.monotonic() + STOP_S
            for worker in self.workers:
                worker.process.join(max(0.1, deadline - time.monotonic()))
        finally:
            for worker in self.workers:
                worker.process.kill()

    def _start(self, run: Run, gpu: str | None) -> None:
        folder = self.folder / run.run_id
        said, told = _context.Pipe(duplex=False)
        process = _context.Process(target=begin, args=(folder, gpu, self.try_resuming, told), name=run.run_id)
        process.start()
        told.close()
        self.workers.append(Worker(run, folder, process, said, gpu, time.monotonic()))
        self.display.started(run)

    def _end(self, worker: Worker) -> None:
        worker.process.join()
        self.workers.remove(worker)
        self.free.append(worker.gpu)
        try:
            outcome, error, code = worker.said.recv() if worker.said.poll() else ("", "", 1)
        except EOFError:
            outcome, error, code = "", "", 1
        worker.said.close()
        if outcome in ("busy", "lost"):
            self.elsewhere.append(worker.run)
        elif outcome == "done":
            self.display.done(worker.run, worker.folder, time.monotonic() - worker.began)
        elif outcome == "interrupted":
            self.display.say(f"{worker.run.run_id}: interrupted, its state is saved; the next launch goes on")
            self.exit_code = self.exit_code or 1
        else:
            self.display.failed(worker.run, worker.folder, error or _death(worker.process.exitcode))
            self.exit_code = self.exit_code or code or 1

    def _look_elsewhere(self) -> None:
        for run in list(self.elsewhere):
            status = status_of(self.folder / run.run_id)
            if status.state is State.RUNNING:
                continue
            self.elsewhere.remove(run)
            if status.state is State.DONE:
                self.display.done(run, self.folder / run.run_id, None)
            elif status.state is State.FAILED:  # tried by the other launch: it is not tried again here
                self.display.failed(run, self.folder / run.run_id, status.detail)
                self.exit_code = self.exit_code or 1
            else:
                self.waiting.append(run)


def _trains(folder: Path) -> bool:
    """Whether the process that holds the run is past compiling."""
    held = read_json(folder / LEASE) or {}
    segments = (read_json(folder / PROVENANCE) or {}).get("segments", ())
    return bool(segments) and segments[-1].get("token") == held.get("token") and not expired(folder, held)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"ended by {signal.Signals(-code).name}" + (" (out of memory?)" if -code == signal.SIGKILL else "")
    return f"ended with exit code {code}"


class _Terminated:
    """Makes SIGTERM end the launcher as Ctrl-C does."""

    def __enter__(self) -> None:
        def handle(_number: int, _frame: object) -> None:
            raise KeyboardInterrupt

        self.before = signal.signal(signal.SIGTERM, handle)

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        signal.signal(signal.SIGTERM, self.before)
