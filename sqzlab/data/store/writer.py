"""Writes a store: in parallel, in place, and so that a kill at any moment costs only the images just at work.

The unfinished file lies beside the store's name, as long as the store will be. A worker writes an image's bytes, then
its size and checksum, then the mark that says it is there; what is marked is not made again. A power cut or a fault of
the disk may keep a mark and lose the bytes before it: after one, and on another machine, every marked image is checked
against its checksum first. The file gets its name when everything in it is on the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
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
from sqzlab.data.store.format import PAGE, VERSION, Header, Tables, packed, read_header, tables, unpacked
from sqzlab.data.store.listing import Listing
from sqzlab.data.store.pictures import crop_of, stored_picture
from sqzlab.data.store.reader import Index, store_path
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


class DiskError(UnavailableError):
    """The store cannot be written: some of what was may not be on the disk."""


@dataclass(frozen=True)
class Plan:
    """A store to be made: `layout` is `whole` for training images, `centre` for validation."""

    listing: Listing
    size: int
    folder: Path

    @property
    def path(self) -> Path:
        return store_path(self.folder, self.listing.split)

    @property
    def unfinished(self) -> Path:
        return self.path.with_name(f".{self.path.name}.part")

    def header(self) -> Header:
        """Raises ConfigError where the size is none of its layout."""
        listing = self.listing
        whole = listing.split == "train"
        header = Header(
            data=listing.data,
            split=listing.split,
            size=self.size,
            layout="whole" if whole else "centre",
            crop=0 if whole else crop_of(self.size),
            rows=len(listing.names),
            images=len(listing.names),
            classes=len(listing.classes),
            class_digest=hashlib.sha256(json.dumps(listing.classes).encode()).hexdigest()[:16],
            plan="",
        )
        told = hashlib.sha256(json.dumps([VERSION, *_kind(header), listing.classes, listing.names]).encode())
        told.update(listing.labels.astype("<i8").tobytes())
        return replace(header, plan=told.hexdigest()[:16])

    def bytes_to_write(self) -> int:
        """What the disk must still have room for; 0 where the store is there."""
        if self.path.exists():
            return 0
        header = self.header()
        there = self.unfinished.stat().st_blocks * 512 if self.unfinished.exists() else 0
        return max(header.text_at + sum(map(len, self.listing.names)) + 4 * header.rows + PAGE - there, 0)


def prepare(plan: Plan, *, workers: int, skip_bad: int = 0, done: Callable[[int], object] = lambda n: None) -> Header:
    """Makes the store, or what is missing of it; `done` is told of images as they are made.

    Bad images are left out, at most `skip_bad` of them. Raises UnavailableError where there are more, naming them,
    or where the disk is full or has no locks, or another process writes the store; ConfigError where other images were
    begun there.
    """
    if plan.path.exists():
        return _finished(plan, skip_bad, done)
    with _held(plan.unfinished) as file:
        if plan.path.exists():  # another process finished it before this one opened the file anew
            if not os.fstat(file).st_size:
                plan.unfinished.unlink()
            return _finished(plan, skip_bad, done)
        header = _begun(plan, file)
        with _distrusted_after_faults(plan.unfinished, file, header):
            return _made(plan, file, header, workers, skip_bad, done)


def _made(plan: Plan, file: int, header: Header, workers: int, skip_bad: int, done: Callable[[int], object]) -> Header:
    made = _Maker(plan.unfinished, header, plan.listing.folder, Paths(plan.listing.names))
    todo = np.flatnonzero(_tables(file, header).good == 0)
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
        with _disk_faults_told(self.path):
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
        _write_at(file, pixels, header.at(row))
        _write_at(file, struct.pack("<ii", *size), header.field_at("sizes", row))
        _write_at(file, struct.pack("<I", zlib.crc32(pixels)), header.field_at("checksums", row))
        _write_at(file, b"\1", header.field_at("good", row))
        return None


# ---- the unfinished file -----------------------------------------------------------------------


@contextlib.contextmanager
def _held(path: Path) -> Iterator[int]:
    """The unfinished file, open and locked.

    Raises UnavailableError where another process writes it or has just finished it. A file system without locks is
    refused: looking who else writes, however often, leaves a moment in which both do.
    """
    with _disk_faults_told(path):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UnavailableError(f"{str(path)!r} is being written by another process") from None
        except OSError as error:
            raise UnavailableError(
                f"{str(path)!r} cannot be locked ({(error.strerror or str(error)).lower()}); "
                "valid: --out on a file system with locks; the finished stores may be moved from there"
            ) from None
        _check_place(file, path)
        yield file
    finally:
        os.close(file)


def _check_place(file: int, path: Path) -> None:
    if not _in_place(file, path):
        raise UnavailableError(f"{str(path)!r} was finished or removed by another process")


def _in_place(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _distrusted_after_faults(path: Path, file: int, header: Header) -> Iterator[None]:
    """After a DiskError the header names no boot, so that the next process checks every marked image."""
    try:
        yield
    except DiskError:
        with contextlib.suppress(OSError):
            if _in_place(file, path):  # else it is the finished store
                _write_at(file, packed(replace(header, boot="")), 0)
        raise


def _begun(plan: Plan, file: int) -> Header:
    """Of the unfinished file, begun or taken up."""
    header = replace(plan.header(), boot=_boot())
    with _disk_faults_told(plan.unfinished):
        _begin_or_take_up(file, header, plan)
    return header


def _begin_or_take_up(file: int, header: Header, plan: Plan) -> None:
    page = os.pread(file, PAGE, 0)
    if not page.strip(b"\0"):  # new, or killed before its header was there
        os.ftruncate(file, 0)
        os.ftruncate(file, header.text_at)
        _write_start(file, header, plan)
        return
    begun = unpacked(page, plan.unfinished)
    if begun.plan != header.plan:
        raise ConfigError(
            f"{str(plan.unfinished)!r} was begun with other images or sizes ({_about(begun)}); "
            f"valid: the same again, another --out, or remove that file"
        )
    if os.fstat(file).st_size < header.text_at:
        raise UnavailableError(f"{str(plan.unfinished)!r} was cut short; remove it and prepare again")
    if not begun.boot or begun.boot != header.boot:
        _unmark_damaged(file, header)
    _write_start(file, header, plan)


def _write_start(file: int, header: Header, plan: Plan) -> None:
    _write_at(file, plan.listing.labels.astype("<i8").tobytes(), header.field_at("labels"))
    _write_at(file, packed(header), 0)


def _unmark_damaged(file: int, header: Header) -> None:
    if hasattr(os, "posix_fadvise"):  # what memory holds of a page that could not be written is not on the disk
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    found = _tables(file, header)
    for row in np.flatnonzero(found.good).tolist():
        pixels = os.pread(file, header.image_bytes, header.at(row))
        if zlib.crc32(pixels) != found.checksums[row] or not found.sizes[row].all():
            _write_at(file, b"\0", header.field_at("good", row))


def _finish(plan: Plan, file: int, header: Header, bad: list[Fault]) -> Header:
    """Names and header written, all of it on the disk, then the name."""
    listing = plan.listing
    text = json.dumps({"classes": listing.classes, "names": listing.names, "bad": sorted(bad)}).encode()
    with _disk_faults_told(plan.unfinished):
        found = _tables(file, header)
        assert np.count_nonzero(found.good) == header.rows - len(bad), "images neither made nor bad"
        _check_place(file, plan.unfinished)
        os.ftruncate(file, header.text_at)
        _write_at(file, text, header.text_at)
        checksum = zlib.crc32(text, zlib.crc32(_tables_bytes(file, header)))
        header = replace(
            header,
            images=header.rows - len(bad),
            digest=_digest(header, listing, found),
            text_bytes=len(text),
            tables_crc=checksum,
            boot="",
        )
        os.fsync(file)  # what the header stands for, before the header
        _write_at(file, packed(header), 0)
        os.fsync(file)
        _check_place(file, plan.unfinished)  # not what another process began in its place
        plan.unfinished.replace(plan.path)
        _sync_folder(plan.folder)
    return header


def _digest(header: Header, listing: Listing, found: Tables) -> str:
    """Sixteen hexadecimal digits for what a reader gets: images, labels, sizes and names, in their order."""
    good: NDArray[np.bool_] = found.good.astype(bool)
    names = [name for name, kept in zip(listing.names, good.tolist(), strict=True) if kept]
    digest = hashlib.sha256(json.dumps([VERSION, *_kind(header)[1:], listing.classes, names]).encode())
    for table in (found.labels, found.sizes, found.checksums):
        digest.update(table[good].tobytes())
    return digest.hexdigest()[:16]


def _kind(header: Header) -> tuple[str, str, int, str, int]:
    return header.data, header.split, header.size, header.layout, header.crop


def _finished(plan: Plan, skip_bad: int, done: Callable[[int], object]) -> Header:
    """The header of a store that is there already."""
    header = read_header(plan.path)
    if header.plan != plan.header().plan:
        raise ConfigError(
            f"store {str(plan.path)!r} holds other images or sizes ({_about(header)}); "
            "valid: another --out, or remove it"
        )
    if (skipped := header.rows - header.images) > skip_bad:
        raise ConfigError(
            f"store {str(plan.path)!r} was prepared without {skipped} bad images; "
            f"valid: --skip-bad {skipped}, or remove it"
        )
    done(header.rows)
    return header


# ---- bytes -------------------------------------------------------------------------------------


def _write_at(file: int, content: bytes | memoryview, at: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written


def _tables_bytes(file: int, header: Header) -> bytes:
    length, parts = header.text_at - header.tables_at, []
    while length:
        parts.append(os.pread(file, length, header.text_at - length))
        length -= len(parts[-1])
    return b"".join(parts)


def _tables(file: int, header: Header) -> Tables:
    """As they are now, copied."""
    return tables(_tables_bytes(file, header), header, header.tables_at)


@contextlib.contextmanager
def _disk_faults_told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{str(path)!r} cannot be written ({(error.strerror or str(error)).lower()}); "
            "what is done is kept: mend it and run the same command again"
        ) from None


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _about(header: Header) -> str:
    return f"{header.rows:,} images of {header.data}, {header.split}, at {header.size} pixels"


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
