"""The torch-free door to a worker: the launcher pickles this function by name, the forked child imports the rest."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path


def begin(folder: Path, gpu: str | None, try_resuming: bool, told: Connection) -> None:
    from sqzlab.launching.worker import work

    work(folder, gpu, try_resuming, told)
