"""Lists of images: text files with `name label` a line, as the released SP/RG code reads them, read without torch.

The label is the last word of its line, a whole number from 0; the name before it is relative to the data set's folder.
Empty lines count for nothing and there are no comments: a name may begin with any sign but a blank. Lines may end as
on Windows, and a byte order mark is skipped.
Differs: a name may hold blanks, and the folder needs no slash at its end.
"""

from __future__ import annotations

import hashlib
import os
import stat
from array import array
from collections import defaultdict
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sqzlab.errors import ConfigError, UnavailableError

SHOWN = 5  # faults of a list that are told one by one
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class ImageList:
    """One list: for each image its name, its label and the line (from 1) that names it."""

    path: str  # as the user wrote it
    names: list[str]
    labels: array[int]
    lines: array[int]
    digest: str  # of names and labels in their order


@dataclass(frozen=True)
class ImageLists:
    """Both lists of a data set. Every label from 0 to `classes - 1` is that of a training image."""

    train: ImageList
    val: ImageList

    @property
    def classes(self) -> int:
        return max(self.train.labels) + 1

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits for what both lists say, wherever they lie."""
        return hashlib.sha256(f"{self.train.digest}/{self.val.digest}".encode()).hexdigest()[:16]


def read_lists(train_list: str | None, val_list: str | None) -> ImageLists:
    """Raises ConfigError with the lines at fault, of both lists, and UnavailableError where a list cannot be read."""
    found, faults = [], []
    for key, path in (("data.train_list", train_list), ("data.val_list", val_list)):
        if not path:
            faults.append(f"{key}: is missing; valid: a text file with `name label` a line")
            continue
        try:
            found.append(read_list(path, key))
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    train, val = found
    trained, end = set(train.labels), max(*train.labels, *val.labels) + 1
    if lacking := end - len(trained):
        some = ", ".join(map(str, islice((label for label in range(end) if label not in trained), 3)))
        more = ", ..." if lacking > 3 else ""
        raise ConfigError(
            f"{train.path}: no training image has label {some}{more} ({lacking} of the labels from 0 to {end - 1}); "
            "valid: every label from 0 to the highest of both lists"
        )
    return ImageLists(train, val)


def read_list(path: str, key: str) -> ImageList:
    """One list; `key` is what a message calls it. Raises as `read_lists` does."""
    try:
        content = expanded(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise UnavailableError(f"{key}: {path!r} cannot be read ({why_unreadable(error)})") from None
    if b"\0" in content:
        raise ConfigError(f"{path}: is no text (it holds NUL bytes); valid: UTF-8 with `name label` a line")
    names, labels, lines = [], array("q"), array("q")
    faults: list[tuple[int, str]] = []
    digest = hashlib.sha256()
    for number, line in enumerate(content.removeprefix(_BOM).splitlines(), start=1):  # of bytes: only at CR and LF
        words = line.strip().rsplit(None, 1)
        if not words:
            continue
        if (fault := _fault(words)) is not None:
            faults.append((number, fault))
            continue
        name, label = words[0], int(words[1])
        names.append(os.fsdecode(name))
        labels.append(label)
        lines.append(number)
        digest.update(b"%b\0%d\n" % (name, label))
    told = [f"{path}:{number}: {fault}" for number, fault in faults[:SHOWN]]
    if len(faults) > SHOWN:
        told.append(f"{path}: {len(faults):,} lines are at fault")
    if not names and not faults:
        told.append(f"{path}: names no image; valid: `name label` a line")
    if told:
        raise ConfigError(told)
    return ImageList(path, names, labels, lines, digest.hexdigest())


def check_files(folder: Path, lists: ImageLists) -> None:
    """Raises UnavailableError, with the lines that name them, where images are missing.

    Each folder is listed once: looking at a million files one by one takes minutes on a shared file system.
    """
    told = []
    for listed in (lists.train, lists.val):
        missing = _missing(folder, listed.names)
        told += [
            f"{listed.path}:{listed.lines[i]}: no image {str(folder / listed.names[i])!r}" for i in missing[:SHOWN]
        ]
        if len(missing) > SHOWN:
            told.append(f"{listed.path}: {len(missing):,} of {len(listed.names):,} images are missing")
    if told:
        raise UnavailableError("\n".join(told))


def expanded(path: str) -> Path:
    """With `~` for the home folder."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path's raises for an unknown user)


def why_unreadable(error: OSError | ValueError) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


def _fault(words: list[bytes]) -> str | None:
    """What is wrong with [name, label], or None."""
    last = os.fsdecode(words[-1])
    if len(words) == 1:
        return f"{last!r} has no label; valid: `name label`"
    if not words[1].isdigit():
        return f"{last!r} is no label; valid: a whole number from 0"
    if len(words[1]) > 9:
        return f"{last!r} is out of range; valid: a whole number from 0 to 999999999"
    if words[0].startswith(b"/"):
        return f"{os.fsdecode(words[0])!r} is absolute; valid: a name relative to data.root"
    return None


def _missing(folder: Path, names: list[str]) -> list[int]:
    """Positions of the names that are no file below the folder."""
    inside: defaultdict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        inside[name.rpartition("/")[0]].append(index)
    missing: list[int] = []
    for place, indices in inside.items():
        try:
            with os.scandir(folder / place) as entries:
                there = {entry.name for entry in entries if not entry.is_dir()}
        except OSError:
            missing += indices
            continue
        absent = [i for i in indices if names[i].rpartition("/")[2] not in there]
        missing += [i for i in absent if not _is_file(folder / names[i])]  # some systems know a name in other spellings
    return sorted(missing)


def _is_file(path: Path) -> bool:
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False
