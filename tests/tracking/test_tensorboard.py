"""Event files, read back by tensorboard itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tracked_study import copied, lines, runs, unfinish, write

from sqzlab.tracking.epochs import SERIES, read_run
from sqzlab.tracking.tensorboard import TensorBoard


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return runs(copied(tmp_path / "study"))[0]


def track(run: Path) -> bool:
    return TensorBoard(run.parent / "tensorboard").track(read_run(run)[0])


def events(run: Path) -> Path:
    """The run's newest file of events."""
    return max((run.parent / "tensorboard" / run.name).iterdir())


def opened(run: Path) -> EventAccumulator:
    return EventAccumulator(str(events(run).parent)).Reload()


def session(read: EventAccumulator, tag: str) -> bytes:
    (event,) = read.Tensors(tag)
    assert isinstance(event.tensor_proto, TensorProto)
    return bytes(read.SummaryMetadata(tag).plugin_data.content)


def steps(read: EventAccumulator, tag: str) -> list[int]:
    return [event.step for event in read.Scalars(tag)]


def test_tensorboard_reads_every_epoch_of_the_records(run: Path) -> None:
    assert track(run)
    read, tracked = opened(run), read_run(run)[0]
    for name in SERIES:
        found = read.Scalars(name)
        assert [event.step for event in found] == [line["epoch"] for line in lines(run)]
        assert [event.value for event in found] == pytest.approx([line[name] for line in lines(run)], rel=1e-7)
        assert [event.wall_time for event in found] == [epoch.time_s for epoch in tracked.epochs]


def test_final_metrics_stand_at_the_last_epoch(run: Path) -> None:
    track(run)
    read, tracked = opened(run), read_run(run)[0]
    for name, value in tracked.final.items():
        (event,) = read.Scalars(f"final/{name}")
        assert (event.step, event.value) == (len(tracked.epochs), pytest.approx(value, rel=1e-7))


def test_the_configuration_is_the_hyperparameters_of_a_session_and_an_arm_is_a_group(tmp_path: Path) -> None:
    groups = []
    for run in runs(copied(tmp_path / "study")):
        track(run)
        content = session(opened(run), metadata.SESSION_START_INFO_TAG)
        started = metadata.parse_session_start_info_plugin_data(content)
        groups.append(started.group_name)
        shown = {key: getattr(value, value.WhichOneof("kind")) for key, value in started.hparams.items()}
        expected = read_run(run)[0].config
        assert shown == {key: value for key, value in expected.items() if key != "seed"}
        assert {key: type(value) for key, value in shown.items() if isinstance(value, str | bool)} == {
            key: type(value) for key, value in expected.items() if isinstance(value, str | bool)
        }
    assert groups == ["study: resnet18-baseline"] * 2


@pytest.mark.parametrize(("file", "status"), [("metrics.json", STATUS_SUCCESS), ("failure.json", STATUS_FAILURE)])
def test_a_session_ends_as_its_run_did(run: Path, file: str, status: int) -> None:
    (run / "metrics.json").rename(run / file)
    track(run)
    content = session(opened(run), metadata.SESSION_END_INFO_TAG)
    assert metadata.parse_session_end_info_plugin_data(content).status == status


def test_a_run_that_goes_on_has_no_end(run: Path) -> None:
    unfinish(run, 4)
    track(run)
    read = opened(run)
    assert metadata.SESSION_END_INFO_TAG not in read.Tags()["tensors"]
    assert not [tag for tag in read.Tags()["scalars"] if tag.startswith("final/")]
    assert steps(read, "top1") == [1, 2, 3, 4]


def test_equal_records_give_equal_bytes_and_nothing_is_written_twice(run: Path) -> None:
    track(run)
    before = events(run).read_bytes()
    assert not track(run)
    assert events(run).read_bytes() == before
    shutil.rmtree(run.parent / "tensorboard")
    track(run)
    assert events(run).read_bytes() == before


def test_what_a_run_adds_is_appended_for_those_who_look_on(run: Path) -> None:
    records, metrics = unfinish(run, 4)
    track(run)
    read, path, before = opened(run), events(run), events(run).read_bytes()
    write(run, records)
    (run / "metrics.json").write_bytes(metrics)
    assert track(run)
    assert events(run) == path
    assert path.read_bytes().startswith(before)
    read.Reload()
    assert steps(read, "top1") == [record["epoch"] for record in records]
    assert len(read.Scalars("final/top1")) == 1


def test_epochs_that_a_resumed_run_wrote_again_replace_the_former_ones(run: Path) -> None:
    records, _ = unfinish(run, 6)
    track(run)
    read = opened(run)
    again = [record | {"images_per_s": 1.0} for record in records]
    write(run, [*records[:4], *again[4:8]])
    assert track(run)
    for reader in (read.Reload(), opened(run)):  # one who looked on, and one who comes now
        assert steps(reader, "images_per_s") == list(range(1, 9))
        assert [event.value for event in reader.Scalars("images_per_s")][4:] == [1.0] * 4


def test_a_file_that_was_cut_short_is_completed(run: Path) -> None:
    track(run)
    whole = events(run).read_bytes()
    events(run).write_bytes(whole[: len(whole) // 2 + 3])
    assert track(run)
    assert events(run).read_bytes() == whole


def test_a_damaged_file_is_superseded(run: Path) -> None:
    track(run)
    whole, path = events(run).read_bytes(), events(run)
    path.write_bytes(whole[:50] + b"\x00" * 50 + whole[100:])
    assert track(run)
    assert events(run) != path
    assert events(run).read_bytes() == whole
    assert steps(opened(run), "top1") == [line["epoch"] for line in lines(run)]
