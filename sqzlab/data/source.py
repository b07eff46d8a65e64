"""What every data set offers to the loader: images by index, labels, and the statistics that normalise them.

A source keeps no position and draws nothing of its own, so that any process can make any batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Statistic = tuple[float, float, float]
"""One value for each of red, green and blue, for images divided by 255."""

IMAGENET_MEAN: Statistic = (0.485, 0.456, 0.406)
IMAGENET_STD: Statistic = (0.229, 0.224, 0.225)


class Source(ABC):
    """A data set. Labels are int64 (train_images,) and (val_images,)."""

    classes: int
    mean: Statistic
    std: Statistic
    train_labels: Tensor
    val_labels: Tensor
    in_processes: bool = False  # whether its images are decoded from files, which is worth processes of its own

    @abstractmethod
    def train_batch(self, seed: int, epoch: int, index: NDArray[np.int64]) -> Tensor:
        """Augmented training images, uint8 (N, 3, H, W)."""

    @abstractmethod
    def val_batch(self, index: NDArray[np.int64]) -> Tensor:
        """Validation images, uint8 (N, 3, H, W)."""

    def val_names(self) -> Sequence[str]:
        """A name for each validation image that stays the same on every machine."""
        return [str(index) for index in range(len(self.val_labels))]
