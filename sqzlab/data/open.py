"""A data set by name, as batches whose content depends only on (seed, epoch, position)."""

from __future__ import annotations

import hashlib
import os
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sqzlab.catalog import STORED
from sqzlab.config import DataConfig
from sqzlab.data.ahead import AHEAD, made_ahead
from sqzlab.data.augment import trivial_augment
from sqzlab.data.cifar import open_cifar
from sqzlab.data.crop_pixels import sent
from sqzlab.data.digits import open_digits
from sqzlab.data.generated import GeneratedSource
from sqzlab.data.image_folder import FolderSource, ListSource
from sqzlab.data.order import permutation
from sqzlab.data.source import Source, Statistic
from sqzlab.data.store.device import DeviceSource
from sqzlab.data.store.source import open_store
from sqzlab.data.workers import made_in_processes
from sqzlab.errors import UnavailableError

Index = NDArray[np.int64]

READ_AHEAD = 4
"""Batches whose images a store asks the disk for before they are made on a device."""


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
    device: torch.device | None = None,
    trivial_augment: bool = False,
) -> Data:
    """The data set that `config` names. Validation batches are as large as training batches where not said otherwise.

    Of `world_size` processes that share every batch, that of number `rank` gets its part. A store's batches are made on
    `device` where that is a GPU, a resident store's on any. Raises UnavailableError where the data set is not there,
    or is not the one that the run was planned with.
    """
    source = _of_store(config, device) if config.tier in STORED else SOURCES[config.name](config)
    found = (source.classes, len(source.train_labels), len(source.val_labels))
    planned = (config.classes, config.train_images, config.val_images)
    if found != planned:
        raise UnavailableError(
            f"data set {config.name!r} has {_told(found)}, but the run was planned with {_told(planned)}"
        )
    workers = config.workers if source.in_processes else 0
    of_both = batch_size, val_batch_size or batch_size
    return Data(source, seed, *of_both, workers, rank, world_size, trivial_augment=trivial_augment)


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
        *,
        trivial_augment: bool = False,
    ) -> None:
        self._source, self._seed, self._workers, self._augment = source, seed, workers, trivial_augment
        self._rank, self._world_size = rank, world_size
        self._batch_size, self._val_batch_size = batch_size, val_batch_size
        device = source.device
        # one for all epochs: the allocator keeps what it has freed for the stream that it was made on
        self._stream = torch.cuda.Stream(device) if device is not None and device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._running: weakref.WeakSet[Generator[Batch, None, None]] = weakref.WeakSet()
        self.classes, self.image_size = source.classes, source.image_size
        self.train_images, self.val_images = len(source.train_labels), len(source.val_labels)
        self.steps_per_epoch = self.train_images // batch_size
        self.val_steps = -(-self.val_images // val_batch_size)
        self.val_batch_images = -(-val_batch_size // world_size)  # of the largest part that a process may get
        self.mean: Statistic = source.mean
        self.std: Statistic = source.std
        self.order_hash = order_hash(source.val_names(), source.val_labels)

    def train_batches(
        self, epoch: int, start: int = 0, *, pinned: bool = False, size: int | None = None
    ) -> Iterator[Batch]:
        """This process's part of one epoch's full batches, from number `start` on; no image before it is decoded.

        `pinned` batches are in page-locked memory, where loader processes make them by a thread of its own; those of a
        store on a GPU are there already. Crops have a side of `size` pixels, `image_size` if absent.
        """
        order = permutation(self._seed, epoch, self.train_images)
        n = self._batch_size
        index = [self._part(order[step * n : (step + 1) * n]) for step in range(start, self.steps_per_epoch)]
        make = partial(_train_batch, self._source, self._seed, epoch, size or self.image_size, self._augment)
        return self._batches(make, index, pinned, self._source.prefetch)

    def val_batches(self, *, pinned: bool = False) -> Iterator[Batch]:
        """Over all processes every validation image once, in a fixed order; the last of `val_steps` may be short.

        A process that has no part in the last batch gets one batch less.
        """
        size = self._val_batch_size
        index = [self._part(np.arange(at, min(at + size, self.val_images))) for at in range(0, self.val_images, size)]
        return self._batches(partial(_val_batch, self._source), [part for part in index if len(part)], pinned)

    def close(self) -> None:
        """Ends the worker processes and threads of every iterator that is still running."""
        for batches in list(self._running):
            batches.close()

    def _part(self, index: Index) -> Index:
        first, end = (len(index) * rank // self._world_size for rank in (self._rank, self._rank + 1))
        return index[first:end]

    def _batches(
        self,
        make: Callable[[Index], Batch],
        index: Sequence[Index],
        pinned: bool,
        soon: Callable[[Index], None] = lambda index: None,
    ) -> Iterator[Batch]:
        if self._stream is not None:
            batches = _made_on(self._stream, _announced(make, index, soon), range(len(index)))
        elif self._source.device is not None:
            batches = made_ahead(_announced(make, index, soon), range(len(index)))
        elif self._workers and index:
            batches = made_in_processes(make, index, self._workers, pinned=pinned)
        else:
            made = map(make, index)
            return map(Batch.pin_memory, made) if pinned else made
        self._running.add(batches)
        return batches


def _train_batch(source: Source, seed: int, epoch: int, size: int, augment: bool, index: Index) -> Batch:
    at = torch.from_numpy(index)
    images = source.train_batch(seed, epoch, index, size)
    images = trivial_augment(images, seed, epoch, index) if augment else images
    return Batch(images, source.train_labels[at], at)


def _val_batch(source: Source, index: Index) -> Batch:
    at = torch.from_numpy(index)
    return Batch(source.val_batch(index), source.val_labels[at], at)


def _announced(
    make: Callable[[Index], Batch], index: Sequence[Index], soon: Callable[[Index], None]
) -> Callable[[int], Batch]:
    """`make` by the number of a batch, which first tells `soon` of the batch that is made READ_AHEAD later."""

    def made(number: int) -> Batch:
        later = number + READ_AHEAD
        for part in index[later if number else 1 : later + 1]:
            soon(part)
        return make(index[number])

    return made


def _made_on(stream: torch.cuda.Stream, make: Callable[[int], Batch], numbers: Sequence[int]) -> Generator[Batch]:
    """Batches of a source whose images are on a GPU, made there on `stream` by a thread, beside the training step."""
    device = stream.device

    def made(number: int) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.device(device), torch.cuda.stream(stream):  # a thread begins on GPU 0
            batch = make(number)
            batch = Batch(batch.images, sent(batch.labels, device), batch.index.pin_memory())  # the host draws by it
            return batch, stream.record_event()

    steps: deque[torch.cuda.Event] = deque()
    with closing(made_ahead(made, numbers)) as ahead:
        for batch, done in ahead:
            if len(steps) > AHEAD:  # a host far ahead of its GPU would fill its memory with batches
                steps.popleft().synchronize()
            using = torch.cuda.current_stream(device)
            using.wait_event(done)
            for tensor in (batch.images, batch.labels):
                tensor.record_stream(using)
            yield batch
            steps.append(using.record_event(torch.cuda.Event(blocking=True)))  # type: ignore[no-untyped-call]


def _of_store(config: DataConfig, device: torch.device | None) -> Source:
    source, resident = open_store(config), config.tier == "resident"
    if resident or (device is not None and device.type == "cuda"):
        return DeviceSource(source, device or torch.device("cpu"), resident=resident, threads=config.workers)
    return source


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
    "imagenet": lambda config: FolderSource(config.name, config.root, config.image_size, tier=config.tier or "pil"),
    "imagefolder": lambda config: FolderSource(config.name, config.root, config.image_size, tier=config.tier or "pil"),
    "cifar10": lambda config: open_cifar(config.name, config.root),
    "cifar100": lambda config: open_cifar(config.name, config.root),
    "imagelist": lambda config: ListSource(
        config.root,
        config.train_list,
        config.val_list,
        config.image_size,
        config.lists_digest,
        tier=config.tier or "pil",
    ),
    "generated": lambda config: GeneratedSource(config.image_size),
}
