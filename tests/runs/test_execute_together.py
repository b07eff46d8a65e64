"""A run of several processes: one result, one writer, one end for all."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import submitit
from PIL import Image
from same_result import assert_same_result, segments
from shared_runs import Tasks, executed, together
from small_runs import SMALL, MakeRun, wait_for

from sqzlab.config import Config
from sqzlab.data.order import permutation
from sqzlab.errors import UnavailableError
from sqzlab.resolving import resolve
from sqzlab.run import CHECKPOINT, CONFIG, FAILURE, LEASE, METRICS, Run
from sqzlab.runs.execute import execute
from sqzlab.runs.files import read_json, write_json

SHORT: dict[str, Any] = {"train__epochs": 2, "train__limit_batches": 4, "train__batch_size": 24}


@pytest.mark.parametrize("size", [2, 3])  # with 3, the bits of a sum depend on where in its bucket it stands
def test_told_to_stop_one_process_stops_all_at_the_same_step(make_run: MakeRun, size: int) -> None:
    whole, folder = (make_run(name, "gap", train__world_size=size, **SHORT) for name in ("whole", "stopped"))
    assert together(executed, [(whole, None)] * size) == ["done"] * size
    for steps in (1, 4):  # of process 1 alone; all stop at the step after it
        told = [(folder, steps if rank == 1 else None) for rank in range(size)]
        assert together(executed, told) == ["interrupted"] * size
    assert together(executed, [(folder, None)] * size) == ["done"] * size
    assert_same_result(whole, folder)
    assert [(part["first_step"], part["last_step"]) for part in segments(folder)] == [(0, 2), (2, 7), (7, 8)]
    assert segments(folder)[0]["why"] == "interrupted: another process of this run was told to"


def test_through_submitit_it_ends_as_it_does_without(make_run: MakeRun, tmp_path: Path) -> None:
    values = {**SHORT, "train__world_size": 2, "train__epochs": 2, "train__limit_batches": 1}
    folder, other = make_run("submitted", **values), make_run("direct", **values)
    executor = submitit.LocalExecutor(tmp_path / "submitit")
    executor.update_parameters(tasks_per_node=2, timeout_min=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        job = executor.submit(execute, folder)
    assert job.results() == ["done", "done"]
    job.wait()
    assert together(executed, [(other, None)] * 2) == ["done"] * 2
    assert_same_result(folder, other)


def test_done_or_held_by_another_all_are_told_so(make_run: MakeRun) -> None:
    folder = make_run(train__world_size=2, **SHORT)
    held = read_json(folder / LEASE) or {}
    with Tasks(executed, [(folder, None)] * 2) as tasks:
        wait_for((folder / LEASE).exists)
        held = read_json(folder / LEASE)
        assert together(executed, [(folder, None)] * 2) == ["busy"] * 2
        assert read_json(folder / LEASE) == held
        assert [tasks.told(rank) for rank in range(2)] == ["done"] * 2
    assert together(executed, [(folder, None)] * 2) == ["done"] * 2
    assert execute(folder) == "done", "also where there is only one process"


def test_a_run_that_another_job_took_over_is_lost_for_all(make_run: MakeRun) -> None:
    folder = make_run(train__world_size=2, train__epochs=50)
    with Tasks(executed, [(folder, None)] * 2) as tasks:
        wait_for((folder / CHECKPOINT).exists)
        lease = read_json(folder / LEASE)
        assert lease is not None
        write_json(folder / LEASE, {**lease, "token": lease["token"] + 1})
        assert [tasks.told(rank) for rank in range(2)] == ["lost"] * 2
    assert not (folder / FAILURE).exists()


def test_an_error_in_one_process_ends_the_others_and_is_the_one_that_is_told(tmp_path: Path) -> None:
    folder = image_run(tmp_path, "run", **{"train.world_size": 2, "train.epochs": 2})
    broken = permutation(0, 0, 8)[2]  # in the part of process 1
    (tmp_path / "images" / "train" / "ab"[broken // 4] / f"{broken % 4}.png").write_bytes(b"no image")
    first, second = together(executed, [(folder, None)] * 2)
    assert second.startswith("UnavailableError: image ")
    assert first.startswith("PeerFailedError: process 1 of this run failed: UnavailableError: image ")
    assert read_json(folder / FAILURE)["error"] == first
    assert segments(folder)[-1]["why"] == f"failed: {first}"


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_others(make_run: MakeRun, killed: int) -> None:
    whole, folder = (make_run(name, train__world_size=2, train__epochs=2) for name in ("whole", "killed"))
    with Tasks(executed, [(folder, None)] * 2) as tasks:
        wait_for((folder / CHECKPOINT).exists)
        tasks.processes[killed].kill()
        assert "RuntimeError" in tasks.told(1 - killed)
    assert together(executed, [(folder, None)] * 2) == ["done"] * 2
    assert together(executed, [(whole, None)] * 2) == ["done"] * 2
    assert_same_result(whole, folder)


def test_alone_it_is_refused_and_the_refusal_is_on_record(make_run: MakeRun) -> None:
    folder = make_run(train__world_size=2, **SHORT)
    with pytest.raises(UnavailableError, match="shares each step among 2 processes, but this job has 1; valid: launch"):
        execute(folder)
    assert "shares each step" in read_json(folder / FAILURE)["error"]


# ---- signals -----------------------------------------------------------------------------------

TRAINING = """
import signal, sys
from pathlib import Path
from sqzlab.runs.execute import execute
from sqzlab.runs.stop import StopFlag

