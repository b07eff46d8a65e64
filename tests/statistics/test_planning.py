from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import integrate, special, stats
from statsmodels.stats.power import TTestIndPower

from sqzlab.statistics.comparison import compare_with_baseline
from sqzlab.statistics.dunnett import critical_value
from sqzlab.statistics.planning import critical_difference, detectable_difference, seeds_to_separate, spread_outlier


def power(shift: float, critical: float, df: int) -> float:
    """P(|t| > critical), integrated over the estimated sd rather than by a noncentral t."""

    def at_scale(s: float) -> float:
        beyond = special.ndtr(shift - critical * s) + special.ndtr(-shift - critical * s)
        return float(beyond * stats.chi.pdf(s * np.sqrt(df), df) * np.sqrt(df))

    return float(integrate.quad(at_scale, 0, 8, points=[1.0], epsrel=1e-10, limit=500)[0])


def test_the_critical_difference_of_the_main_study_is_a_quarter_of_a_point() -> None:
    assert critical_difference(0.105, 3, 3, 16, 7) == pytest.approx(0.251, abs=5e-4)


@pytest.mark.parametrize("factor", [0.999, 1.001])
@pytest.mark.parametrize("sizes", [(3, 3, 3), (2, 5, 5)])
def test_the_critical_difference_is_where_the_comparison_starts_to_separate(
    factor: float, sizes: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    cells = [values - values.mean() for values in (rng.normal(size=n) for n in sizes)]
    df = sum(sizes) - 3
    sd = float(np.sqrt(sum((cell**2).sum() for cell in cells) / df))
    least = critical_difference(sd, sizes[1], sizes[0], df, 2)
    found = compare_with_baseline(cells[0], [cells[1] + factor * least, cells[2]])[0]
    assert found is not None
    assert found.separated == (factor > 1)


@pytest.mark.parametrize("n", [2, 3, 5, 100])
@pytest.mark.parametrize("wanted", [0.5, 0.8, 0.99])
def test_with_one_arm_the_detectable_difference_is_that_of_statsmodels(n: int, wanted: float) -> None:
    theirs = TTestIndPower().power(detectable_difference(1.0, n, n, 2 * n - 2, 1, wanted), n, 0.05)
    assert theirs == pytest.approx(wanted, abs=1e-8)


@pytest.mark.parametrize(
    ("n", "n_baseline", "df", "arms"), [(3, 3, 16, 7), (2, 5, 1, 3), (1, 1, 1, 400), (5, 3, 9000, 7)]
)
def test_the_detectable_difference_is_found_as_often_as_asked(n: int, n_baseline: int, df: int, arms: int) -> None:
    error = 0.105 * np.sqrt(1 / n + 1 / n_baseline)
    difference = detectable_difference(0.105, n, n_baseline, df, arms, power=0.9)
    critical = critical_value(0.95, [n] * arms, n_baseline, df)
    assert power(difference / error, critical, df) == pytest.approx(0.9, abs=1e-7)
    assert difference > critical_difference(0.105, n, n_baseline, df, arms)


@pytest.mark.parametrize("difference", [0.5, 0.3, 0.1, 0.05])
@pytest.mark.parametrize(("n_first", "n_second", "df", "arms"), [(3, 3, 16, 7), (1, 1, 0, 1), (2, 6, 9, 3)])
def test_the_seeds_to_separate_are_enough_and_one_less_is_not(
    difference: float, n_first: int, n_second: int, df: int, arms: int
) -> None:
    more = seeds_to_separate(-difference, 0.105, n_first, n_second, df, arms)
    assert more is not None

    def reached(more: int) -> float:
        first, second = n_first + more, n_second + more
        critical = critical_value(0.95, [first] * arms, second, df + 2 * more)
        return power(difference / 0.105 / np.sqrt(1 / first + 1 / second), critical, df + 2 * more)

    assert reached(more) >= 0.8
    if more and df + 2 * (more - 1) > 0:
        assert reached(more - 1) < 0.8


def test_two_lone_arms_need_the_seeds_that_statsmodels_says() -> None:
    more = seeds_to_separate(0.1, 0.105, 1, 1, 0, 1)
    assert more == np.ceil(TTestIndPower().solve_power(0.1 / 0.105, power=0.8, alpha=0.05)) - 1


def test_a_difference_far_beyond_the_noise_needs_no_more_seeds_than_make_a_test() -> None:
    assert seeds_to_separate(1.0, 0.105, 3, 3, 16, 7) == 0
    assert seeds_to_separate(1e9, 0.105, 1, 1, 0, 400) == 1


@pytest.mark.parametrize(("difference", "most"), [(0.0, 1000), (0.001, 1000), (0.1, 24)])
def test_more_seeds_than_the_most_are_no_answer(difference: float, most: int) -> None:
    assert seeds_to_separate(difference, 0.105, 3, 3, 16, 7, most=most) is None
    assert seeds_to_separate(0.1, 0.105, 3, 3, 16, 7, most=25) == 25


def test_bonferronis_critical_difference_is_students_at_a_share_of_the_level() -> None:
    expected = stats.t.isf(0.05 / 14, 16) * 0.105 * np.sqrt(2 / 3)
    assert critical_difference(0.105, 3, 3, 16, 7, test="bonferroni") == pytest.approx(expected)


def test_tukeys_critical_difference_is_the_half_width_of_scipys_intervals() -> None:
    arms = [np.random.default_rng(i).normal(size=4) for i in range(5)]
    sd = float(np.sqrt(np.mean([arm.var(ddof=1) for arm in arms])))
    whole = stats.tukey_hsd(*arms).confidence_interval(0.95)
    half = (whole.high[0, 1] - whole.low[0, 1]) / 2
    assert critical_difference(sd, 4, 4, 15, 4, test="tukey") == pytest.approx(half, rel=1e-6)


@pytest.mark.parametrize("sizes", [(5, 5, 2), (1, 9, 9, 9)])
def test_a_family_of_unequal_sizes_has_its_own_critical_value(sizes: tuple[int, ...]) -> None:
    n, df = min(sizes), sum(sizes) - len(sizes) + 4
    least = critical_difference(0.105, n, 5, df, sizes)
    assert least == pytest.approx(critical_value(0.95, sizes, 5, df) * 0.105 * np.sqrt(1 / n + 1 / 5))
    assert least != pytest.approx(critical_difference(0.105, n, 5, df, len(sizes)), rel=1e-4)
    critical = least / 0.105 / np.sqrt(1 / n + 1 / 5)
    found = detectable_difference(0.105, n, 5, df, sizes) / 0.105 / np.sqrt(1 / n + 1 / 5)
    assert power(found, critical, df) == pytest.approx(0.8, abs=1e-7)


@pytest.mark.parametrize("test", ["dunnett", "tukey", "bonferroni"])
def test_the_other_arms_keep_their_seeds_while_two_get_more(test: str) -> None:
    more = seeds_to_separate(0.15, 0.105, 3, 4, 16, (2, 3, 6), test=test)
    assert more
    reached = []
    for added in (more - 1, more):
        n, n0, df = 3 + added, 4 + added, 16 + 2 * added
        least = critical_difference(0.105, n, n0, df, (2, n, 6), test=test)
        error = 0.105 * np.sqrt(1 / n + 1 / n0)
        reached.append(power(0.15 / error, least / error, df))
    assert reached[0] < 0.8 <= reached[1]


def cells_with(special_cell: Any, n: int = 5, cells: int = 8) -> list[Any]:
    rng = np.random.default_rng(0)
    found: list[Any] = [rng.normal(0, 1, n) for _ in range(cells)]
    found[3] = special_cell
    return found


@pytest.mark.parametrize(
    ("cell", "outlier"),
    [
        pytest.param([0, 20, -20, 5, 9], 3, id="wide"),
        pytest.param([0, 0.001, 0.002, 0.001, 0], 3, id="narrow"),
        pytest.param([0.5] * 5, 3, id="no spread where the values are fine"),
        pytest.param([0, 1, 2, -1, 0.5], None, id="like the others"),
        pytest.param([5.0], None, id="one value"),
        pytest.param([], None, id="no value"),
    ],
)
def test_a_cell_is_told_whose_variance_is_unlike_the_others(cell: list[float], outlier: int | None) -> None:
    assert spread_outlier(cells_with(cell)) == outlier


def test_equal_counts_on_a_coarse_scale_are_no_outlier() -> None:
    correct = [[340, 341, 343], [342, 342, 342], [339, 341, 341], [343, 343, 343], [340, 340, 342]]
    assert spread_outlier([np.array(cell) / 360 for cell in correct]) is None


@pytest.mark.parametrize("cells", [[], [[1.0, 2.0]], [[1.0], [2.0]], [[1.0, 2.0], [3.0]], [[1.0, 1.0]] * 4])
def test_with_nothing_to_compare_no_cell_is_an_outlier(cells: list[list[float]]) -> None:
    assert spread_outlier(cells) is None


def test_a_cell_with_spread_among_cells_without_is_an_outlier() -> None:
    assert spread_outlier([[0.5, 0.5, 0.5], [0.501, 0.5, 0.5], [0.1, 0.9, 0.4], [0.5, 0.5, 0.5]]) == 2


@pytest.mark.parametrize("n", [2, 3, 5])
def test_equal_variances_seldom_yield_an_outlier(n: int) -> None:
    rng = np.random.default_rng(n)
    trials = rng.normal(size=(1500, 8, n))
    share = float(np.mean([spread_outlier(list(cells), level=0.05) is not None for cells in trials]))
    assert share <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(trials))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: critical_difference(0.0, 3, 3, 16, 7), "sd is 0.0; valid: above 0"),
        (lambda: critical_difference(float("nan"), 3, 3, 16, 7), "sd is nan"),
        (lambda: critical_difference(0.1, 0, 3, 16, 7), "seeds are 0 and 3; valid: at least 1"),
        (lambda: detectable_difference(0.1, 3, 3, 0, 7), "df is 0; valid: at least 1"),
        (lambda: detectable_difference(0.1, 3, 3, 16, 7, power=0.04), "0.04; valid: between 0.05 and 1"),
        (lambda: seeds_to_separate(0.1, 0.1, 3, 0, 16, 7), "seeds are 3 and 0"),
        (lambda: seeds_to_separate(0.1, 0.1, 3, 3, 16, (2, 4)), r"arms of \[2, 4\] seeds have none of 3"),
        (lambda: critical_difference(0.1, 3, 3, 16, 7, test="holm"), "'holm'; valid: dunnett, bonferroni, tukey"),
        (lambda: seeds_to_separate(0.1, 0.1, 3, 3, 16, 7, test="holm"), "'holm'; valid: dunnett, bonferroni, tukey"),
    ],
)
def test_what_no_plan_can_be_made_of_is_refused(call: Callable[[], object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        call()
