"""Arms against one baseline from few seeds: Student's t on the variance pooled over all cells, many-to-one adjusted.

Values are in the unit of the metric, one for each seed. With two or three seeds a cell's own spread says next to
nothing, so the variance is pooled over the cells that share the baseline, which assumes that it is the same in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from sqzlab.statistics.dunnett import critical_value, greatest_beyond

CORRECTIONS = ("dunnett", "holm", "none")


@dataclass(frozen=True)
class Comparison:
    """An arm against its baseline. None stands for what these values cannot tell."""

    difference: float  # the arm's mean minus the baseline's
    standard_error: float | None  # None where no cell has two values, nothing varies, or a value is not finite
    df: int  # of the pooled variance
    low: float | None  # confidence interval of this difference by itself
    high: float | None
    joint_low: float | None  # intervals that hold for all arms of the family at once, with the same confidence
    joint_high: float | None
    p: float | None  # two-sided, as if this arm were the only one
    p_adjusted: float | None  # of the family
    separated: bool | None  # p_adjusted < 1 - confidence


@dataclass(frozen=True)
class Pooled:
    """The variance within cells."""

    sd: float | None  # None with fewer than one degree of freedom, or where a value is not finite
    df: int


def pool(cells: Sequence[ArrayLike]) -> Pooled:
    """Within-cell standard deviation over all cells, each weighted by its degrees of freedom."""
    arrays = [np.asarray(cell, dtype=np.float64) for cell in cells]
    df = sum(max(0, len(cell) - 1) for cell in arrays)
    if not df or not all(np.isfinite(cell).all() for cell in arrays):
        return Pooled(None, df)
    offsets = [cell - cell[0] for cell in arrays if len(cell)]  # of equal values all 0; their mean may be an ulp off
    squares = sum(float(((offset - offset.mean()) ** 2).sum()) for offset in offsets)
    return Pooled(float(np.sqrt(squares / df)), df)


def compare_with_baseline(
    baseline: ArrayLike, arms: Sequence[ArrayLike], *, confidence: float = 0.95, correction: str = "dunnett"
) -> tuple[Comparison | None, ...]:
    """One Comparison for each arm, None for an arm without values; all None where the baseline has none.

    `correction` is one of CORRECTIONS: `dunnett` (multivariate t; the joint intervals are Dunnett's), `holm`
    (Holm 1979 on Student's p; the joint intervals are Bonferroni's) or `none`.
    Raises ValueError for another correction, or a confidence outside (0, 1).
    """
    if correction not in CORRECTIONS:
        raise ValueError(f"correction is {correction!r}; valid: {', '.join(CORRECTIONS)}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}; valid: between 0 and 1")
    reference = np.asarray(baseline, dtype=np.float64)
    samples = [np.asarray(arm, dtype=np.float64) for arm in arms]
    present = [sample for sample in samples if len(sample)]
    if not len(reference) or not present:
        return (None,) * len(samples)
    pooled = pool([reference, *present])
    differences = np.array([sample.mean() - reference.mean() for sample in present])
    if not pooled.sd:
        found = [Comparison(float(d), None, pooled.df, *(None,) * 7) for d in differences]
    else:
        found = _tested(differences, [len(s) for s in present], len(reference), pooled, confidence, correction)
    of_present = iter(found)
    return tuple(next(of_present) if len(sample) else None for sample in samples)


def _tested(
    differences: NDArray[np.float64], sizes: Sequence[int], n0: int, pooled: Pooled, confidence: float, correction: str
) -> list[Comparison]:
    assert pooled.sd is not None
    df, errors = pooled.df, pooled.sd * np.sqrt([1 / n + 1 / n0 for n in sizes])
    t = np.abs(differences) / errors
    p = 2 * special.stdtr(df, -t)
    alone = -float(special.stdtrit(df, (1 - confidence) / 2))
    if correction == "dunnett":
        adjusted = greatest_beyond(t, sizes, n0, df) if len(sizes) > 1 else p
        joint = critical_value(confidence, sizes, n0, df)
    elif correction == "holm":
        adjusted = holm(p)
        joint = -float(special.stdtrit(df, (1 - confidence) / (2 * len(sizes))))
    else:
        adjusted, joint = p, alone
    return [
        Comparison(
            *(float(d), float(e), df, float(d - alone * e), float(d + alone * e)),
            *(float(d - joint * e), float(d + joint * e), float(p1), float(p2), bool(p2 < 1 - confidence)),
        )
        for d, e, p1, p2 in zip(differences, errors, p, adjusted, strict=True)
    ]


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down adjustment of p values, (K,) -> (K,)."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted
