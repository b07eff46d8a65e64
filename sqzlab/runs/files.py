"""Files that are whole or absent: written aside, flushed to the disk, then renamed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


def write_whole(
    path: Path,
    write: Callable[[IO[bytes]], object],
    *,
    rename: Callable[[Path, Path], object] = Path.replace,
    durable: bool = True,
) -> None:
    """Calls `write` with a file beside `path`, then renames it to `path`; nothing is left behind on an error.

    `durable` waits until the bytes are on the disk, so that the name never stands for less after a power cut.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        aside.chmod(0o644)
        rename(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if durable:
        _sync_folder(path.parent)


def write_json(path: Path, values: Any, **how: Any) -> None:
    text = json.dumps(values, indent=1, allow_nan=False) + "\n"
    write_whole(path, lambda file: file.write(text.encode()), **how)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in the file, or None where there is no file or no whole JSON object in it."""
    try:
        values = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
