"""A store as memory that all processes of a node share: opened, checked and read without torch.

A store is refused where it is not exactly what was written, and as soon as it changes while it is read.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqzlab.data.store.format import Header, read_header, tables
from sqzlab.errors import UnavailableError

Images = NDArray[np.uint8]
Index = NDArray[np.int64]

READ_AHEAD = 128 << 10
"""Bytes that are asked for at a time: of a longer piece Linux may read the beginning only (`read_ahead_kb`)."""


class Stamp(NamedTuple):
    """What changes with a file's content or place."""

    device: int
    inode: int
    size: int
    changed_ns: int


class Store:
    """One split. Images are named by their place among the good ones, from 0 to `len(store) - 1`.

    Pickled, it is a path: the process that gets it maps the same file, and refuses another one.
    """

    def __init__(self, path: Path | str, *, size: int | None = None, split: str | None = None) -> None:
        """Raises UnavailableError where it cannot be used, or is not of this size or split."""
        self.path = Path(path)
        self.header = header = read_header(self.path)
        told = f"store {str(self.path)!r}"
        for what, found, wanted in (("images of size", header.size, size), ("the split", header.split, split)):
            if wanted is not None and found != wanted:
                raise UnavailableError(f"{told} has {what} {found!r}; valid: {wanted!r}")
        with self.path.open("rb") as file:
            self._stamp = _stamp(os.fstat(file.fileno()))
            if self._stamp.size != header.file_bytes:
                raise UnavailableError(f"{told} changed while it was opened")
            self._file = os.dup(file.fileno())
        self._map = mmap.mmap(self._file, header.file_bytes, access=mmap.ACCESS_READ)
        shape = (header.rows, header.size, header.size, 3)
        self.pixels: Images = np.frombuffer(self._map, np.uint8, int(np.prod(shape)), header.at(0)).reshape(shape)
        self.tables = tables(self._map, header)
        if zlib.crc32(memoryview(self._map)[header.tables_at :]) != header.tables_crc:
            raise UnavailableError(f"{told} has damaged tables; prepare it again")
        skipped = header.images != header.rows
        self._rows: Index | None = np.flatnonzero(self.tables.good) if skipped else None

    def __len__(self) -> int:
        return self.header.images

    def rows(self, index: Index) -> Index:
        """Where images stand in `pixels` and `tables`."""
        return index if self._rows is None else self._rows[index]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(images,)"""
        return self.tables.labels if self._rows is None else self.tables.labels[self._rows]

    def sizes(self, index: Index) -> NDArray[np.int32]:
        """(N, 2): height and width that the parts of these images are drawn for, the originals' where all is kept."""
        if self.header.layout == "whole":
            return self.tables.sizes[self.rows(index)]
        return np.full((len(index), 2), self.header.size, dtype=np.int32)

    def gather(self, index: Index, out: Images | None = None) -> Images:
        """A copy (N, S, S, 3) of these images, into `out` where there is one.

        Out of the mapping, a quarter faster than reads of single images; a disk that fails meanwhile ends the process.
        """
        self.check_unchanged()
        return np.take(self.pixels, self.rows(index), axis=0, out=out, mode="clip")  # "raise" would buffer `out`

    def prefetch(self, index: Index) -> None:
        """Lets the system read these images from the disk, all at a time, while something else is done."""
        if not hasattr(os, "posix_fadvise"):
            return
        size = self.header.image_bytes
        with suppress(OSError):  # a hint, and not for every file system
            for row in self.rows(index).tolist():
                for at in range(0, size, READ_AHEAD):
                    place = self.header.at(row) + at
                    os.posix_fadvise(self._file, place, min(READ_AHEAD, size - at), os.POSIX_FADV_WILLNEED)

    def check_unchanged(self, *, place: bool = False) -> None:
        """Raises UnavailableError where the file has changed since it was opened; with `place`, also by another one.

        To be called before each batch: reading beyond the end of a mapped file that was cut short kills a process.
        """
        try:
            now = _stamp(os.fstat(self._file))
        except OSError as error:
            raise self._unreadable(error) from None
        if place and now == self._stamp:
            try:
                now = _stamp(self.path.stat())
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise UnavailableError(f"store {str(self.path)!r} is gone while it is read ({reason})") from None
        if now != self._stamp:
            raise self._changed()

    def _unreadable(self, error: OSError) -> UnavailableError:
        return UnavailableError(f"store {str(self.path)!r} cannot be read ({(error.strerror or str(error)).lower()})")

    def _changed(self) -> UnavailableError:
        return UnavailableError(f"store {str(self.path)!r} changed while it was read; valid: one that nobody writes")

    def names(self) -> Sequence[str]:
        """Of the images, relative to the data set's folder."""
        names: list[str] = self._text["names"]
        return names if self._rows is None else [names[row] for row in self._rows.tolist()]

    def class_names(self) -> tuple[str, ...]:
        return tuple(self._text["classes"])

    def skipped(self) -> list[tuple[str, str]]:
        """Names of the images that were left out, and why."""
        return [(self._text["names"][row], why) for row, why in self._text["bad"]]

    def bad_rows(self, rows: Index) -> list[int]:
        """Those of `rows` whose bytes are not those that were written."""
        self.check_unchanged()
        return [row for row in rows.tolist() if zlib.crc32(self.pixels[row]) != self.tables.checksums[row]]

    def __reduce__(self) -> tuple[Callable[..., Store], tuple[object, ...]]:
        return _reopened, (str(self.path), tuple(self._stamp))

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    @cached_property
    def _text(self) -> dict[str, Any]:
        text: dict[str, Any] = json.loads(self._map[self.header.text_at : self.header.file_bytes])
        return text


def store_path(folder: Path | str, split: str) -> Path:
    """Where a split's store lies in the folder of a prepared data set; absolute, `~` expanded."""
    return Path(os.path.expanduser(folder)).absolute() / f"{split}.store"  # noqa: PTH111 (Path's raises)


def read_headers(folder: Path | str) -> tuple[Header, Header]:
    """Of both splits, whole. Raises UnavailableError where one is not, or their classes differ."""
    train, val = (read_header(store_path(folder, split)) for split in ("train", "val"))
    if train.classes != val.classes:
        raise UnavailableError(
            f"stores in {str(folder)!r} have {train.classes} classes in train and {val.classes} in val; "
            "prepare both from one data set"
        )
    if train.class_digest != val.class_digest:
        raise UnavailableError(
            f"stores in {str(folder)!r} have different classes in train and val; prepare both from one data set"
        )
    return train, val


def digest_of(train: Header, val: Header) -> str:
    """Sixteen hexadecimal digits for what both stores hold, wherever they lie."""
    return hashlib.sha256(f"{train.digest} {val.digest}".encode()).hexdigest()[:16]


def check_crop(path: Path, header: Header, size: int) -> None:
    """Raises UnavailableError where the validation crops of the store in `path` are not of `size` pixels."""
    if header.crop != size:
        raise UnavailableError(
            f"store {str(path)!r} has validation crops of {header.crop!r} pixels, not of {size!r}; valid: "
            f"data.image_size {header.crop}, or another store (`prepare --val-size {round(size * 256 / 224)}`)"
        )


def _reopened(path: str, stamp: tuple[int, int, int, int]) -> Store:
    store = Store(path)
    if store._stamp != stamp:
        raise UnavailableError(f"store {path!r} changed while it was read; valid: one that nobody writes")
    return store


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
