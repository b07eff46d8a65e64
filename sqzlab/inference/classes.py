"""What the classes of a data set are called."""

from __future__ import annotations

from collections.abc import Sequence

from sqzlab.catalog import STORED
from sqzlab.config import DataConfig
from sqzlab.data.class_folders import class_names, data_folder
from sqzlab.data.fingerprint import ARCHIVE_FOLDERS, archive_folder
from sqzlab.data.store.reader import Store, store_path
from sqzlab.errors import UnavailableError


def class_names_of(data: DataConfig) -> tuple[str, ...] | None:
    """The names in the order of their labels, or None where they have none or the data set is not there.

    Those of class folders are the folders' names: ImageNet's are WordNet ids.
    """
    if data.name == "digits":
        return tuple(map(str, range(data.classes)))
    names: Sequence[str]
    try:
        if data.tier in STORED and data.store and data.name != "imagelist":
            names = Store(store_path(data.store, "val")).class_names()
        elif data.name in ("imagenet", "imagefolder"):
            names = class_names(data.name, data_folder(data.name, data.root))
        elif data.name in ARCHIVE_FOLDERS:
            names = _archived(data.name, data.root)
        else:
            return None
    except UnavailableError:
        return None
    return tuple(names) if len(names) == data.classes else None


def _archived(name: str, root: str | None) -> list[str]:
    from torchvision.datasets import CIFAR10, CIFAR100  # a second to import, and only these data sets need it

    folder = archive_folder(name, root)
    try:
        names: list[str] = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name](folder, train=False).classes
    except RuntimeError:  # incomplete or corrupted
        return []
    return names
