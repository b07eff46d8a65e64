"""The launch command as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from launching.conftest import Launch, command

from sqzlab.runs.files import read_json

RUNS = 4
SQUEEZES = ("baseline", "gap")


def run_folders(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/config.json"))


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_study_runs_to_its_report_and_a_second_launch_does_nothing(
    study: Path, launch: Launch, tmp_path: Path
) -> None:
    first = launch(study)
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "results" / "small"
    assert len(list(folder.glob("*/metrics.json"))) == RUNS
    assert (folder / "report" / "index.html").exists()
    assert "4 not started; running 4 (local)" in first.stdout
    assert f"report: {folder}/report/index.html" in first.stdout.replace("\n", "")
    before = stamps(folder)
    second = launch(study)
    assert second.returncode == 0, second.stderr
    assert "everything is done" in second.stdout
    assert stamps(folder) == before


def test_the_plan_shows_every_run_and_the_difference_from_the_baseline(study: Path, launch: Launch) -> None:
    shown = launch(study, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert ["gap", "resnet18", "gap", "1", "181,842"] in [row[:5] for row in rows]
    assert any(row[:4] == ["resnet18", "gap", "+5,440", "+3.08%"] for row in rows)
    tables = shown.stdout.rpartition("\n\n")[0]
    assert max(map(len, tables.splitlines())) <= 80


def test_a_dry_run_writes_nothing(study: Path, launch: Launch, tmp_path: Path) -> None:
    assert launch(study, "--dry-run").returncode == 0
    assert not (tmp_path / "results").exists()


def test_only_and_set_choose_runs_and_values(study: Path, launch: Launch, tmp_path: Path) -> None:
    done = launch(study, "--only", "squeeze=gap", "--only", "seed=1", "--set", "train.lr=0.05", "--cluster", "inline")
    assert done.returncode == 0, done.stderr
    (folder,) = run_folders(tmp_path / "results" / "small")
    config = json.loads((folder / "config.json").read_text())["config"]
    assert (config["model"]["squeeze"], config["seed"], config["train"]["lr"]) == ("gap", 1, 0.05)
    assert "3 not started" in launch(study, "--set", "train.lr=0.05", "--status").stdout


def test_a_failed_run_stops_no_other_and_is_tried_again_only_when_asked(
    study: Path, launch: Launch, tmp_path: Path
) -> None:
    study.write_text(study.read_text().replace("[baseline, gap]", "[baseline, gap]\n  train.lr: [0.1, 1.0e+30]"))
    first = launch(study, "--only", "seed=0")
    assert first.returncode == 1
    assert first.stdout.count("failed DivergedError") == 2
    assert "2 done" in launch(study, "--only", "seed=0", "--status").stdout
    folder = tmp_path / "results" / "small"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/failure.json")}
    failed = [line for line in launch(study, "--dry-run").stdout.splitlines() if "failed DivergedError" in line]
    assert [line.split()[:4] for line in failed] == [[f"{name}/1e+30", "resnet18", name, "0"] for name in SQUEEZES]
    assert max(map(len, failed)) <= 80
    plain = launch(study, "--only", "seed=0")
    assert plain.returncode == 1
    assert "failed before and not tried again without --retry-failed: 2" in plain.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    again = launch(study, "--only", "seed=0", "--retry-failed")
    assert again.returncode == 1
    assert all(path.stat().st_mtime_ns > stamp for path, stamp in before.items())
    rest = launch(study, "--only", "lr=0.1", "--only", "seed=1")
    assert rest.returncode == 0, "what failed is not among what was asked for"
    rest = launch(study, "--only", "squeeze=gap", "--only", "lr=1e+30")
    assert rest.returncode == 1
    assert "failed before and not tried again without --retry-failed: 1" in rest.stdout


def test_ctrl_c_ends_cleanly_and_the_next_launch_goes_on(study: Path, launch: Launch, tmp_path: Path) -> None:
    study.write_text(study.read_text().replace("epochs: 2, limit_batches: 2", "epochs: 30, checkpoint_steps: 5"))
    folder = tmp_path / "results" / "small"
    only = ("--only", "squeeze=gap", "--results", tmp_path / "results")
    with subprocess.Popen(
        command(study, *only),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored where pytest runs in the background
    ) as launched:
        wait_for(lambda: any(folder.glob("*/checkpoint.pt")))
        os.killpg(launched.pid, signal.SIGINT)  # as a terminal does: to the launcher and to every worker
        _, error = launched.communicate(timeout=60)
    assert launched.returncode == 130
    assert "Traceback" not in error
    assert "stopped; launch again to go on" in error
    assert_nobody_runs(folder)
    reached = [segments(path)[-1] for path in run_folders(folder) if (path / "provenance.json").exists()]
    assert reached
    assert all(segment["why"] == "interrupted: SIGTERM" for segment in reached)
    status = launch(study, "--status").stdout
    for segment in reached:
        assert f"interrupted at step {segment['last_step']}" in status
    assert "failed" not in status


def test_workers_end_with_a_killed_launcher_and_the_next_one_resumes(
    study: Path, launch: Launch, tmp_path: Path
) -> None:
    study.write_text(study.read_text().replace("epochs: 2, limit_batches: 2", "epochs: 3, checkpoint_steps: 5"))
    folder = tmp_path / "results" / "small"
    only = ("--only", "squeeze=gap", "--only", "seed=0")
    launched = subprocess.Popen(command(study, *only, "--results", tmp_path / "results"), stdout=subprocess.DEVNULL)
    wait_for(lambda: any(folder.glob("*/checkpoint.pt")))
    launched.kill()
    launched.wait()
    wait_for(lambda: not working_in(folder))
    done = launch(study, *only)
    assert done.returncode == 0, done.stderr
    (path,) = run_folders(folder)
    first, last = segments(path)
    assert first["why"] == "interrupted: the launcher is gone"
    assert last["first_step"] == first["last_step"] > 0


def test_two_launches_at_once_share_the_work_and_both_end_with_all_of_it(
    study: Path, launch: Launch, tmp_path: Path
) -> None:
    arguments = command(study, "--jobs", 1, "--results", tmp_path / "results")
    both = [subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    folder = tmp_path / "results" / "small"
    assert len(list(folder.glob("*/metrics.json"))) == RUNS
    for path in run_folders(folder):
        assert len(segments(path)) == 1, "a run was trained twice"


def test_inline_an_error_surfaces_where_it_happens(study: Path, launch: Launch) -> None:
    done = launch(study, "--cluster", "inline", "--set", "train.lr=1e30", "--only", "seed=0")
    assert done.returncode == 1
    assert "DivergedError: the training loss is not finite" in done.stderr
    assert "trainer.py" in done.stderr


def test_arms_that_differ_in_what_no_axis_names_are_refused(study: Path, launch: Launch, tmp_path: Path) -> None:
    study.write_text(study.read_text() + "include:\n  - {model.squeeze: gap, train.lr: 0.2}\n")
    refused = launch(study)
    assert refused.returncode == 2
    assert "train.lr is 0.2, but 0.1" in refused.stderr
    assert not (tmp_path / "results").exists()


def test_what_was_not_asked_for_is_not_called_done(study: Path, launch: Launch) -> None:
    only = ("--only", "squeeze=gap", "--only", "seed=0")
    assert launch(study, *only).returncode == 0
    assert "what --only names is done" in launch(study, *only).stdout
    retried = launch(study, "--retry-failed")
    assert retried.returncode == 0
    assert "1 done, 3 not started; nothing to run" in retried.stdout
    assert "everything is done" not in retried.stdout


def test_a_terminal_without_plus_minus_signs_still_gets_its_tables(study: Path, launch: Launch) -> None:
    done = launch(study, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_no_worker_stays_behind_when_nobody_reads_on(study: Path, tmp_path: Path) -> None:
    study.write_text(study.read_text().replace("epochs: 2, limit_batches: 2", "epochs: 30, checkpoint_steps: 5"))
    folder = tmp_path / "results" / "small"
    arguments = command(study, "--only", "squeeze=gap", "--jobs", 1, "--results", tmp_path / "results")
    error = tmp_path / "error.txt"
    with (
        error.open("w") as stderr,
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=stderr, text=True) as launched,
    ):
        wait_for(lambda: any(folder.glob("*/checkpoint.pt")))
        assert launched.stdout is not None
        launched.stdout.close()
        (working,) = {int(name) for name in working_in(folder)}
        os.kill(working, signal.SIGTERM)  # its end is told, into the closed pipe
        assert launched.wait(60) == 1
    assert "Traceback" not in error.read_text()
    assert_nobody_runs(folder)


# ---- bad input ---------------------------------------------------------------------------------


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
    said, _ = launched.communicate(timeout=120)
    assert launched.returncode in (1, 3)
    assert "no space left on device" in said.lower()
    assert "Traceback" not in said
    assert not list(small_disk.rglob("*.tmp")), "something half-written was left behind"
    assert not list(small_disk.rglob("metrics.json"))


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


def segments(folder: Path) -> list[dict]:
    return (read_json(folder / "provenance.json") or {})["segments"]


def wait_for(condition, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def working_in(folder: Path) -> list[str]:
    """Processes that write into a run folder: their log is open."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            found += [entry.name for link in (entry / "fd").iterdir() if str(link.readlink()).startswith(str(folder))]
        except OSError:
            continue
    return found


def assert_nobody_runs(folder: Path) -> None:
    assert not working_in(folder)
