"""The bytes of a store: a header page, images, tables, names. Little-endian; everything but pixels has a checksum.

0        8 bytes `sqzstore`; uint32 version, length and CRC-32 of the JSON object that follows
4096     rows * size * size * 3 bytes of images, RGB, row by row
tables   (at the next 4096) rows times int64 label, int32 height and width of the original, uint32 CRC-32 of the
         image's bytes, uint8 1 for a good image and 0 for one that was skipped
text     JSON: names of classes and images, and why which rows were skipped
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqzlab.errors import UnavailableError

VERSION = 2
PAGE = 4096
MAGIC = b"sqzstore"
_FIXED = struct.Struct("<8sIII")

LAYOUTS = {
    "whole": "all of the picture, squeezed into the square",
    "centre": "the centre of the picture with its short side resized to the square's",
}


@dataclass(frozen=True)
class Header:
    """What a file says of itself. `digest` is of what its images, labels and names are; empty until all is written."""

    data: str  # the data set's name
    split: str
    size: int  # side S of a stored image
    layout: str
    crop: int  # side of the validation crop in the middle of a `centre` image; 0 for `whole`
    rows: int  # places for images; `images` of them are good
    images: int
    classes: int
    class_digest: str  # of the classes' names in the order of their labels
    plan: str  # digest of names, labels and options that it was begun with
    digest: str = ""
    text_bytes: int = 0
    tables_crc: int = 0  # of tables and text
    boot: str = ""  # of the machine that wrote it last, while it is unfinished

    @property
    def image_bytes(self) -> int:
        return self.size * self.size * 3

    @property
    def tables_at(self) -> int:
        return -(-(PAGE + self.rows * self.image_bytes) // PAGE) * PAGE

    @property
    def text_at(self) -> int:
        return self.tables_at + self.rows * _ROW_BYTES

    @property
    def file_bytes(self) -> int:
        return self.text_at + self.text_bytes

    def at(self, row: int) -> int:
        """Where an image begins."""
        return PAGE + row * self.image_bytes

    def field_at(self, name: str, row: int = 0) -> int:
        """Where a table, or one row of it, begins."""
        start = self.tables_at
        for table, (kind, width) in TABLES.items():
            if table == name:
                return start + row * kind.itemsize * width
            start += self.rows * kind.itemsize * width
        raise KeyError(name)


TABLES: dict[str, tuple[np.dtype[Any], int]] = {
    "labels": (np.dtype("<i8"), 1),
    "sizes": (np.dtype("<i4"), 2),
    "checksums": (np.dtype("<u4"), 1),
    "good": (np.dtype("u1"), 1),
}
"""Each table's type and values a row, in the order in which they stand."""

_ROW_BYTES = sum(kind.itemsize * width for kind, width in TABLES.values())


@dataclass(frozen=True)
class Tables:
    """Views of one file's tables: int64 (rows,), int32 (rows, 2) of height and width, uint32 (rows,), uint8 (rows,)."""

    labels: NDArray[np.int64]
    sizes: NDArray[np.int32]
    checksums: NDArray[np.uint32]
    good: NDArray[np.uint8]


def tables(buffer: Any, header: Header, start: int = 0) -> Tables:
    """The tables in a buffer that holds the file from byte `start` on; nothing is copied."""
    found = {}
    for name, (kind, width) in TABLES.items():
        flat = np.frombuffer(buffer, kind, header.rows * width, header.field_at(name) - start)
        found[name] = flat if width == 1 else flat.reshape(header.rows, width)
    return Tables(**found)


def packed(header: Header) -> bytes:
    """The first page."""
    text = json.dumps(asdict(header), separators=(",", ":")).encode()
    page = _FIXED.pack(MAGIC, VERSION, len(text), zlib.crc32(text)) + text
    assert len(page) <= PAGE, "a header is longer than its page"
    return page.ljust(PAGE, b"\0")


def unpacked(page: bytes, path: Path) -> Header:
    """The header of the file whose first page this is. Raises UnavailableError where it is none of this version."""
    told = f"store {str(path)!r}"
    if len(page) < PAGE or not page.startswith(MAGIC):
        raise UnavailableError(f"{told} is no store; valid: a file that `python -m sqzlab prepare` has made")
    _, version, length, checksum = _FIXED.unpack_from(page)
    if version != VERSION:
        raise UnavailableError(f"{told} has version {version!r}; valid: {VERSION}; prepare it again")
    text = page[_FIXED.size : _FIXED.size + length]
    if zlib.crc32(text) != checksum:
        raise UnavailableError(f"{told} has a damaged header; prepare it again")
    values = json.loads(text)
    return Header(**{field.name: values[field.name] for field in fields(Header)})


def read_header(path: Path) -> Header:
    """Of a whole store, without its images or tables. Raises UnavailableError where it is not whole."""
    try:
        with path.open("rb") as file:
            header = unpacked(file.read(PAGE), path)
            length = file.seek(0, 2)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise UnavailableError(f"store {str(path)!r} cannot be read ({reason})") from None
    if not header.digest:
        raise UnavailableError(f"store {str(path)!r} was not finished; run `python -m sqzlab prepare` again")
    if length != header.file_bytes:
        raise UnavailableError(
            f"store {str(path)!r} has {length:,} bytes instead of {header.file_bytes:,}: it was "
            f"{'cut short' if length < header.file_bytes else 'added to'}; prepare it again"
        )
    return header
