"""One writer at a time, whatever happens to the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sqzlab.run import LEASE
from sqzlab.runs.files import read_json
from sqzlab.runs.lease import BusyError, Lease, LeaseLostError, expired

HOLDER = """
import sys, time
from pathlib import Path
from sqzlab.runs.lease import Lease
lease = Lease.acquire(Path(sys.argv[1]))
print("held", flush=True)
while True:
    lease.beat()
    lease.append("epochs.jsonl", b"line\\n")
    time.sleep(0.02)
"""


@pytest.fixture
def holder(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_holds_the_run(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(BusyError, match=f"process {holder.pid} on "):
        Lease.acquire(tmp_path)


def test_the_run_of_a_killed_process_is_free_at_once(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    assert Lease.acquire(tmp_path).token == 2


def test_a_writer_stopped_past_its_lease_writes_nothing_when_it_wakes(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    holder.send_signal(signal.SIGSTOP)
    old = time.time() - 120
    os.utime(tmp_path / LEASE, (old, old))  # two minutes pass
    lease = Lease.acquire(tmp_path)
    lease.append("epochs.jsonl", b"mine\n")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    holder.send_signal(signal.SIGCONT)
    _, said = holder.communicate(timeout=20)
    assert "LeaseLostError" in said
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


def test_a_released_run_can_be_taken_and_its_token_rises(tmp_path: Path) -> None:
    first = Lease.acquire(tmp_path)
    first.release()
    assert expired(tmp_path, read_json(tmp_path / LEASE) or {})
    assert Lease.acquire(tmp_path).token == first.token + 1


def test_a_superseded_lease_can_neither_write_nor_append_nor_beat(tmp_path: Path) -> None:
    first = Lease.acquire(tmp_path)
    first.release()
    Lease.acquire(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    for write in (
        lambda: first.write_json("metrics.json", {}),
        lambda: first.append("epochs.jsonl", b"x"),
        first.beat,
        first.release,
    ):
        with pytest.raises(LeaseLostError):
            write()
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_of_many_at_once_one_gets_the_run(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from sqzlab.runs.lease import *\n"
        "try: Lease.acquire(Path(sys.argv[1])); print('held', flush=True); time.sleep(3)\n"
        "except BusyError: print('busy')"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    said = sorted(process.communicate(timeout=60)[0].strip() for process in processes)
    assert said == ["busy"] * 5 + ["held"]
