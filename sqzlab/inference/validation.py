"""The validation part of a data set, with labels and names. Its training part is not looked at."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sqzlab.catalog import DATASETS, STORED
from sqzlab.config import DataConfig
from sqzlab.data.class_folders import data_folder, image_names
from sqzlab.data.image_list import read_list
from sqzlab.data.open import SOURCES, order_hash
from sqzlab.data.store.reader import Store, check_crop, digest_of, read_headers, store_path
from sqzlab.data.store.source import val_crops
from sqzlab.errors import ConfigError, UnavailableError
from sqzlab.inference.checkpoint import Network
from sqzlab.inference.classes import class_names_of
from sqzlab.inference.images import ImageBatch, image_batches
from sqzlab.run import CORRECT

Tell = Callable[[str], object]


@dataclass(frozen=True)
class Labelled:
    """n images. `batches(size, bad)` makes them as uint8 for the network; `bad` is told of every one left out."""

    data: str
    labels: Tensor  # int64 (n,)
    names: Sequence[str]
    class_names: tuple[str, ...] | None
    batches: Callable[[int, Tell], Iterator[ImageBatch]]
    own: bool = False  # whether it is what the network's run was evaluated on


def open_validation(
    network: Network, data: str | None = None, root: str | None = None, val_list: str | None = None
) -> Labelled:
    """The validation images of `data`, by default of the data set that the network's run was trained on.

    A run that was trained from stores is evaluated on its store where no other folder or list is named.
    Raises ConfigError where its classes are not as many as the network's, UnavailableError where it is not there.
    """
    known = network.run.config.data if network.run else None
    if data is None and known is None:
        raise ConfigError(f"{network.name}: a file of weights has no data set of its own; name one with --data")
    stored = None
    if known is not None and data in (None, known.name):
        if known.tier in STORED and known.store and not root and not val_list:
            stored = known.store if known.root is None or store_path(known.store, "val").exists() else None
        data, root, val_list = known.name, root or known.root, val_list or known.val_list
    assert data is not None
    row, size = DATASETS[data], network.config.image_size
    if row.fixed_size and size != row.native_size:
        text = f"has images of {row.native_size} pixels, but {network.name} is for {size}"
        raise ConfigError(f"data set {data!r} {text}; valid: --image-size {row.native_size}")
    if val_list and data != "imagelist":
        raise ConfigError(f"--val-list: does not apply to data set {data!r}; it applies to 'imagelist'")
    if root and not row.needs_root:
        raise ConfigError(f"--root: does not apply to data set {data!r}, which is embedded")
    if stored:
        found = _stored(network, data, stored)
    elif data == "imagelist":
        found = _listed(network, root, val_list)
    else:
        found = (_class_folders if row.counts is None else _arrays)(network, data, root)
    own = known is not None and _same(network, known, found, val_list)
    if own and stored and known is not None:
        own = _store_digest(stored) == known.store_digest
    return replace(found, own=own)


def _same(network: Network, known: DataConfig, found: Labelled, val_list: str | None) -> bool:
    what = (known.name, known.val_list, known.val_images, known.image_size)
    if what != (found.data, val_list, len(found.labels), network.config.image_size):
        return False
    return _recorded_order(network.folder) in (None, order_hash(found.names, found.labels))


def _store_digest(folder: str) -> str | None:
    """None where the training part is gone, without which nobody knows."""
    try:
        return digest_of(*read_headers(folder))
    except UnavailableError:
        return None


def _recorded_order(folder: Path | None) -> str | None:
    """Of the images that a run was evaluated on at its end: a folder of another name may hold as many others."""
    if folder is None:
        return None
    try:
        with np.load(io.BytesIO((folder / CORRECT).read_bytes()), allow_pickle=False) as recorded:
            return str(recorded["order_hash"])
    except (OSError, ValueError, LookupError, zipfile.BadZipFile):  # not done, or damaged
        return None


def _stored(network: Network, data: str, folder: str) -> Labelled:
    store, size = Store(store_path(folder, "val"), split="val"), network.config.image_size
    check_crop(store.path, store.header, size)
    _check_classes(network, data, store.header.classes)

    def batches(batch_size: int, _: Tell) -> Iterator[ImageBatch]:
        for index in torch.split(torch.arange(len(store)), batch_size):
            crops = val_crops(store, index.numpy(), size)  # (N, size, size, 3)
            yield ImageBatch(torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous(), index)

    class_names = None if data == "imagelist" else store.class_names()  # there they are only numbers
    return Labelled(data, torch.from_numpy(store.labels.copy()), store.names(), class_names, batches)


def _class_folders(network: Network, data: str, root: str | None) -> Labelled:
    """`root/val/<class>/<image>`; the labels are the classes' places in the order of their names."""
    folder = data_folder(data, root)
    try:
        with os.scandir(folder / "val") as entries:
            classes = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UnavailableError(f"data set {data!r}: {str(folder / 'val')!r} cannot be read ({reason})") from None
    _check_classes(network, data, len(classes))
    images = [image_names(data, folder / "val" / name) for name in classes]
    names = [f"val/{name}/{image}" for name, inside in zip(classes, images, strict=True) for image in inside]
    labels = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(inside) for inside in images]))
    return Labelled(data, labels, names, tuple(classes), _decoded(network, folder, names))


def _listed(network: Network, root: str | None, val_list: str | None) -> Labelled:
    """The images of one list, whether or not they are there."""
    folder = data_folder("imagelist", root)
    if not val_list:
        raise ConfigError("data set 'imagelist' needs --val-list: a text file with `name label` a line")
    listed = read_list(val_list, "--val-list")
    beyond = [line for line, label in zip(listed.lines, listed.labels, strict=True) if label >= _classes(network)]
    if beyond:
        text = f"the label is not one of the {_classes(network)} classes of {network.name}"
        more = f" ({len(beyond)} such lines)" if len(beyond) > 1 else ""
        raise ConfigError(f"{val_list}:{beyond[0]}: {text}; valid: 0 to {_classes(network) - 1}{more}")
    labels = torch.tensor(listed.labels, dtype=torch.int64)
    return Labelled("imagelist", labels, listed.names, None, _decoded(network, folder, listed.names))


def _arrays(network: Network, data: str, root: str | None) -> Labelled:
    counts = DATASETS[data].counts
    assert counts is not None
    _check_classes(network, data, counts[0])
    counted = dict(zip(("classes", "train_images", "val_images"), counts, strict=True))
    given = {"name": data, "root": root, "image_size": network.config.image_size}
    config = DataConfig.model_validate({**given, **counted})
    source = SOURCES[data](config)

    def batches(batch_size: int, _: Tell) -> Iterator[ImageBatch]:
        for index in torch.split(torch.arange(len(source.val_labels)), batch_size):
            yield ImageBatch(source.val_batch(index.numpy()), index)

    return Labelled(data, source.val_labels, source.val_names(), class_names_of(config), batches)


def _decoded(network: Network, folder: Path, names: Sequence[str]) -> Callable[[int, Tell], Iterator[ImageBatch]]:
    files, size = [folder / name for name in names], network.config.image_size
    return lambda batch_size, bad: image_batches(files, "imagefolder", size, batch_size, bad=bad)


def _classes(network: Network) -> int:
    return network.config.num_classes


def _check_classes(network: Network, data: str, classes: int) -> None:
    if classes != _classes(network):
        text = f"has {_classes(network)} classes, data set {data!r} has {classes}"
        raise ConfigError(f"{network.name} {text}; valid: a data set of as many classes")
