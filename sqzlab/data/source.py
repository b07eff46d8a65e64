"""What every data set offers to the loader: images by index, labels, and the statistics that normalise them.

A source keeps no position and draws nothing of its own, so that any process can make any batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Statistic = tuple[float, float, float]
"""One value for each of red, green and blue, for images divided by 255."""

IMAGENET_MEAN: Statistic = (0.485, 0.456, 0.406)
IMAGENET_STD: Statistic = (0.229, 0.224, 0.225)


class Source(ABC):
    """A data set. Labels are int64 (train_images,) and (val_images,)."""

    classes: int
    image_size: int  # side of validation images, and of training images where nothing else is said
    mean: Statistic
    std: Statistic
    train_labels: Tensor
    val_labels: Tensor
    in_processes: bool = False  # whether its images are decoded from files, which is worth processes of its own
    device: torch.device | None = None  # where its images are, if that is not for the loader to choose

    @abstractmethod
    def train_batch(self, seed: int, epoch: int, index: NDArray[np.int64], size: int) -> Tensor:
        """Augmented training images, uint8 (N, 3, size, size); sources of one size only are asked for theirs."""

    def prefetch(self, index: NDArray[np.int64]) -> None:  # noqa: B027 (most sources have nothing to do)
        """Told of training images that `train_batch` will soon be asked for; nothing need come of it."""

    @abstractmethod
    def val_batch(self, index: NDArray[np.int64]) -> Tensor:
        """Validation images, uint8 (N, 3, H, W)."""

    def val_names(self) -> Sequence[str]:
        """A name for each validation image that stays the same on every machine."""
        return [str(index) for index in range(len(self.val_labels))]
