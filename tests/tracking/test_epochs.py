"""What trackers are told of a run, against its files read line by line."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from tracked_study import copied, lines, runs, unfinish, write

from sqzlab.tracking.epochs import FINAL, SERIES, planned_ids, read_run, run_ids, signature


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return copied(tmp_path / "squeeze_ablation-laptop")


@pytest.fixture
def run(study: Path) -> Path:
    return runs(study)[0]


def test_every_epoch_of_a_run_is_read_as_it_was_written(run: Path) -> None:
    tracked, faults = read_run(run)
    assert faults == ()
    written = lines(run)
    assert [epoch.number for epoch in tracked.epochs] == [line["epoch"] for line in written]
    for epoch, line in zip(tracked.epochs, written, strict=True):
        assert epoch.values == {name: line[name] for name in SERIES}


def test_an_epoch_ended_as_long_after_the_start_as_all_epochs_until_it_took(run: Path) -> None:
    begun = json.loads((run / "provenance.json").read_text())["segments"][0]["start"]
    start_s = datetime.fromisoformat(begun).timestamp()
    tracked, _ = read_run(run)
    took = 0.0
    for epoch, line in zip(tracked.epochs, lines(run), strict=True):
        took += line["time_s"]
        assert epoch.time_s == pytest.approx(start_s + took, abs=1e-3)


def test_a_run_has_its_name_its_arm_and_its_study(study: Path) -> None:
    first, second = (read_run(run)[0] for run in runs(study))
    assert (first.run_id, first.study) == (runs(study)[0].name, "squeeze_ablation-laptop")
    assert first.arm == second.arm == "resnet18-baseline"


def test_the_configuration_has_dotted_keys_and_nothing_that_is_absent(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())["config"]
    expected = {
        f"{section}.{key}": value
        for section in ("model", "data", "train")
        for key, value in config[section].items()
        if value is not None
    }
    assert read_run(run)[0].config == expected | {"seed": config["seed"]}


def test_lists_of_the_configuration_are_texts(run: Path) -> None:
    values = json.loads((run / "config.json").read_text())
    values["config"]["train"]["milestones"] = [30, 60]
    (run / "config.json").write_text(json.dumps(values))
    assert read_run(run)[0].config["train.milestones"] == "[30, 60]"


def test_a_done_run_has_its_final_metrics(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert read_run(run)[0].final == {name: metrics[name] for name in FINAL}


@pytest.mark.parametrize(
    ("file", "content", "state", "faults"),
    [
        (None, "", "unfinished", []),
        ("failure.json", "{}", "failed", []),
        ("metrics.json", "{", "damaged", ["metrics.json: not a whole JSON object"]),
        ("metrics.json", '{"top1": 1}', "damaged", ["metrics.json: without run_id, seed, top5, "]),
    ],
)
def test_the_state_is_what_the_files_say(
    run: Path, file: str | None, content: str, state: str, faults: list[str]
) -> None:
    unfinish(run, 3)
    if file is not None:
        (run / file).write_text(content)
    tracked, told = read_run(run)
    assert (tracked.state, tracked.final, len(tracked.epochs)) == (state, {}, 3)
    assert tracked.ended == (state != "unfinished")
    assert len(told) == len(faults)
    assert all(line.startswith(f"{run.name}: {fault}") for line, fault in zip(told, faults, strict=True))


def test_of_an_epoch_that_is_there_twice_the_later_line_counts(run: Path) -> None:
    records = lines(run)
    again = records[4] | {"images_per_s": 1.0}
    write(run, [*records[:5], again, *records[5:]])
    tracked, faults = read_run(run)
    assert faults == ()
    assert [epoch.number for epoch in tracked.epochs] == [record["epoch"] for record in records]
    assert tracked.epochs[4].values["images_per_s"] == 1.0


def test_a_speed_that_was_not_measured_is_left_out(run: Path) -> None:
    write(run, [record | {"images_per_s": None} for record in lines(run)])
    tracked, faults = read_run(run)
    assert faults == ()
    assert all(set(epoch.values) == set(SERIES) - {"images_per_s"} for epoch in tracked.epochs)


@pytest.mark.parametrize(
    "damaged",
    [
        *("", "[]", "null", "{", '"text"', '{"epoch": 3}', "\x00\x00", "[" * 100_000),
        '{"epoch": "3", "train_loss": 1, "val_loss": 1, "top1": 1}',
        '{"epoch": -1, "train_loss": 1, "val_loss": 1, "top1": 1}',
        f'{{"epoch": {"9" * 400}, "train_loss": 1, "val_loss": 1, "top1": 1}}',
        f'{{"epoch": {2**63}, "train_loss": 1, "val_loss": 1, "top1": 1}}',
        '{"epoch": 3, "train_loss": "1", "val_loss": 1, "top1": 1}',
        '{"epoch": 3, "train_loss": NaN, "val_loss": 1, "top1": 1}',
        '{"epoch": 3, "train_loss": 1, "val_loss": 1, "top1": 1e999}',
    ],
)
def test_a_damaged_line_is_left_out_and_told(run: Path, damaged: str) -> None:
    whole = (run / "epochs.jsonl").read_text().splitlines()
    (run / "epochs.jsonl").write_text("\n".join([*whole[:2], damaged, *whole[3:]]) + "\n")
    tracked, faults = read_run(run)
    assert faults == (f"{run.name}: epochs.jsonl: line 3 is damaged and left out",)
    assert [epoch.number for epoch in tracked.epochs] == [1, 2, *range(4, len(whole) + 1)]


@pytest.mark.parametrize(
    ("ended", "faults"), [(False, []), (True, ["epochs.jsonl: the last line is cut short and left out"])]
)
def test_a_line_without_an_end_is_being_written_unless_the_run_has_ended(
    run: Path, ended: bool, faults: list[str]
) -> None:
    unfinish(run, 3)
    with (run / "epochs.jsonl").open("a") as file:
        file.write('{"epoch": 4, "lr"')
    if ended:
        (run / "failure.json").write_text("{}")
    tracked, told = read_run(run)
    assert len(tracked.epochs) == 3
    assert told == tuple(f"{run.name}: {fault}" for fault in faults)


def test_a_run_that_failed_before_its_first_epoch_is_told_without_a_fault(run: Path) -> None:
    for name in ("epochs.jsonl", "metrics.json"):
        (run / name).unlink()
    (run / "failure.json").write_text("{}")
    tracked, faults = read_run(run)
    assert (tracked.state, tracked.epochs, faults) == ("failed", (), ())


@pytest.mark.parametrize("content", [None, "", "[]", '{"segments": []}', '{"segments": [{"start": null}]}'])
def test_without_a_start_in_the_provenance_times_begin_at_0(run: Path, content: str | None) -> None:
    (run / "provenance.json").unlink()
    if content is not None:
        (run / "provenance.json").write_text(content)
    tracked, _ = read_run(run)
    assert tracked.start_s == 0
    assert tracked.epochs[0].time_s == lines(run)[0]["time_s"]


def test_runs_are_those_with_an_epoch_or_an_end_and_planned_ones_those_of_the_plan(study: Path) -> None:
    first, second = runs(study)
    for path in second.iterdir():
        path.unlink()
    (study / "report").mkdir()
    assert run_ids(study) == (first.name,)
    assert planned_ids(study) == (first.name, second.name)
    (study / "plan.json").write_text("{")
    assert planned_ids(study) == ()


def test_the_signature_changes_with_every_epoch_and_with_the_end(run: Path) -> None:
    records, metrics = unfinish(run, 3)
    found = [signature(run)]
    write(run, records)
    found.append(signature(run))
    (run / "metrics.json").write_bytes(metrics)
    found.append(signature(run))
    assert len({*found, signature(run)}) == 3
