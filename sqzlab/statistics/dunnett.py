"""The distribution of the greatest of several |t| that share a baseline and a pooled variance (Dunnett 1955).

The t of arm i is (mean_i - mean_0) / (s sqrt(1/n_i + 1/n_0)). Any two of them are correlated by l_i l_j with
l_i = sqrt(n_i / (n_i + n_0)), so given the baseline's deviation y and s they are independent: the multivariate integral
becomes one over these two, which is done by the trapezoidal rule in y and in log s, where it converges exponentially.
No random numbers: equal data, equal digits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sqzlab.statistics.roots import root

Array = NDArray[np.float64]


def critical_value(confidence: float, sizes: Sequence[int], baseline_size: int, df: int) -> float:
    """The value that the greatest |t| of arms of these sizes exceeds with probability 1 - confidence."""
    return _critical_value(confidence, tuple(sorted(sizes)), baseline_size, df)


def greatest_beyond(c: Array, sizes: Sequence[int], baseline_size: int, df: int) -> Array:
    """P(max_i |t_i| > c) for each value of c >= 0, (K,) -> (K,).

    The tail itself is summed, so small values keep their digits: 7 of them down to 1e-19; below that no more is sure
    than that it lies between one arm's own p and Bonferroni's bound, and the former may be returned.
    """
    arms = Counter(sizes)
    one = 2 * special.stdtr(df, -c)
    y_step = 0.25 * min(1.0, np.sqrt(baseline_size / max(arms)))
    y = np.arange(0.0, 10.0, y_step)  # the integrand is even in y
    y_weight = 2 * y_step * np.exp(-(y**2) / 2) / np.sqrt(2 * np.pi)
    y_weight[0] /= 2
    beyond = np.zeros(len(c))
    for k in np.flatnonzero(one):
        s, s_weight = scale_nodes(df, float(c[k]))
        log_within = np.zeros((len(s), len(y)))
        for size, count in arms.items():
            loading = np.sqrt(size / (size + baseline_size))
            rest = np.sqrt(baseline_size / (size + baseline_size))
            bound, shift = c[k] * s[:, None] / rest, loading * y / rest
            outside = special.ndtr(shift - bound) + special.ndtr(-shift - bound)
            with np.errstate(divide="ignore"):  # log 0 where all is outside
                log_within += count * np.log1p(-np.minimum(outside, 1.0))
        beyond[k] = s_weight @ (-np.expm1(log_within) @ y_weight)
    within_bounds: Array = np.clip(beyond, one, np.minimum(len(sizes) * one, 1.0))
    return within_bounds


def scale_nodes(df: int, c: float, narrowest: float = 1.0) -> tuple[Array, Array]:
    """Nodes and weights of s / sigma, which is chi / sqrt(df), for functions of c s.

    `narrowest` is the width in log s of the narrowest step in such a function.
    """
    half = df / 2  # s^2 is a gamma variable of this shape, over it
    log_low, log_high = (
        0.5 * np.log(special.gammaincinv(half, 1e-17) / half),
        0.5 * np.log(special.gammainccinv(half, 1e-17) / half),
    )
    low = min(log_low, -np.log(max(c, 1.0)) - 37 / df)  # of P(s < 1/c), what is left out is exp(-37)
    step = min(0.1, 0.4 / np.sqrt(df), 0.5 * narrowest)
    u = np.arange(low, log_high + step, step)
    log_density = df * (u - np.exp(2 * u) / 2) + np.log(2) + df / 2 * np.log(df / 2) - special.gammaln(df / 2)
    return np.exp(u), step * np.exp(log_density)


@lru_cache(maxsize=4096)
def _critical_value(confidence: float, sizes: tuple[int, ...], baseline_size: int, df: int) -> float:
    level = 1 - confidence

    def excess(c: float) -> float:
        return float(greatest_beyond(np.array([c]), sizes, baseline_size, df)[0]) / level - 1

    single = -float(special.stdtrit(df, level / 2))
    if len(sizes) == 1 or excess(single) <= 0:
        return single
    bonferroni = -float(special.stdtrit(df, level / (2 * len(sizes))))
    return root(excess, single, bonferroni * (1 + 1e-6))
