"""Which arm each arm of a study is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqzlab.resolving import why_not
from sqzlab.run import Value

Cell = Mapping[str, Value]


def token(value: object) -> tuple[bool, object]:
    """Equal for equal values: 1 and 1.0 are, 1 and true are not."""
    return (isinstance(value, bool), value)


def counterparts(
    axes: Sequence[str], arms: Sequence[tuple[Cell, Mapping[str, Any]]], baseline: Cell
) -> list[int | None]:
    """For each arm (its cell and its values by dotted key) the index of its baseline arm, or None.

    The baseline arm has the values of `baseline` and the arm's own on every other axis, save those axes that do
    not apply to the baseline arm: one arm without SE blocks serves every reduction.
    """
    others = [axis for axis in axes if axis not in baseline]
    tables: dict[tuple[str, ...], dict[object, int]] = {}
    for index, (cell, values) in enumerate(arms):
        if all(token(cell.get(key)) == token(value) for key, value in baseline.items()):
            shared = tuple(axis for axis in others if why_not(axis, values) is None)
            tables.setdefault(shared, {}).setdefault(_key(cell, shared), index)
    strictest = sorted(tables, key=len, reverse=True)
    return [
        next((tables[shared][key] for shared in strictest if (key := _key(cell, shared)) in tables[shared]), None)
        for cell, _ in arms
    ]


def describe(values: Cell) -> str:
    """`model.backbone=resnet18, model.squeeze=gap`"""
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _key(cell: Cell, axes: Sequence[str]) -> tuple[object, ...]:
    return tuple(token(cell.get(axis)) for axis in axes)
