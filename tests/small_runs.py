"""Small true runs on digits, executed in processes that can be killed."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from sqzlab.launching.start import begin

SMALL = {
    "model.backbone": "resnet18",
    "model.stem": "small",
    "model.width": 0.125,
    "data.name": "digits",
    "train.recipe": "digits",
    "train.epochs": 3,
    "train.batch_size": 32,
    "train.limit_batches": 8,
    "train.checkpoint_steps": 3,
}

MakeRun = Callable[..., Path]


_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["sqzlab.launching.worker"])


@contextmanager
def executing(folder: Path) -> Iterator[tuple[ForkServerProcess, Any]]:
    """A process of the local queue that executes the run; killed where the block leaves it alive."""
    said, told = _context.Pipe(duplex=False)
    process = _context.Process(target=begin, args=(folder, None, False, told))
    process.start()
    told.close()
    try:
        yield process, said
    finally:
        process.kill()
        process.join()
        process.close()
        said.close()


def execute_to_end(folder: Path) -> str:
    with executing(folder) as (process, said):
        process.join(120)
        outcome: str = said.recv()[0]
    return outcome


def wait_for(condition: Callable[[], bool], seconds: float = 240, poll_s: float = 0.001) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(poll_s)


def stop(process: ForkServerProcess, number: signal.Signals) -> None:
    import os

    assert process.pid is not None
    os.kill(process.pid, number)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
