"""What a data set holds, counted without torch: its part of a run's identity.

Counting the 1.3 million files of ImageNet takes seconds, so counts are kept in the user's cache folder under the
real path and the modification times of the class folders. A cache that cannot be read or written is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from sqzlab.catalog import DATASETS
from sqzlab.data.class_folders import SPLITS, class_names, data_folder, image_names
from sqzlab.errors import UnavailableError

IMAGENET_CLASSES = 1000
ARCHIVE_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
"""Where the extracted python version of each archive lies under the root."""

Counts = tuple[int, int, int]
"""(classes, training images, validation images)."""

_SETTLED_NS = 2_000_000_000  # a folder changed later than this may change again within one tick of its clock


def count(name: str, root: str | None) -> Counts:
    """Classes, training images and validation images of the data set `name`.

    Raises UnavailableError, one line, where the data set is not there or not usable.
    """
    if name in ARCHIVE_FOLDERS:
        archive_folder(name, root)
    embedded = DATASETS[name].counts
    return embedded or _count_class_folders(name, data_folder(name, root))


def archive_folder(name: str, root: str | None) -> Path:
    """The folder above the extracted CIFAR archive. Raises UnavailableError where the archive is not in it."""
    folder = data_folder(name, root)
    archive = folder / ARCHIVE_FOLDERS[name]
    if not archive.is_dir():
        raise UnavailableError(
            f"data set {name!r}: no folder {str(archive)!r}; extract the archive of the python version there "
            "(nothing is downloaded)"
        )
    return folder


def _count_class_folders(name: str, folder: Path) -> Counts:
    classes = class_names(name, folder)
    if name == "imagenet" and len(classes) != IMAGENET_CLASSES:
        raise UnavailableError(
            f"data set 'imagenet': {str(folder)!r} has {len(classes)} classes instead of {IMAGENET_CLASSES}; "
            "for other class folders set data.name: imagefolder"
        )
    stamp = _stamp(folder, classes)
    cache = _cache_file(folder)
    counts = _cached(cache, stamp) if stamp else None
    if counts is None:
        train, val = (sum(len(image_names(name, folder / split / c)) for c in classes) for split in SPLITS)
        counts = (len(classes), train, val)
        if stamp:
            _store(cache, stamp, counts)
    return counts


# ---- cache -------------------------------------------------------------------------------------


def _stamp(folder: Path, classes: Sequence[str]) -> str | None:
    """A digest that changes with the files of the class folders, or None while they may still be changing."""
    digest = hashlib.sha256()
    newest = 0
    for split in SPLITS:
        for name in classes:
            try:
                changed = (folder / split / name).stat().st_mtime_ns
            except OSError:  # it vanished: counting it will say so
                return None
            digest.update(os.fsencode(f"{split}/{name}\0{changed}\0"))
            newest = max(newest, changed)
    return digest.hexdigest() if time.time_ns() - newest > _SETTLED_NS else None


def _cache_file(folder: Path) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 (never raises)
    key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return Path(cache) / "sqzlab" / f"counts-{key}.json"


def _cached(file: Path, stamp: str) -> Counts | None:
    try:
        kept = json.loads(file.read_bytes())
        if kept["stamp"] == stamp:
            classes, train, val = kept["counts"]
            return int(classes), int(train), int(val)
    except (OSError, ValueError, TypeError, LookupError):
        pass
    return None


def _store(file: Path, stamp: str, counts: Counts) -> None:
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=file.parent, prefix=file.name)
        try:
            with os.fdopen(handle, "w") as out:
                json.dump({"stamp": stamp, "counts": counts}, out)
            os.replace(partial, file)  # noqa: PTH105
        except OSError:
            os.unlink(partial)  # noqa: PTH108
            raise
