"""What runs share is compiled before them, by an array of its own, on a real cluster.

The compiler itself is switched off; what it would have made lies on the nodes, and all around it is as ever.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cluster import Cluster
from kept_kernels import keep_kernels
from launching.conftest import Launch, launch, study  # noqa: F401  (fixtures)
from slurm_results import batches, results, squeue, wait_until

pytestmark = pytest.mark.slurm

OFF = {"TORCH_COMPILE_DISABLE": "1"}


@pytest.fixture
def compiled(study: Path) -> Path:  # noqa: F811
    """The study of two graphs with two seeds each."""
    study.write_text(study.read_text().replace("{recipe: digits,", "{recipe: digits, compile: true,"))
    return study


def _by_squeeze(jobs: list[list[str]]) -> list[list[str]]:
    run_ids = [run_id for runs in jobs for run_id in runs]
    return [[run_id for run_id in run_ids if squeeze in run_id] for squeeze in ("baseline", "gap")]


def test_each_graph_is_compiled_once_before_its_runs_also_when_launched_again_or_cancelled(
    cluster: Cluster,
    slurm: dict[str, str],
    launch: Launch,  # noqa: F811
    compiled: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "results" / "small"
    env = {**keep_kernels(compiled, tmp_path / "node"), **slurm}
    planned = launch(compiled, "--cluster", "slurm", "--dry-run", **env)
    assert "2 graphs are compiled first, then 4 runs start" in planned.stdout, planned.stderr
    said = launch(compiled, "--cluster", "slurm", "--jobs", 2, "--slurm", "begin=now+1hour", **env)
    assert said.returncode == 0, said.stderr
    assert "2 jobs that compile" in said.stdout
    assert "submitted 4 jobs" in said.stdout
    assert "2 graphs are compiled first; the runs that share them wait" in launch(compiled, "--status", **env).stdout
    assert "nothing to run" in launch(compiled, "--cluster", "slurm", **env).stdout

    first, second = (values for _, values in sorted(batches(folder).items(), key=lambda item: int(item[0])))
    assert [len(first["graphs"]), len(second["graphs"])] == [2, 0]
    assert sorted(map(sorted, first["runs"])) == sorted(map(sorted, _by_squeeze(second["runs"])))
    assert second["after"] == first["batch"]
    one = launch(compiled, "--cancel", "--only", "squeeze=gap", "--only", "seed=0", **env)
    assert "cancelled 1 jobs" in one.stdout, "the other seed still waits for what is compiled"
    again = launch(compiled, "--cluster", "slurm", **env)
    assert "submitted 1 jobs" in again.stdout
    assert "that compile" not in again.stdout, "what waits to be compiled was submitted twice"

    compiling = next(array for array, values in batches(folder).items() if values["graphs"])
    for array in batches(folder):
        cluster.run("scontrol", "update", f"JobId={array}", "StartTime=now")
    seen: list[bool] = []

    def ended() -> bool:
        seen.append(not any(folder.glob("*/provenance.json")) or len(list(folder.glob("kernels/*.zip"))) == 2)
        return len(results(folder)) == 4

    wait_until(ended, 300)
    assert all(seen), "a run began before what it needs was compiled"
    logs = [path.read_text() for path in folder.glob(f"slurm/*/{compiling}_*_log.out")]
    assert [log.count(": compiled") for log in logs] == [1, 1]
    wait_until(lambda: not squeue(slurm, "--states", "PENDING,RUNNING"), 60)  # a job ends later than its run


def test_where_no_archive_can_be_written_all_runs_go_on_and_cancel_takes_back_what_compiles(
    slurm: dict[str, str],
    launch: Launch,  # noqa: F811
    compiled: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "results" / "small"
    env = {**OFF, **slurm}
    held = launch(compiled, "--cluster", "slurm", "--slurm", "hold=true", **env)
    assert held.returncode == 0, held.stderr
    cancelled = launch(compiled, "--cancel", **env)
    assert "cancelled 6 jobs" in cancelled.stdout, cancelled.stderr
    assert squeue(slurm, "--states", "PENDING,RUNNING") == []

    (folder / "kernels").write_text("no folder")
    only = ("--cluster", "slurm", "--only", "squeeze=gap")
    assert "1 jobs that compile" in launch(compiled, *only, **env).stdout
    wait_until(lambda: len(results(folder)) == 2, 240)


def test_what_only_compiles_is_of_the_study_too_and_may_be_cancelled_alone(
    cluster: Cluster,
    slurm: dict[str, str],
    launch: Launch,  # noqa: F811
    compiled: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "results" / "small"
    env = {**OFF, **slurm}
    limits = ("--slurm", "time=2:00:00", "--slurm", "time_min=1:00:00")  # of the runs: compiling gets less
    said = launch(compiled, "--cluster", "slurm", "--jobs", 1, "--slurm", "hold=true", *limits, **env)
    assert "2 jobs that compile" in said.stdout, said.stderr
    compiling, runs = sorted(batches(folder), key=int)
    cluster.run("scancel", runs)
    assert "2 graphs are compiled first; the runs that share them wait" in launch(compiled, "--status", **env).stdout
    again = launch(compiled, "--cluster", "slurm", "--slurm", "hold=true", **env)
    assert "at most 1 jobs of this study at once, as before" in again.stdout.replace("\n", " "), again.stderr
    assert "2 jobs that compile" in again.stdout, "nobody knows how long the others are held"
    anew, last = sorted(batches(folder), key=int)[2:]
    awaited = cluster.run("squeue", "-h", "-j", last, "-o", "%E")
    assert f"afterany:{anew}_*" in awaited
    assert f"afterany:{compiling}_*" in awaited, "cancelling what it comes after would let it begin beside the first"
    cluster.run("scancel", last)
    compiled.write_text(compiled.read_text().replace("seeds: [0, 1]", "seeds: [2]"))
    assert "cancelled 4 jobs" in launch(compiled, "--cancel", **env).stdout


def test_runs_whose_compiling_slurm_refuses_are_submitted_without_it(
    slurm: dict[str, str],
    launch: Launch,  # noqa: F811
    compiled: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "results" / "small"
    refusing = tmp_path / "bin" / "sbatch"
    refusing.parent.mkdir()
    refusing.write_text(
        f'#!/bin/sh\n[ -e {tmp_path}/asked ] && exec {shutil.which("sbatch")} "$@"\n'
        f"touch {tmp_path}/asked; echo 'sbatch: error: Requested time limit is invalid' >&2; exit 1\n"
    )
    refusing.chmod(0o755)
    env = {**OFF, **slurm, "PATH": f"{refusing.parent}:{os.environ['PATH']}"}
    said = launch(compiled, "--cluster", "slurm", "--jobs", 1, "--slurm", "hold=true", **env)
    assert said.returncode == 0, said.stderr
    assert "Requested time limit is invalid; 2 graphs are not compiled first" in said.stdout.replace("\n", " ")
    assert "submitted 4 jobs" in said.stdout
    (values,) = batches(folder).values()
    assert values["after"] is None
    assert "cancelled 4 jobs" in launch(compiled, "--cancel", **env).stdout
