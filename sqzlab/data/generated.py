"""Noise that stands in for ImageNet where only speed and plumbing are tried: no file, every size."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqzlab.catalog import DATASETS
from sqzlab.data.order import image_rng
from sqzlab.data.source import IMAGENET_MEAN, IMAGENET_STD, Source


class GeneratedSource(Source):
    """Image i is noise drawn from i alone and has the label i % classes; nothing is augmented."""

    mean, std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(self, image_size: int) -> None:
        counts = DATASETS["generated"].counts
        assert counts is not None
        self.classes, train, val = counts
        self.train_labels = torch.arange(train) % self.classes
        self.val_labels = torch.arange(val) % self.classes
        self.image_size = image_size

    def train_batch(self, seed: int, epoch: int, index: NDArray[np.int64], size: int) -> Tensor:
        return self._noise(index, size)

    def val_batch(self, index: NDArray[np.int64]) -> Tensor:
        return self._noise(index + len(self.train_labels), self.image_size)

    def _noise(self, keys: NDArray[np.int64], size: int) -> Tensor:
        pixels = 3 * size * size
        words = [image_rng(0, 0, int(key)).bit_generator.random_raw(-(-pixels // 8)) for key in keys]
        noise = np.stack(words).view(np.uint8)[:, :pixels]
        return torch.from_numpy(noise.reshape(-1, 3, size, size))
