"""`python -m sqzlab track`: what is refused, what is told, and how it follows a study."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tracked_study import copied, lines, put, runs, unfinish, write

from sqzlab.commands.cli import main

ROOT = Path(__file__).parents[2]
DEADLINE_S = 240.0  # only so that nothing waits for ever


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return copied(tmp_path / "study")


def track(*words: object) -> int:
    return main(["track", *map(str, words)])


def test_it_tells_what_it_wrote_and_how_to_look_at_it(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unfinish(runs(study)[1], 4)
    assert track(study, "--to", "tensorboard") == 0
    first, second = (run.name for run in runs(study))
    assert capsys.readouterr().out.splitlines() == [
        f"{first}: 10 epochs, done",
        f"{second}: 4 epochs, unfinished",
        "2 runs with 14 epochs: 2 written",
        f"to look at: tensorboard --logdir {study}/tensorboard",
    ]
    assert track(study, "--to", "tensorboard") == 0
    assert capsys.readouterr().out.startswith("2 runs with 14 epochs: 0 written, 2 were there\n")
    write(runs(study)[1], lines(runs(study)[1])[:3])
    assert track(study, "--to", "tensorboard") == 0
    assert "\n2 runs with 13 epochs: 1 written, 1 was there\n" in capsys.readouterr().out


def test_a_study_of_which_no_run_has_begun_is_told_as_that(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (path for run in runs(study) for path in run.iterdir()):
        path.unlink()
    assert track(study, "--to", "tensorboard") == 0
    assert capsys.readouterr().out.splitlines()[0] == "0 runs with 0 epochs, 2 not begun: 0 written"


def test_planned_runs_that_have_not_begun_are_counted(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in runs(study)[1].iterdir():
        path.unlink()
    assert track(study, "--to", "tensorboard", "--out", study.parent / "elsewhere") == 0
    assert "1 run with 10 epochs, 1 not begun: 1 written\n" in capsys.readouterr().out
    assert [path.name for path in (study.parent / "elsewhere/study").glob("resnet*")] == [runs(study)[0].name]
    assert not (study / "tensorboard").exists()


def test_a_study_is_left_as_it_is(study: Path) -> None:
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    assert track(study, "--to", "tensorboard", "--out", study.parent / "elsewhere") == 0
    assert {path: path.read_bytes() for path in study.rglob("*") if path.is_file()} == before


def test_what_is_damaged_is_told_and_the_rest_is_written(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs(study)[0]
    write(run, [record if record["epoch"] != 3 else {"epoch": None} for record in lines(run)])
    assert track(study, "--to", "tensorboard") == 1
    out, err = capsys.readouterr()
    assert err == f"warning: {run.name}: epochs.jsonl: line 3 is damaged and left out\n"
    assert "2 runs with 19 epochs: 2 written" in out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["{study}", "--to", "tensorbord"], 2, "--to: unknown name 'tensorbord'; did you mean 'tensorboard'? valid: "),
        (["{study}/none", "--to", "wandb"], 2, "{study}/none: no such folder; valid: a folder of results"),
        (["{study}/empty", "--to", "wandb"], 2, "{study}/empty: no study (neither plan.json nor a run with"),
        (["{study}", "--to", "tensorboard", "--online"], 2, "--project and --online apply to --to wandb only"),
        (["{study}", "--to", "tensorboard", "--project", "p"], 2, "--project and --online apply to --to wandb only"),
        (
            ["{study}", "--to", "tensorboard", "--out", "{study}/plan.json"],
            3,
            "{study}/plan.json/study: not a directory",
        ),
        (["{study}", "--to", "wandb", "--out", "{study}/plan.json/x"], 3, "{study}/plan.json/x/study: not a directory"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    study: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, told: str
) -> None:
    (study / "empty").mkdir()
    assert track(*(word.format(study=study) for word in words)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(told.format(study=study))
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_an_extra_that_is_not_installed_is_named(study: Path, name: str) -> None:
    code = f"import sys; sys.modules[{name!r}] = None; from sqzlab.commands.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "track", str(study), "--to", name]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    told = f'{name} is not installed; pip install "sqzlab[{name}]"\n'
    assert (said.returncode, said.stdout, said.stderr) == (3, "", told)


def test_two_commands_do_not_write_into_one_folder(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / "tensorboard").mkdir()
    with (study / "tensorboard/.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert track(study, "--to", "tensorboard") == 3
    assert capsys.readouterr().err == f"{study}/tensorboard: another `sqzlab track` is writing there\n"


# ---- --follow ----------------------------------------------------------------------------------


@contextmanager
def following(study: Path) -> Iterator[subprocess.Popen[str]]:
    """The command at work; it is killed where the test leaves it running, as a failed one does."""
    command = [sys.executable, "-W", "error", "-m", "sqzlab", "track", str(study), "--to", "tensorboard", "--follow"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored where pytest runs in the background
    ) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)


def until(child: subprocess.Popen[str], holds: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not holds():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.05)


def epochs(run: Path) -> list[int]:
    """What TensorBoard reads of the run."""
    folder = run.parent / "tensorboard" / run.name
    read = EventAccumulator(str(folder)).Reload() if any(folder.glob("*")) else None
    return [event.step for event in read.Scalars("top1")] if read and "top1" in read.Tags()["scalars"] else []


def test_it_follows_until_every_planned_run_has_ended(study: Path) -> None:
    first, second = runs(study)
    records, metrics = unfinish(first, 2)
    for path in second.iterdir():
        path.unlink()
    with following(study) as child:
        until(child, lambda: epochs(first) == [1, 2])
        write(first, records[:5])
        until(child, lambda: epochs(first) == [1, 2, 3, 4, 5])
        write(first, records)
        put(first / "metrics.json", metrics)
        put(second / "failure.json", b"{}")
        out, err = child.communicate(timeout=DEADLINE_S)
    assert (child.returncode, err) == (0, "")
    assert epochs(first) == [record["epoch"] for record in records]
    assert "2 runs with 10 epochs: 2 written" in out


def test_ctrl_c_ends_it_cleanly_and_it_tells_what_it_wrote(study: Path) -> None:
    first, second = runs(study)
    unfinish(first, 2)
    with following(study) as child:
        until(child, lambda: epochs(first) == [1, 2] and len(epochs(second)) == 10)
        os.kill(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=DEADLINE_S)
    assert (child.returncode, err) == (130, "interrupted\n")
    assert "\n2 runs with 12 epochs: 2 written\nto look at: " in out
    assert epochs(first) == [1, 2]
