"""What is kept of the gates of a network's blocks: their mean and spread in each class of images, and a file of it.

Contract: arrays are float64, classes first, then channels; each image counts once, and variances are divided by the
number of images, so that the variance of a gate over all images is that within classes plus that between them.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqzlab.analysis.tables import Column, Entry, Section, Table
from sqzlab.errors import ConfigError

Array = NDArray[np.float64]
LOW, HIGH = 0.05, 0.95  # a sigmoid's gate is called saturated below and above
RESOLUTION = 1e-6
"""A gate whose standard deviation over the images is less does not vary: float32 rounds by up to 6e-8 near 1."""


@dataclass(frozen=True, eq=False)
class BlockGates:
    """The gates of one block; K classes, C channels. A class without images has NaN."""

    name: str  # of its residual block, "layer1.2"
    images: NDArray[np.int64]  # (K,)
    mean: Array  # (K, C)
    std: Array  # (K, C)
    low: Array | None  # (K, C), share of gates below LOW; None where the gate is no sigmoid, which alone saturates
    high: Array | None  # (K, C), above HIGH

    @property
    def stage(self) -> int:
        """From 0."""
        return int(self.name.removeprefix("layer").partition(".")[0]) - 1

    @property
    def channels(self) -> int:
        return int(self.mean.shape[1])

    @cached_property
    def overall(self) -> Array:
        """Mean over all images, (C,); of classes with equally many images, also the mean over classes."""
        return self._over_images(self.mean)

    @cached_property
    def within(self) -> Array:
        """Variance within classes, (C,)."""
        return self._over_images(self.std**2)

    @cached_property
    def between(self) -> Array:
        """Variance of the class means, (C,)."""
        return self._over_images((self.mean - self.overall) ** 2)

    @property
    def share(self) -> float | None:
        """Variance between classes as a part of all variance, both summed over the channels; None if none varies.

        It is the ANOVA's eta squared. Gates that have nothing to do with the class have (K - 1) / (N - 1) on average.
        """
        total = self.within + self.between
        varies = total > RESOLUTION**2
        return float(self.between[varies].sum() / total[varies].sum()) if varies.any() else None

    def saturated(self) -> tuple[float, float] | None:
        """Shares of all gates below LOW and above HIGH."""
        if self.low is None or self.high is None:
            return None
        return float(self._over_images(self.low).mean()), float(self._over_images(self.high).mean())

    def _over_images(self, by_class: Array) -> Array:
        there = self.images > 0
        weights = self.images[there] / self.images.sum()
        averaged: Array = weights @ by_class[there]
        return averaged


@dataclass(frozen=True, eq=False)
class Gates:
    """The gates of all blocks of a network that have them, over the same images."""

    run: str
    squeeze: str
    classes: tuple[str, ...]  # K names
    blocks: tuple[BlockGates, ...]  # in order of depth
    without: tuple[str, ...] = ()  # residual blocks that have no gate of channels

    @property
    def images(self) -> int:
        return int(self.blocks[0].images.sum())

    @property
    def chance(self) -> float:
        """The share between classes to expect of gates that have nothing to do with the class."""
        shown = int((self.blocks[0].images > 0).sum())
        return (shown - 1) / max(self.images - 1, 1)

    def last_of_stages(self) -> tuple[BlockGates, ...]:
        """The last block of each stage that has any, as in arXiv:1709.01507 fig. 6."""
        return tuple({block.stage: block for block in self.blocks}.values())


def chosen_classes(classes: Sequence[str], there: NDArray[np.bool_], wanted: Sequence[str]) -> tuple[int, ...]:
    """Classes by name (case aside) or by number from 0; where none is wanted, four that are evenly spaced.

    `there` (classes,) says which have an image.

    Raises ConfigError, a line for each that is not there or has no image.
    """
    if not wanted:
        numbers = np.flatnonzero(there)
        return tuple(dict.fromkeys(int(numbers[len(numbers) * k // 4]) for k in range(4)))
    names = {name.casefold(): number for number, name in reversed(list(enumerate(classes)))}
    found, faults = [], []
    for text in wanted:
        number = names.get(text.casefold(), int(text) if text.isdecimal() else -1)
        if not 0 <= number < len(classes):
            some = ", ".join(map(repr, classes[:3])) + (", ..." if len(classes) > 3 else "")
            faults.append(f"--classes: no class {text!r}; valid: numbers from 0 to {len(classes) - 1}, names ({some})")
        elif not there[number]:
            faults.append(f"--classes: class {text!r} has no image")
        else:
            found.append(number)
    if faults:
        raise ConfigError(faults)
    return tuple(dict.fromkeys(found))


# ---- table -------------------------------------------------------------------------------------


def block_rows(gates: Gates) -> list[dict[str, Any]]:
    """One mapping a block: fractions and counts in full precision, None where a figure does not exist."""
    rows = []
    for block in gates.blocks:
        low, high = block.saturated() or (None, None)
        rows.append(
            {
                "run": gates.run,
                "squeeze": gates.squeeze,
                "block": block.name,
                "stage": stage_name(block),
                "channels": block.channels,
                "classes": int((block.images > 0).sum()),
                "images": gates.images,
                "mean": float(block.overall.mean()),
                "std_within": float(np.sqrt(block.within.mean())),
                "std_between": float(np.sqrt(block.between.mean())),
                "between_share": block.share,
                "chance_share": gates.chance,
                "saturated_low": low,
                "saturated_high": high,
            }
        )
    return rows


def blocks_table(several: Sequence[Gates]) -> Table:
    """block | stage | mean gate | within class | between classes % | below 0.05 % | above 0.95 %, a section a run."""
    data = [block_rows(gates) for gates in several]
    sections = []
    for gates, rows in zip(several, data, strict=True):
        shown = [
            (
                *(Entry(row["block"]), Entry(row["stage"])),
                *(Entry(f"{row['mean']:.3f}"), Entry(f"{row['std_within']:.4f}")),
                *(_percent(row[key]) for key in ("between_share", "saturated_low", "saturated_high")),
            )
            for row in rows
        ]
        title = f"{gates.run} ({gates.images:,} images, chance {100 * gates.chance:.1f} %)"
        sections.append(Section(title, tuple(shown)))
    columns = (
        *(Column("block", False), Column("stage", False), Column("mean gate"), Column("std in class")),
        *(Column("between %"), Column(f"< {LOW} %"), Column(f"> {HIGH} %")),
    )
    caption = (
        "Gates over images and channels. std in class: root mean square over the channels. between: variance between "
        "classes as a part of all variance; gates that have nothing to do with the class reach chance. "
        f"< {LOW}, > {HIGH}: saturated gates (sigmoid only)."
    )
    return Table("excitation", caption, columns, tuple(sections), tuple(row for rows in data for row in rows))


def stage_name(block: BlockGates) -> str:
    """As in arXiv:1512.03385, table 1, where the first is conv2."""
    return f"conv{block.stage + 2}"


def _percent(fraction: float | None) -> Entry:
    return Entry("n/a" if fraction is None else f"{100 * fraction:.1f}")


# ---- file --------------------------------------------------------------------------------------


def to_npz(gates: Gates) -> bytes:
    """`run, squeeze, classes, blocks, without, images` and, for each block, `<block>.mean, .std, .low, .high`."""
    arrays: dict[str, Any] = {
        "run": np.array(gates.run),
        "squeeze": np.array(gates.squeeze),
        "classes": np.array(gates.classes, dtype=np.str_),
        "blocks": np.array([block.name for block in gates.blocks], dtype=np.str_),
        "without": np.array(gates.without, dtype=np.str_),
        "images": gates.blocks[0].images,
    }
    for block in gates.blocks:
        parts: Mapping[str, Array | None] = {"mean": block.mean, "std": block.std, "low": block.low, "high": block.high}
        arrays |= {f"{block.name}.{part}": values for part, values in parts.items() if values is not None}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def read_npz(path: Path) -> Gates:
    """What `to_npz` wrote. Raises ConfigError where the file is another or damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:  # of a path it would leave it open
            arrays = {name: file[name] for name in file.files}
        blocks = tuple(
            BlockGates(
                name,
                arrays["images"],
                arrays[f"{name}.mean"],
                arrays[f"{name}.std"],
                arrays.get(f"{name}.low"),
                arrays.get(f"{name}.high"),
            )
            for name in arrays["blocks"].tolist()
        )
        texts = tuple(arrays["classes"].tolist()), blocks, tuple(arrays["without"].tolist())
        return Gates(str(arrays["run"]), str(arrays["squeeze"]), *texts)
    except (OSError, ValueError, LookupError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        reason = (getattr(error, "strerror", None) or "no recorded gates, or damaged").lower()
        raise ConfigError(f"{path}: {reason}") from None
