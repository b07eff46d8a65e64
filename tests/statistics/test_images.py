from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.weightstats import zconfint, ztest

from sqzlab.statistics.images import (
    Estimate,
    McNemar,
    difference_on_new_images,
    mcnemar,
    pooled_seed_sd,
    sd_disagreement,
    seed_sd,
)


def bits(seeds: int, images: int, right: float = 0.8, seed: int = 0) -> Any:
    return np.random.default_rng(seed).random((seeds, images)) < right


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_seed_sd_comes_from_every_pair_of_runs_that_disagree(seeds: int) -> None:
    correct = bits(seeds, 200)
    pairs = [(i, j) for i in range(seeds) for j in range(i)]
    disagreeing = np.mean([(correct[i] != correct[j]).mean() for i, j in pairs])  # 2 p (1 - p) on average
    found = seed_sd(correct)
    assert found is not None
    assert found.value == pytest.approx(np.sqrt(disagreeing / 2 / 200))


def test_the_standard_error_of_the_seed_sd_is_that_of_resampled_images() -> None:
    correct, rng = bits(3, 1000), np.random.default_rng(1)
    values = [found.value for _ in range(2000) if (found := seed_sd(correct[:, rng.integers(0, 1000, 1000)]))]
    found = seed_sd(correct)
    assert found is not None
    assert found.standard_error == pytest.approx(np.std(values), rel=0.06)


def test_pooling_weights_the_variance_of_each_arm_by_its_degrees_of_freedom() -> None:
    arms = [bits(2, 500, 0.6), bits(4, 500, 0.9), bits(1, 500, 0.5)]
    alone = [seed_sd(arm) for arm in arms]
    found = pooled_seed_sd(arms)
    assert alone[2] is None
    assert found is not None
    variances = [one.value**2 for one in alone if one]
    assert found.value == pytest.approx(np.sqrt((variances[0] + 3 * variances[1]) / 4))
    assert pooled_seed_sd(arms[:1]) == alone[0]
    assert pooled_seed_sd([]) is pooled_seed_sd(arms[2:]) is None


def test_runs_that_never_disagree_have_no_seed_sd() -> None:
    assert seed_sd(np.tile(bits(1, 50), (3, 1))) == Estimate(0.0, 0.0)


@pytest.mark.parametrize("seeds", [(1, 1), (3, 2), (5, 5)])
def test_the_difference_on_new_images_is_the_paired_z_test_over_images(seeds: tuple[int, int]) -> None:
    a, b = bits(seeds[0], 5000, 0.82), bits(seeds[1], 5000, 0.8, seed=1)
    ours = difference_on_new_images(a, b, confidence=0.9)
    by_image = a.mean(axis=0) - b.mean(axis=0)
    assert ours.difference == pytest.approx(a.mean() - b.mean())
    assert (ours.low, ours.high) == pytest.approx(zconfint(by_image, alpha=0.1))
    assert ours.p == pytest.approx(ztest(by_image)[1])


def test_the_parts_of_the_squared_error_are_those_of_runs_and_of_images() -> None:
    a, b = bits(4, 3000, 0.7), bits(2, 3000, 0.75, seed=1)
    found = difference_on_new_images(a, b)
    runs = (a.var(axis=0, ddof=1).mean() / 4 + b.var(axis=0, ddof=1).mean() / 2) / 3000
    assert found.seed_part == pytest.approx(min(runs, found.standard_error**2))
    assert (found.seed_part or 0) + (found.image_part or 0) == pytest.approx(found.standard_error**2)
    alone = difference_on_new_images(a[:1], b)
    assert (alone.seed_part, alone.image_part) == (None, None)


@pytest.mark.parametrize(("second", "difference"), [(True, 0.0), (False, 1.0)])
def test_images_that_are_all_alike_leave_no_width_and_no_p(second: bool, difference: float) -> None:
    found = difference_on_new_images(np.ones((2, 10)), np.full((3, 10), second))
    assert (found.difference, found.standard_error, found.low, found.high, found.p) == (
        *(difference, 0.0),
        *(difference, difference, None),
    )


def test_the_images_that_tell_two_arms_apart_are_counted() -> None:
    a, b = bits(3, 300), bits(2, 300, seed=1)
    expected = sum(a[:, i].sum() / 3 != b[:, i].sum() / 2 for i in range(300))
    assert difference_on_new_images(a, b).apart == expected


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(2, 60), shift=st.floats(0, 0.5))
def test_mcnemar_is_the_exact_test_of_statsmodels_and_scipy(seed: int, images: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random(images) < 0.5 + shift, rng.random(images) < 0.5
    ours = mcnemar(a, b)
    table = [[int((a & b).sum()), int((a & ~b).sum())], [int((~a & b).sum()), int((~a & ~b).sum())]]
    assert (ours.only_first, ours.only_second) == (table[0][1], table[1][0])
    assert ours.p == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue, rel=1e-9)
    if disagreeing := ours.only_first + ours.only_second:
        assert ours.p == pytest.approx(stats.binomtest(ours.only_first, disagreeing).pvalue, rel=1e-9)


def test_equal_runs_are_not_told_apart() -> None:
    assert mcnemar([True, False], [True, False]) == McNemar(0, 0, 1.0)


@pytest.mark.parametrize("df", [1, 16, 400])
@pytest.mark.parametrize("ratio", [0.3, 0.9, 1.0, 1.2, 3.0])
def test_the_two_sds_are_compared_by_the_chi_square_test_of_a_known_variance(df: int, ratio: float) -> None:
    square = df * ratio**2
    exact = min(1.0, 2 * min(stats.chi2.cdf(square, df), stats.chi2.sf(square, df)))
    assert sd_disagreement(ratio * 0.01, df, Estimate(0.01, 0.0)) == pytest.approx(exact, rel=1e-9)
    assert sd_disagreement(ratio * 0.01, df, Estimate(0.01, 1e-8)) == pytest.approx(exact, rel=1e-3, abs=1e-12)


def test_an_uncertain_sd_of_the_images_disagrees_less() -> None:
    assert sd_disagreement(0.02, 16, Estimate(0.01, 0.003)) > 10 * sd_disagreement(0.02, 16, Estimate(0.01, 0.0))


@pytest.mark.parametrize(("seeds_sd", "p"), [(0.0, 1.0), (0.01, 0.0)])
def test_where_the_images_show_no_spread_any_spread_disagrees(seeds_sd: float, p: float) -> None:
    assert sd_disagreement(seeds_sd, 3, Estimate(0.0, 0.0)) == p


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: seed_sd(np.ones(5)), r"shape \(5,\); valid: \(seeds, images\)"),
        (lambda: seed_sd(np.ones((2, 1))), r"shape \(2, 1\)"),
        (lambda: pooled_seed_sd([np.ones((2, 4)), np.ones((2, 5))]), r"\[4, 5\] images; valid: one number"),
        (lambda: difference_on_new_images(np.ones((0, 4)), np.ones((1, 4))), r"shape \(0, 4\)"),
        (lambda: difference_on_new_images(np.ones((1, 4)), np.ones((1, 5))), "4 and 5 images; valid: the same"),
        (lambda: difference_on_new_images(np.ones((1, 4)), np.ones((1, 4)), 95), "95; valid: between 0 and 1"),
        (lambda: mcnemar(np.ones((1, 4)), np.ones((1, 4))), r"valid: \(N,\) twice"),
        (lambda: mcnemar(np.ones(4), np.ones(5)), r"\(4,\) and \(5,\)"),
        (lambda: sd_disagreement(0.1, 0, Estimate(0.1, 0.0)), "df is 0; valid: at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        call()
