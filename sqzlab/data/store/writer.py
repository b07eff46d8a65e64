"""Writes a store: in parallel, in place, and so that a kill at any moment costs only the images just at work.

The file gets its name when everything in it is on the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sqzlab.data.image_folder import Paths
from sqzlab.data.store.format import VERSION, Header, Tables, packed, read_header
from sqzlab.data.store.listing import Listing
from sqzlab.data.store.pictures import stored_picture
from sqzlab.data.store.plan import Plan, about, kind_of
from sqzlab.data.store.reader import Index
from sqzlab.data.store.unfinished import (
    begun,
    check_place,
    disk_faults_told,
    distrusted_after_faults,
    held,
    sync_folder,
    tables_bytes,
    tables_now,
    write_at,
)
from sqzlab.data.workers import made_in_processes
from sqzlab.errors import ConfigError, UnavailableError

AT_A_TIME = 64
"""Images that a worker makes before it says so."""
MOST_BAD = 100
"""Bad images beyond those tolerated, after which the rest is not tried."""
SHOWN = 10
"""Bad images that a message names."""

Made = TypeVar("Made")
Fault = tuple[int, str]
"""(row, why the image is bad)."""


def prepare(plan: Plan, *, workers: int, skip_bad: int = 0, done: Callable[[int], object] = lambda n: None) -> Header:
    """Makes the store, or what is missing of it; `done` is told of images as they are made.

    Bad images are left out, at most `skip_bad` of them. Raises UnavailableError where there are more, naming them,
    or where the disk is full or has no locks, or another process writes the store; ConfigError where other images were
    begun there.
    """
    if plan.path.exists():
        return _finished(plan, skip_bad, done)
    with held(plan.unfinished) as file:
        if plan.path.exists():  # another process finished it before this one opened the file anew
            if not os.fstat(file).st_size:
                plan.unfinished.unlink()
            return _finished(plan, skip_bad, done)
        header = begun(plan, file)
        with distrusted_after_faults(plan.unfinished, file, header):
            return _made(plan, file, header, workers, skip_bad, done)


def _made(plan: Plan, file: int, header: Header, workers: int, skip_bad: int, done: Callable[[int], object]) -> Header:
    made = _Maker(plan.unfinished, header, plan.listing.folder, Paths(plan.listing.names))
    todo = np.flatnonzero(tables_now(file, header).good == 0)
    done(header.rows - len(todo))
    bad: list[Fault] = []
    chunks = [todo[at : at + AT_A_TIME] for at in range(0, len(todo), AT_A_TIME)]
    with in_order(made, chunks, workers) as results:
        for chunk, faults in zip(chunks, results, strict=True):
            bad += faults
            done(len(chunk))
            if len(bad) > skip_bad + MOST_BAD:
                break
    if len(bad) > skip_bad:
        raise UnavailableError(_told(plan, bad, skip_bad))
    return _finish(plan, file, header, bad)


@contextlib.contextmanager
def in_order(make: Callable[[Index], Made], chunks: Sequence[Index], workers: int) -> Iterator[Iterator[Made]]:
    """`make(chunk)` for each chunk, here or in processes, which end with the block."""
    if not workers or not chunks:
        yield map(make, chunks)
        return
    with contextlib.closing(made_in_processes(make, chunks, workers)) as made:
        yield made


@dataclass(frozen=True)
class _Maker:
    """Called with rows, writes their images into the unfinished file and returns the bad ones."""

    path: Path
    header: Header
    folder: Path
    names: Paths

    def __call__(self, rows: Index) -> list[Fault]:
        with disk_faults_told(self.path):
            file = os.open(self.path, os.O_WRONLY)
            try:
                return [fault for row in rows.tolist() if (fault := self._write(file, row)) is not None]
            finally:
                os.close(file)

    def _write(self, file: int, row: int) -> Fault | None:
        header = self.header
        try:
            image, size = stored_picture(self.folder / self.names[row], header.size, header.crop)
        except UnavailableError as error:
            return row, str(error)
        pixels = image.data.cast("B")
        write_at(file, pixels, header.at(row))
        write_at(file, struct.pack("<ii", *size), header.field_at("sizes", row))
        write_at(file, struct.pack("<I", zlib.crc32(pixels)), header.field_at("checksums", row))
        write_at(file, b"\1", header.field_at("good", row))
        return None


def _finish(plan: Plan, file: int, header: Header, bad: list[Fault]) -> Header:
    """Names and header written, all of it on the disk, then the name."""
    listing = plan.listing
    text = json.dumps({"classes": listing.classes, "names": listing.names, "bad": sorted(bad)}).encode()
    with disk_faults_told(plan.unfinished):
        found = tables_now(file, header)
        assert np.count_nonzero(found.good) == header.rows - len(bad), "images neither made nor bad"
        check_place(file, plan.unfinished)
        os.ftruncate(file, header.text_at)
        write_at(file, text, header.text_at)
        checksum = zlib.crc32(text, zlib.crc32(tables_bytes(file, header)))
        header = replace(
            header,
            images=header.rows - len(bad),
            digest=_digest(header, listing, found),
            text_bytes=len(text),
            tables_crc=checksum,
            boot="",
        )
        os.fsync(file)  # what the header stands for, before the header
        write_at(file, packed(header), 0)
        os.fsync(file)
        check_place(file, plan.unfinished)  # not what another process began in its place
        plan.unfinished.replace(plan.path)
        sync_folder(plan.folder)
    return header


def _digest(header: Header, listing: Listing, found: Tables) -> str:
    """Sixteen hexadecimal digits for what a reader gets: images, labels, sizes and names, in their order."""
    good: NDArray[np.bool_] = found.good.astype(bool)
    names = [name for name, kept in zip(listing.names, good.tolist(), strict=True) if kept]
    digest = hashlib.sha256(json.dumps([VERSION, *kind_of(header)[1:], listing.classes, names]).encode())
    for table in (found.labels, found.sizes, found.checksums):
        digest.update(table[good].tobytes())
    return digest.hexdigest()[:16]


def _finished(plan: Plan, skip_bad: int, done: Callable[[int], object]) -> Header:
    """The header of a store that is there already."""
    header = read_header(plan.path)
    if header.plan != plan.header().plan:
        raise ConfigError(
            f"store {str(plan.path)!r} holds other images or sizes ({about(header)}); "
            "valid: another --out, or remove it"
        )
    if (skipped := header.rows - header.images) > skip_bad:
        raise ConfigError(
            f"store {str(plan.path)!r} was prepared without {skipped} bad images; "
            f"valid: --skip-bad {skipped}, or remove it"
        )
    done(header.rows)
    return header


def _told(plan: Plan, bad: list[Fault], skip_bad: int) -> str:
    lines = [why for _, why in sorted(bad)[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"... and {len(bad) - SHOWN:,} more")
    stopped = ", and the rest was not tried" if len(bad) > skip_bad + MOST_BAD else ""
    lines.append(
        f"{plan.listing.split}: {len(bad):,} bad images{stopped}; valid: {skip_bad} (--skip-bad); "
        "what is done is kept: mend them or tolerate more, and run it again"
    )
    return "\n".join(lines)
