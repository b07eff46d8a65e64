"""What a user may get wrong, and what a launch answers: one clear line, nothing lost, nothing half-written."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from launching.conftest import Launch, command, run_folders, stamps
from small_runs import wait_for

from sqzlab.runs.files import read_json


def assert_one_clear_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_a_missing_study_file(launch: Launch, tmp_path: Path) -> None:
    assert_one_clear_line(launch(tmp_path / "none.yaml"), 2, "none.yaml")


def test_an_unknown_profile(launch: Launch) -> None:
    done = launch("experiments/squeeze_ablation.yaml", "--profile", "labtop")
    assert_one_clear_line(done, 2, "labtop", "did you mean 'laptop'")


def test_a_file_with_profiles_of_its_own_tells_all_its_faults(study: Path, launch: Launch) -> None:
    text = study.read_text().replace("seeds: [0, 1]", "seeds: [0, 0]").replace("epochs: 2", "epochs: 1e-3")
    study.write_text(text + "profiles:\n  short: {seeds: [3]}\n")
    done = launch(study)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2, done.stderr
    assert "small.yaml:4:12: seeds: 0 repeats" in done.stderr
    assert "train.epochs: 0.001 is a number" in done.stderr


def test_a_file_that_is_a_study_without_its_profiles(study: Path, launch: Launch) -> None:
    study.write_text(study.read_text() + "profiles:\n  short: {seeds: [3]}\n")
    assert "small: 4 not started" in launch(study, "--dry-run").stdout
    assert "small-short: 2 not started" in launch(study, "--dry-run", "--profile", "short").stdout


def test_slurm_options_where_no_slurm_is_used(study: Path, launch: Launch) -> None:
    wrong = launch(study, "--cluster", "local", "--slurm", "partition=gpu")
    assert_one_clear_line(wrong, 2, "partition=gpu", "does not apply to --cluster local")


def test_an_unknown_value_of_only(study: Path, launch: Launch) -> None:
    assert_one_clear_line(launch(study, "--only", "squeeze=gup"), 2, "did you mean 'gap'")


def test_fewer_than_one_job(study: Path, launch: Launch) -> None:
    assert_one_clear_line(launch(study, "--jobs", "0"), 2, "--jobs 0")


def test_a_results_folder_that_is_a_file(study: Path, launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    assert_one_clear_line(launch(study), 3, "results")
    assert (tmp_path / "results").read_text() == ""


def test_a_results_folder_that_is_read_only(study: Path, launch: Launch, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(results)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a read-only file system cannot be mounted here")
    try:
        assert_one_clear_line(launch(study), 3, "results", "read-only")
    finally:
        subprocess.run(["umount", "-l", str(results)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The results folder, on a file system of 16 MB."""
    results = tmp_path / "results"
    results.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(results)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    yield results
    subprocess.run(["umount", "-l", str(results)], check=True)


def fill(folder: Path) -> None:
    with (folder / "ballast").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 12))


