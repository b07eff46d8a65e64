"""The rows behind every table as one frame, of any rows of frames of `load_records`: `sqzlab.compare`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from sqzlab.analysis.arm_rows import arm_rows
from sqzlab.analysis.arms import Arm, Group, group_rows
from sqzlab.analysis.records import KINDS
from sqzlab.errors import ConfigError, choices
from sqzlab.statistics.comparison import CORRECTIONS


def compare(
    frame: pd.DataFrame,
    baseline: Mapping[str, Any] | str | None = None,
    *,
    metric: str = "top1",
    confidence: float = 0.95,
    correction: str = "dunnett",
) -> pd.DataFrame:
    """One row an arm of a frame of `load_records`, or of any rows of such frames: its seeds against the baseline's.

    `baseline` maps axes to the baseline's values (`{"model.squeeze": "gap"}`) or names a squeeze; by default it is the
    study's. Counted are the planned runs of a folder, or its finished ones where none is planned. `mean`, `sd`,
    `difference` and the intervals are in the unit of the metric: fractions for `top1` and `top5`. `low` and `high` are
    the interval of this difference by itself, `joint_low` and `joint_high` hold for all arms of the group at once;
    `separated` means that `p_adjusted` is below 1 - confidence. What does not exist is NaN or NA: with one seed an arm,
    every interval. Raises ConfigError for an argument that is not valid, or where a seed of an arm is there twice.
    """
    return arm_frame(frame_groups(frame, baseline, metric, confidence, correction), metric, confidence)


def frame_groups(
    frame: pd.DataFrame,
    baseline: Mapping[str, Any] | str | None = None,
    metric: str = "top1",
    confidence: float = 0.95,
    correction: str = "dunnett",
) -> tuple[Group, ...]:
    """The groups of arms behind `compare`, with its arguments and its errors."""
    _check(frame, metric, confidence, correction)
    axes = [column for column in frame.columns if "." in column]
    planned = frame["planned"].astype(bool)
    with_plan = frame["folder"].isin(frame.loc[planned, "folder"])
    counted = frame[planned | (~with_plan & (frame["state"] == "done"))]
    groups = group_frame(counted, _baseline(frame, axes, baseline), correction)
    _check_runs((arm for group in groups for arm in group.arms), metric)
    return groups


def arm_frame(groups: Sequence[Group], metric: str = "top1", confidence: float = 0.95) -> pd.DataFrame:
    """The frame of `compare` for groups that are made already."""
    rows = arm_rows(groups, metric, confidence)
    columns = list(rows[0]) if rows else [*FIRST, *REST]
    return pd.DataFrame(list(rows), columns=columns, dtype=object).astype(FIRST | REST)


def group_frame(frame: pd.DataFrame, baseline: Mapping[str, Any], correction: str = "dunnett") -> tuple[Group, ...]:
    """Every row in its arm, every arm in its group; `baseline` maps axes to the baseline's values."""
    known = frame.astype(object).where(frame.notna(), None)  # as Records have it
    rows = [{str(column): value for column, value in row.items()} for row in known.to_dict("records")]
    return group_rows(rows, [column for column in frame.columns if "." in column], baseline, correction)


def _check(frame: pd.DataFrame, metric: str, confidence: float, correction: str) -> None:
    if not isinstance(frame, pd.DataFrame):
        raise ConfigError(f"frame: a {type(frame).__name__}; valid: a frame of load_records, or rows of one")
    if absent := [key for key in NEEDED if key not in frame.columns]:
        raise ConfigError(f"frame: without {', '.join(absent)}; valid: a frame of load_records, or rows of one")
    if metric not in METRICS:
        raise ConfigError(f"metric: {metric!r}; {choices(METRICS, metric)}")
    if not isinstance(confidence, int | float) or not 0 < confidence < 1:
        raise ConfigError(f"confidence: {confidence!r}; valid: a number between 0 and 1")
    if correction not in CORRECTIONS:
        raise ConfigError(f"correction: {correction!r}; {choices(CORRECTIONS, correction)}")


def _baseline(frame: pd.DataFrame, axes: Sequence[str], given: Mapping[str, Any] | str | None) -> Mapping[str, Any]:
    if given is None:
        if (known := frame.attrs.get("baseline")) is None:
            told = "the frame does not tell its study's, or its studies have different ones"
            raise ConfigError(f"baseline: {told}; valid: a squeeze, or a mapping from axes to values")
        return dict(known)
    mapping = {"model.squeeze": given} if isinstance(given, str) else dict(given)
    for axis, value in mapping.items():
        if axis not in axes:
            raise ConfigError(f"baseline: {axis!r} is no axis of this frame; {choices(axes, axis)}")
        if not frame[axis].eq(value).any():
            known = [str(one) for one in dict.fromkeys(frame[axis].dropna())]
            raise ConfigError(f"baseline: {axis} is never {value!r}; {choices(known, value)}")
    if not mapping or not frame[list(mapping)].eq(pd.Series(mapping)).all(axis=1).any():
        raise ConfigError(f"baseline: no run has {mapping!r}; valid: values that one arm has together")
    return mapping


def _check_runs(arms: Iterable[Arm], metric: str) -> None:
    """A run that is there twice, or two of one seed, are not two seeds: they would make a spread too small."""
    for arm in arms:
        seen: dict[Any, Mapping[str, Any]] = {}
        for row in arm.finished:
            if (former := seen.setdefault(row["seed"], row)) is not row:
                apart = former["folder"] != row["folder"]
                which = " and ".join(f"{r['folder']}/{r['run_id']}" if apart else r["run_id"] for r in (former, row))
                told = "valid: a column, named with a dot, in which they differ, or rows of one of them"
                raise ConfigError(f"frame: seed {row['seed']} of {arm.label} is there twice ({which}); {told}")
            if row[metric] is None:
                raise ConfigError(f"metric: {metric!r} is not recorded by {row['run_id']}; {choices(METRICS)}")


METRICS = tuple(name for name, kind in KINDS.items() if kind is float)
NEEDED = ("run_id", "folder", "planned", "state", "seed", "backbone", "squeeze", *METRICS, "params", "macs")
FIRST = {"group": "object", "arm": "object", "is_baseline": "bool"}
REST = {
    **dict.fromkeys(("n", "planned", "failed", "damaged", "missing"), "int64"),
    **dict.fromkeys(("mean", "sd", "difference", "standard_error"), "float64"),
    **{"df": "Int64", "low": "float64", "high": "float64", "joint_low": "float64", "joint_high": "float64"},
    **{"p": "float64", "p_adjusted": "float64", "separated": "boolean"},
    **{"params": "Int64", "macs": "Int64", "images_per_s": "float64"},
}
