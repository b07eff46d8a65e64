"""A prepared data set as batches made on the CPU; `device.py` makes the same ones on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqzlab.config import DataConfig
from sqzlab.data.crop_boxes import CropBoxes, train_boxes
from sqzlab.data.crop_pixels import cropped
from sqzlab.data.source import IMAGENET_MEAN, IMAGENET_STD, Source
from sqzlab.data.store.pictures import margin_of
from sqzlab.data.store.reader import Store, check_crop, digest_of, read_headers, store_path
from sqzlab.errors import UnavailableError

Index = NDArray[np.int64]


class StoreSource(Source):
    """The stores `train.store` and `val.store` in one folder; training crops may be of any size.

    Raises UnavailableError where one is not whole, where their classes differ, and for validation crops of another
    size than the store was prepared for.
    """

    mean, std = IMAGENET_MEAN, IMAGENET_STD
    in_processes = True

    def __init__(self, folder: Path | str, image_size: int) -> None:
        read_headers(folder)
        self.train, self.val = (Store(store_path(folder, split), split=split) for split in ("train", "val"))
        check_crop(self.val.path, self.val.header, image_size)
        self.image_size, self.classes = image_size, self.train.header.classes
        self.train_labels, self.val_labels = (torch.from_numpy(part.labels.copy()) for part in (self.train, self.val))
        self._epoch = -1

    def train_batch(self, seed: int, epoch: int, index: Index, size: int) -> Tensor:
        self.train.check_unchanged(place=epoch != self._epoch)
        self._epoch = epoch
        self.prefetch(index)
        boxes = boxes_of(self.train, seed, epoch, index)
        return cropped(self.train.pixels, self.train.rows(index), boxes, size)

    def prefetch(self, index: Index) -> None:
        self.train.prefetch(index)

    def val_batch(self, index: Index) -> Tensor:
        return torch.from_numpy(val_crops(self.val, index, self.image_size)).permute(0, 3, 1, 2)

    def val_names(self) -> Sequence[str]:
        return self.val.names()


def open_store(config: DataConfig) -> StoreSource:
    """Raises UnavailableError where the stores are not those that the run was planned with."""
    assert config.store is not None, "a store without a folder is a fault of the configuration"
    source = StoreSource(config.store, config.image_size)
    if (found := digest_of(source.train.header, source.val.header)) != config.store_digest:
        raise UnavailableError(
            f"stores in {config.store!r} have the digest {found}, but the run was planned with {config.store_digest}"
        )
    return source


def boxes_of(store: Store, seed: int, epoch: int, index: Index) -> CropBoxes:
    """What an epoch sees of these training images, in stored pixels."""
    return train_boxes(seed, epoch, index, store.sizes(index), store.header.size)


def val_crops(store: Store, index: Index, size: int) -> NDArray[np.uint8]:
    """(N, size, size, 3): the middle of these stored squares."""
    store.check_unchanged(place=len(index) == 0 or index[0] == 0)  # once an evaluation
    store.prefetch(index)
    begin = margin_of(store.header.size, size)
    rows = store.rows(index)
    return np.ascontiguousarray(store.pixels[rows, begin : begin + size, begin : begin + size])
