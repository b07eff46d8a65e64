"""What is to be prepared: names, labels and classes of both splits, listed without opening an image or torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sqzlab.catalog import DATASETS
from sqzlab.data.class_folders import SPLITS, class_names, data_folder, image_names
from sqzlab.data.fingerprint import count
from sqzlab.data.image_list import check_files, read_lists
from sqzlab.errors import ConfigError

PREPARED = tuple(name for name, row in DATASETS.items() if row.counts is None)
"""The data sets whose images are files."""


@dataclass(frozen=True)
class Listing:
    """The images of one split, by paths relative to `folder`; labels are int64 (n,)."""

    data: str
    split: str
    folder: Path
    names: list[str]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


def listings(
    data: str, root: str | None, train_list: str | None = None, val_list: str | None = None
) -> tuple[Listing, Listing]:
    """Both splits of a data set.

    Raises ConfigError for the lines at fault of a list and for a data set of arrays, UnavailableError where folders or
    images are missing, a class has no image, or the splits differ in classes.
    """
    if data not in PREPARED:
        raise ConfigError(
            f"data set {data!r} is read into memory whole, there is nothing to prepare; valid: {', '.join(PREPARED)}"
        )
    folder = data_folder(data, root)
    if data == "imagelist":
        lists = read_lists(train_list, val_list)
        check_files(folder, lists)
        classes = tuple(map(str, range(lists.classes)))
        train, val = (
            Listing(data, split, folder, listed.names, np.array(listed.labels, dtype=np.int64), classes)
            for split, listed in zip(SPLITS, (lists.train, lists.val), strict=True)
        )
        return train, val
    count(data, root)  # also refuses other than 1000 classes of ImageNet
    classes = tuple(class_names(data, folder))
    train, val = (_class_folders(data, split, folder, classes) for split in SPLITS)
    return train, val


def _class_folders(data: str, split: str, folder: Path, classes: tuple[str, ...]) -> Listing:
    found = [image_names(data, folder / split / name) for name in classes]
    names = [f"{split}/{name}/{image}" for name, images in zip(classes, found, strict=True) for image in images]
    labels = np.repeat(np.arange(len(classes)), [len(images) for images in found])
    return Listing(data, split, folder, names, labels, classes)
