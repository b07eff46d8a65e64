"""What the statistics promise, kept in the long run: 20,000 studies of eight arms, and thousands of sets of images.

The studies are computed all at once by the rule written out below; that `compare_with_baseline` decides by the same
rule is checked on the first 200 of them.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pytest
from scipy import stats

from sqzlab.statistics.comparison import compare_with_baseline, pool
from sqzlab.statistics.dunnett import critical_value
from sqzlab.statistics.images import difference_on_new_images, pooled_seed_sd, sd_disagreement, seed_sd
from sqzlab.statistics.planning import critical_difference, detectable_difference

TRIALS, CHECKED, LEVEL = 20_000, 200, 0.05
SEEDS = (2, 3, 5)
UNEQUAL = (2, 5, 5, 3, 3, 2, 1, 4)
IMAGES = 5000


@dataclass(frozen=True)
class Studies:
    """Studies of normal seeds with sd 1: the baseline first, `sizes` seeds in each cell, the cells' true means."""

    sizes: tuple[int, ...]
    means: tuple[float, ...] = (0.0,) * 8

    @cached_property
    def cells(self) -> list[Any]:
        """For each cell the values, (trials, seeds)."""
        rng = np.random.default_rng(sum(self.sizes))
        return [rng.normal(mean, 1, (TRIALS, n)) for mean, n in zip(self.means, self.sizes, strict=True)]

    @property
    def df(self) -> int:
        return sum(self.sizes) - len(self.sizes)

    @cached_property
    def differences(self) -> Any:  # (trials, arms)
        means = np.stack([cell.mean(axis=1) for cell in self.cells], axis=1)
        return means[:, 1:] - means[:, :1]

    @cached_property
    def errors(self) -> Any:  # (trials, arms)
        squares = sum(((cell - cell.mean(axis=1, keepdims=True)) ** 2).sum(axis=1) for cell in self.cells)
        return np.sqrt(squares / self.df)[:, None] * np.sqrt(1 / np.array(self.sizes[1:]) + 1 / self.sizes[0])

    def separated(self, correction: str) -> Any:  # (trials, arms)
        t = np.abs(self.differences) / self.errors
        if correction == "dunnett":
            return t > critical_value(1 - LEVEL, self.sizes[1:], self.sizes[0], self.df)
        p = 2 * stats.t.sf(t, self.df)
        if correction == "none":
            return p < LEVEL
        order = np.argsort(p, axis=1)
        passed = np.take_along_axis(p, order, axis=1) < LEVEL / np.arange(p.shape[1], 0, -1)
        found = np.empty_like(passed)
        np.put_along_axis(found, order, np.logical_and.accumulate(passed, axis=1), axis=1)
        return found


@lru_cache(maxsize=8)
def studies(sizes: tuple[int, ...], means: tuple[float, ...] = (0.0,) * 8) -> Studies:
    return Studies(sizes, means)


def three_errors(share: float, trials: int = TRIALS) -> float:
    return 3 * float(np.sqrt(share * (1 - share) / trials))


NULL = [(n,) * 8 for n in SEEDS] + [UNEQUAL]


@pytest.mark.parametrize("correction", ["dunnett", "holm", "none"])
@pytest.mark.parametrize("sizes", NULL, ids=str)
def test_the_comparison_decides_by_the_simulated_rule(sizes: tuple[int, ...], correction: str) -> None:
    simulated = studies(sizes, (0.0, 0.0, 1.0, 2.0, -2.0, 3.0, 0.0, 4.0))
    separated = simulated.separated(correction)
    reach = stats.t.ppf(0.975, simulated.df)
    for trial in range(CHECKED):
        cells = [cell[trial] for cell in simulated.cells]
        found = compare_with_baseline(cells[0], cells[1:], correction=correction)
        assert [one and one.separated for one in found] == separated[trial].tolist()
        difference, error = simulated.differences[trial], simulated.errors[trial]
        np.testing.assert_allclose([one and one.low for one in found], difference - reach * error, atol=1e-9)
        np.testing.assert_allclose([one and one.high for one in found], difference + reach * error, atol=1e-9)
    assert separated[:CHECKED].any()
    assert not separated[:CHECKED].all()


@pytest.mark.parametrize("n", SEEDS)
def test_the_95_percent_interval_holds_the_true_difference_in_94_to_96_percent(n: int) -> None:
    means = (0.0, 0.0, 1.0, 2.0, -2.0, 3.0, 0.0, 4.0)
    simulated = studies((n,) * 8, means)
    off = np.abs(simulated.differences - means[1:]) / simulated.errors
    coverage = (off <= stats.t.ppf(0.975, simulated.df)).mean(axis=0)
    assert ((coverage >= 0.94) & (coverage <= 0.96)).all()


@pytest.mark.parametrize("sizes", NULL, ids=str)
def test_dunnett_finds_a_false_winner_in_5_percent(sizes: tuple[int, ...]) -> None:
    share = float(studies(sizes).separated("dunnett").any(axis=1).mean())
    assert abs(share - LEVEL) <= three_errors(LEVEL)  # exact, so it is not less either


@pytest.mark.parametrize("sizes", NULL, ids=str)
def test_holm_finds_a_false_winner_in_at_most_5_percent(sizes: tuple[int, ...]) -> None:
    share = float(studies(sizes).separated("holm").any(axis=1).mean())
    assert 0.02 < share <= LEVEL + three_errors(LEVEL)


@pytest.mark.parametrize("n", SEEDS)
def test_without_correction_false_winners_are_many(n: int) -> None:
    assert studies((n,) * 8).separated("none").any(axis=1).mean() > 0.15


