"""The launch command as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

from launching.conftest import Launch, command, run_folders, stamps

from sqzlab.runs.files import read_json

RUNS = 4
SQUEEZES = ("baseline", "gap")


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
        _, error = launched.communicate(timeout=240)
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


def segments(folder: Path) -> list[dict]:
    return (read_json(folder / "provenance.json") or {})["segments"]


def wait_for(condition, seconds: float = 240) -> None:
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
