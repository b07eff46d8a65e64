"""What a data set and other files hold, found without torch: their part of a run's identity.

Counting the 1.3 million files of ImageNet takes seconds, so counts are kept in the user's cache folder under the
real path and the modification times of the class folders, or of the lists. A cache that cannot be read or written is
not used.
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
from sqzlab.data.image_list import check_files, expanded, read_lists, why_unreadable
from sqzlab.errors import UnavailableError

IMAGENET_CLASSES = 1000
ARCHIVE_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
"""Where the extracted python version of each archive lies under the root."""

Counts = tuple[int, int, int]
"""(classes, training images, validation images)."""

_SETTLED_NS = 2_000_000_000  # a folder changed later than this may change again within one tick of its clock


def count(
    name: str,
    root: str | None,
    train_list: str | None = None,
    val_list: str | None = None,
    store: str | None = None,
    image_size: int | None = None,
) -> Counts:
    """Classes, training images and validation images of the data set `name`; the lists are those of `imagelist`.

    With `store` they are those of the prepared stores in that folder, which must have crops of `image_size`; nothing
    else is looked at. Raises UnavailableError where the data set is not there or not usable, and ConfigError for the
    lines at fault of a list.
    """
    if store is not None:
        return _count_store(name, store, image_size)
    if name in ARCHIVE_FOLDERS:
        archive_folder(name, root)
    if name == "imagelist":
        return _count_lists(data_folder(name, root), train_list, val_list)[0]
    embedded = DATASETS[name].counts
    return embedded or _count_class_folders(name, data_folder(name, root))


def digests(
    train_list: str | None, val_list: str | None, pretrained: str | None, store: str | None = None
) -> dict[str, str]:
    """`data.lists_digest`, `train.pretrained_digest` and `data.store_digest` where lists, weights and stores are named.

    Raises as `count` does.
    """
    found = {}
    if train_list or val_list:
        found["data.lists_digest"] = _count_lists(None, train_list, val_list)[1]
    if pretrained:
        found["train.pretrained_digest"] = pretrained_digest(pretrained)
    if store:
        from sqzlab.data.store.reader import digest_of, read_headers  # numpy, which most plans do without

        found["data.store_digest"] = digest_of(*read_headers(store))
    return found


def pretrained_digest(path: str) -> str:
    """Sixteen hexadecimal digits for the file's content. Raises UnavailableError where it cannot be read."""
    try:
        with expanded(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except (OSError, ValueError) as error:
        raise UnavailableError(f"train.pretrained: {path!r} cannot be read ({why_unreadable(error)})") from None


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


def _count_store(name: str, folder: str, image_size: int | None) -> Counts:
    from sqzlab.data.store.reader import check_crop, read_headers, store_path  # numpy, as above

    train, val = read_headers(folder)
    for header in (train, val):
        if header.data != name:
            raise UnavailableError(
                f"stores in {folder!r} were prepared from data set {header.data!r}, not {name!r}; valid: data.name "
                f"{header.data!r}, or the folder of other stores"
            )
    if name == "imagenet" and train.classes != IMAGENET_CLASSES:
        raise UnavailableError(
            f"data set 'imagenet': stores in {folder!r} have {train.classes} classes; valid: {IMAGENET_CLASSES}"
        )
    if image_size is not None:
        check_crop(store_path(folder, "val"), val, image_size)
    return train.classes, train.images, val.images


def _count_class_folders(name: str, folder: Path) -> Counts:
    classes = class_names(name, folder)
    if name == "imagenet" and len(classes) != IMAGENET_CLASSES:
        raise UnavailableError(
            f"data set 'imagenet': {str(folder)!r} has {len(classes)} classes instead of {IMAGENET_CLASSES}; "
            "for other class folders set data.name: imagefolder"
        )
    stamp = _stamp([(f"{split}/{c}", folder / split / c) for split in SPLITS for c in classes])
    if known := _cached([folder], stamp):
        return known[0]
    train, val = (sum(len(image_names(name, folder / split / c)) for c in classes) for split in SPLITS)
    counts = (len(classes), train, val)
    _store([folder], stamp, counts)
    return counts


def _count_lists(folder: Path | None, train_list: str | None, val_list: str | None) -> tuple[Counts, str]:
    """What two lists hold, and its digest. Known lists are not read again, nor their images looked for in `folder`."""
    paths = [expanded(path).absolute() for path in (train_list, val_list) if path]
    stamp = _stamp([(path.name, path) for path in paths])
    key = [*paths, *([folder] if folder else [])]
    if (known := _cached(key, stamp)) and known[1]:
        return known
    lists = read_lists(train_list, val_list)
    if folder:
        check_files(folder, lists)
    counts = (lists.classes, len(lists.train.names), len(lists.val.names))
    _store(key, stamp, counts, lists.digest)
    return counts, lists.digest


# ---- cache -------------------------------------------------------------------------------------


def _stamp(files: Sequence[tuple[str, Path]]) -> str | None:
    """A digest that changes with any of these files or folders, or None while they may still be changing."""
    digest = hashlib.sha256()
    newest = 0
    for name, path in files:
        try:
            changed = path.stat().st_mtime_ns
        except (OSError, ValueError):  # it vanished or never was: counting it will say so
            return None
        digest.update(os.fsencode(f"{name}\0{changed}\0"))
        newest = max(newest, changed)
    return digest.hexdigest() if time.time_ns() - newest > _SETTLED_NS else None


def _cache_file(paths: Sequence[Path]) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 (never raises)
    key = hashlib.sha256(b"\0".join(os.fsencode(os.path.realpath(path)) for path in paths)).hexdigest()[:16]
    return Path(cache) / "sqzlab" / f"counts-{key}.json"


def _cached(paths: Sequence[Path], stamp: str | None) -> tuple[Counts, str] | None:
    """Counts and, of lists, their digest."""
    if stamp is None:
        return None
    try:
        kept = json.loads(_cache_file(paths).read_bytes())
        if kept["stamp"] == stamp:
            classes, train, val = kept["counts"]
            return (int(classes), int(train), int(val)), str(kept.get("digest", ""))
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        pass
    return None


def _store(paths: Sequence[Path], stamp: str | None, counts: Counts, digest: str = "") -> None:
    if stamp is None:
        return
    file = _cache_file(paths)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=file.parent, prefix=file.name)
        try:
            with os.fdopen(handle, "w") as out:
                json.dump({"stamp": stamp, "counts": counts} | ({"digest": digest} if digest else {}), out)
            os.replace(partial, file)  # noqa: PTH105
        except OSError:
            os.unlink(partial)  # noqa: PTH108
            raise
