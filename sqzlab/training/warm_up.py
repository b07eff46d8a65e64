"""Compiles what a run will need, without its data and without touching the run."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqzlab.config import Config
from sqzlab.data.open import Data
from sqzlab.data.source import IMAGENET_MEAN, IMAGENET_STD, Source
from sqzlab.training.schedule import crop_sizes
from sqzlab.training.trainer import DivergedError, Trainer
from sqzlab.training.world import World


def compile_graphs(config: Config, device: torch.device, world: World | None = None) -> None:
    """Leaves the graphs of training steps, one for each size of crops, and of an evaluation in the compiler's cache.

    A trainer of its own does one step of each and one evaluation on black images; nothing of it stays but the kernels.
    In a world of several all processes call it.
    """
    world = world or World()
    size = config.train.batch_size
    data = Data(_Blank(config, images=size), config.seed, size, size, 0, world.rank, world.size)
    # Whatever its weights and when a size begins: the graphs are the same.
    drawn: dict[str, Any] = {"pretrained": None, "pretrained_digest": None, "lrp": None}
    sizes = crop_sizes(config.train, config.data.image_size)
    if config.train.train_sizes is not None:
        drawn |= {"train_sizes": sizes, "size_milestones": range(1, len(sizes))}
    train = config.train.model_copy(update=drawn)
    trainer = Trainer(config.model_copy(update={"train": train}), data, device, world)
    for epoch in range(len(sizes)):
        trainer.step = trainer.epoch = epoch  # an epoch of one step each
        for _ in trainer.train_epoch():
            pass
    with suppress(DivergedError):  # the graph is compiled, whatever black images make of it
        trainer.evaluate()
    del trainer
    torch.compiler.reset()  # it holds the network, too
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class _Blank(Source):
    """Black images of the first class, so many of each split."""

    mean, std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(self, config: Config, images: int) -> None:
        self.classes = config.data.classes
        self.train_labels = self.val_labels = torch.zeros(images, dtype=torch.int64)
        self.image_size = config.data.image_size

    def train_batch(self, seed: int, epoch: int, index: NDArray[np.int64], size: int) -> Tensor:
        return torch.zeros(len(index), 3, size, size, dtype=torch.uint8)

    def val_batch(self, index: NDArray[np.int64]) -> Tensor:
        return torch.zeros(len(index), 3, self.image_size, self.image_size, dtype=torch.uint8)
