"""A cache of what the files of finished runs say, so that a refresh of a large study reads only what is new.

The files stay the source of truth: an entry counts only while size, time and inode of the files behind it are what
they were, a cache that is damaged or of another version is ignored, and deleting it costs no more than time.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

INDEX = ".records.json"  # in the study's folder
LEAST = 200  # finished runs; of fewer, the files themselves are read as quickly

Stamp = list[int] | None


class Index:
    """Of one study: `read` parses a run's files, or tells what they said when they were last parsed."""

    def __init__(self, folder: Path, files: Sequence[str], parse: Callable[[Path], Mapping[str, Any] | None]) -> None:
        """`parse` turns a run's folder into what its `files` say, as JSON values; None is not kept."""
        self._path, self._files, self._parse = folder / INDEX, tuple(files), parse
        self._former = _load(self._path)
        self._now: dict[str, Any] = {}
        self._parsed = 0

    def read(self, run: Path) -> Mapping[str, Any] | None:
        stamps = [_stamp(f"{run}/{name}") for name in self._files]  # before the files are read: what follows is newer
        known = self._former.get(run.name)
        if known is None or known["stamps"] != stamps:
            found = self._parse(run)
            if found is None:
                return None
            self._parsed += 1
            known = {"stamps": stamps, "found": found}
        self._now[run.name] = known
        said: Mapping[str, Any] = known["found"]
        return said

    def save(self) -> None:
        """Writes the cache anew where it is worth it; a folder that cannot be written to goes without."""
        if len(self._now) < LEAST or not (self._parsed or len(self._now) < len(self._former)):
            return
        body = json.dumps(self._now, separators=(",", ":")).encode()
        with suppress(OSError):
            descriptor, aside = tempfile.mkstemp(prefix=INDEX, suffix=".tmp", dir=self._path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(_digest(body) + b"\n" + body)
                Path(aside).replace(self._path)
            finally:
                Path(aside).unlink(missing_ok=True)


def _load(path: Path) -> dict[str, Any]:
    try:
        digest, _, body = path.read_bytes().partition(b"\n")
    except OSError:
        return {}
    if digest != _digest(body):
        return {}
    found: dict[str, Any] = json.loads(body)
    return found


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(VERSION + body).hexdigest().encode()


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)  # noqa: PTH116  # of 10,000 runs: a Path each would take longer than the call
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ino]


VERSION = b"1"  # raised where what is kept of a run changes
