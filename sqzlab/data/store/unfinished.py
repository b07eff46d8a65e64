"""The file of a store that is being written: locked, begun or taken up, and what is done when its disk fails.

It lies beside the store's name, as long as the store will be. An image's bytes are there before its size and checksum,
and those before the mark that says so; what is marked is not made again. A power cut or a fault of the disk may keep a
mark and lose the bytes before it: after one, and on another machine, every marked image is checked against its
checksum first.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from sqzlab.data.store.format import PAGE, Header, Tables, packed, tables, unpacked
from sqzlab.data.store.plan import Plan, about
from sqzlab.errors import ConfigError, UnavailableError


class DiskError(UnavailableError):
    """The store cannot be written: some of what was may not be on the disk."""


@contextlib.contextmanager
def held(path: Path) -> Iterator[int]:
    """The unfinished file, open and locked.

    Raises UnavailableError where another process writes it or has just finished it. A file system without locks is
    refused: looking who else writes, however often, leaves a moment in which both do.
    """
    with disk_faults_told(path):
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
        check_place(file, path)
        yield file
    finally:
        os.close(file)


def check_place(file: int, path: Path) -> None:
    if not _in_place(file, path):
        raise UnavailableError(f"{str(path)!r} was finished or removed by another process")


def _in_place(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def distrusted_after_faults(path: Path, file: int, header: Header) -> Iterator[None]:
    """After a DiskError the header names no boot, so that the next process checks every marked image."""
    try:
        yield
    except DiskError:
        with contextlib.suppress(OSError):
            if _in_place(file, path):  # else it is the finished store
                write_at(file, packed(replace(header, boot="")), 0)
        raise


def begun(plan: Plan, file: int) -> Header:
    """Of the unfinished file, begun or taken up."""
    header = replace(plan.header(), boot=_boot())
    with disk_faults_told(plan.unfinished):
        _begin_or_take_up(file, header, plan)
    return header


def _begin_or_take_up(file: int, header: Header, plan: Plan) -> None:
    page = os.pread(file, PAGE, 0)
    if not page.strip(b"\0"):  # new, or killed before its header was there
        os.ftruncate(file, 0)
        os.ftruncate(file, header.text_at)
        _write_start(file, header, plan)
        return
    found = unpacked(page, plan.unfinished)
    if found.plan != header.plan:
        raise ConfigError(
            f"{str(plan.unfinished)!r} was begun with other images or sizes ({about(found)}); "
            f"valid: the same again, another --out, or remove that file"
        )
    if os.fstat(file).st_size < header.text_at:
        raise UnavailableError(f"{str(plan.unfinished)!r} was cut short; remove it and prepare again")
    if not found.boot or found.boot != header.boot:
        _unmark_damaged(file, header)
    _write_start(file, header, plan)


def _write_start(file: int, header: Header, plan: Plan) -> None:
    write_at(file, plan.listing.labels.astype("<i8").tobytes(), header.field_at("labels"))
    write_at(file, packed(header), 0)


def _unmark_damaged(file: int, header: Header) -> None:
    if hasattr(os, "posix_fadvise"):  # what memory holds of a page that could not be written is not on the disk
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    found = tables_now(file, header)
    for row in np.flatnonzero(found.good).tolist():
        pixels = os.pread(file, header.image_bytes, header.at(row))
        if zlib.crc32(pixels) != found.checksums[row] or not found.sizes[row].all():
            write_at(file, b"\0", header.field_at("good", row))


def write_at(file: int, content: bytes | memoryview, at: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written


def tables_bytes(file: int, header: Header) -> bytes:
    length, parts = header.text_at - header.tables_at, []
    while length:
        parts.append(os.pread(file, length, header.text_at - length))
        length -= len(parts[-1])
    return b"".join(parts)


def tables_now(file: int, header: Header) -> Tables:
    """As they are now, copied."""
    return tables(tables_bytes(file, header), header, header.tables_at)


@contextlib.contextmanager
def disk_faults_told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{str(path)!r} cannot be written ({(error.strerror or str(error)).lower()}); "
            "what is done is kept: mend it and run the same command again"
        ) from None


def sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
