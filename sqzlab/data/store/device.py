"""A store's batches made on a device: from images sent there batch by batch, or from the training ones kept there."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqzlab.data.crop_pixels import cropped_on_device, sent
from sqzlab.data.source import IMAGENET_MEAN, IMAGENET_STD, Source
from sqzlab.data.store.reader import Store
from sqzlab.data.store.source import StoreSource, boxes_of, val_crops
from sqzlab.errors import UnavailableError

Index = NDArray[np.int64]

AT_A_TIME = 1024
"""Images on their way to a device that keeps them all."""
RESERVE = 8_000_000_000
"""Bytes of a GPU's memory that a resident store leaves to the network at least; a guess: large batches take more."""


class DeviceSource(Source):
    """The stores of `source`, with every batch made on `device`, where a resident one keeps the training images.

    `threads` copy the images of a batch out of the store.
    """

    mean, std = IMAGENET_MEAN, IMAGENET_STD
    device: torch.device

    def __init__(self, source: StoreSource, device: torch.device, *, resident: bool = False, threads: int = 0) -> None:
        self.device, self.image_size, self.classes = device, source.image_size, source.classes
        self.train_labels, self.val_labels = source.train_labels, source.val_labels
        self._source = source
        self._batches = DeviceBatches(source.train, device, resident=resident, threads=threads)

    def train_batch(self, seed: int, epoch: int, index: Index, size: int) -> Tensor:
        return self._batches.train(seed, epoch, index, size)

    def prefetch(self, index: Index) -> None:
        if self._batches.kept is None:
            self._source.prefetch(index)

    def val_batch(self, index: Index) -> Tensor:
        crops = torch.from_numpy(val_crops(self._source.val, index, self.image_size)).permute(0, 3, 1, 2)
        return sent(crops, self.device)

    def val_names(self) -> Sequence[str]:
        return self._source.val_names()


class DeviceBatches:
    """Crops of one store on `device`. What they show depends on (seed, epoch, index) only, resident or not.

    Raises UnavailableError where a resident store does not fit into a GPU's free memory beside the network, and where
    crops cannot be made there.
    """

    def __init__(self, store: Store, device: torch.device, *, resident: bool = False, threads: int = 0) -> None:
        self.store, self.device, self.threads = store, device, max(threads, 1)
        if device.type == "cuda":
            from sqzlab.data.crop_kernel import check_kernel

            if resident:
                _check_room(store, device)
            check_kernel(device)
        self.pool = ThreadPoolExecutor(threads) if threads > 1 and not resident else None
        self.kept = _resident(store, device) if resident else None  # (images, S, S, 3)
        self._epoch = -1

    def train(self, seed: int, epoch: int, index: Index, size: int) -> Tensor:
        """uint8 (N, 3, size, size) on the device."""
        self.store.check_unchanged(place=epoch != self._epoch)
        self._epoch = epoch
        boxes = boxes_of(self.store, seed, epoch, index)
        if self.kept is not None:
            return cropped_on_device(self.kept, boxes, size, sent(torch.from_numpy(index), self.device))
        return cropped_on_device(self._sent(index), boxes, size)

    def _sent(self, index: Index) -> Tensor:
        side = self.store.header.size
        pinned = torch.empty(len(index), side, side, 3, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        out = pinned.numpy()
        if self.pool is None:
            self.store.gather(index, out)
        else:
            parts = np.array_split(np.arange(len(index)), self.threads)
            list(self.pool.map(lambda part: self._gather(index, out, part), filter(len, parts)))
        return pinned.to(self.device, non_blocking=True)

    def _gather(self, index: Index, out: NDArray[np.uint8], part: Index) -> None:
        """Fills one thread's part of `out`: places that follow one another."""
        place = slice(part[0], part[-1] + 1)
        self.store.gather(index[place], out[place])


def _check_room(store: Store, device: torch.device) -> None:
    need = len(store) * store.header.image_bytes
    gc.collect()  # what an earlier run has left
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    if need + RESERVE > free:
        raise UnavailableError(
            f"store {str(store.path)!r} needs {need / 1e9:.1f} GB of GPU memory beside {RESERVE / 1e9:.0f} GB for "
            f"the network, {free / 1e9:.1f} GB are free; valid: images of fewer pixels, or data.tier 'store'"
        )


def _resident(store: Store, device: torch.device) -> Tensor:
    side = store.header.size
    kept = torch.empty(len(store), side, side, 3, dtype=torch.uint8, device=device)
    for start in range(0, len(store), AT_A_TIME):
        index = np.arange(start, min(start + AT_A_TIME, len(store)))
        store.prefetch(np.arange(index[-1] + 1, min(index[-1] + 1 + AT_A_TIME, len(store))))
        kept[start : start + len(index)] = torch.from_numpy(store.gather(index))
    return kept
