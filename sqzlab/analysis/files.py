"""Writes files that belong together: all of them or none."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


def write_files(target: Path, files: Mapping[str, bytes]) -> None:
    """Writes all files aside in `target`, then renames them all; where one cannot be written, none is changed."""
    target.mkdir(parents=True, exist_ok=True)
    aside: dict[Path, Path] = {}
    try:
        for name, content in files.items():
            descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=target)
            aside[Path(temporary)] = target / name
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
        for path, final in aside.items():
            path.replace(final)
    finally:
        for path in aside:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
