"""Every image of a store against its checksum, in parallel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sqzlab.data.store.reader import Store
from sqzlab.data.store.writer import in_order

AT_A_TIME = 256
"""Images that a worker reads before it says so."""


def damaged(store: Store, *, workers: int, done: Callable[[int], object] = lambda n: None) -> list[str]:
    """Names of the images whose bytes are not those that were written; `done` is told of images as they are read."""
    rows = store.rows(np.arange(len(store)))
    chunks = [rows[at : at + AT_A_TIME] for at in range(0, len(rows), AT_A_TIME)]
    bad: list[int] = []
    with in_order(store.bad_rows, chunks, workers) as results:
        for chunk, found in zip(chunks, results, strict=True):
            bad += found
            done(len(chunk))
    names = store.names() if bad else []
    return [names[int(place)] for place in np.searchsorted(rows, bad)]
