import numpy as np
import pytest
from scipy import stats

from sqzlab.statistics.tukey import any_pair_beyond, any_pair_critical_value


@pytest.mark.parametrize("arms", [2, 3, 8, 40])
@pytest.mark.parametrize(("df", "c"), [(1, 12.0), (2, 4.0), (5, 0.5), (16, 3.3), (300, 3.0)])
def test_the_probability_is_that_of_scipys_studentized_range(arms: int, df: int, c: float) -> None:
    scipys = stats.studentized_range.sf(np.sqrt(2) * c, arms, df)
    assert any_pair_beyond(c, arms, df) == pytest.approx(scipys, rel=2e-6)


@pytest.mark.parametrize("df", [1, 2, 16, 10_000])
@pytest.mark.parametrize("c", [0.0, 0.1, 2.0, 8.0, 50.0])
def test_two_arms_are_students_t(df: int, c: float) -> None:
    assert any_pair_beyond(c, 2, df) == pytest.approx(2 * stats.t.sf(c, df), rel=1e-9)


@pytest.mark.parametrize("sizes", [(3, 3, 3, 3), (5, 3, 2)])
def test_pairs_have_the_p_values_of_scipys_tukey_hsd(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    arms = [rng.normal(i / 2, 1, n) for i, n in enumerate(sizes)]
    df = sum(sizes) - len(sizes)
    sd = np.sqrt(sum(((arm - arm.mean()) ** 2).sum() for arm in arms) / df)
    expected = stats.tukey_hsd(*arms).pvalue
    for i, first in enumerate(arms):
        for j, second in enumerate(arms[:i]):
            t = abs(first.mean() - second.mean()) / (sd * np.sqrt(1 / len(first) + 1 / len(second)))
            assert any_pair_beyond(float(t), len(arms), df) == pytest.approx(expected[i, j], rel=1e-6)


@pytest.mark.parametrize("arms", [2, 3, 8, 400])
@pytest.mark.parametrize("df", [1, 3, 16, 10_000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_critical_value_is_exceeded_as_often_as_asked(arms: int, df: int, confidence: float) -> None:
    c = any_pair_critical_value(confidence, arms, df)
    assert any_pair_beyond(c, arms, df) == pytest.approx(1 - confidence, rel=1e-7)


@pytest.mark.parametrize("c", [50.0, 1e4, 1e150])
def test_a_hopelessly_small_probability_is_bounded_rather_than_wrong(c: float) -> None:
    one = 2 * float(stats.t.sf(c, 100))
    assert one <= any_pair_beyond(c, 8, 100) <= 28 * one
