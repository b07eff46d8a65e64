"""The processes of a job find each other, whatever former starts of it left behind."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sqzlab.errors import UnavailableError
from sqzlab.training.meeting import LeftError, meet, part

JOB = "slurm-1_2-0-run"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def never() -> bool:
    return False


def meeting(size: int, stopped: Callable[[], bool] = never, patience_s: float = 60.0) -> list[str]:
    """What each of `size` processes, here threads, reads that process 0 wrote; the names of errors."""

    def one(rank: int) -> str:
        try:
            store = meet(rank, size, JOB, 1, stopped, patience_s)
        except (LeftError, UnavailableError) as error:
            return type(error).__name__
        if rank == 0:
            store.set("word", "hello")
        word = store.get("word").decode()
        part(store, size)
        return word

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))


@pytest.mark.parametrize("size", [2, 5])
def test_all_share_one_store_and_leave_nothing(folder: Path, size: int) -> None:
    assert meeting(size) == ["hello"] * size
    assert list(folder.iterdir()) == []


def test_the_same_processes_may_meet_again() -> None:
    for _ in range(3):
        assert meeting(2) == ["hello"] * 2


def test_what_a_killed_start_left_misleads_nobody(folder: Path) -> None:
    name = f"sqzlab-{os.getuid()}-{JOB}"
    for start in (0, 1):
        store = folder / f"{name}.{start}-store"
        store.write_bytes(b"\x00garbage")
        (folder / f"{name}.{start}").write_text(str(store))
    assert len(list(folder.iterdir())) == 4
    assert meeting(3) == ["hello"] * 3
    assert list(folder.iterdir()) == []


def test_told_to_stop_while_one_is_missing_nobody_goes_on() -> None:
    told = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(meet, rank, 3, JOB, 1, told.is_set, 60.0) for rank in range(2)]
        told.set()
        assert [type(one.exception()) for one in waiting] == [LeftError, LeftError]


def test_one_that_waits_in_vain_says_so() -> None:
    with pytest.raises(UnavailableError, match=r"^this process of the job waited in vain for the others$"):
        meet(0, 2, JOB, 1, never, 0.1)
    with pytest.raises(UnavailableError, match=r"^this process of the job waited in vain for process 0$"):
        meet(1, 2, JOB, 1, never, 0.1)
