"""Data sets that fit in memory: random shifts and flips of whole batches, without a loop over images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from sqzlab.data.order import image_words
from sqzlab.data.source import Source, Statistic

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


class ArraySource(Source):
    """Images uint8 (n, C, H, W), C = 1 or 3; training images are shifted by up to `shift` pixels, zeros moving in."""

    def __init__(
        self,
        train: tuple[Images, Labels],
        val: tuple[Images, Labels],
        *,
        classes: int,
        mean: Statistic,
        std: Statistic,
        shift: int,
        flip: bool,
    ) -> None:
        self.classes, self.mean, self.std, self.shift, self.flip = classes, mean, std, shift, flip
        self.train_labels, self.val_labels = torch.from_numpy(train[1]), torch.from_numpy(val[1])
        self._val = val[0]
        self.image_size = train[0].shape[3]
        margin = (shift, shift)
        padded = np.pad(train[0], ((0, 0), (0, 0), margin, margin))
        self._windows = sliding_window_view(padded, train[0].shape[2:], axis=(2, 3))  # (n, C, shifts, shifts, H, W)

    def train_batch(self, seed: int, epoch: int, index: NDArray[np.int64], size: int) -> Tensor:
        assert size == self.image_size
        words = image_words(seed, epoch, len(self.train_labels))[index]  # (N, 4)
        top, left = (words[:, :2] % np.uint64(2 * self.shift + 1)).astype(np.int64).T
        images = self._windows[index, :, top, left]  # (N, C, H, W)
        if self.flip:
            mirrored = (words[:, 2] % np.uint64(2)).astype(bool)
            images[mirrored] = images[mirrored, :, :, ::-1]
        return _in_colour(images)

    def val_batch(self, index: NDArray[np.int64]) -> Tensor:
        return _in_colour(self._val[index])


def _in_colour(images: Images) -> Tensor:
    return torch.from_numpy(images).expand(-1, 3, -1, -1).contiguous()
