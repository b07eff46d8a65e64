"""One writer at a time, whatever happens to the others."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sqzlab.run import LEASE
from sqzlab.runs.files import read_json
from sqzlab.runs.lease import LOCK, LOCK_WAIT_S, BusyError, Lease, LeaseLostError, expired

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


def stop_outside_the_lock(holder: subprocess.Popen[str], folder: Path) -> None:
    """Stopped inside it, a holder makes the run busy for as long as it sleeps."""
    while True:
        holder.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, holder.pid, os.WSTOPPED)
        with (folder / LOCK).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                holder.send_signal(signal.SIGCONT)
        time.sleep(0.005)


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
    stop_outside_the_lock(holder, tmp_path)
    old = time.time() - 120
    os.utime(tmp_path / LEASE, (old, old))  # two minutes pass
    lease = Lease.acquire(tmp_path)
    lease.append("epochs.jsonl", b"mine\n")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    holder.send_signal(signal.SIGCONT)
    _, said = holder.communicate(timeout=240)
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


def test_a_holder_waits_for_the_lock_longer_than_one_who_only_asks(tmp_path: Path) -> None:
    lease = Lease.acquire(tmp_path)
    with (tmp_path / LOCK).open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        threading.Timer(LOCK_WAIT_S + 0.5, fcntl.flock, (other, fcntl.LOCK_UN)).start()
        lease.append("epochs.jsonl", b"line\n")
    assert (tmp_path / "epochs.jsonl").read_bytes() == b"line\n"


def test_a_holder_that_cannot_get_the_lock_for_its_whole_lease_has_lost_it(tmp_path: Path) -> None:
    lease = Lease.acquire(tmp_path, ttl_s=0.1)
    with (tmp_path / LOCK).open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(LeaseLostError, match=r"was locked for 0\.1 s"):
            lease.beat()


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
    said = sorted(process.communicate(timeout=240)[0].strip() for process in processes)
    assert said == ["busy"] * 5 + ["held"]


@pytest.mark.parametrize(
    ("job", "restart", "taken"),
    [("7", "1", True), ("7", "0", False), ("8", "1", False), (None, "1", False)],
    ids=["started again", "the same start", "another job", "no job"],
)
def test_a_job_that_slurm_has_started_again_takes_its_former_starts_lease_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str | None, restart: str, taken: bool
) -> None:
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "test")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    former = Lease.acquire(tmp_path)  # its process, this one, lives on, as beside a dead daemon
    monkeypatch.setenv("SLURM_RESTART_COUNT", restart)
    monkeypatch.delenv("SLURM_JOB_ID")
    if job is not None:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    if not taken:
        with pytest.raises(BusyError):
            Lease.acquire(tmp_path)
        return
    Lease.acquire(tmp_path).write_json("metrics.json", {"by": "the new start"})
    with pytest.raises(LeaseLostError):
        former.write_json("metrics.json", {"by": "the former start"})
    assert read_json(tmp_path / "metrics.json") == {"by": "the new start"}
