"""Batches made ahead of time by a thread of this process: for what a device does, or needs no lock of Python's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from queue import SimpleQueue
from typing import TypeVar

Key = TypeVar("Key")
Made = TypeVar("Made")

AHEAD = 2
"""Batches that wait, at most."""


def made_ahead(make: Callable[[Key], Made], keys: Sequence[Key]) -> Generator[Made, None, None]:
    """`make(key)` for each key, in order. Raises what `make` raises, in its place; closing it ends the thread."""
    made: SimpleQueue[tuple[Made, None] | tuple[None, BaseException]] = SimpleQueue()
    places, ended = threading.Semaphore(AHEAD), threading.Event()

    def work() -> None:
        try:
            for key in keys:
                places.acquire()
                if ended.is_set():
                    return
                made.put((make(key), None))
        except BaseException as error:  # raised where the batches are used
            made.put((None, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        for _ in keys:
            batch, error = made.get()
            places.release()
            if error is not None:
                raise error
            yield batch  # type: ignore[misc]
    finally:
        ended.set()
        places.release()
        thread.join()
