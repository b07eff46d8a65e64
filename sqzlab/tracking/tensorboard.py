"""TensorBoard's event files, one for each run, with tensorboard's own messages and record format and without torch.

A file is a function of the run's records: equal records give equal bytes. What is on the disk therefore tells what is
still to be appended; where it begins otherwise, as after a resume, a newer file supersedes it. Values are float32.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqzlab.errors import UnavailableError
from sqzlab.tracking.epochs import TrackedRun

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event


class TensorBoard:
    """Writes `<home>/<run>/events.out.tfevents.*`; raises UnavailableError where tensorboard is not installed."""

    def __init__(self, home: Path) -> None:
        try:
            import tensorboard.compat.proto.event_pb2
            import tensorboard.plugins.hparams.plugin_data_pb2  # noqa: F401
        except ImportError:
            raise UnavailableError('tensorboard is not installed; pip install "sqzlab[tensorboard]"') from None
        self.home = home

    def track(self, run: TrackedRun) -> bool:
        """Writes what is not there yet; returns whether there was anything."""
        folder = self.home / run.run_id
        folder.mkdir(parents=True, exist_ok=True)
        return _make(folder, b"".join(map(_framed, _events(run))))

    def close(self) -> None:
        """Nothing is kept open."""

    @property
    def look(self) -> str:
        return f"to look at: tensorboard --logdir {self.home}"


def _make(folder: Path, whole: bytes) -> bool:
    """Makes `whole` the folder's newest file of events; returns whether it was not."""
    files = sorted(folder.glob(f"{START}*{END}"))
    newest = files[-1] if files else folder / f"{START}{0:010d}{END}"
    there = newest.read_bytes() if files else b""
    if there == whole:
        return False
    if not whole.startswith(there):
        # beside the old one: a TensorBoard that looks on goes neither back in a file nor past one that vanished
        number = int(newest.name[len(START) : -len(END)]) + 1
        newest, there = folder / f"{START}{number:010d}{END}", b""
    with newest.open("ab") as file:
        file.write(whole[len(there) :])
    return True


def _events(run: TrackedRun) -> Iterator[Event]:
    """The file's events in order. What a run adds later comes later."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

    yield Event(wall_time=run.start_s, file_version="brain.Event:2")
    # makes TensorBoard forget what it has read of this run in an older file
    yield Event(wall_time=run.start_s, session_log=SessionLog(status=SessionLog.START))
    started = SessionStartInfo(group_name=f"{run.study}: {run.arm}", start_time_secs=run.start_s)
    for key, value in sorted(run.config.items()):
        if key == "seed":  # the runs of a group differ in nothing else
            continue
        kind = "bool_value" if isinstance(value, bool) else "string_value" if isinstance(value, str) else "number_value"
        setattr(started.hparams[key], kind, value)
    data = HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, session_start_info=started)
    yield _plugin_event(run.start_s, metadata.SESSION_START_INFO_TAG, data)
    for epoch in run.epochs:
        yield _scalars(epoch.time_s, epoch.number, dict(epoch.values))
    if run.ended:
        last, time_s = (run.epochs[-1].number, run.epochs[-1].time_s) if run.epochs else (0, run.start_s)
        if run.final:
            yield _scalars(time_s, last, {f"final/{key}": value for key, value in run.final.items()})
        status = STATUS_SUCCESS if run.state == "done" else STATUS_FAILURE
        ended = SessionEndInfo(status=status, end_time_secs=time_s)
        data = HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, session_end_info=ended)
        yield _plugin_event(time_s, metadata.SESSION_END_INFO_TAG, data)


def _scalars(time_s: float, step: int, values: dict[str, float]) -> Event:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    shown = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    return Event(wall_time=time_s, step=step, summary=Summary(value=shown))


def _plugin_event(time_s: float, tag: str, data: Any) -> Event:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import metadata

    content = data.SerializeToString(deterministic=True)
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content)
    value = Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin), tensor=metadata.NULL_TENSOR)
    return Event(wall_time=time_s, summary=Summary(value=[value]))


def _framed(event: Event) -> bytes:
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    RecordWriter(file).write(event.SerializeToString(deterministic=True))
    return file.getvalue()


START, END = "events.out.tfevents.", ".sqzlab"
