"""The local queue and its display, without a command line around them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from kept_kernels import keep_kernels
from launching.conftest import ROOT, Launch
from rich.console import Console

from sqzlab.launching.display import Display
from sqzlab.launching.local import work_off
from sqzlab.launching.plan import prepare
from sqzlab.launching.status import State, status_of
from sqzlab.run import Run
from sqzlab.runs.lease import Lease
from sqzlab.study.study import load_study

METRICS = {"seed": 0, "top1": 0.5, "top5": 1.0, "val_loss": 1.0, "epochs": 2, "params": 1, "macs": 1, "steps": 4}


@pytest.fixture
def run(study: Path, tmp_path: Path) -> Run:
    """The first run of the small study, prepared in the test's folder."""
    run = load_study(study).runs[0]
    prepare([run], tmp_path)
    return run


def test_a_run_that_is_done_before_its_worker_has_ended_keeps_its_bar(run: Run, tmp_path: Path) -> None:
    metrics = {**METRICS, "run_id": run.run_id, "backbone": "resnet18", "squeeze": "baseline"}
    (tmp_path / run.run_id / "metrics.json").write_text(json.dumps(metrics))
    assert status_of(tmp_path / run.run_id).state is State.DONE
    with Display(Console(file=io.StringIO(), force_terminal=True, width=80), total=1) as display:
        display.started(run)
        display.refresh([(run, tmp_path / run.run_id)], elsewhere=0)
        assert run.run_id in display.bars


def test_a_run_that_fails_in_another_launch_is_not_tried_again(run: Run, tmp_path: Path) -> None:
    (tmp_path / run.run_id / "failure.json").write_text('{"error": "DivergedError: [/red] at step 2"}')
    told = io.StringIO()
    with Display(Console(file=told, width=200), total=1) as display:
        assert work_off([], tmp_path, slots=(None,), display=display, elsewhere=[run]) == 1
    assert "failed DivergedError: [/red] at step 2" in told.getvalue()
    assert not (tmp_path / run.run_id / "log.txt").exists()


def test_a_run_that_is_to_be_executed_is_failed_no_more(run: Run, tmp_path: Path) -> None:
    (tmp_path / run.run_id / "failure.json").write_text('{"error": "no space left on device"}')
    assert status_of(tmp_path / run.run_id).state is State.FAILED
    prepare([run], tmp_path)
    assert status_of(tmp_path / run.run_id).state is State.MISSING


def test_workers_are_forked_from_a_server_with_torch_whatever_folder_they_start_in(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from sqzlab.launching import local
if __name__ == "__main__":
    local.preload()
    with local._context.Pool(1) as pool:
        print(pool.apply(eval, ("'torch' in __import__('sys').modules",)))
""")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(script)]
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert said.stdout == "True\n", said.stderr


def test_of_runs_that_share_a_graph_one_goes_first_and_the_others_wait_for_what_it_compiles(
    launch: Launch, study: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    study.write_text(study.read_text().replace("{recipe: digits,", "{recipe: digits, compile: true,"))
    node = tmp_path_factory.mktemp("n")  # a short name: sockets lie there
    said = launch(study, "--cluster", "local", "--jobs", 4, **keep_kernels(study, node))
    assert said.returncode == 0, said.stderr
    assert "2 graphs are compiled first, each by one of the 4 runs that share them" in said.stdout
    began = [line.partition(":")[0] for line in said.stdout.splitlines() if line.endswith(": started")]
    assert len(began) == 4
    assert all("-s0-" in run_id for run_id in began[:2]), began
    folder = tmp_path / "results" / "small"
    archives = [path.stat().st_mtime_ns for path in folder.glob("kernels/*.zip")]
    assert len(archives) == 2
    logs = [(folder / run_id / "provenance.json").stat().st_mtime_ns for run_id in began[2:]]
    assert min(logs) > min(archives)


def test_where_nothing_can_be_published_runs_wait_no_longer_than_the_first_compiles(
    launch: Launch, study: Path, tmp_path: Path
) -> None:
    study.write_text(
        study.read_text().replace("{recipe: digits, epochs: 2,", "{recipe: digits, compile: true, epochs: 30,")
    )
    only = ("--only", "squeeze=gap", "--cluster", "local", "--jobs", 2)
    said = launch(study, *only, TORCH_COMPILE_DISABLE="1", TMPDIR=str(tmp_path))  # torch keeps nothing then
    assert said.returncode == 0, said.stderr
    told = [
        line.partition(":")[2].split()[0]
        for line in said.stdout.splitlines()
        if ": started" in line or ": done" in line
    ]
    assert told == ["started", "started", "done", "done"], said.stdout


def test_a_run_waits_for_what_another_launch_compiles(study: Path, tmp_path: Path) -> None:
    study.write_text(study.read_text().replace("{recipe: digits,", "{recipe: digits, compile: true,"))
    first, second = load_study(study).runs[:2]
    prepare([first, second], tmp_path)
    lease = Lease.acquire(tmp_path / first.run_id)
    seen: list[int] = []

    class Impatient(Display):
        def refresh(self, running: Sequence[tuple[Run, Path]], elsewhere: int) -> None:
            seen.append(len(running))
            if len(seen) == 3:
                raise KeyboardInterrupt

    with Impatient(Console(file=io.StringIO(), width=80), total=2) as display, pytest.raises(KeyboardInterrupt):
        work_off([second], tmp_path, slots=(None,), display=display, elsewhere=[first])
    lease.release()
    assert seen == [0, 0, 0]