if __name__ == "__main__":
    stop = StopFlag()
    with stop.on_signals(signal.SIGTERM, signal.SIGUSR2):
        print(execute(Path(sys.argv[1]), stop), flush=True)
"""


def test_signals_to_every_process_of_a_job_interrupt_it_and_no_worker_fails(tmp_path: Path) -> None:
    """Slurm signals the whole step: also data loaders, the server that forks them and Python's resource tracker."""
    whole = image_run(tmp_path, "whole", **{"data.workers": 0})
    folder = image_run(tmp_path, "signalled", **{"data.workers": 2})
    script = tmp_path / "training.py"
    script.write_text(TRAINING)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, script, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as training:
        wait_for(lambda: len(descendants(training.pid)) >= 4)  # tracker, server, two workers
        others = descendants(training.pid)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            for pid in others:
                os.kill(pid, number)
        assert set(others) <= set(descendants(training.pid))
        wait_for((folder / CHECKPOINT).exists)
        training.send_signal(signal.SIGTERM)
        said, errors = training.communicate(timeout=240)
    assert (said, errors) == ("interrupted\n", "")
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in others))
    assert not (folder / METRICS).exists()
    (folder / CONFIG).write_bytes((whole / CONFIG).read_bytes())  # without workers, which changes no bit
    assert execute(folder) == "done"
    assert execute(whole) == "done"
    assert_same_result(whole, folder)


def descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                children.setdefault(int(parent), []).append(int(stat.parent.name))
    found, left = [], [pid]
    while left:
        found += (own := children.get(left.pop(), []))
        left += own
    return found


def image_run(folder: Path, name: str, **values: Any) -> Path:
    """A run over class folders of 8 training and 4 validation images, 2 steps an epoch."""
    root = folder / "images"
    if not root.exists():
        rng = np.random.default_rng(0)
        for split, count in (("train", 4), ("val", 2)):
            for label in "ab":
                (root / split / label).mkdir(parents=True)
                for number in range(count):
                    pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(root / split / label / f"{number}.png")
    given = {**SMALL, "train.batch_size": 4, "data.name": "imagefolder", "data.root": str(root), "data.image_size": 32}
    config = resolve(given | values, 0, (2, 8, 4))
    assert isinstance(config, Config), config
    (folder / name).mkdir()
    write_json(folder / name / CONFIG, Run("study", None, {}, config).to_json())
    return folder / name
