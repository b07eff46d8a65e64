"""What a study that has not ended says of its runs, read from the files that the runs themselves write."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqzlab.analysis.progress import SILENT_S, describe_progress, read_progress
from sqzlab.analysis.records import read_study
from sqzlab.launching.status import State, status_of
from sqzlab.runs.lease import TTL_S, Lease

MakeStudy = Callable[..., Path]
Begin = Callable[..., Path]


def told(folder: Path) -> str | None:
    records = read_study(folder)
    return describe_progress(records, read_progress(records))


def of(folder: Path, run: Path) -> str:
    return str(read_progress(read_study(folder))[run.name])


def test_a_study_whose_runs_have_all_ended_has_nothing_to_tell(make_study: MakeStudy) -> None:
    assert told(make_study(states={"resnet18-SP": "failed"})) is None


def test_a_study_that_has_not_begun_says_so(make_study: MakeStudy) -> None:
    assert told(make_study(states={"resnet18": "missing"})) == (
        "Not finished, and no run is being trained: 0 of 16 runs done, 16 not started"
    )


def test_runs_at_work_are_told_with_their_epoch(make_study: MakeStudy, begin: Begin) -> None:
    folder = make_study(states={"resnet18-SP": "missing", "resnet18-RG": "missing", "resnet18-std-s0": "failed"})
    begin(folder, "resnet18-SP-s0", epoch=2)
    begin(folder, "resnet18-SP-s1", epoch=2)
    assert told(folder) == ("Still running: 11 of 16 runs done, 2 in progress (epoch 3 of 8), 1 failed, 2 not started")
    begin(folder, "resnet18-RG-s0", epoch=4, alive=False)
    begin(folder, "resnet18-RG-s1", epoch=5)
    assert told(folder) == (
        "Still running: 11 of 16 runs done, 3 in progress (epochs 3 to 6 of 8), "
        "1 interrupted (after epoch 4 of 8), 1 failed"
    )


def test_a_run_is_at_work_for_as_long_as_it_holds_its_lease(make_study: MakeStudy, begin: Begin) -> None:
    folder = make_study(states={"resnet18-SP-s0": "missing"})
    run = begin(folder, "resnet18-SP-s0", epoch=3, alive=False)
    assert of(folder, run) == "interrupted after epoch 3 of 8"
    lease = Lease.acquire(run)
    assert of(folder, run) == "in progress, epoch 4 of 8"
    lease.release()
    assert of(folder, run) == "interrupted after epoch 3 of 8"


def test_the_launcher_and_the_report_read_the_same_files_alike(make_study: MakeStudy, begin: Begin) -> None:
    folder = make_study(states={"resnet18-SP": "missing"})
    runs = [begin(folder, "resnet18-SP-s0", epoch=3), begin(folder, "resnet18-SP-s1", epoch=7, alive=False)]
    (runs[1] / "checkpoint.pt").touch()
    found = [status_of(run) for run in runs]
    assert [status.state for status in found] == [State.RUNNING, State.INTERRUPTED]
    assert found[0].detail.startswith("epoch 4/8")
    assert [of(folder, run) for run in runs] == ["in progress, epoch 4 of 8", "interrupted after epoch 7 of 8"]
    assert SILENT_S == TTL_S


def test_a_heart_that_has_been_silent_for_too_long_is_dead(make_study: MakeStudy, begin: Begin) -> None:
    folder = make_study(states={"resnet18-SP-s0": "missing"})
    run = begin(folder, "resnet18-SP-s0", epoch=3)
    for age, state in ((SILENT_S / 2, "in progress"), (2 * SILENT_S, "interrupted")):
        os.utime(run / "lease.json", (time.time() - age,) * 2)
        assert of(folder, run).startswith(state)


def test_a_failed_run_that_is_tried_again_is_at_work(make_study: MakeStudy) -> None:
    folder = make_study(states={"resnet18-SP-s0": "failed"})
    run = next(folder.glob("resnet18-SP-s0*"))
    assert not read_progress(read_study(folder))
    lease = Lease.acquire(run)
    assert of(folder, run) == "in progress, epoch 5"
    lease.release()


def test_a_run_that_only_has_its_configuration_has_not_begun(make_study: MakeStudy) -> None:
    folder = make_study(states={"resnet18-SP-s0": "missing"})
    run_id = next(
        run["run_id"] for run in json.loads((folder / "plan.json").read_text())["runs"] if "SP-s0" in run["run_id"]
    )
    (folder / run_id).mkdir()
    (folder / run_id / "config.json").write_text("{}")
    assert told(folder) == "Not finished, and no run is being trained: 15 of 16 runs done, 1 not started"


@pytest.mark.parametrize("absent", ["progress.json", "config.json", "epochs.jsonl"])
def test_each_file_that_tells_the_epoch_may_be_absent(make_study: MakeStudy, begin: Begin, absent: str) -> None:
    folder = make_study(states={"resnet18-SP-s0": "missing"})
    run = begin(folder, "resnet18-SP-s0", epoch=3)
    (run / absent).unlink()
    assert of(folder, run) == "in progress, epoch 4 of 8"


JSON = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["progress.json", "config.json", "lease.json", "epochs.jsonl"]), data=st.data())
def test_whatever_stands_in_a_file_progress_can_be_read(
    make_study: MakeStudy, begin: Begin, name: str, data: st.DataObject, tmp_path: Path
) -> None:
    folder = tmp_path / "results" / "one"
    if not folder.exists():
        make_study("results/one", seeds=[0], states={"resnet18-SP": "missing"})
        begin(folder, "resnet18-SP-s0", epoch=3)
    run = next(folder.glob("resnet18-SP-s0*"))
    before = (run / name).read_bytes()
    values = json.loads(before.splitlines()[0])
    key = data.draw(st.sampled_from(sorted(values)))
    changed = data.draw(
        st.sampled_from([json.dumps(values | {key: data.draw(JSON)}), json.dumps(data.draw(JSON)), "{"])
    )
    (run / name).write_text(changed)
    assert told(folder)
    (run / name).write_bytes(before)
