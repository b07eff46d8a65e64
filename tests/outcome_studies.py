"""Outcomes of synthetic runs on single images, and the tables that are made of them."""

import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sqzlab.analysis.arms import group_arms
from sqzlab.analysis.precision import precision_tables
from sqzlab.analysis.records import read_study
from sqzlab.analysis.tables import Table
from sqzlab.analysis.writers import to_csv

Bits = NDArray[np.bool_]
N = 597


def luck(level: float, seeds: int, *, key: int = 0, images: int = N, shared: float = 0.0) -> Bits:
    """Runs that are right on images as chance has it, each image with a level of its own; (S, N).

    `shared` is the sd over seeds of what a run's luck adds to the level of every image.
    """
    ease = np.random.default_rng(7).beta(8 * level, 8 * (1 - level), size=images)
    rng = np.random.default_rng(key)
    moved = np.clip(ease[None] + shared * rng.normal(size=(seeds, 1)), 0, 1)
    return rng.random((seeds, images)) < moved


def exactly(*counts: int) -> Bits:
    """Runs with just so many images right."""
    return np.array([np.arange(N) < count for count in counts])


def analysed(folder: Path, correction: str = "dunnett") -> tuple[dict[str, Table], tuple[str, ...]]:
    records = read_study(folder)
    tables, warnings = precision_tables(records, group_arms(records, correction))
    return {table.name: table for table in tables}, warnings


def rows(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(table))))


def shown(table: Table) -> dict[str, list[str]]:
    """By first entry, the others of each row as text."""
    return {row[0].text: [str(entry) for entry in row[1:]] for section in table.sections for row in section.rows}


BITS = {
    "baseline": luck(0.9, 3, key=1),
    "gap": luck(0.93, 3, key=2),
    "SP": luck(0.91, 2, key=3),
    "std": luck(0.9, 3, key=4),
}
