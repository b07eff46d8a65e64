"""Batches made ahead of time in processes of their own.

The processes start from a fork server that has imported this package's loading modules, not from the training
process: nothing of its threads, locks, GPU context or signal handlers is inherited. They live as long as the
iterator and never longer than the process that started them.

Slurm sends its signals to every process of a job, and their default action is to die. What they mean is for the
training process to decide: its workers, their fork server and Python's resource tracker do not hear them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from multiprocessing import forkserver, resource_tracker
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from sqzlab.errors import UnavailableError

Key = TypeVar("Key")
Made = TypeVar("Made")

_UNHEARD = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def made_in_processes(
    make: Callable[[Key], Made], keys: Sequence[Key], workers: int, *, pinned: bool = False
) -> Generator[Made, None, None]:
    """`make(key)` for each key, in order. `make` is sent to each worker once, so it must pickle.
    No more workers start than there are keys or cores. `pinned`: as its method `pin_memory` returns it.

    Closing the iterator ends the workers. Raises UnavailableError where `make` does, in its own words.
    """
    context = multiprocessing.get_context("forkserver")
    jpeg = ["sqzlab.data.jpeg"] if "sqzlab.data.jpeg" in sys.modules else []  # imports torchvision
    context.set_forkserver_preload(["sqzlab.data.open", "sqzlab.data.image_folder", *jpeg])
    _start_servers()
    loader = DataLoader(
        _Making(make),
        batch_size=None,
        sampler=keys,
        num_workers=min(workers, len(keys), _cores()),
        collate_fn=_unchanged,
        worker_init_fn=_start,
        multiprocessing_context=context,
        generator=torch.Generator(),  # else it draws from the global one
        pin_memory=pinned,
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


def _start_servers() -> None:
    """Starts the fork server with the signals blocked, as all that it forks will have them from their first moment.

    A server that is running already stays as it is.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _UNHEARD)
    try:
        resource_tracker.ensure_running()  # unblocks SIGTERM here, once it has started
        signal.pthread_sigmask(signal.SIG_BLOCK, _UNHEARD)
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS, where there is no Slurm either
        signal.pthread_sigmask(signal.SIG_BLOCK, _UNHEARD)  # before the first thread
        threading.Thread(target=_end_when_parent_says, daemon=True).start()
    warnings.filterwarnings("ignore", module="PIL")  # remarks on odd metadata, which would break the live display
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_when_parent_says() -> None:
    """Ends on the SIGTERM of the training process, which multiprocessing sends at its exit, and of nobody else."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    while True:
        heard = signal.sigwaitinfo(_UNHEARD)
        if (heard.si_signo, heard.si_pid) == (signal.SIGTERM, parent.pid):
            os._exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
