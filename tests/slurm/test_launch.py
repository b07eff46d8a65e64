"""The launch command on a real Slurm cluster."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from launching.conftest import Launch, launch, study  # noqa: F401  (fixtures)
from slurm_results import batches, results

pytestmark = pytest.mark.slurm


def test_a_study_is_one_array_and_ends_as_it_does_locally(
    slurm: dict[str, str],
    launch: Launch,  # noqa: F811
    study: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    submitted = launch(study, "--cluster", "slurm", **slurm)
    assert submitted.returncode == 0, submitted.stderr
    assert "submitted 4 jobs" in submitted.stdout
    folder = tmp_path / "results" / "small"
    assert [len(values["runs"]) for values in batches(folder).values()] == [4], "not one array"

    again = launch(study, "--cluster", "slurm", **slurm)
    assert "nothing to run" in again.stdout, "what is queued was submitted twice"

    seen = set()
    deadline = time.monotonic() + 300
    while len(results(folder)) < 4:
        assert time.monotonic() < deadline, launch(study, "--status", **slurm).stdout
        status = launch(study, "--status", **slurm).stdout
        seen |= {word for word in ("queued", "running") if word in status}
        assert "failed" not in status
    assert seen, "no run was ever seen on its way"
    assert "everything is done" in launch(study, "--cluster", "slurm", **slurm).stdout

    local = tmp_path / "local"
    assert launch(study, "--cluster", "local", "--results", local).returncode == 0
    assert results(folder) == results(local / "small")


def test_what_slurm_refuses_is_told_in_its_words(
    slurm: dict[str, str],
    launch: Launch,  # noqa: F811
    study: Path,  # noqa: F811
) -> None:
    refused = launch(study, "--cluster", "slurm", "--slurm", "partition=nope", **slurm)
    assert refused.returncode == 3
    assert "Invalid partition" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_on_a_cluster_without_imagenet_both_ways_out_are_named(
    slurm: dict[str, str],
    launch: Launch,  # noqa: F811
) -> None:
    refused = launch("experiments/squeeze_ablation.yaml", **slurm)
    assert refused.returncode == 3
    assert "IMAGENET_DIR" in refused.stderr
    assert "--profile laptop" in refused.stderr


def test_asking_for_slurm_where_none_answers_ends_with_exit_code_3(launch: Launch, study: Path) -> None:  # noqa: F811
    refused = launch(study, "--cluster", "slurm", SLURM_CONF="/nonexistent/slurm.conf")
    assert refused.returncode == 3
    assert "no Slurm cluster" in refused.stderr
