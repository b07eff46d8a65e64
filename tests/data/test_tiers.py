"""Data sets opened by tier: a prepared store gives the same batches whoever asks, and only the store of the plan."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from prepared_stores import class_folders, prepared

from sqzlab.config import DataConfig
from sqzlab.data.ahead import AHEAD, made_ahead
from sqzlab.data.fingerprint import count, digests
from sqzlab.data.open import READ_AHEAD, Batch, Data, open_data
from sqzlab.data.store.device import DeviceBatches, DeviceSource
from sqzlab.data.store.reader import Store
from sqzlab.data.store.source import StoreSource
from sqzlab.errors import UnavailableError

CROP = 28
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("data") / "root", train=9)


@pytest.fixture(scope="module")
def out(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    prepared(root, folder)
    return folder


def config(tier: str, out: Path, **changes: object) -> DataConfig:
    """Of the stores in `out`, as a plan has it."""
    classes, train, val = count("imagefolder", None, None, None, str(out), CROP)
    given = {"name": "imagefolder", "tier": tier, "store": str(out), "image_size": CROP, "workers": 0}
    given |= {"classes": classes, "train_images": train, "val_images": val}
    given |= {"store_digest": digests(None, None, None, str(out))["data.store_digest"]}
    return DataConfig.model_validate({**given, **changes})


def images(batches: object) -> torch.Tensor:
    return torch.cat([batch.images.cpu() for batch in batches])  # type: ignore[attr-defined]


def same(ours: list[Batch], theirs: list[Batch]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        for field in ("images", "labels", "index"):
            assert torch.equal(getattr(one, field).cpu(), getattr(other, field).cpu())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tier", ["store", "resident"])
def test_an_epoch_begun_in_its_middle_or_shared_by_processes_is_the_same(tier: str, device: str, out: Path) -> None:
    opened = partial(open_data, batch_size=6, seed=1, device=torch.device(device))
    whole = opened(config(tier, out))
    expected = list(whole.train_batches(2, size=20))
    assert expected[0].images.shape == (6, 3, 20, 20)
    again = opened(config(tier, out, workers=2))
    same(list(again.train_batches(2, start=1, size=20)), expected[1:])
    parts = [opened(config(tier, out), rank=rank, world_size=2) for rank in (0, 1)]
    halves = zip(*(part.train_batches(2, size=20) for part in parts), strict=True)
    assert torch.equal(torch.cat([images(pair) for pair in halves]), images(expected))
    vals = [images(data.val_batches()) for data in (whole, again)]
    assert torch.equal(*vals)
    assert len(vals[0]) == whole.val_images


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tier", ["store", "resident"])
def test_on_a_device_a_store_shows_what_one_in_memory_shows(tier: str, device: str, root: Path, out: Path) -> None:
    there = open_data(config(tier, out), batch_size=6, seed=1, device=torch.device(device))
    mapped = open_data(config("store", out), batch_size=6, seed=1)
    for ours, theirs in zip(there.train_batches(3), mapped.train_batches(3), strict=True):
        assert ours.images.device.type == ours.labels.device.type == device
        assert (ours.images.cpu().int() - theirs.images.int()).abs().max() <= 1  # of rounding
        assert torch.equal(ours.labels.cpu(), theirs.labels)
    assert torch.equal(images(there.val_batches()), images(mapped.val_batches()))
    files = open_data(config("pil", out, root=str(root), store=None, store_digest=None), batch_size=6, seed=1)
    assert there.order_hash == mapped.order_hash == files.order_hash
    assert torch.equal(images(files.val_batches()), images(mapped.val_batches()))


@pytest.mark.parametrize("device", DEVICES)
def test_images_copied_by_several_threads_are_those_of_one(device: str, out: Path) -> None:
    source, there = StoreSource(out, CROP), torch.device(device)
    made = [DeviceSource(source, there, threads=threads) for threads in (0, 3)]
    one, other = (list(Data(each, 5, 6, 6, 0).train_batches(0)) for each in made)
    same(one, other)


@pytest.mark.parametrize("device", DEVICES)
def test_an_epoch_begun_or_closed_while_another_one_runs_is_the_same(device: str, out: Path) -> None:
    data = open_data(config("resident", out), batch_size=3, seed=1, device=torch.device(device))
    expected = list(data.train_batches(1))
    old = data.train_batches(0)
    next(old)
    new = data.train_batches(1)
    first = next(new)
    old.close()  # type: ignore[attr-defined]
    same([first, *new], expected)
    next(data.train_batches(0))
    data.close()
    same(list(data.train_batches(1)), expected)


def test_the_disk_is_asked_for_each_batch_once_and_well_before_it_is_made(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, list[int]]] = []
    source = DeviceSource(StoreSource(out, CROP), torch.device("cpu"))
    train = source.train_batch
    monkeypatch.setattr(Store, "prefetch", lambda self, index: told.append(("soon", index.tolist())))
    monkeypatch.setattr(source, "train_batch", lambda *given: told.append(("made", given[2].tolist())) or train(*given))
    parts = [batch.index.tolist() for batch in Data(source, 5, 2, 2, 0).train_batches(0)]
    assert len(parts) > READ_AHEAD + 2
    assert told[: READ_AHEAD + 1] == [*(("soon", part) for part in parts[1 : READ_AHEAD + 1]), ("made", parts[0])]
    assert [part for what, part in told if what == "soon"] == parts[1:]  # the first one is needed at once
    for number, part in enumerate(parts[1:], 1):
        since = parts[max(number - READ_AHEAD, 0)]
        assert told.index(("soon", part)) < told.index(("made", since)) <= told.index(("made", part))


# ---- on a GPU ----------------------------------------------------------------------------------


@GPU
@pytest.mark.parametrize("tier", ["store", "resident"])
def test_a_batch_is_not_written_over_while_a_slow_step_reads_it(tier: str, out: Path) -> None:
    there = open_data(config(tier, out, workers=2), batch_size=2, seed=1, device=torch.device("cuda"))
    expected = open_data(config("store", out), batch_size=2, seed=1)
    for epoch in range(3):
        kept = []
        for batch in there.train_batches(epoch):
            torch.cuda._sleep(20_000_000)  # type: ignore[no-untyped-call]  # 10 ms on the stream that trains
            kept.append((batch.images.clone(), batch.labels.clone()))
            del batch
        for (ours, labels), theirs in zip(kept, expected.train_batches(epoch), strict=True):
            assert (ours.cpu().int() - theirs.images.int()).abs().max() <= 1  # of rounding
            assert torch.equal(labels.cpu(), theirs.labels)


@GPU
@pytest.mark.parametrize("tier", ["store", "resident"])
def test_memory_does_not_grow_with_the_epochs(tier: str, out: Path) -> None:
    data = open_data(config(tier, out), batch_size=6, seed=1, device=torch.device("cuda"))
    reserved = []
    for epoch in range(6):
        for _ in (*data.train_batches(epoch), *data.val_batches()):
            pass
        torch.cuda.synchronize()
        reserved.append(torch.cuda.memory_reserved())
    assert reserved[2] == reserved[5]


@GPU
def test_all_epochs_and_evaluations_are_made_on_one_stream(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, streams = DeviceSource(StoreSource(out, CROP), torch.device("cuda")), []

    def told(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda *given: streams.append(torch.cuda.current_stream()) or make(*given)

    monkeypatch.setattr(source, "train_batch", told(source.train_batch))
    monkeypatch.setattr(source, "val_batch", told(source.val_batch))
    data = Data(source, 5, 6, 6, 0)
    made = [*data.train_batches(0), *data.train_batches(1), *data.val_batches()]
    assert len(streams) == len(made)
    assert len(set(streams)) == 1
    assert streams[0] != torch.cuda.default_stream()


# ---- refusals ----------------------------------------------------------------------------------


def test_other_stores_than_the_plans_are_refused(root: Path, tmp_path: Path) -> None:
    prepared(root, tmp_path / "out")
    planned = config("store", tmp_path / "out")
    other = class_folders(tmp_path / "data", train=9)
    (other / "train" / "class 0" / "0.png").write_bytes((other / "train" / "class 1" / "0.png").read_bytes())
    prepared(other, tmp_path / "other")  # as many images of the same names
    (tmp_path / "other" / "train.store").replace(tmp_path / "out" / "train.store")
    with pytest.raises(UnavailableError, match=rf"digest \w+, but the run was planned with {planned.store_digest}"):
        open_data(planned, batch_size=2, seed=0)


def test_a_store_of_other_data_or_crops_is_refused_when_it_is_counted(out: Path) -> None:
    with pytest.raises(
        UnavailableError, match=r"from data set .imagefolder., not .imagenet.; valid: data\.name .imagef"
    ):
        count("imagenet", None, None, None, str(out), CROP)
    with pytest.raises(UnavailableError, match=r"crops of 28 pixels, not of 224; valid: data\.image_size 28, or"):
        count("imagefolder", None, None, None, str(out), 224)


def test_a_resident_store_that_changes_is_noticed(root: Path, tmp_path: Path) -> None:
    prepared(root, tmp_path)
    batches = DeviceBatches(StoreSource(tmp_path, CROP).train, torch.device("cpu"), resident=True)
    os.utime(tmp_path / "train.store", ns=(1, 1))
    with pytest.raises(UnavailableError, match="changed while it was read"):
        batches.train(0, 0, torch.arange(2).numpy(), CROP)


# ---- the thread --------------------------------------------------------------------------------


def test_batches_are_made_ahead_but_not_far_and_in_order() -> None:
    made: list[int] = []
    waiting = threading.Event()

    def make(key: int) -> int:
        made.append(key)
        if len(made) == 1 + AHEAD:
            waiting.set()
        return key

    batches = made_ahead(make, range(20))
    assert next(batches) == 0
    assert waiting.wait(10)
    assert len(made) == 1 + AHEAD
    assert list(batches) == list(range(1, 20))


def test_the_thread_ends_when_it_is_closed_and_its_fault_is_raised_in_its_place() -> None:
    before = threading.active_count()
    batches = made_ahead(lambda key: 6 // key, [3, 2, 0, 1])
    assert (next(batches), next(batches)) == (2, 3)
    with pytest.raises(ZeroDivisionError):
        next(batches)
    closed = made_ahead(lambda key: key, range(1, 100))
    next(closed)
    assert threading.active_count() == before + 1
    closed.close()
    assert threading.active_count() == before


def test_closing_the_data_ends_its_threads(out: Path) -> None:
    before = threading.active_count()
    data = open_data(config("resident", out), batch_size=2, seed=0)
    running = data.train_batches(0)
    next(running)
    assert threading.active_count() == before + 1
    data.close()
    assert threading.active_count() == before
