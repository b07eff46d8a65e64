"""The rows behind every table: an arm each, with its mean, spread, difference from the baseline, and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from sqzlab.analysis.arms import Arm, Group, mean_and_sd
from sqzlab.statistics.comparison import Comparison

ArmRow = Mapping[str, Any]


def arm_rows(groups: Sequence[Group], metric: str = "top1", confidence: float = 0.95) -> tuple[ArmRow, ...]:
    """Each with all columns of the frame of `sqzlab.compare`, in its order: Python values, None for what is absent."""
    axes = _axes(groups)
    return tuple(
        _row(group, arm, axes, _mean_and_sd(arm, metric, ""), group.compared(arm, metric, confidence))
        for group in groups
        for arm in group.arms
    )


def table_rows(groups: Sequence[Group]) -> tuple[ArmRow, ...]:
    """The same for Top-1, with `top1_mean, top1_sd`, and those of Top-5, which is not tested."""
    axes = _axes(groups)
    return tuple(
        _row(group, arm, axes, _mean_and_sd(arm, "top1", "top1_") | _mean_and_sd(arm, "top5", "top5_"), compared)
        for group in groups
        for arm, compared in ((arm, group.compared(arm)) for arm in group.arms)
    )


def _axes(groups: Sequence[Group]) -> Sequence[str]:
    return list(dict.fromkeys(axis for group in groups for arm in group.arms for axis in arm.cell))


def _row(
    group: Group, arm: Arm, axes: Sequence[str], means: Mapping[str, float | None], compared: Comparison | None
) -> ArmRow:
    speeds = sorted(speed for row in arm.done if (speed := row["train_images_per_s"]) is not None)
    return {
        **{"group": group.title, "arm": arm.label, "is_baseline": arm is group.baseline},
        **{axis: arm.cell.get(axis) for axis in axes},
        **{"n": arm.n, "planned": len(arm.rows)},
        **{state: arm.states.get(state, 0) for state in ("failed", "damaged", "missing")},
        **means,
        **(UNCOMPARED if compared is None else vars(compared)),
        **{"params": arm.count("params"), "macs": arm.count("macs")},
        "images_per_s": (speeds[(len(speeds) - 1) // 2] + speeds[len(speeds) // 2]) / 2 if speeds else None,  # median
    }


def _mean_and_sd(arm: Arm, metric: str, prefix: str) -> dict[str, float | None]:
    """As stored: fractions stay fractions."""
    mean, sd = mean_and_sd(arm.stored(metric))
    return {f"{prefix}mean": mean, f"{prefix}sd": sd}


UNCOMPARED = dict.fromkeys(field.name for field in fields(Comparison))
