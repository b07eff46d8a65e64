from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from sqzlab.statistics.dunnett import critical_value, greatest_beyond

# Dunnett 1964 (Biometrics 20), two-sided 5 %: degrees of freedom -> critical values of 1 to 9 arms
PUBLISHED = {
    5: (2.57, 3.03, 3.29, 3.48, 3.62, 3.73, 3.82, 3.90, 3.97),
    10: (2.23, 2.57, 2.76, 2.89, 2.99, 3.07, 3.14, 3.19, 3.24),
    16: (2.12, 2.42, 2.59, 2.71, 2.80, 2.87, 2.92, 2.97, 3.02),
    60: (2.00, 2.27, 2.41, 2.51, 2.58, 2.64, 2.69, 2.73, 2.77),
    10_000: (1.96, 2.21, 2.35, 2.44, 2.51, 2.57, 2.61, 2.65, 2.69),  # the row of infinity
}
SIZES = st.lists(st.integers(1, 100), min_size=1, max_size=9)


def beyond(c: float, sizes: Sequence[int], baseline_size: int, df: int) -> float:
    return float(greatest_beyond(np.array([c]), sizes, baseline_size, df)[0])


def either_beyond(c: float, sizes: tuple[int, int], baseline_size: int, df: int) -> float:
    """Two arms exactly: with a known variance by Owen's T, then over the variance by adaptive quadrature."""
    loadings = [np.sqrt(size / (size + baseline_size)) for size in sizes]
    correlation = loadings[0] * loadings[1]
    slope = np.sqrt((1 - correlation) / (1 + correlation))

    def at_scale(s: float) -> float:
        both = special.owens_t(c * s, slope) + special.owens_t(c * s, 1 / slope)
        return float(4 * both * stats.chi.pdf(s * np.sqrt(df), df) * np.sqrt(df))

    knots = [0.0, 1 / c, 4 / c, 16 / c, 1.0, np.sqrt(stats.chi2.isf(1e-18, df) / df)]
    pieces = zip(sorted(knots), sorted(knots)[1:], strict=False)
    return sum(integrate.quad(at_scale, low, high, epsabs=0, epsrel=1e-11, limit=200)[0] for low, high in pieces)


@pytest.mark.parametrize(("df", "row"), PUBLISHED.items())
def test_critical_values_are_those_of_dunnetts_table(df: int, row: tuple[float, ...]) -> None:
    ours = [critical_value(0.95, [3] * arms, 3, df) for arms in range(1, 10)]
    assert ours == pytest.approx(row, abs=0.0051)


@pytest.mark.parametrize("sizes", [(3, 3), (2, 5), (1, 100), (100, 1), (100, 100)])
@pytest.mark.parametrize("baseline_size", [1, 3, 100])
@pytest.mark.parametrize(
    ("df", "c"), [(1, 0.3), (1, 12.0), (1, 700.0), (2, 50.0), (16, 2.5), (16, 20.0), (10_000, 4.0)]
)
def test_two_arms_have_the_exact_probability(sizes: tuple[int, int], baseline_size: int, df: int, c: float) -> None:
    exact = either_beyond(c, sizes, baseline_size, df)
    assert beyond(c, sizes, baseline_size, df) == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize(
    ("sizes", "baseline_size"), [([3] * 7, 3), ([5, 5, 3, 2], 5), ([1, 100, 1, 100], 1), ([1, 100, 10], 100)]
)
@pytest.mark.parametrize("df", [1, 3, 16])
def test_several_arms_agree_with_scipys_multivariate_t(sizes: list[int], baseline_size: int, df: int) -> None:
    loadings = np.sqrt(np.array(sizes) / (np.array(sizes) + baseline_size))
    shape = np.outer(loadings, loadings)
    np.fill_diagonal(shape, 1)
    bound = np.full(len(sizes), 2.7)
    scipys = stats.multivariate_t(shape=shape, df=df, seed=1).cdf(bound, lower_limit=-bound)
    assert 1 - beyond(2.7, sizes, baseline_size, df) == pytest.approx(scipys, abs=5e-4)  # scipy's own error


def test_400_arms_of_three_sizes_agree_with_random_draws() -> None:
    sizes, n0, df, draws = np.repeat([2, 3, 5], [100, 200, 100]), 5, 1100, 4000
    rng = np.random.default_rng(0)
    baseline = rng.normal(size=(draws, 1)) / np.sqrt(n0)
    s = np.sqrt(rng.chisquare(df, (draws, 1)) / df)
    t = (rng.normal(size=(draws, len(sizes))) / np.sqrt(sizes) - baseline) / (s * np.sqrt(1 / sizes + 1 / n0))
    share = float((np.abs(t).max(axis=1) > 3.5).mean())
    exact = beyond(3.5, sizes.tolist(), n0, df)
    assert abs(share - exact) < 4 * np.sqrt(exact * (1 - exact) / draws)


@pytest.mark.parametrize("df", [1, 2, 16, 1000, 10_000])
@pytest.mark.parametrize("c", [0.0, 0.1, 2.0, 8.0, 50.0])
def test_one_arm_is_students_t(df: int, c: float) -> None:
    assert beyond(c, [3], 3, df) == pytest.approx(2 * stats.t.sf(c, df), rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, baseline_size=st.integers(1, 100), df=st.integers(1, 10_000), c=st.floats(0, 50))
def test_the_probability_lies_between_students_and_bonferronis(
    sizes: list[int], baseline_size: int, df: int, c: float
) -> None:
    one = 2 * float(stats.t.sf(c, df))
    ours = beyond(c, sizes, baseline_size, df)
    assert one <= ours <= min(1.0, len(sizes) * one)
    assert ours <= beyond(c, [*sizes, 3], baseline_size, df) * (1 + 1e-7)
    assert beyond(c + 0.1, sizes, baseline_size, df) <= ours


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, baseline_size=st.integers(1, 100), df=st.integers(1, 10_000), confidence=st.floats(0.5, 0.9999))
def test_the_critical_value_is_exceeded_as_often_as_asked(
    sizes: list[int], baseline_size: int, df: int, confidence: float
) -> None:
    c = critical_value(confidence, sizes, baseline_size, df)
    assert beyond(c, sizes, baseline_size, df) == pytest.approx(1 - confidence, rel=1e-7)
    assert c == critical_value(confidence, sizes[::-1], baseline_size, df)


@pytest.mark.parametrize("df", [1, 2, 16, 10_000])
@pytest.mark.parametrize("sizes", [[100] * 400, [1] * 400, [2, 3, 5] * 133, [1, 100]])
@pytest.mark.parametrize("baseline_size", [1, 100])
def test_critical_values_of_odd_families_lie_between_students_and_bonferronis(
    df: int, sizes: list[int], baseline_size: int
) -> None:
    c = critical_value(0.95, sizes, baseline_size, df)
    assert stats.t.isf(0.025, df) < c < stats.t.isf(0.025 / len(sizes), df)


@pytest.mark.parametrize("c", [50.0, 1e4, 1e150])
def test_a_hopelessly_small_probability_is_bounded_rather_than_wrong(c: float) -> None:
    one = 2 * float(stats.t.sf(c, 100))
    assert one <= beyond(c, [3] * 7, 3, 100) <= 7 * one
