"""A data set by name, as batches whose content depends only on (seed, epoch, position)."""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sqzlab.config import DataConfig
from sqzlab.data.cifar import open_cifar
from sqzlab.data.digits import open_digits
from sqzlab.data.generated import GeneratedSource
from sqzlab.data.image_folder import FolderSource, ListSource
from sqzlab.data.order import permutation
from sqzlab.data.source import Source, Statistic
from sqzlab.data.workers import made_in_processes
from sqzlab.errors import UnavailableError

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """N images of one split: uint8 (N, 3, H, W), labels int64 (N,), their positions in the split int64 (N,)."""

    images: Tensor
    labels: Tensor
    index: Tensor

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, from which a GPU copies while the host goes on. DataLoader calls it."""
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.index.pin_memory())

    def padded(self, images: int) -> Batch:
        """The same with black images of label 0 and position 0 at its end, as many as make it `images` long."""
        end = (0, images - len(self.index))
        return Batch(F.pad(self.images, (0, 0) * 3 + end), F.pad(self.labels, end), F.pad(self.index, end))


def open_data(
    config: DataConfig,
    *,
    batch_size: int,
    seed: int,
    val_batch_size: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Data:
    """The data set that `config` names. Validation batches are as large as training batches where not said otherwise.

    Of `world_size` processes that share every batch, that of number `rank` gets its part. Raises UnavailableError
    where the data set is not there, or holds other counts than the run was planned with.
    """
    source = SOURCES[config.name](config)
    found = (source.classes, len(source.train_labels), len(source.val_labels))
    planned = (config.classes, config.train_images, config.val_images)
    if found != planned:
        raise UnavailableError(
            f"data set {config.name!r} has {_told(found)}, but the run was planned with {_told(planned)}"
        )
    workers = config.workers if source.in_processes else 0
    return Data(source, seed, batch_size, val_batch_size or batch_size, workers, rank, world_size)


class Data:
    """Batches of one data set. `mean` and `std` are for images divided by 255.

    A process's part of a batch of B is the images from rank * B // world_size to (rank + 1) * B // world_size: what
    is in the whole batch and how it is augmented does not depend on the processes.
    """

    def __init__(
        self,
        source: Source,
        seed: int,
        batch_size: int,
        val_batch_size: int,
        workers: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._source, self._seed, self._workers = source, seed, workers
        self._rank, self._world_size = rank, world_size
        self._batch_size, self._val_batch_size = batch_size, val_batch_size
        self._running: weakref.WeakSet[Generator[Batch, None, None]] = weakref.WeakSet()
        self.classes = source.classes
        self.train_images, self.val_images = len(source.train_labels), len(source.val_labels)
        self.steps_per_epoch = self.train_images // batch_size
        self.val_steps = -(-self.val_images // val_batch_size)
        self.val_batch_images = -(-val_batch_size // world_size)  # of the largest part that a process may get
        self.mean: Statistic = source.mean
        self.std: Statistic = source.std
        self.order_hash = order_hash(source.val_names(), source.val_labels)

    def train_batches(self, epoch: int, start: int = 0, *, pinned: bool = False) -> Iterator[Batch]:
        """This process's part of one epoch's full batches, from number `start` on; no image before it is decoded.

        `pinned` batches are in page-locked memory, where loader processes make them by a thread of its own.
        """
        order = permutation(self._seed, epoch, self.train_images)
        size = self._batch_size
        index = [self._part(order[step * size : (step + 1) * size]) for step in range(start, self.steps_per_epoch)]
        return self._batches(partial(_train_batch, self._source, self._seed, epoch), index, pinned)

    def val_batches(self, *, pinned: bool = False) -> Iterator[Batch]:
        """Over all processes every validation image once, in a fixed order; the last of `val_steps` may be short.

        A process that has no part in the last batch gets one batch less.
        """
        size = self._val_batch_size
        index = [self._part(np.arange(at, min(at + size, self.val_images))) for at in range(0, self.val_images, size)]
        return self._batches(partial(_val_batch, self._source), [part for part in index if len(part)], pinned)

    def close(self) -> None:
        """Ends the worker processes of every iterator that is still running."""
        for batches in list(self._running):
            batches.close()

    def _part(self, index: Index) -> Index:
        first, end = (len(index) * rank // self._world_size for rank in (self._rank, self._rank + 1))
        return index[first:end]

    def _batches(self, make: Callable[[Index], Batch], index: Sequence[Index], pinned: bool) -> Iterator[Batch]:
        if not self._workers or not index:
            made = map(make, index)
            return map(Batch.pin_memory, made) if pinned else made
        batches = made_in_processes(make, index, self._workers, pinned=pinned)
        self._running.add(batches)
        return batches


def _train_batch(source: Source, seed: int, epoch: int, index: Index) -> Batch:
    at = torch.from_numpy(index)
    return Batch(source.train_batch(seed, epoch, index), source.train_labels[at], at)


def _val_batch(source: Source, index: Index) -> Batch:
    at = torch.from_numpy(index)
    return Batch(source.val_batch(index), source.val_labels[at], at)


def order_hash(names: Sequence[str], labels: Tensor) -> str:
    """What tells validation images apart, and their order: names as `Source.val_names` has them, and labels (n,)."""
    digest = hashlib.sha256()
    for name, label in zip(names, labels.tolist(), strict=True):
        digest.update(os.fsencode(f"{name}\0{label}\0"))
    return digest.hexdigest()


def _told(counts: tuple[int, int, int]) -> str:
    return "{} classes, {} training and {} validation images".format(*counts)


SOURCES: dict[str, Callable[[DataConfig], Source]] = {
    "digits": lambda config: open_digits(config.image_size),
    "imagenet": lambda config: FolderSource(config.name, config.root, config.image_size),
    "imagefolder": lambda config: FolderSource(config.name, config.root, config.image_size),
    "cifar10": lambda config: open_cifar(config.name, config.root),
    "cifar100": lambda config: open_cifar(config.name, config.root),
    "imagelist": lambda config: ListSource(
        config.root, config.train_list, config.val_list, config.image_size, config.lists_digest
    ),
    "generated": lambda config: GeneratedSource(config.image_size),
}
