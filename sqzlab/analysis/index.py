"""A cache of what the files of finished runs say, so that a refresh of a large study reads only what is new.

The files stay the source of truth: an entry counts only while size, time and inode of the files behind it are what
they were, a cache that is damaged or of another version is ignored, and deleting it costs no more than time. It is one
JSON object of columns, each with a value for every run: a list for every run would take thrice the time to load.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

INDEX = ".records.json"  # in the study's folder
LEAST = 200  # finished runs; of fewer, the files themselves are read as quickly

Stamp = list[int] | None
Found = tuple[Any, ...]


class Index:
    """Of one study: `read` parses a run's files, or tells what they said when they were last parsed."""

    def __init__(self, folder: Path, files: Sequence[str], parse: Callable[[Path], Found | None]) -> None:
        """`parse` turns a run's folder into what its `files` say, as many JSON values of each; None is not kept."""
        self._folder, self._files, self._parse = folder, tuple(files), parse
        self._former = _load(folder / INDEX)
        self._now: dict[str, tuple[Found, Found]] = {}  # the stamps of its files, and what they say
        self._parsed = 0

    def read(self, run: str) -> Found | None:
        """What the files of the run in this folder say, None where `parse` can make nothing of them."""
        # The stamps are taken before the files are read: a file that changes meanwhile is read again the next time.
        stamps = tuple([_stamp(f"{self._folder}/{run}/{name}") for name in self._files])
        former, found = self._former.get(run, (None, None))
        if former != stamps:
            found = self._parse(self._folder / run)
            if found is None:
                return None
            self._parsed += 1
        assert found is not None
        self._now[run] = stamps, found
        return found

    def save(self) -> None:
        """Writes the cache anew where it is worth it; a folder that cannot be written to goes without."""
        if len(self._now) < LEAST or not (self._parsed or len(self._now) < len(self._former)):
            return
        parts = {
            "stamps": [stamps for stamps, _ in self._now.values()],
            "found": [found for _, found in self._now.values()],
        }
        columns = {name: [_coded(column) for column in zip(*rows, strict=True)] for name, rows in parts.items()}
        body = json.dumps({"runs": list(self._now), **columns}, separators=(",", ":")).encode()
        with suppress(OSError):
            descriptor, aside = tempfile.mkstemp(prefix=INDEX, suffix=".tmp", dir=self._folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(_digest(body) + b"\n" + body)
                Path(aside).replace(self._folder / INDEX)
            finally:
                Path(aside).unlink(missing_ok=True)


def _load(path: Path) -> dict[str, tuple[Found, Found]]:
    try:
        digest, _, body = path.read_bytes().partition(b"\n")
    except OSError:
        return {}
    if digest != _digest(body):
        return {}
    kept = json.loads(body)
    stamps, found = (zip(*map(_decoded, kept[name]), strict=True) for name in ("stamps", "found"))
    return dict(zip(kept["runs"], zip(stamps, found, strict=True), strict=True))


def _coded(column: Sequence[Any]) -> Any:
    """Texts, counts and truths of which few differ: these, and which of them each run has. Another column as it is."""
    if not {type(value) for value in column} <= CODED:
        return column
    of: dict[tuple[type, Any], int] = {}  # by type too: 1 equals True
    at = [of.setdefault((type(value), value), len(of)) for value in column]
    return {"of": [value for _, value in of], "at": at} if 4 * len(of) < len(at) else column


def _decoded(column: Any) -> Iterable[Any]:
    return map(column["of"].__getitem__, column["at"]) if isinstance(column, dict) else column


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(VERSION + body).hexdigest().encode()


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)  # noqa: PTH116  # of 10,000 runs: a Path each would take longer than the call
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ino]


VERSION = b"3"  # raised where what is kept of a run changes
CODED = {str, int, bool, type(None)}  # not float: -0.0 equals 0.0
