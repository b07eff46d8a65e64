"""The state of a run, from its files and from what Slurm says of its job."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqzlab.launching.status import REASONS, State, Status, plain, status_of, summary
from sqzlab.runs.lease import Lease
from sqzlab.slurm.queue import EMPTY, Job, Queue

RUN = "resnet18-gap-s0-0877f8ed"
METRICS = {"run_id": RUN, "seed": 0, "top1": 0.5, "top5": 1.0, "val_loss": 1.0, "epochs": 2, "params": 1, "macs": 1}
START, LATER, BEATEN = (f"2026-11-21T13:{minute}:00.000+00:00" for minute in ("00", "10", "12"))
PROGRESS = {"step": 45, "steps": 100, "epoch": 4, "epochs": 10, "images_per_s": 1234.5, "eta_s": 185, "updated": BEATEN}
STOPPED = {"first_step": 0, "last_step": 40, "start": START, "end": LATER, "why": "interrupted: SIGTERM"}
BY_SLURM, BY_HAND = {**STOPPED, "slurm_job": "12_3"}, {**STOPPED, "slurm_job": None}
OPEN = {**BY_SLURM, "start": LATER, "end": None, "why": None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / RUN
    path.mkdir()
    return path


def write(folder: Path, **files: Any) -> None:
    """`progress={...}` as progress.json; `checkpoint=True` as a file that no status reads."""
    for name, values in files.items():
        path = folder / f"{name}.{'pt' if name == 'checkpoint' else 'json'}"
        path.write_text(json.dumps(values))


def begun(folder: Path, *segments: dict[str, Any]) -> None:
    write(folder, provenance={"segments": list(segments)}, progress=PROGRESS, checkpoint=True)


def has(state: str, reason: str = "None", log: Path = Path("none")) -> Queue:
    return replace(EMPTY, jobs={RUN: Job("12_3", state, reason, log)})


def had(state: str = "", log: Path = Path("none")) -> Queue:
    return replace(EMPTY, past={RUN: Job("12_3", state, "", log)})


def told(folder: Path, queue: Queue = EMPTY) -> tuple[State, str]:
    status = status_of(folder, queue)
    return status.state, status.detail


# ---- files first -------------------------------------------------------------------------------


@pytest.mark.parametrize("queue", [EMPTY, has("RUNNING"), has("PENDING"), had("NODE_FAIL"), had("CANCELLED by 0")])
def test_a_run_with_metrics_is_done_whatever_slurm_says(folder: Path, queue: Queue) -> None:
    begun(folder, BY_SLURM)
    write(folder, metrics={**METRICS, "time_s": 12.5}, failure={"error": "of an earlier attempt"})
    assert told(folder, queue) == (State.DONE, "top-1 50.00 %")
    assert status_of(folder, queue).used_s == 12.5


@pytest.mark.parametrize("queue", [EMPTY, has("PENDING"), has("UNKNOWN"), had("NODE_FAIL")])
def test_a_live_lease_is_running_whatever_slurm_says(folder: Path, queue: Queue) -> None:
    begun(folder, OPEN)
    Lease.acquire(folder)
    assert told(folder, queue) == (State.RUNNING, "epoch 5/10, 1,234 img/s, 3:05 min left")


def test_a_run_that_holds_its_lease_and_has_no_pace_yet_is_starting(folder: Path) -> None:
    Lease.acquire(folder)
    assert told(folder) == (State.RUNNING, "starting")


def test_without_slurm_the_files_alone_tell(folder: Path) -> None:
    assert told(folder.with_name("never-prepared")) == (State.MISSING, "")
    assert told(folder) == (State.MISSING, "")
    begun(folder, BY_HAND)
    assert told(folder) == (State.INTERRUPTED, "at step 40 of 100")
    write(folder, failure={"error": "DivergedError: not finite"})
    assert told(folder) == (State.FAILED, "DivergedError: not finite")


def test_a_run_killed_between_its_two_checkpoints_is_interrupted(folder: Path) -> None:
    begun(folder, BY_HAND)
    (folder / "checkpoint.pt").rename(folder / "checkpoint.previous.pt")
    assert told(folder) == (State.INTERRUPTED, "at step 40 of 100")


# ---- jobs that Slurm has -----------------------------------------------------------------------


def test_a_job_that_runs_without_a_lease_is_starting_or_ending(folder: Path) -> None:
    assert told(folder, has("RUNNING")) == (State.RUNNING, "starting, job 12_3")
    assert told(folder, has("COMPLETING")) == (State.RUNNING, "ending, job 12_3")
    begun(folder, BY_SLURM)
    write(folder, lease={"token": 1, "released": True})
    assert told(folder, has("RUNNING")) == (State.RUNNING, "starting, job 12_3")


def test_a_silent_holder_of_a_running_job_is_told_with_its_silence(folder: Path) -> None:
    begun(folder, OPEN)
    write(folder, lease={"token": 1, "host": "another", "boot": "x", "pid": 1})
    os.utime(folder / "lease.json", (time.time() - 185,) * 2)
    state, detail = told(folder, has("RUNNING"))
    assert state is State.RUNNING
    assert re.fullmatch(r"no heartbeat for 3:\d\d min, job 12_3", detail)


def test_a_run_whose_folder_was_deleted_under_its_job_still_has_the_job(tmp_path: Path) -> None:
    assert told(tmp_path / RUN, has("RUNNING")) == (State.RUNNING, "starting, job 12_3")


def test_a_job_that_waits_is_queued_with_slurms_reason(folder: Path) -> None:
    assert told(folder, has("PENDING", "Priority")) == (
        State.QUEUED,
        "behind jobs of higher priority (Priority), job 12_3",
    )
    assert told(folder, has("PENDING", "Unheard")) == (State.QUEUED, "Unheard, job 12_3")
    assert told(folder, has("CONFIGURING")) == (State.QUEUED, "configuring, job 12_3")


def test_a_job_that_waits_after_it_ran_is_preempted_at_its_step(folder: Path) -> None:
    begun(folder, BY_SLURM)
    state, detail = told(folder, has("PENDING", "BeginTime"))
    assert state is State.PREEMPTED
    assert detail == "at step 40 of 100, requeued, waits for its time (BeginTime), job 12_3"
    assert told(folder, has("SUSPENDED")) == (State.PREEMPTED, "at step 40 of 100, suspended, job 12_3")
    begun(folder, {**BY_SLURM, "slurm_job": "9_3"})  # in a job that was cancelled, before it was launched again
    assert told(folder, has("PENDING", "Odd"))[0] is State.QUEUED


def test_a_run_begun_elsewhere_or_tried_again_is_queued_not_preempted(folder: Path) -> None:
    begun(folder, BY_HAND)
    assert told(folder, has("PENDING", "Odd")) == (State.QUEUED, "at step 40 of 100, Odd, job 12_3")
    begun(folder, {**BY_SLURM, "why": "failed: OSError: no space left on device"})
    assert told(folder, has("PENDING", "Odd")) == (State.QUEUED, "at step 40 of 100, Odd, job 12_3")


def test_a_held_job_says_for_which_error(folder: Path) -> None:
    queue = replace(has("PENDING", "JobHeldUser"), held={RUN: "UnavailableError: no GPU"})
    assert told(folder, queue) == (
        State.QUEUED,
        "held: the first runs failed alike: UnavailableError: no GPU; job 12_3",
    )


def test_while_slurm_is_silent_what_was_submitted_is_queued_and_what_failed_has_failed(folder: Path) -> None:
    queue = replace(has("UNKNOWN", ""), silent="squeue: timed out")
    queued = (State.QUEUED, "job 12_3 when last asked; Slurm does not answer")
    assert told(folder, queue) == queued
    begun(folder, OPEN)
    assert told(folder, queue) == queued
    write(folder, failure={"error": "DivergedError: not finite"})
    assert told(folder, queue) == (State.FAILED, "DivergedError: not finite")


@pytest.mark.parametrize("word", REASONS)
def test_every_known_reason_is_told_in_its_own_words_beside_slurms(word: str) -> None:
    assert plain(f"{word}Limit, n[1-2]") == f"{REASONS[word]} ({word}Limit, n[1-2])"


# ---- jobs that Slurm no longer has -------------------------------------------------------------


def test_a_job_that_is_gone_without_a_result_is_lost(folder: Path, tmp_path: Path) -> None:
    assert told(folder, had()) == (State.LOST, "no result, job 12_3")
    begun(folder, OPEN)
    log = tmp_path / "12_3_0_log.out"
    log.write_text("")
    status = status_of(folder, had("OUT_OF_MEMORY", log))
    assert (status.state, status.log) == (State.LOST, log)
    assert status.detail == "OUT_OF_MEMORY without a result, at step 40 of 100, job 12_3"
    begun(folder, BY_SLURM)
    assert told(folder, had("CANCELLED by 0"))[0] is State.LOST
    begun(folder, {**BY_SLURM, "why": "done"})
    assert told(folder, had("COMPLETED"))[0] is State.LOST, "killed before it wrote its metrics"


def test_a_run_that_another_launch_took_further_after_its_job_is_not_lost(folder: Path) -> None:
    begun(folder, BY_SLURM, BY_HAND)
    assert told(folder, had("NODE_FAIL")) == (State.INTERRUPTED, "at step 40 of 100")


def test_a_cancelled_run_is_interrupted_or_not_started(folder: Path) -> None:
    queue = replace(had("CANCELLED by 0"), cancelled=frozenset({RUN}))
    assert told(folder, queue) == (State.MISSING, "cancelled")
    assert status_of(folder, queue).text == "not started, cancelled"
    begun(folder, BY_SLURM)
    assert status_of(folder, queue).text == "interrupted, cancelled at step 40 of 100"


def test_a_failed_run_tells_the_last_line_of_its_error(folder: Path) -> None:
    write(folder, failure={"error": "CalledProcessError: it said\nno space left on device"})
    for queue in (EMPTY, had("FAILED"), has("RUNNING"), has("COMPLETING")):
        assert told(folder, queue) == (State.FAILED, "no space left on device")


def test_the_log_of_a_failed_run_is_that_of_its_newest_attempt(folder: Path, tmp_path: Path) -> None:
    def written(path: Path, second: int) -> Path:
        path.touch()
        os.utime(path, (second, second))
        return path

    write(folder, failure={"error": "x"})
    assert status_of(folder).log is None
    own, of_job = written(folder / "log.txt", 10), written(tmp_path / "12_3_0_log.out", 20)
    written(folder / "failure.json", 20)
    assert status_of(folder).log == own
    assert status_of(folder, had("FAILED", of_job)).log == of_job
    assert status_of(folder, had("FAILED", tmp_path / "deleted.out")).log == own
    written(own, 30)
    assert status_of(folder, had("FAILED", of_job)).log == own


# ---- sums --------------------------------------------------------------------------------------


def test_time_is_summed_over_segments_the_open_one_to_its_last_heartbeat(folder: Path) -> None:
    begun(folder, BY_SLURM, OPEN)
    assert status_of(folder).used_s == (10 + 2) * 60
    begun(folder, BY_SLURM, {**OPEN, "start": "2026-11-21T13:20:00.000+00:00"})
    assert status_of(folder).used_s == 10 * 60, "the heartbeat is of the segment before"
    begun(folder, {**BY_SLURM, "end": None, "why": "killed"}, BY_SLURM)
    assert status_of(folder).used_s == 10 * 60, "nobody knows when the first one ended"


def test_the_summary_counts_every_state_in_order() -> None:
    found = {str(number): Status(state) for number, state in enumerate([*State, State.DONE])}
    assert summary(found) == (
        "2 done, 1 running, 1 queued, 1 preempted, 1 failed, 1 lost, 1 interrupted, 1 not started"
    )


SEGMENTS = st.lists(st.sampled_from([BY_SLURM, BY_HAND, {**BY_SLURM, "why": "failed: x"}]), max_size=3)
WORDS = st.sampled_from(["PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "UNKNOWN", "CONFIGURING"])


@given(
    segments=SEGMENTS,
    failed=st.booleans(),
    saved=st.booleans(),
    finished=st.booleans(),
    now=st.none() | WORDS,
    past=st.none() | st.sampled_from(["", "TIMEOUT", "COMPLETED"]),
    cancelled=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_mixture_of_files_and_jobs_has_one_true_state(
    tmp_path: Path,
    segments: list[dict[str, Any]],
    failed: bool,
    saved: bool,
    finished: bool,
    now: str | None,
    past: str | None,
    cancelled: bool,
) -> None:
    folder = tmp_path / str(time.monotonic_ns()) / RUN
    folder.mkdir(parents=True)
    write(folder, **({"provenance": {"segments": segments}} if segments else {}))
    write(folder, **({"failure": {"error": "x"}} if failed else {}), **({"checkpoint": True} if saved else {}))
    write(folder, **({"metrics": METRICS} if finished else {}))
    queue = Queue(
        jobs={} if now is None else has(now).jobs,
        past={} if past is None or now is not None else had(past).past,
        held={},
        cancelled=frozenset({RUN} if cancelled and now is None else ()),
        silent="no answer" if now == "UNKNOWN" else None,
    )
    state = status_of(folder, queue).state
    assert (state is State.DONE) == finished
    if not finished and now is not None:
        assert state in (State.RUNNING, State.QUEUED, State.PREEMPTED, State.FAILED), "Slurm has it: not to be started"
        assert (state is not State.FAILED) or failed
    if not finished and now is None:
        assert state in (State.FAILED, State.LOST, State.INTERRUPTED, State.MISSING), "nobody has it"
        assert (state is State.FAILED) == failed
        assert state is not State.LOST or (past is not None and not cancelled)
