"""What --status and --watch show of a study."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from sqzlab.launching.status import State, Status, statuses
from sqzlab.launching.watch import MOST_LOGS, MOST_ROWS, left_s, show, status_table, sums, watch
from sqzlab.run import Run
from sqzlab.runs.lease import Lease
from sqzlab.slurm.queue import EMPTY, Job, Queue
from sqzlab.study.slurm import Slurm
from sqzlab.study.study import load_study

METRICS = {"seed": 0, "top1": 0.5, "top5": 1.0, "val_loss": 1.0, "epochs": 2, "params": 1, "macs": 1, "time_s": 36.0}


@pytest.fixture
def runs(study: Path) -> tuple[Run, ...]:
    return load_study(study).runs


def finish(folder: Path, run: Run) -> None:
    (folder / run.run_id).mkdir(exist_ok=True)
    (folder / run.run_id / "metrics.json").write_text(json.dumps({**METRICS, "run_id": run.run_id}))


def fail(folder: Path, run: Run) -> None:
    (folder / run.run_id).mkdir(exist_ok=True)
    (folder / run.run_id / "failure.json").write_text('{"error": "DivergedError: [/red] not finite"}')
    (folder / run.run_id / "log.txt").touch()


def queued(*runs: Run, state: str = "PENDING", reason: str = "Resources") -> Queue:
    jobs = {run.run_id: Job(f"12_{number}", state, reason, Path("none")) for number, run in enumerate(runs)}
    return replace(EMPTY, jobs=jobs)


def on_paper(width: int = 80) -> tuple[Console, io.StringIO]:
    paper = io.StringIO()
    return Console(file=paper, width=width), paper


def printed(found: dict[str, Status]) -> list[list[str]]:
    console, paper = on_paper(200)
    console.print(status_table(found))
    return [line.split() for line in paper.getvalue().splitlines()]


# ---- once --------------------------------------------------------------------------------------


def test_the_status_is_readable_at_80_columns(runs: tuple[Run, ...], tmp_path: Path) -> None:
    finish(tmp_path, runs[0])
    fail(tmp_path, runs[1])
    queue = queued(*runs[2:], reason="ReqNodeNotAvail, UnavailableNodes:n[1-200]")
    console, paper = on_paper()
    show(console, tmp_path, runs, statuses(tmp_path, runs, queue), queue)
    text = paper.getvalue()
    table = text[: text.index(str(tmp_path))]
    assert max(map(len, table.splitlines())) <= 80
    for words in ("done top-1 50.00 %", "failed DivergedError: [/red] not finite", "queued a node that it needs"):
        assert words in table
    assert f"{tmp_path}: 1 done, 2 queued, 1 failed\n" in text
    assert "\n0.01 core-hours used\n" in text
    assert f"\nlog of {runs[1].run_id}: {tmp_path / runs[1].run_id / 'log.txt'}\n" in text


def test_that_slurm_is_silent_is_one_line(runs: tuple[Run, ...]) -> None:
    found = {run.run_id: Status(State.QUEUED) for run in runs}
    told = sums(runs, found, replace(EMPTY, silent="squeue: connection refused"))
    assert told[1:] == ["Slurm does not answer (squeue: connection refused): what is queued is as last known"]


def test_of_many_runs_those_come_first_that_want_to_be_looked_at() -> None:
    found = {f"run{number}": Status(State.DONE) for number in range(9000)}
    found |= {"bad": Status(State.FAILED), "gone": Status(State.LOST), "busy": Status(State.RUNNING)}
    rows = printed(found)
    assert [row[0] for row in rows[1:4]] == ["bad", "gone", "busy"]
    assert len(rows) == 1 + MOST_ROWS + 1
    assert rows[-1] == ["...", "and", "8,803", "more"]


def test_of_many_failed_runs_half_give_way_to_what_runs() -> None:
    found = {f"bad{number}": Status(State.FAILED) for number in range(300)}
    found |= {f"busy{number}": Status(State.RUNNING) for number in range(300)}
    states = [row[1] for row in printed(found)[1:-1]]
    assert states == ["failed"] * (MOST_ROWS // 2) + ["running"] * (MOST_ROWS // 2)
    few = {f"bad{number}": Status(State.FAILED) for number in range(300)} | {"busy": Status(State.RUNNING)}
    assert [row[1] for row in printed(few)[1:-1]] == ["failed"] * (MOST_ROWS - 1) + ["running"]


def test_many_logs_are_cut_and_counted(runs: tuple[Run, ...]) -> None:
    found = {run.run_id: Status(State.DONE) for run in runs}
    found |= {f"bad{number}": Status(State.LOST, log=Path("x")) for number in range(MOST_LOGS + 5)}
    assert sums(runs, found)[-1] == "... and 5 more logs"


def test_hours_count_every_device_and_the_shared_ones_once(runs: tuple[Run, ...]) -> None:
    def on(run: Run, **train: object) -> Run:
        config = run.config.model_copy(update={"train": run.config.train.model_copy(update=train)})
        return replace(run, config=config)

    def used(*runs: Run, slurm: Slurm | None = None) -> str:
        found = {run.run_id: Status(State.LOST, used_s=3600.0) for run in runs}
        return sums(runs, found, EMPTY, None if slurm is None else lambda run: slurm)[0]

    assert used(runs[0], runs[1]) == "2 core-hours used"
    assert used(on(runs[0], threads=4, world_size=2)) == "8 core-hours used"
    assert used(on(runs[0], device="cuda", threads=4, world_size=8)) == "8 GPU-hours used"
    four = [on(run, device="cuda") for run in runs]
    assert used(*four) == "4 GPU-hours used"
    assert used(*four, slurm=Slurm(gpus=1, runs_per_job=4)) == "1 GPU-hours used"
    assert used(*four, slurm=Slurm(gpus=4, runs_per_job=4)) == "4 GPU-hours used"


def test_the_time_left_is_that_of_the_runs_paces_and_of_finished_ones(runs: tuple[Run, ...]) -> None:
    first, second, third, fourth = (run.run_id for run in runs)
    busy = Status(State.RUNNING, values={"eta_s": 90.0, "step": 10, "steps": 100}, used_s=10.0)
    found = {first: Status(State.DONE, used_s=50.0), second: busy, third: busy, fourth: Status(State.QUEUED)}
    mean = (50 + 100 + 100) / 3
    assert left_s(runs, found) == pytest.approx((90 + 90 + mean) / 2)
    found[fourth] = Status(State.PREEMPTED, values={"step": 25, "steps": 100})
    assert left_s(runs, found) == pytest.approx((90 + 90 + 0.75 * mean) / 2)
    found[fourth] = Status(State.FAILED)
    assert left_s(runs, found) == pytest.approx(90)
    assert sums(runs, found)[0].endswith("used, about 1:30 min left with 2 at a time")
    found[third] = Status(State.RUNNING, values={**busy.values, "eta_s": 10.0}, used_s=90.0)
    assert left_s(runs, found) == pytest.approx(90), "at least the longest pace"


def test_nobody_says_how_long_where_nothing_runs_or_has_run(runs: tuple[Run, ...]) -> None:
    found = {run.run_id: Status(State.QUEUED) for run in runs}
    assert left_s(runs, found) is None
    found[runs[0].run_id] = Status(State.DONE, used_s=50.0)
    assert left_s(runs, found) is None
    found = {run.run_id: Status(State.RUNNING, "starting") for run in runs}
    assert left_s(runs, found) is None


# ---- all the time ------------------------------------------------------------------------------


def watched(folder: Path, runs: tuple[Run, ...], looks: Iterator[Queue]) -> tuple[int, list[str]]:
    console, paper = on_paper()
    code = watch(folder, runs, lambda: next(looks), console, every_s=0.0, ask_every_s=0.0)
    return code, paper.getvalue().splitlines()


def test_in_a_log_every_change_of_a_state_is_a_line(runs: tuple[Run, ...], tmp_path: Path) -> None:
    first, second = runs[:2]

    def looks() -> Iterator[Queue]:
        yield queued(first, second)
        yield queued(first, second, state="RUNNING")
        finish(tmp_path, first)
        yield queued(second, state="RUNNING")
        fail(tmp_path, second)
        yield EMPTY

    code, told = watched(tmp_path, (first, second), looks())
    assert code == 1
    assert told == [
        "2 queued; 0 core-hours used",
        f"{first.run_id}: running starting, job 12_0",
        f"{second.run_id}: running starting, job 12_1",
        f"{first.run_id}: done top-1 50.00 %",
        f"{second.run_id}: failed DivergedError: [/red] not finite; log: {tmp_path / second.run_id / 'log.txt'}",
        f"{tmp_path}: 1 done, 1 failed",
        "0.01 core-hours used",
        f"log of {second.run_id}: {tmp_path / second.run_id / 'log.txt'}",
    ]


def test_watching_goes_on_while_slurm_is_silent(runs: tuple[Run, ...], tmp_path: Path) -> None:
    def looks() -> Iterator[Queue]:
        yield queued(*runs)
        yield replace(queued(*runs, state="UNKNOWN"), silent="squeue: timed out")
        for run in runs:
            finish(tmp_path, run)
        yield EMPTY

    code, told = watched(tmp_path, runs, looks())
    assert code == 0
    assert told[-2:] == [f"{tmp_path}: 4 done", "0.04 core-hours used"]


@pytest.mark.parametrize(("outcome", "code"), [("done", 0), ("lost", 1), ("untouched", 0)])
def test_watching_ends_when_nothing_is_under_way(
    runs: tuple[Run, ...], tmp_path: Path, outcome: str, code: int
) -> None:
    if outcome == "done":
        for run in runs:
            finish(tmp_path, run)
    gone = {runs[0].run_id: Job("12_0", "NODE_FAIL", "", Path("none"))} if outcome == "lost" else {}
    assert watched(tmp_path, runs, iter([replace(EMPTY, past=gone)]))[0] == code


def test_slurm_is_asked_less_often_than_the_files_and_once_more_before_the_end(
    runs: tuple[Run, ...], tmp_path: Path
) -> None:
    (tmp_path / runs[0].run_id).mkdir()
    lease = Lease.acquire(tmp_path / runs[0].run_id)
    asked = []

    def read_queue() -> Queue:
        asked.append(1)
        if len(asked) == 1:
            threading.Timer(0.1, lease.release).start()
            return EMPTY
        return queued(runs[1]) if len(asked) == 2 else EMPTY

    console, paper = on_paper()
    assert watch(tmp_path, runs, read_queue, console, every_s=0.01, ask_every_s=0.5) == 0
    assert len(asked) == 3, "it was idle at the last look of the first answer, and then a job had come"
    assert f"{runs[1].run_id}: queued" in paper.getvalue()


@pytest.mark.parametrize("height", [6, 12, 40])
def test_on_a_terminal_the_table_fits_its_height(study: Path, tmp_path: Path, height: int) -> None:
    study.write_text(study.read_text().replace("[0, 1]", str(list(range(30)))))
    runs = load_study(study).runs

    def looks() -> Iterator[Queue]:
        past = {run.run_id: Job("12_0", "NODE_FAIL", "", tmp_path) for run in runs[:30]}  # each with a log
        yield replace(queued(*runs[30:]), past=past)
        for run in runs:
            finish(tmp_path, run)
        yield EMPTY

    paper, answers = io.StringIO(), looks()
    console = Console(file=paper, force_terminal=True, width=80, height=height, legacy_windows=False)
    assert watch(tmp_path, runs, lambda: next(answers), console, every_s=0.0, ask_every_s=0.0) == 0
    first_look = paper.getvalue().partition("\x1b[1A")[0]
    assert first_look.count("\n") < height
    assert "30 queued, 30 lost" in first_look
    assert f"and {60 - (height - 5):,} more" in first_look


def test_ctrl_c_leaves_the_terminal_with_its_cursor(runs: tuple[Run, ...], tmp_path: Path) -> None:
    def looks() -> Iterator[Queue]:
        yield queued(*runs)
        raise KeyboardInterrupt

    paper, answers = io.StringIO(), looks()
    console = Console(file=paper, force_terminal=True, width=80, height=20, legacy_windows=False)
    with pytest.raises(KeyboardInterrupt):
        watch(tmp_path, runs, lambda: next(answers), console, every_s=0.0, ask_every_s=0.0)
    shown = paper.getvalue()
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