@pytest.mark.parametrize("n", SEEDS)
def test_all_joint_intervals_hold_at_once_in_95_percent(n: int) -> None:
    means = (0.0, 0.0, 1.0, 2.0, -2.0, 3.0, 0.0, 4.0)
    simulated = studies((n,) * 8, means)
    off = np.abs(simulated.differences - means[1:]) / simulated.errors
    share = float((off <= critical_value(0.95, (n,) * 7, n, simulated.df)).all(axis=1).mean())
    assert abs(share - 0.95) <= three_errors(0.95)


@pytest.mark.parametrize(("n", "published"), [(2, 0.235), (3, 0.178), (5, 0.134)])
def test_intervals_are_on_average_as_wide_as_was_published(n: int, published: float) -> None:
    """Half-widths in points where one run's sd is 0.105 points."""
    simulated = studies((n,) * 8)
    reach = stats.t.ppf(0.975, simulated.df) * 0.105 * simulated.errors
    assert float(reach.mean()) == pytest.approx(published, abs=0.0015)


@pytest.mark.parametrize("n", SEEDS)
def test_the_detectable_difference_is_found_in_80_percent(n: int) -> None:
    df = 8 * (n - 1)
    simulated = studies((n,) * 8, (0.0, detectable_difference(1.0, n, n, df, 7), *(0.0,) * 6))
    share = float(simulated.separated("dunnett")[:, 0].mean())
    assert abs(share - 0.8) <= three_errors(0.8)


def test_the_critical_difference_is_a_false_winner_in_5_percent_where_the_sd_is_known() -> None:
    simulated = studies((5,) * 8)
    least = critical_difference(1.0, 5, 5, 100_000, 7)
    share = float((np.abs(simulated.differences) > least).any(axis=1).mean())
    assert abs(share - LEVEL) <= three_errors(LEVEL)


def chances(size: int, seed: int = 0) -> tuple[Any, Any]:
    """For two arms the chance of being right on each image: beta, and the same in both on 70 % of the images."""
    rng = np.random.default_rng(seed)
    first = rng.beta(2, 0.25, size)
    return first, np.where(rng.random(size) < 0.7, first, rng.beta(2, 0.3, size))


def bits(rng: np.random.Generator, p: Any, seeds: int) -> Any:
    return rng.random((seeds, len(p)), dtype=np.float32) < p


@pytest.mark.parametrize("seeds", SEEDS)
def test_the_seed_sd_is_right_on_average_and_its_error_not_too_small(seeds: int) -> None:
    p, rng = chances(IMAGES)[0], np.random.default_rng(seeds)
    found = [one for _ in range(500) if (one := seed_sd(bits(rng, p, seeds)))]
    values, errors = [one.value for one in found], [one.standard_error for one in found]
    truth = np.sqrt((p * (1 - p)).mean() / IMAGES)
    assert abs(np.mean(values) - truth) < 4 * np.std(values) / np.sqrt(500)
    assert 0.6 < np.std(values) / np.mean(errors) < 1  # for these very images the error is an upper bound


def test_the_seed_sd_is_that_of_the_accuracies_of_many_runs() -> None:
    correct = bits(np.random.default_rng(0), chances(IMAGES)[0], 4000)
    found = seed_sd(correct)
    assert found is not None
    assert correct.mean(axis=1).std(ddof=1) == pytest.approx(found.value, rel=4 / np.sqrt(2 * 4000))


@pytest.mark.parametrize("seeds", [2, 3])
def test_the_error_of_the_seed_sd_is_right_for_new_images(seeds: int) -> None:
    p, rng = chances(200_000)[0], np.random.default_rng(seeds)
    found = [one for _ in range(600) if (one := seed_sd(bits(rng, rng.choice(p, IMAGES), seeds)))]
    ratio = np.std([one.value for one in found]) / np.mean([one.standard_error for one in found])
    assert ratio == pytest.approx(1, abs=4 / np.sqrt(2 * 600))


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_the_difference_holds_for_new_images_and_new_seeds_in_95_percent(seeds: int) -> None:
    (first, second), rng, trials = chances(200_000), np.random.default_rng(seeds), 4000
    truth, held = first.mean() - second.mean(), 0
    for _ in range(trials):
        images = rng.integers(0, len(first), IMAGES)
        found = difference_on_new_images(bits(rng, first[images], seeds), bits(rng, second[images], seeds))
        held += found.low <= truth <= found.high
    assert 0.94 <= held / trials <= 0.96


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("level", [0.05, 0.01])
def test_the_two_sds_disagree_falsely_no_more_often_than_the_level(seeds: int, level: float) -> None:
    p, rng, trials = chances(IMAGES), np.random.default_rng(seeds), 1000
    alarms = 0
    for _ in range(trials):
        arms = [bits(rng, p[i % 2], seeds) for i in range(4)]
        by_images, by_seeds = pooled_seed_sd(arms), pool([arm.mean(axis=1) for arm in arms])
        assert by_images is not None
        assert by_seeds.sd is not None
        alarms += sd_disagreement(by_seeds.sd, by_seeds.df, by_images) < level
    assert alarms / trials <= level + three_errors(level, trials)


def test_luck_that_moves_whole_runs_makes_the_two_sds_disagree() -> None:
    p, rng = chances(IMAGES)[0], np.random.default_rng(0)
    arms = [np.concatenate([bits(rng, p + luck, 1) for luck in rng.normal(0, 0.015, 3)]) for _ in range(8)]
    by_images, by_seeds = pooled_seed_sd(arms), pool([arm.mean(axis=1) for arm in arms])
    assert by_images is not None
    assert by_seeds.sd is not None
    assert by_seeds.sd > 2 * by_images.value
    assert sd_disagreement(by_seeds.sd, by_seeds.df, by_images) < 0.001
