from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests

from sqzlab.statistics.comparison import Comparison, Pooled, compare_with_baseline, holm, pool

SIZES = {
    "equal": (3, 3, 3, 3),
    "unequal": (5, 2, 3, 7),
    "one seed in an arm": (3, 1, 4, 2),
    "lone baseline": (1, 4, 3, 3),
}


def draw(sizes: tuple[int, ...], seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0.7 + 0.002 * i, 0.002, n) for i, n in enumerate(sizes)]


def present(found: tuple[Comparison | None, ...]) -> list[Comparison]:
    assert all(found)
    return [one for one in found if one]


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_each_arm_alone_is_statsmodels_regression_on_the_arms(sizes: tuple[int, ...]) -> None:
    cells = draw(sizes)
    arm = np.repeat(np.arange(len(sizes)), sizes)
    columns = np.stack([np.ones(len(arm)), *(arm == i for i in range(1, len(sizes)))], axis=1)
    fit = OLS(np.concatenate(cells), columns).fit()
    ours = present(compare_with_baseline(cells[0], cells[1:]))
    assert [one.df for one in ours] == [fit.df_resid] * 3
    np.testing.assert_allclose([one.difference for one in ours], fit.params[1:])
    np.testing.assert_allclose([one.standard_error for one in ours], fit.bse[1:])
    np.testing.assert_allclose([(one.low, one.high) for one in ours], fit.conf_int(0.05)[1:])
    np.testing.assert_allclose([one.p for one in ours], fit.pvalues[1:])


@pytest.mark.parametrize("correction", ["dunnett", "holm", "none"])
def test_two_arms_are_students_t_test_whatever_the_correction(correction: str) -> None:
    baseline, arm = draw((4, 6))
    theirs = stats.ttest_ind(arm, baseline)
    (ours,) = present(compare_with_baseline(baseline, [arm], confidence=0.9, correction=correction))
    interval = theirs.confidence_interval(0.9)
    assert (ours.p, ours.p_adjusted) == pytest.approx((theirs.pvalue, theirs.pvalue))
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high))
    assert (ours.joint_low, ours.joint_high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("sizes", [(3, 3, 3, 3), (5, 2, 3, 7), (2, 8, 8, 8)])
@pytest.mark.parametrize("seed", [0, 1])
def test_dunnett_agrees_with_scipy(sizes: tuple[int, ...], seed: int) -> None:
    cells = draw(sizes, seed)
    theirs = stats.dunnett(*cells[1:], control=cells[0], rng=np.random.default_rng(1))
    interval = theirs.confidence_interval()
    ours = present(compare_with_baseline(cells[0], cells[1:]))
    np.testing.assert_allclose([one.p_adjusted for one in ours], theirs.pvalue, atol=1e-3)  # scipy draws random numbers
    # scipy takes the critical value of unequal sizes from their mean correlation, and stops near it
    error = np.array([one.standard_error for one in ours], dtype=float)
    assert (np.abs([one.joint_low for one in ours] - interval.low) < 0.02 * error).all()
    assert (np.abs([one.joint_high for one in ours] - interval.high) < 0.02 * error).all()


@pytest.mark.parametrize("arms", [1, 2, 7, 400])
def test_holm_agrees_with_statsmodels(arms: int) -> None:
    p = np.random.default_rng(arms).beta(0.3, 1, arms).round(3)  # with ties and zeros
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-12)


def test_holms_joint_intervals_are_bonferronis() -> None:
    cells = draw((3, 3, 3, 3))
    reach = stats.t.isf(0.05 / 2 / 3, 8)
    for one in present(compare_with_baseline(cells[0], cells[1:], correction="holm")):
        assert one.joint_low == pytest.approx(one.difference - reach * (one.standard_error or 0))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=3, max_size=8).filter(lambda sizes: max(sizes) > 1),
    seed=st.integers(0, 2**32 - 1),
    confidence=st.floats(0.5, 0.999),
)
def test_an_arm_is_separated_where_its_joint_interval_leaves_out_zero(
    sizes: list[int], seed: int, confidence: float
) -> None:
    cells = draw(tuple(sizes), seed)
    for one in present(compare_with_baseline(cells[0], cells[1:], confidence=confidence)):
        assert one.separated == ((one.joint_low or 0) > 0 or (one.joint_high or 0) < 0)


@pytest.mark.parametrize("correction", ["dunnett", "holm", "none"])
def test_nothing_depends_on_unit_sign_or_order(correction: str) -> None:
    cells = draw((3, 2, 4, 3))
    ours = present(compare_with_baseline(cells[0], cells[1:], correction=correction))
    turned = [-100 * cell + 3 for cell in cells]
    theirs = present(compare_with_baseline(turned[0], turned[:0:-1], correction=correction))[::-1]
    for one, other in zip(ours, theirs, strict=True):
        assert (other.p, other.p_adjusted) == pytest.approx((one.p, one.p_adjusted))
        assert (other.low, other.high) == pytest.approx((-100 * (one.high or 0), -100 * (one.low or 0)))


def test_tiny_adjusted_p_values_keep_their_digits() -> None:
    cells = [np.array([0.0, 1e-3]), *(np.array([i, i + 1e-3]) for i in range(1, 8))]
    for one in present(compare_with_baseline(cells[0], cells[1:])):
        p, adjusted = one.p or 0, one.p_adjusted or 0
        assert 0 < p < 1e-20
        assert p <= adjusted <= 7 * p


def test_missing_arms_are_missing_and_do_not_count_in_the_family() -> None:
    cells = draw((3, 3, 3))
    found = compare_with_baseline(cells[0], [cells[1], [], cells[2]])
    assert found[1] is None
    assert (found[0], found[2]) == compare_with_baseline(cells[0], cells[1:])
    assert compare_with_baseline([], cells) == (None, None, None)
    assert compare_with_baseline(cells[0], []) == ()


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param([[0.7], [0.8], [0.9]], id="one seed each"),
        pytest.param([[0.7] * 3, [0.8] * 3, [0.9] * 3], id="no spread"),
        pytest.param([[0.7, 0.6], [0.8, float("nan")], [0.9]], id="a value that is no number"),
        pytest.param([[0.7, 0.6], [0.8, float("inf")], [0.9]], id="an infinite value"),
    ],
)
def test_where_nothing_is_known_of_the_spread_no_interval_is_invented(cells: list[list[float]]) -> None:
    for one in present(compare_with_baseline(cells[0], cells[1:])):
        assert astuple(one)[3:] == (None,) * 7
        assert one.standard_error is None
    assert present(compare_with_baseline(cells[0], cells[1:]))[1].difference == pytest.approx(0.9 - np.mean(cells[0]))


def test_the_pooled_sd_is_that_of_statsmodels_and_ignores_lone_values() -> None:
    cells = draw((3, 1, 5))
    variance = (2 * np.var(cells[0], ddof=1) + 4 * np.var(cells[2], ddof=1)) / 6
    assert pool([*cells, []]) == Pooled(pytest.approx(np.sqrt(variance)), 6)


@settings(max_examples=200)
@given(value=st.floats(0, 1), n=st.integers(2, 9))
def test_equal_values_have_no_spread_at_all(value: float, n: int) -> None:
    assert pool([[value] * n, [value / 3] * n]).sd == 0


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: compare_with_baseline([1.0], [[2.0]], correction="tukey"), "'tukey'; valid: dunnett, holm, none"),
        (lambda: compare_with_baseline([1.0], [[2.0]], confidence=95), "95; valid: between 0 and 1"),
    ],
)
def test_a_bad_argument_is_refused(call: Callable[[], object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        call()
