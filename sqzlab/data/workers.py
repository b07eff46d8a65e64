"""Batches made ahead of time in processes of their own.

The processes start from a fork server that has imported this package's loading modules, not from the training
process: nothing of its threads, locks, GPU context or signal handlers is inherited. They live as long as the
iterator and never longer than the process that started them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from sqzlab.errors import UnavailableError

Key = TypeVar("Key")
Made = TypeVar("Made")


def made_in_processes(make: Callable[[Key], Made], keys: Sequence[Key], workers: int) -> Generator[Made, None, None]:
    """`make(key)` for each key, in order. `make` is sent to each worker once, so it must pickle.
    No more workers start than there are keys or cores.

    Closing the iterator ends the workers. Raises UnavailableError where `make` does, in its own words.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sqzlab.data.open", "sqzlab.data.image_folder"])
    loader = DataLoader(
        _Making(make),
        batch_size=None,
        sampler=keys,
        num_workers=min(workers, len(keys), _cores()),
        collate_fn=_unchanged,
        worker_init_fn=_start,
        multiprocessing_context=context,
        generator=torch.Generator(),  # else it draws from the global one
    )
    made = iter(loader)
    try:
        for batch in made:
            if isinstance(batch, UnavailableError):
                raise batch
            yield batch
    finally:
        del made  # ends the workers


class _Making(Dataset[Made], Generic[Key, Made]):
    """Hands an UnavailableError on as a value: raised, it would come out wrapped in a worker's traceback."""

    def __init__(self, make: Callable[[Key], Made]) -> None:
        self.make = make

    def __getitem__(self, key: Key) -> Made | UnavailableError:  # type: ignore[override]
        try:
            return self.make(key)
        except UnavailableError as error:
            return error


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _unchanged(batch: Made) -> Made:
    return batch


def _start(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.filterwarnings("ignore", module="PIL")  # remarks on odd metadata, which would break the live display
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
