"""CIFAR-10 and CIFAR-100 from their extracted archives, through torchvision; shifted by up to 4 pixels and flipped."""

from __future__ import annotations

from typing import Any

import numpy as np

from sqzlab.data.arrays import ArraySource, Images, Labels
from sqzlab.data.fingerprint import ARCHIVE_FOLDERS, archive_folder
from sqzlab.data.source import Statistic
from sqzlab.errors import UnavailableError

STATISTICS: dict[str, tuple[Statistic, Statistic]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""Mean and standard deviation over all pixels of the 50,000 training images (not the mean of each image's own)."""


def open_cifar(name: str, root: str | None) -> ArraySource:
    """Raises UnavailableError where the archive is missing or not the published one."""
    from torchvision.datasets import CIFAR10, CIFAR100  # a second to import, and only these data sets need it

    dataset = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    folder = archive_folder(name, root)
    try:
        train, val = (dataset(folder, train=part, download=False) for part in (True, False))
    except RuntimeError:
        raise UnavailableError(
            f"data set {name!r}: {str(folder / ARCHIVE_FOLDERS[name])!r} is incomplete or corrupted; "
            "extract the archive again"
        ) from None
    mean, std = STATISTICS[name]
    return ArraySource(_part(train), _part(val), classes=len(train.classes), mean=mean, std=std, shift=4, flip=True)


def _part(dataset: Any) -> tuple[Images, Labels]:
    return np.ascontiguousarray(dataset.data.transpose(0, 3, 1, 2)), np.asarray(dataset.targets, dtype=np.int64)
