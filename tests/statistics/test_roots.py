import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from sqzlab.statistics.roots import root


@given(st.floats(0.01, 100), st.sampled_from([1, 3, 7]), st.floats(0.1, 10))
def test_it_is_scipys_root(place: float, power: int, slope: float) -> None:
    def function(x: float) -> float:
        return slope * math.copysign(abs(x - place) ** power, x - place) + (x - place)

    expected = optimize.brentq(function, 0.0, 1000.0, xtol=1e-13, rtol=1e-13)
    assert root(function, 0.0, 1000.0) == pytest.approx(expected, rel=1e-9)


def test_a_steep_end_does_not_stop_it() -> None:
    assert root(lambda x: math.exp(x) - 1e6, 0.0, 500.0) == pytest.approx(math.log(1e6), rel=1e-10)


def test_a_root_at_an_end_is_found() -> None:
    assert root(lambda x: x, 0.0, 5.0) == 0
    assert root(lambda x: x - 5, 0.0, 5.0) == 5


def test_equal_signs_are_an_error() -> None:
    with pytest.raises(ValueError, match="no change of sign"):
        root(lambda x: x + 1, 0.0, 5.0)