def test_a_launch_is_refused_where_the_disk_is_too_small_for_it(study: Path, launch: Launch, small_disk: Path) -> None:
    fill(small_disk)
    assert_one_clear_line(launch(study), 3, "need about", "0.0 MB are free")
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_a_disk_that_fills_up_ends_the_runs_and_leaves_nothing_half_written(study: Path, small_disk: Path) -> None:
    launched = subprocess.Popen(
        command(study, "--results", small_disk), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for(lambda: any(small_disk.glob("*/*/config.json")))
    fill(small_disk)
    said, _ = launched.communicate(timeout=240)
    assert launched.returncode in (1, 3)
    assert "no space left on device" in said.lower()
    assert "Traceback" not in said
    assert not list(small_disk.rglob("*.tmp")), "something half-written was left behind"
    assert not list(small_disk.rglob("metrics.json"))


def test_a_store_whose_variable_is_not_set_is_told_and_only_planned_with(launch: Launch) -> None:
    given = ("experiments/squeeze_ablation.yaml", "--profile", "imagenet_fast")
    assert_one_clear_line(launch(*given), 3, "data.store", "$IMAGENET_STORE", "is not set")
    planned = launch(*given, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "fast16 (as it is)" in planned.stdout


def test_an_imagenet_folder_that_is_missing_empty_or_mismatched(launch: Launch, tmp_path: Path) -> None:
    study = "experiments/squeeze_ablation.yaml"
    assert_one_clear_line(launch(study, IMAGENET_DIR=str(tmp_path / "none")), 3, str(tmp_path / "none"))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert_one_clear_line(launch(study, IMAGENET_DIR=str(empty)), 3, str(empty), "train")
    for part, name in (("train", "n1"), ("train", "n2"), ("val", "n1"), ("val", "n3")):
        (empty / part / name).mkdir(parents=True)
        (empty / part / name / "a.JPEG").write_bytes(b"x")
    assert_one_clear_line(launch(study, IMAGENET_DIR=str(empty)), 3, "n2", "n3")


def test_the_imagenet_profile_without_a_gpu_names_the_node(launch: Launch, tmp_path: Path) -> None:
    import socket

    from sqzlab.launching.devices import visible_gpus

    if visible_gpus():
        pytest.skip("this machine has a GPU")
    for number in range(1000):
        for part in ("train", "val"):
            folder = tmp_path / "imagenet" / part / f"n{number:04}"
            folder.mkdir(parents=True)
            for image in range(2 if part == "train" else 1):
                (folder / f"{image}.JPEG").write_bytes(b"x")
    done = launch("experiments/squeeze_ablation.yaml", IMAGENET_DIR=str(tmp_path / "imagenet"))
    assert_one_clear_line(done, 3, "GPU", socket.gethostname())


def test_damaged_files_of_a_study_cost_only_the_damaged_runs(study: Path, launch: Launch, tmp_path: Path) -> None:
    assert launch(study).returncode == 0
    folder = tmp_path / "results" / "small"
    whole, cut, emptied = run_folders(folder)[:3]
    before = stamps(whole)
    metrics = {path: (path / "metrics.json").read_text() for path in (cut, emptied)}
    (cut / "metrics.json").write_text(metrics[cut][:50])
    (emptied / "metrics.json").write_text("{}")
    (folder / "plan.json").write_text("{")
    assert "2 done, 2 interrupted" in launch(study, "--status").stdout
    done = launch(study)
    assert done.returncode == 0, done.stderr
    for path, text in metrics.items():
        assert read_json(path / "metrics.json")["top1"] == json.loads(text)["top1"]
    assert read_json(folder / "plan.json") is not None
    assert stamps(whole) == before


# ---- helpers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--watch", "--cancel"), ("--cancel", "not allowed with", "--watch")),
        (("--jobs", "many"), ("--jobs", "'many'")),
        (("--cluster", "moon"), ("--cluster", "'moon'", "slurm", "local")),
        (("--slurm", "job-name=x"), ("--slurm", "job-name", "is set by the launch itself")),
        (("--slurm", "partition="), ("--slurm", "no KEY=VALUE")),
        (("--selftest", "--cluster", "local"), ("--selftest", "local")),
    ],
)
def test_options_that_do_not_go_together_or_mean_nothing(
    study: Path, launch: Launch, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    given = arguments if "--selftest" in arguments else (study, *arguments)
    assert_one_clear_line(launch(*given), 2, *words)


def test_no_study_at_all(launch: Launch) -> None:
    assert_one_clear_line(launch(), 2, "no study is named")


def test_a_budget_that_is_too_small_refuses_the_launch(launch: Launch, tmp_path: Path) -> None:
    study = tmp_path / "small.yaml"
    text = Path("experiments/squeeze_ablation.yaml").read_text()
    study.write_text(text.replace("gpu_hours: 750", "gpu_hours: 75"))
    refused = launch(study, "--profile", "imagenet", "--dry-run")
    assert refused.returncode == 2
    assert "budget.gpu_hours: 75: the 48 runs need about" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
