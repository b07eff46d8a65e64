"""The root of a monotone function. scipy's own would do, but importing scipy.optimize takes a quarter of a second."""

from __future__ import annotations

from collections.abc import Callable

TOLERANCE = 1e-11  # relative


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where `function` is 0 between `low` and `high`, at which its signs differ: regula falsi (Illinois), bracketed.

    Raises ValueError where the signs are equal.
    """
    at_low, at_high = function(low), function(high)
    if at_low == 0 or at_high == 0:
        return low if at_low == 0 else high
    if (at_low > 0) == (at_high > 0):
        raise ValueError(f"no change of sign between {low!r} and {high!r}")
    side = 0
    for step in range(200):
        straight = (low * at_high - high * at_low) / (at_high - at_low)
        middle = straight if step % 4 != 3 and low < straight < high else (low + high) / 2
        value = function(middle)
        if value == 0 or abs(high - low) <= TOLERANCE * max(abs(low), abs(high)):
            return middle
        if (value > 0) == (at_low > 0):
            low, at_low = middle, value
            at_high /= 2 if side == -1 else 1
            side = -1
        else:
            high, at_high = middle, value
            at_low /= 2 if side == 1 else 1
            side = 1
    return (low + high) / 2
