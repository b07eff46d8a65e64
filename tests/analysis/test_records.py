import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqzlab.analysis.arms import group_arms
from sqzlab.analysis.checks import find_warnings
from sqzlab.analysis.records import is_study, load_records, read_study
from sqzlab.analysis.tables import squeeze_table
from sqzlab.analysis.writers import to_csv
from sqzlab.errors import ConfigError

MakeStudy = Callable[..., Path]


def a_run(folder: Path, start: str = "resnet18-gap-s0") -> Path:
    return next(run for run in folder.iterdir() if run.name.startswith(start))


def row_of(folder: Path, run: Path) -> "pd.Series[object]":
    frame = load_records(folder)
    return frame[frame["run_id"] == run.name].iloc[0]


def test_a_complete_study_has_one_done_row_for_each_planned_run(make_study: MakeStudy) -> None:
    frame = load_records(make_study())
    assert len(frame) == 16
    assert set(frame["state"]) == {"done"}
    assert frame["planned"].all()


def test_metrics_and_axes_keep_their_values_in_full_precision(make_study: MakeStudy) -> None:
    folder = make_study(matrix={"model.squeeze": ["baseline", "gap"], "model.reduction": [8, 16]})
    run = a_run(folder, "resnet18-gap-reduction8-s0")
    written, row = json.loads((run / "metrics.json").read_text()), row_of(folder, run)
    assert row["top1"] == written["top1"]
    assert row["params"] == written["params"]
    assert row["model.reduction"] == 8
    assert isinstance(row["model.reduction"], int)


@pytest.mark.parametrize("state", ["failed", "missing"])
def test_a_planned_run_without_metrics_is_shown_with_its_plan(make_study: MakeStudy, state: str) -> None:
    folder = make_study(states={"resnet18-gap-s0": state})
    frame = load_records(folder)
    row = frame[frame["state"] == state].iloc[0]
    assert row["model.squeeze"] == "gap"
    assert row["seed"] == 0
    assert row["params"] == 706_900
    assert (row["error"] == "FloatingPointError: loss is nan at step 12") == (state == "failed")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not whole JSON"),
        (b'{"run_id": "x", "top1": 0.9', "not whole JSON"),
        (b"\x00\xff\xfe", "not whole JSON"),
        (b"[" * 100_000, "not whole JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"run_id": "x"}', "without seed, top1"),
    ],
)
def test_damaged_metrics_become_a_damaged_row(make_study: MakeStudy, content: bytes, told: str) -> None:
    folder = make_study()
    run = a_run(folder)
    (run / "metrics.json").write_bytes(content)
    row = row_of(folder, run)
    assert row["state"] == "damaged"
    assert told in str(row["error"])
    assert pd.isna(row["top1"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("top1", float("nan")), ("top1", 93.1), ("top1", None), ("top1", "0.9"), ("val_loss", float("inf"))),
        *(("params", 1.5), ("seed", -1), ("macs", True), ("run_id", "another"), ("params", 10**30)),
    ],
)
def test_values_that_cannot_be_make_a_row_damaged(make_study: MakeStudy, key: str, value: object) -> None:
    folder = make_study()
    run = a_run(folder)
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {key: value}))
    row = row_of(folder, run)
    assert row["state"] == "damaged"
    assert key in str(row["error"]) or "another run" in str(row["error"])


@pytest.mark.parametrize("key", ["train_images_per_s", "time_s", "train_loss"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf"), None, "fast", True, 10**400], ids=str)
def test_a_measurement_that_is_no_number_is_absent_and_its_run_counts(
    make_study: MakeStudy, key: str, value: object
) -> None:
    folder = make_study()
    run = a_run(folder)
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {key: value}))
    row = row_of(folder, run)
    assert row["state"] == "done"
    assert pd.isna(row[key])
    assert row["top1"] == metrics["top1"]


def test_every_row_says_its_folder_before_the_axes(make_study: MakeStudy) -> None:
    folder = make_study(states={"resnet18-gap": "failed"})
    frame = load_records(folder)
    assert set(frame["folder"]) == {str(folder)}
    assert [column for column in frame.columns if "." in column] == list(frame.columns)[-2:]
    assert frame.columns[-3] == "folder"
    assert frame.attrs == {"baseline": {"model.squeeze": "baseline"}}


def test_metrics_cut_at_any_byte_never_crash(make_study: MakeStudy) -> None:
    folder = make_study(matrix={"model.squeeze": ["baseline", "gap"]}, seeds=[0])
    run = a_run(folder)
    whole = (run / "metrics.json").read_bytes()
    for length in range(0, len(whole) - 2, 37):
        (run / "metrics.json").write_bytes(whole[:length])
        assert row_of(folder, run)["state"] == "damaged"


def test_a_run_outside_the_plan_is_found_but_not_counted(make_study: MakeStudy) -> None:
    folder = make_study()
    plan = json.loads((folder / "plan.json").read_text())
    plan["runs"] = [run for run in plan["runs"] if run["cell"]["model.squeeze"] != "RG"]
    (folder / "plan.json").write_text(json.dumps(plan))
    records = read_study(folder)
    assert len(records.rows) == 16
    assert len(records.counted) == 14
    assert {row["model.squeeze"] for row in records.rows if not row["planned"]} == {"RG"}


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"runs": [{}]}', b"[]", b'{"runs": 3}'])
def test_without_a_usable_plan_the_runs_that_are_found_count(make_study: MakeStudy, content: bytes | None) -> None:
    folder = make_study()
    (folder / "plan.json").unlink()
    if content is not None:
        (folder / "plan.json").write_bytes(content)
    records = read_study(folder)
    assert len(records.counted) == 16
    assert set(records.axes) == {"model.backbone", "model.squeeze"}
    assert any("plan.json" in warning for warning in records.warnings)


def test_a_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    assert not is_study(tmp_path)
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ConfigError, match=r"valid|launch"):
            load_records(folder)


def test_a_damaged_failure_file_still_counts_as_a_failure(make_study: MakeStudy) -> None:
    folder = make_study(states={"resnet18-gap-s0": "failed"})
    run = a_run(folder)
    (run / "failure.json").write_text("{")
    assert row_of(folder, run)["state"] == "failed"


def test_counts_that_differ_from_the_plan_are_told(make_study: MakeStudy) -> None:
    folder = make_study()
    run = a_run(folder)
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"params": 1}))
    assert any("plan says" in warning for warning in read_study(folder).warnings)


def test_a_copied_run_folder_is_not_taken_for_another_run(make_study: MakeStudy) -> None:
    folder = make_study()
    shutil.copytree(a_run(folder), folder / "copy-of-gap")
    assert row_of(folder, folder / "copy-of-gap")["state"] == "damaged"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["metrics.json", "plan.json", "failure.json"]), data=st.data())
def test_whatever_stands_in_a_file_the_study_can_be_read(make_study: MakeStudy, name: str, data: st.DataObject) -> None:
    matrix = {"model.squeeze": ["baseline", "gap"]}
    folder = make_study(f"results/{uuid.uuid4()}", matrix=matrix, states={"resnet18-gap-s1": "failed"})
    for path in folder.glob(f"**/{name}"):
        values = json.loads(path.read_text())
        key = data.draw(st.sampled_from(sorted(values)))
        path.write_text(json.dumps(values | {key: data.draw(JSON)}))
    records = read_study(folder)
    groups = group_arms(records)
    assert to_csv(squeeze_table(records, groups))
    assert isinstance(find_warnings(records, groups), tuple)
