"""What a number of seeds can show: the smallest difference that counts, that is found, and the seeds it takes.

`sd` is the noise of one run (above 0), taken to be known; `df` are the degrees of freedom with which a study estimates
it. `arms` are the arms compared with the baseline: the sizes of all of them, or their number if each has `n` seeds.
`test` is what adjusts for their number: `dunnett`, `bonferroni` (which Holm's method never asks more than), or `tukey`
for any pair among the arms and the baseline. Differences and sd share one unit.
ValueError for an sd that is not above 0, a number of seeds below 1, and a share outside (0, 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from sqzlab.statistics.dunnett import critical_value, greatest_beyond, scale_nodes
from sqzlab.statistics.roots import root
from sqzlab.statistics.tukey import any_pair_beyond, any_pair_critical_value

Arms = int | Sequence[int]


def critical_difference(
    sd: float, n: int, n_baseline: int, df: int, arms: Arms, confidence: float = 0.95, *, test: str = "dunnett"
) -> float:
    """The observed difference beyond which an arm of the family is separated. ValueError for df < 1."""
    _check(sd, n, n_baseline, df)
    return _critical(test, confidence, _sizes(arms, n), n_baseline, df) * _error(sd, n, n_baseline)


def detectable_difference(
    sd: float,
    n: int,
    n_baseline: int,
    df: int,
    arms: Arms,
    power: float = 0.8,
    confidence: float = 0.95,
    *,
    test: str = "dunnett",
) -> float:
    """The true difference that an arm must have to be separated with probability `power`. ValueError for df < 1.

    Solves the noncentral t. `power` must exceed 1 - confidence, which no difference at all reaches.
    """
    _check(sd, n, n_baseline, df)
    if not 1 - confidence < power < 1:
        raise ValueError(f"power is {power!r}; valid: between {1 - confidence:g} and 1")
    critical = _critical(test, confidence, _sizes(arms, n), n_baseline, df)
    high = critical + 1.0
    while _power(high, critical, df) < power:
        high *= 2
    shift = root(lambda d: _power(d, critical, df) - power, 0.0, high)
    return shift * _error(sd, n, n_baseline)


def seeds_to_separate(
    difference: float,
    sd: float,
    n_first: int,
    n_second: int,
    df: int,
    arms: Arms,
    power: float = 0.8,
    confidence: float = 0.95,
    most: int = 1000,
    *,
    test: str = "dunnett",
) -> int | None:
    """How many more seeds each of two arms needs so that this true difference is separated with this power.

    0: it is so already; None: more than `most`. The second arm stands for the baseline. Every added seed adds a degree
    of freedom to `df`, which may be 0 now. `arms` that are sizes have the first arm's among them, and the others stay.
    """
    _check(sd, n_first, n_second, 1)
    _check_test(test)
    others = None if isinstance(arms, int) else _without(arms, n_first)

    def enough(more: int) -> bool:
        first, second, freedom = n_first + more, n_second + more, df + 2 * more
        if freedom < 1:
            return False
        sizes = _sizes(arms, first) if others is None else [first, *others]
        shift = abs(difference) / _error(sd, first, second)
        least, greatest = _around_critical(test, confidence, len(sizes), freedom)
        if _power(shift, least, freedom) < power or _power(shift, greatest, freedom) >= power:
            return _power(shift, greatest, freedom) >= power
        just = root(lambda c: _power(shift, c, freedom) - power, least, greatest)
        return _beyond(test, just, sizes, second, freedom) <= 1 - confidence  # sooner known than the critical value

    if enough(0):
        return 0
    low, high = 0, 1  # not enough, perhaps enough
    while not enough(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def spread_outlier(cells: Sequence[ArrayLike], level: float = 0.01) -> int | None:
    """Index of the cell whose variance is most unlike the others', where pooling them is doubtful; None if none is.

    A two-sided F test of each cell against all others, Bonferroni over the cells of two or more values. Accuracies are
    counts, so equal values need not mean no noise: a variance counts as at least that of rounding to the smallest
    step between any two values.
    """
    arrays = [np.asarray(cell, dtype=np.float64) for cell in cells]
    tested = [i for i, cell in enumerate(arrays) if len(cell) > 1]
    steps = np.diff(np.sort(np.concatenate(arrays))) if tested else np.zeros(0)
    steps = steps[steps > 1e-12]
    if len(tested) < 2 or not len(steps):
        return None
    rounding = float(steps.min()) ** 2 / 12
    df = np.array([len(arrays[i]) - 1 for i in tested])
    squares = np.maximum([((arrays[i] - arrays[i].mean()) ** 2).sum() for i in tested], df * rounding)
    rest, rest_df = squares.sum() - squares, df.sum() - df
    ratio = (squares / df) / (rest / rest_df)
    p = 2 * np.minimum(special.fdtr(df, rest_df, ratio), special.fdtrc(df, rest_df, ratio))
    worst = int(p.argmin())
    return tested[worst] if p[worst] * len(tested) < level else None


def _critical(test: str, confidence: float, sizes: Sequence[int], n_baseline: int, df: int) -> float:
    _check_test(test)
    if test == "dunnett":
        return critical_value(confidence, sizes, n_baseline, df)
    if test == "bonferroni":
        return -float(special.stdtrit(df, (1 - confidence) / (2 * len(sizes))))
    return any_pair_critical_value(confidence, len(sizes) + 1, df)


def _beyond(test: str, c: float, sizes: Sequence[int], n_baseline: int, df: int) -> float:
    """What `_critical` makes 1 - confidence: the probability that any |t| of the family exceeds c."""
    if test == "dunnett":
        return float(greatest_beyond(np.array([c]), sizes, n_baseline, df)[0])
    if test == "bonferroni":
        return 2 * float(special.stdtr(df, -c)) * len(sizes)
    return any_pair_beyond(c, len(sizes) + 1, df)


def _around_critical(test: str, confidence: float, arms: int, df: int) -> tuple[float, float]:
    """What `_critical` is never below and never above: the value of one pair alone, and Bonferroni's."""
    pairs = arms * (arms + 1) / 2 if test == "tukey" else arms
    level = 1 - confidence
    return -float(special.stdtrit(df, level / 2)), -float(special.stdtrit(df, level / (2 * pairs))) * (1 + 1e-6)


