"""The distribution of the greatest |t| over all pairs of several arms with a pooled variance (Tukey 1953, Kramer 1956).

The t of arms i and j is (mean_i - mean_j) / (s sqrt(1/n_i + 1/n_j)). With equal sizes the greatest of them is the
studentized range over sqrt 2; with unequal sizes that is an upper bound (Hayter 1984), so what is separated stays so.
The quadrature is that of `dunnett`: equal data, equal digits.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import special

from sqzlab.statistics.dunnett import scale_nodes
from sqzlab.statistics.roots import root


def any_pair_beyond(c: float, arms: int, df: int) -> float:
    """P(max_ij |t_ij| > c) for c >= 0 among so many arms, 2 or more; the tail itself is summed."""
    one = 2 * float(special.stdtr(df, -c))
    if not one:
        return 0.0
    s, s_weight = scale_nodes(df, c)
    greatest = np.arange(-9.0, 10.0, STEP)  # of the arms' standardized means
    others = special.ndtr(greatest)  # each of the others lies below it
    weight = STEP * arms * np.exp(-(greatest**2) / 2) / np.sqrt(2 * np.pi) * others ** (arms - 1)
    below = special.ndtr(greatest - np.sqrt(2) * c * s[:, None]) / others
    with np.errstate(divide="ignore"):  # log 0 where s is so small that all are so far below
        further = -np.expm1((arms - 1) * np.log1p(-np.minimum(below, 1.0)))
    beyond = float(s_weight @ (further @ weight))
    return float(np.clip(beyond, one, min(1.0, arms * (arms - 1) / 2 * one)))


@lru_cache(maxsize=4096)
def any_pair_critical_value(confidence: float, arms: int, df: int) -> float:
    """The value that the greatest |t| over all pairs of so many arms exceeds with probability 1 - confidence."""
    level = 1 - confidence
    single = -float(special.stdtrit(df, level / 2))
    if arms == 2:
        return single
    bonferroni = -float(special.stdtrit(df, level / (arms * (arms - 1))))
    return root(lambda c: any_pair_beyond(c, arms, df) / level - 1, single, bonferroni * (1 + 1e-6))


STEP = 0.2
