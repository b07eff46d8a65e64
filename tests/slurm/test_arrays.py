"""How runs become arrays of jobs, how many run at once, and what a failing array does, on a real cluster."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cluster import Cluster
from launching.conftest import Launch, launch, study  # noqa: F401  (fixtures)
from PIL import Image
from slurm_results import batches, results, squeue, wait_until

pytestmark = pytest.mark.slurm


def add(study: Path, text: str) -> None:  # noqa: F811
    study.write_text(study.read_text() + text)


def test_each_resource_class_is_an_array_and_no_more_jobs_run_than_allowed(
    slurm: dict[str, str],
    launch: Launch,  # noqa: F811
    study: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    add(study, "slurm: {include: [{model.squeeze: gap, time: 0:30:00, memory: 2GB}]}\n")
    said = launch(study, "--cluster", "slurm", "--jobs", 1, **slurm)
    assert said.returncode == 0, said.stderr
    assert "at most 1 jobs of this study at once" in said.stdout
    folder = tmp_path / "results" / "small"
    first, second = (values for _, values in sorted(batches(folder).items(), key=lambda item: int(item[0])))
    assert [len(first["runs"]), len(second["runs"])] == [2, 2]
    assert all("gap" in run_id for (run_id,) in second["runs"])
    assert second["resources"]["time_min"] == 30
    assert (first["after"], second["after"]) == (None, first["batch"]), "two arrays of one slot run one after another"
    seen = []

    def ended() -> bool:
        seen.append(sum(line.endswith(" RUNNING") for line in squeue(slurm)))
        return len(results(folder)) == 4

    wait_until(ended, 240)
    assert max(seen) == 1


def test_an_array_is_no_longer_than_the_cluster_allows(launch: Launch, study: Path, tmp_path: Path) -> None:  # noqa: F811
    study.write_text(study.read_text().replace("seeds: [0, 1]", "seeds: [0, 1, 2, 3]"))
    with Cluster(nodes=1, gpus=0, max_array=3) as small:
        small.env |= {"SQUEUE_STATES": "RUNNING", "SBATCH_JOB_NAME": "mine", "LOGNAME": "nobody"}  # of the user's own
        said = launch(study, "--cluster", "slurm", "--slurm", "hold=true", **small.env)
        assert said.returncode == 0, said.stderr
        folder = tmp_path / "results" / "small"
        assert sorted(len(values["runs"]) for values in batches(folder).values()) == [2, 3, 3]
        assert len(squeue(small.env, "--states", "all")) == 8
        assert "8 queued" in launch(study, "--status", **small.env).stdout
        for path in folder.glob("slurm/*/job_id"):  # as a launch leaves it that was killed right after sbatch
            path.unlink()
        again = launch(study, "--cluster", "slurm", **small.env)
        assert "nothing to run" in again.stdout
        assert len(squeue(small.env, "--states", "all")) == 8
        assert len(batches(folder)) == 3, "the orphans' ids were not written down"
        cancelled = launch(study, "--cancel", **small.env)
        assert "cancelled 8 jobs" in cancelled.stdout, cancelled.stderr
        assert squeue(small.env, "--states", "PENDING,RUNNING") == []


def test_first_runs_that_fail_alike_hold_the_rest_until_they_are_tried_again(
    any_lab_can_start: None,
    launch: Launch,  # noqa: F811
    study: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    data = tmp_path / "photos"
    noise = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (data / split / name).mkdir(parents=True)
            for number in range(8):
                pixels = noise.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(data / split / name / f"{number}.jpg")
    text = study.read_text().replace("{name: digits}", f"{{name: imagefolder, root: {data}, image_size: 32}}")
    study.write_text(
        text.replace("seeds: [0, 1]", "seeds: [0, 1, 2]").replace("recipe: digits", "recipe: digits, batch_size: 8")
    )
    with Cluster(nodes=2, extra=("MinJobAge=300",)) as lab:  # as sites have it: an array's ended tasks are still listed
        assert launch(study, "--cluster", "slurm", "--jobs", 1, "--slurm", "hold=true", **lab.env).returncode == 0
        away = data.rename(tmp_path / "away")
        folder = tmp_path / "results" / "small"
        (array,) = batches(folder)
        subprocess.run(["scontrol", "release", array], env={"PATH": "/usr/bin:/bin", **lab.env}, check=True)
        wait_until(lambda: any(folder.glob("slurm/*/held.json")), 240)
        wait_until(lambda: not any("RUNNING" in line or "COMPLETING" in line for line in squeue(lab.env)), 240)
        away.rename(data)
        assert len(list(folder.glob("*/failure.json"))) == 3
        status = launch(study, "--status", **lab.env).stdout
        assert "3 failed" in status
        assert status.replace("\n", " ").count("held: the first runs failed alike") == 3
        plain = launch(study, "--cluster", "slurm", **lab.env)
        assert "mend the cause and launch with --retry-failed" in plain.stdout.replace("\n", " ")
        assert len(squeue(lab.env)) == 3, "a plain launch leaves what is held as it is"
        again = launch(study, "--cluster", "slurm", "--retry-failed", **lab.env)
        assert again.returncode == 0, again.stderr
        assert "submitted 6 jobs" in again.stdout
        wait_until(lambda: len(results(folder)) == 6, 240)


def test_runs_that_share_a_job_end_as_they_do_alone_also_when_it_is_requeued(
    slurm: dict[str, str],
    launch: Launch,  # noqa: F811
    study: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    study.write_text(study.read_text().replace("epochs: 2, limit_batches: 2", "epochs: 6, checkpoint_steps: 10"))
    add(study, "slurm: {runs_per_job: 2}\n")
    said = launch(study, "--cluster", "slurm", "--only", "squeeze=gap", **slurm)
    assert "1 jobs for 2 runs" in said.stdout, said.stderr
    folder = tmp_path / "results" / "small"
    (array,) = batches(folder)
    wait_until(lambda: len(list(folder.glob("*/checkpoint.pt"))) == 2, 240)
    subprocess.run(["scontrol", "requeue", f"{array}_0"], env={"PATH": "/usr/bin:/bin", **slurm}, check=True)
    wait_until(lambda: len(results(folder)) == 2, 240)
    for path in folder.glob("*/provenance.json"):
        segments = json.loads(path.read_text())["segments"]
        assert len(segments) == 2
        assert segments[1]["first_step"] >= segments[0]["last_step"] - 10
        assert segments[1]["first_step"] > 0
    local = tmp_path / "local"
    assert launch(study, "--cluster", "local", "--only", "squeeze=gap", "--results", local).returncode == 0
    assert results(folder) == results(local / "small")


def test_a_run_over_two_tasks_ends_with_the_same_bits_when_it_is_requeued(
    slurm: dict[str, str],
    launch: Launch,  # noqa: F811
    study: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    text = study.read_text().replace("epochs: 2, limit_batches: 2", "epochs: 4, checkpoint_steps: 5, world_size: 2")
    study.write_text(text)
    left_alone = ("--results", tmp_path / "alone")
    only = ("--cluster", "slurm", "--only", "squeeze=gap", "--only", "seed=0")
    for results_in in ((), left_alone):
        said = launch(study, *only, *results_in, **slurm)
        assert said.returncode == 0, said.stderr
    folder, alone = tmp_path / "results" / "small", tmp_path / "alone" / "small"
    (array,) = batches(folder)
    wait_until(lambda: any(folder.glob("*/checkpoint.pt")), 120, poll_s=0.1)
    subprocess.run(["scontrol", "requeue", f"{array}_0"], env={"PATH": "/usr/bin:/bin", **slurm}, check=True)
    wait_until(lambda: len(results(folder)) == len(results(alone)) == 1, 240)
    assert results(folder) == results(alone)
    (path,) = folder.glob("*/provenance.json")
    segments = json.loads(path.read_text())["segments"]
    assert [segment["world_size"] for segment in segments] == [2, 2]
    assert segments[1]["first_step"] > 0
    here = launch(study, "--cluster", "local", "--only", "squeeze=baseline")
    assert here.returncode == 3
    assert "which a Slurm job provides" in here.stderr


def test_a_job_that_a_node_could_not_start_is_started_again_by_the_next_launch(
    any_lab_can_start: None,
    launch: Launch,  # noqa: F811
    study: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    prolog = tmp_path / "prolog"
    prolog.write_text("#!/bin/sh\nexit 1\n")
    prolog.chmod(0o755)
    only = ("--cluster", "slurm", "--only", "squeeze=gap", "--only", "seed=0")
    shared = tmp_path / "shared.yaml"
    shared.write_text(study.read_text().replace("{recipe: digits,", "{recipe: digits, compile: true,"))
    compiling = (shared, "--cluster", "slurm", "--only", "squeeze=gap")
    with Cluster(nodes=2, gpus=0, extra=(f"Prolog={prolog}",)) as lab:
        lab.env["TORCH_COMPILE_DISABLE"] = "1"
        assert launch(study, *only, **lab.env).returncode == 0
        assert launch(*compiling, **lab.env).returncode == 0
        wait_until(lambda: lab.run("squeue", "-h", "-o", "%r").count("launch failed requeued held") == 2, 240)
        assert "could not be started and is held" in launch(study, "--status", **lab.env).stdout.replace("\n", " ")
        prolog.write_text("#!/bin/sh\n")
        lab.repair()
        again = launch(study, *only, **lab.env)
        assert "released 1 jobs that Slurm held" in again.stdout, again.stdout + again.stderr
        assert "released 1 jobs that Slurm held" in launch(*compiling, **lab.env).stdout, "the one that compiles"
        wait_until(lambda: len(list(tmp_path.glob("results/*/*/metrics.json"))) == 3, 240)