def _sizes(arms: Arms, n: int) -> Sequence[int]:
    return [n] * arms if isinstance(arms, int) else arms


def _without(sizes: Sequence[int], n: int) -> Sequence[int]:
    if n not in sizes:
        raise ValueError(f"arms of {list(sizes)!r} seeds have none of {n!r}; valid: all that are compared")
    at = list(sizes).index(n)
    return [*sizes[:at], *sizes[at + 1 :]]


def _power(shift: float, critical: float, df: int) -> float:
    """P(|t| > critical) where the true difference is `shift` >= 0 standard errors: the noncentral t, by quadrature.

    scipy's own is nan here and there from shifts of about 8 on.
    """
    if shift > 9 * (critical + 1):  # 1 but for 1e-17
        return 1.0
    s, weight = scale_nodes(df, critical, narrowest=1 / max(1.0, shift))
    return float(weight @ (special.ndtr(shift - critical * s) + special.ndtr(-shift - critical * s)))


def _error(sd: float, n_first: int, n_second: int) -> float:
    return sd * float(np.sqrt(1 / n_first + 1 / n_second))


def _check(sd: float, n_first: int, n_second: int, df: int) -> None:
    if not sd > 0:
        raise ValueError(f"sd is {sd!r}; valid: above 0")
    if min(n_first, n_second) < 1:
        raise ValueError(f"seeds are {n_first!r} and {n_second!r}; valid: at least 1")
    if df < 1:
        raise ValueError(f"df is {df!r}; valid: at least 1")


def _check_test(test: str) -> None:
    if test not in TESTS:
        raise ValueError(f"test is {test!r}; valid: {', '.join(TESTS)}")


TESTS = ("dunnett", "bonferroni", "tukey")
