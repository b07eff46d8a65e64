"""Writes files that belong together: all of them or none."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path


def write_files(target: Path, files: Mapping[str, bytes]) -> None:
    """Writes all files aside in `target`, then renames them all; where one cannot be written, none is changed.

    A file that is there as it would be written is left alone: some file systems wait for the disk at every rename.
    """
    target.mkdir(parents=True, exist_ok=True)
    aside: dict[Path, Path] = {}
    try:
        for name, content in files.items():
            if _is_written(target / name, content):
                continue
            descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=target)
            aside[Path(temporary)] = target / name
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), MODE)
        for path, final in aside.items():
            path.replace(final)
    finally:
        for path in aside:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _is_written(path: Path, content: bytes) -> bool:
    try:
        found = path.lstat()
        return (found.st_mode, found.st_size) == (stat.S_IFREG | MODE, len(content)) and path.read_bytes() == content
    except OSError:
        return False


MODE = 0o644
