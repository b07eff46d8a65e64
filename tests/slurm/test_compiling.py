"""What runs share is compiled before them, by an array of its own, on a real cluster.

The compiler itself is switched off: an archive is then empty, and all around it is as ever.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
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
    slurm: dict[str, str],
    launch: Launch,  # noqa: F811
    compiled: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "results" / "small"
    env = {**OFF, **slurm}
    planned = launch(compiled, "--cluster", "slurm", "--dry-run", **env)
    assert "2 graphs are compiled first, then 4 runs start" in planned.stdout, planned.stderr
    said = launch(compiled, "--cluster", "slurm", "--jobs", 2, "--slurm", "hold=true", **env)
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
    release = ["scontrol", "release", *batches(folder)]
    subprocess.run(release, env={"PATH": "/usr/bin:/bin", **slurm}, check=True)
    seen: list[bool] = []

    def ended() -> bool:
        seen.append(not any(folder.glob("*/provenance.json")) or len(list(folder.glob("kernels/*.zip"))) == 2)
        return len(results(folder)) == 4

    wait_until(ended, 300)
    assert all(seen), "a run began before what it needs was compiled"
    logs = [path.read_text() for path in folder.glob(f"slurm/*/{compiling}_*_log.out")]
    assert [log.count(": compiled") for log in logs] == [1, 1]


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
