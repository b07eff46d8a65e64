"""Batches of stores: the tier that decodes files, whatever the batches, and the same on a device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from prepared_stores import class_folders, prepared
from torchvision.transforms.v2 import functional

from sqzlab.data.image_folder import FolderSource
from sqzlab.data.open import Data
from sqzlab.data.store.device import RESERVE, DeviceBatches, DeviceSource
from sqzlab.data.store.reader import Store
from sqzlab.data.store.source import StoreSource, boxes_of
from sqzlab.errors import UnavailableError

CROP = 28
"""Of stores with 32 pixels a side."""
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(tmp_path_factory.mktemp("data") / "root", train=9)


@pytest.fixture(scope="module")
def out(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    prepared(root, folder)
    return folder


def test_validation_is_that_of_the_files_byte_for_byte(root: Path, out: Path) -> None:
    store, files = StoreSource(out, CROP), FolderSource("imagefolder", str(root), CROP)
    index = np.arange(6)
    assert torch.equal(store.val_batch(index), files.val_batch(index))
    assert torch.equal(store.val_labels, files.val_labels)
    assert torch.equal(store.train_labels, files.train_labels)
    assert list(store.val_names()) == files.val_names()
    assert store.classes == files.classes


def test_training_images_are_torchvisions_crops_of_what_is_stored(out: Path) -> None:
    source = StoreSource(out, CROP)
    index = np.array([3, 17, 0])
    made = source.train_batch(1, 2, index, 20)
    boxes = boxes_of(source.train, 1, 2, index)
    for ours, row, box, flip in zip(made, index, boxes.boxes.tolist(), boxes.flips, strict=True):
        picture = torch.from_numpy(source.train.pixels[row].copy()).permute(2, 0, 1)
        theirs = functional.resized_crop(picture, *box, [20, 20], antialias=True)
        theirs = functional.horizontal_flip(theirs) if flip else theirs
        assert (ours.int() - theirs.int()).abs().max() <= 1


def test_training_images_show_what_the_files_show(root: Path, out: Path) -> None:
    """The same part in the same orientation, only softer: closer to it than to any other image or to its mirror."""
    store, files = StoreSource(out, CROP), FolderSource("imagefolder", str(root), CROP)
    index = np.arange(18)
    ours, theirs = (source.train_batch(0, 1, index, CROP).float() for source in (store, files))
    for candidates in (theirs, torch.cat([theirs, theirs.flip(3)])):
        far = (ours[:, None] - candidates).abs().mean((2, 3, 4))  # (18, candidates)
        assert far.argmin(1).tolist() == index.tolist()
    assert (ours - theirs).abs().mean() < 6  # of 255


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_their_size_on_processes_or_on_where_an_epoch_is_resumed(
    out: Path, workers: int
) -> None:
    alone = Data(StoreSource(out, CROP), 5, 3, 3, 0)
    expected = torch.cat([batch.images for batch in alone.train_batches(4)])
    other = Data(StoreSource(out, CROP), 5, 6, 6, workers)
    resumed = torch.cat([batch.images for batch in other.train_batches(4, start=1)])
    assert torch.equal(resumed, expected[6:])
    halves = [Data(StoreSource(out, CROP), 5, 6, 6, 0, rank, 2).train_batches(4) for rank in (0, 1)]
    shared = [torch.cat([part.images for part in parts]) for parts in zip(*halves, strict=True)]
    assert torch.equal(torch.cat(shared), expected)


@pytest.mark.parametrize("device", DEVICES)
def test_on_a_device_batches_are_those_of_the_cpu_but_for_rounding(out: Path, device: str) -> None:
    source = StoreSource(out, CROP)
    index = np.random.default_rng(0).permutation(18)[:11]
    there = torch.device(device)
    made = [DeviceBatches(source.train, there, resident=kept).train(3, 1, index, CROP) for kept in (False, True)]
    assert torch.equal(*made)
    assert (made[0].cpu().int() - source.train_batch(3, 1, index, CROP).int()).abs().max() <= 1
    val = DeviceSource(source, there).val_batch(np.arange(6))
    assert torch.equal(val.cpu(), source.val_batch(np.arange(6)))


def test_opened_it_reads_no_names(out: Path) -> None:
    source = StoreSource(out, CROP)
    assert not any("_text" in vars(store) for store in (source.train, source.val))
    assert source.val_names()[0] == "val/class 0/0.png"
    assert "_text" not in vars(source.train)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_whole_batch_is_asked_of_the_disk_before_it_is_read(
    out: Path, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, asked, index = StoreSource(out, CROP), [], np.array([2, 5, 0])
    monkeypatch.setattr(Store, "prefetch", lambda self, index: asked.append((self.header.split, index.tolist())))
    source.train_batch(0, 0, index, 20) if split == "train" else source.val_batch(index)
    assert asked == [(split, [2, 5, 0])]


def test_a_resident_store_must_leave_memory_to_the_network(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, freed = StoreSource(out, CROP).train, []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(True))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (RESERVE, 2 * RESERVE))
    with pytest.raises(UnavailableError, match=r"needs 0\.0 GB of GPU memory beside 8 GB for the network, 8\.0 GB are"):
        DeviceBatches(train, torch.device("cuda"), resident=True)
    assert freed == [True]


def test_validation_crops_of_another_size_are_refused_with_the_size_to_prepare(out: Path) -> None:
    with pytest.raises(
        UnavailableError, match=r"of 28 pixels, not of 56; valid: data\.image_size 28, .* \(`prepare --val-size 64`\)"
    ):
        StoreSource(out, 56)


def test_other_classes_of_the_same_number_are_refused(root: Path, tmp_path: Path) -> None:
    other = class_folders(tmp_path / "data")
    for split in ("train", "val"):
        (other / split / "class 0").rename(other / split / "another")
    prepared(root, tmp_path / "out")
    prepared(other, tmp_path / "other")
    (tmp_path / "other" / "val.store").replace(tmp_path / "out" / "val.store")
    with pytest.raises(UnavailableError, match="have different classes in train and val"):
        StoreSource(tmp_path / "out", CROP)
