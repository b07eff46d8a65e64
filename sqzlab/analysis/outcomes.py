"""Which validation images every run of an arm got right, from `correct.npz`.

The file is input like any other: one that is absent, damaged or of something else is told and left out, never trusted.
It is read without np.load, which makes room for whatever size the file claims, and takes half as long again.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqzlab.analysis.arms import Arm
from sqzlab.run import CORRECT


class UnusableError(ValueError):
    """Why a file of outcomes is left out: `kind` in words that fit any run, `detail` of this one."""

    def __init__(self, kind: str, detail: str = "") -> None:
        self.kind, self.detail = kind, detail
        super().__init__(f"{kind}: {detail}" if detail else kind)


@dataclass(frozen=True)
class Correct:
    """One run's outcomes, packed as np.packbits does."""

    packed: NDArray[np.uint8]  # (ceil(N / 8),)
    n: int
    order_hash: str  # of the images' names and labels in their order

    @property
    def accuracy(self) -> float:
        return int(np.unpackbits(self.packed, count=self.n).sum()) / self.n


@dataclass(frozen=True)
class Outcomes:
    """Of the runs of one arm, on images in one order."""

    seeds: tuple[int, ...]
    packed: NDArray[np.uint8]  # (S, ceil(N / 8))
    n: int

    def bits(self) -> NDArray[np.bool_]:
        """(S, N)"""
        return np.unpackbits(self.packed, axis=1, count=self.n).view(np.bool_)


@dataclass(frozen=True)
class Fault:
    """A run whose outcomes are left out."""

    run_id: str
    kind: str
    detail: str


def read_correct(folder: Path, run_id: str, column: str = "top1") -> Correct:
    """The outcomes of one run of a study; `column` is `top1` or `top5`.

    Raises UnusableError for what is absent, or anything but the file that a run writes.
    """
    try:
        with (folder / run_id / CORRECT).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise UnusableError("absent") from None
    except OSError as error:
        raise UnusableError("unreadable", (error.strerror or type(error).__name__).lower()) from None
    if len(content) > MOST_BYTES:
        raise UnusableError("damaged", f"more than {MOST_BYTES:,} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            n = int(_array(archive, "n", "[iu][1248]", ()))
            order_hash = str(_array(archive, "order_hash", "U[0-9]+", ()))
            if not 2 <= n <= MOST_IMAGES:
                raise ValueError(f"n is {n}")
            packed = _array(archive, column, "u1", ((n + 7) // 8,))
    except DAMAGE as error:
        raise UnusableError("damaged", " ".join(str(error).split())[:80] or type(error).__name__) from None
    return Correct(packed, n, order_hash)


def read_outcomes(
    folder: Path, arms: Sequence[Arm], column: str = "top1", most: int | None = None
) -> tuple[Mapping[int, Outcomes], tuple[Fault, ...]]:
    """By the arm's id(), its finished runs' outcomes on the images and in the order that most of the arms' runs share.

    Of each arm the first `most` runs are read. An arm of which none is usable is not in the mapping.
    """
    found: dict[int, list[tuple[Mapping[str, Any], Correct]]] = {}
    faults = []
    for arm in arms:
        for row in arm.done[:most]:
            try:
                correct = read_correct(folder, str(row["run_id"]), column)
                _check(correct, row, column)
            except UnusableError as error:
                faults.append(Fault(str(row["run_id"]), error.kind, error.detail))
            else:
                found.setdefault(id(arm), []).append((row, correct))
    orders = Counter((one.n, one.order_hash) for runs in found.values() for _, one in runs)
    shared = max(orders, key=lambda order: orders[order], default=None)  # of equals, the first that was read
    outcomes = {}
    for key, runs in found.items():
        kept = [(row, one) for row, one in runs if (one.n, one.order_hash) == shared]
        others = [str(row["run_id"]) for row, one in runs if (one.n, one.order_hash) != shared]
        faults += [Fault(run_id, OTHER_ORDER, "") for run_id in others]
        if kept:
            seeds = tuple(int(row["seed"]) for row, _ in kept)
            outcomes[key] = Outcomes(seeds, np.stack([one.packed for _, one in kept]), kept[0][1].n)
    return outcomes, tuple(faults)


def tell(faults: Iterable[Fault]) -> list[str]:
    """One warning for each kind of fault, with the number of runs and one of them."""
    of: dict[str, list[Fault]] = {}
    for fault in faults:
        of.setdefault(fault.kind, []).append(fault)
    told = []
    for kind, alike in of.items():
        first = alike[0].run_id + (f": {alike[0].detail}" if alike[0].detail else "")
        runs = f"{len(alike):,} run{'s' * (len(alike) != 1)}, such as {first}"
        told.append(f"{CORRECT} {kind} ({runs}): left out of the per-image estimates")
    return told


def _check(correct: Correct, row: Mapping[str, Any], column: str) -> None:
    """Raises UnusableError where these are not the outcomes that the run's metrics were computed from."""
    images = row.get("val_images")
    if isinstance(images, int) and images != correct.n:
        raise UnusableError("of another number of images than the metrics", f"{correct.n:,}, not {images:,}")
    if not math.isclose(correct.accuracy, row[column], rel_tol=0, abs_tol=0.5 / correct.n):
        told = f"{column} is {correct.accuracy:.6f}, not {row[column]:.6f}"
        raise UnusableError("that is not what the metrics were computed from", told)


def _array(archive: zipfile.ZipFile, name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """One array as np.save lays it out, of this type (a pattern) and this shape; raises one of DAMAGE for another.

    No more is unpacked than such an array can have.
    """
    entry, most = archive.getinfo(f"{name}.npy"), HEADER_BYTES + (shape[0] if shape else 4 * HEADER_BYTES)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is packed in another way")
    with archive.open(entry) as file:
        content = file.read(most + 1)
    header = NPY.match(content)
    if header is None or not re.fullmatch(dtype, header["type"].decode()) or len(content) > most:
        raise ValueError(f"{name} is no array of the expected type")
    values = np.frombuffer(content, header["order"].decode() + header["type"].decode(), offset=header.end())
    if header["shape"].decode() != ",".join(map(str, shape)) + "," * len(shape) or len(values) != math.prod(shape):
        raise ValueError(f"{name} is no array of the expected shape")
    return values.reshape(shape)


MOST_IMAGES, MOST_BYTES = 2**27, 2**26
HEADER_BYTES = 256  # np.save pads a short header to 128
NPY = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<order>[<>|])(?P<type>[a-zA-Z][0-9]{1,3})', 'fortran_order': False, "
    rb"'shape': \((?P<shape>[0-9,]*)\), \} *\n",
    re.DOTALL,
)
DAMAGE = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, NotImplementedError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
OTHER_ORDER = "of other images, or in another order, than most of the group's (unpaired)"
