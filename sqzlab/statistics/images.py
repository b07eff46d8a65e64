"""What the correctness of single images tells about one or two arms that were evaluated on the same images.

`correct` is bool, (S, N): seeds x images, the images of all arrays in one order. The runs of an arm are taken to be
right on image i with probability p_i, independently of each other and from image to image; then runs that disagree
tell how far accuracies of single runs spread, far more precisely than the few accuracies do (Jordan, arXiv:2304.01910).
Training luck that moves many images together breaks this: `sd_disagreement` looks for it. All values are fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special


@dataclass(frozen=True)
class Estimate:
    value: float
    standard_error: float


@dataclass(frozen=True)
class ImageDifference:
    """One arm's expected accuracy minus another's, for new images of the same kind and new runs."""

    difference: float
    standard_error: float
    low: float
    high: float
    p: float | None  # two-sided; None where no image differs from another
    seed_part: float | None  # of the squared standard error: falls with more seeds; None with one seed in either arm
    image_part: float | None  # of it: falls with more images only; 0 where its estimate would be negative
    apart: int  # images on which the arms' means differ; the normal interval and p are rough where these are few


@dataclass(frozen=True)
class McNemar:
    """Two fixed checkpoints on the same images. Says nothing about the arms that they were trained in."""

    only_first: int  # images that only the first has right
    only_second: int
    p: float  # two-sided, exact


def seed_sd(correct: ArrayLike) -> Estimate | None:
    """Standard deviation over seeds of one run's accuracy on these images, from the disagreement of runs.

    It is sqrt(mean of p_i (1 - p_i) / N), with p_i (1 - p_i) estimated without bias as the variance over seeds. The
    standard error is that for new images too: for these very images it is an upper bound. None with fewer than two
    seeds. ValueError unless (S, N) with N >= 2.
    """
    return pooled_seed_sd([correct])


def pooled_seed_sd(arms: Sequence[ArrayLike]) -> Estimate | None:
    """`seed_sd` of several arms on the same images, each weighted by its S - 1 degrees of freedom as in `pool`.

    None where no arm has two seeds. ValueError where the arms differ in N.
    """
    tables = [_table(arm) for arm in arms]
    if len({table.shape[1] for table in tables}) > 1:
        raise ValueError(f"arms have {sorted({table.shape[1] for table in tables})!r} images; valid: one number")
    df = sum(max(0, len(table) - 1) for table in tables)
    if not df:
        return None
    images = tables[0].shape[1]
    spread = np.zeros(images)  # p_i (1 - p_i), mean over the arms; summed by image because the arms share the images
    for table in tables:
        if len(table) > 1:
            spread += (len(table) - 1) / df * _spread(table)
    value = float(np.sqrt(spread.mean() / images))
    error_of_square = float(spread.std(ddof=1)) / images**1.5
    return Estimate(value, error_of_square / (2 * value) if value else 0.0)


def difference_on_new_images(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> ImageDifference:
    """(S_a, N) minus (S_b, N), with the normal interval for new images and new seeds.

    SE^2 = (E[p(1-p)]/S_a + E[q(1-q)]/S_b + Var_i(p-q)) / N, which is the variance over images of the difference of
    the per-image means, over N. So one seed in each arm will do, as long as the images are independent given the arm.
    Where no image differs from another the standard error and the interval have no width, and there is no p.
    ValueError for other shapes, unequal or fewer than two images, no seed, or a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}; valid: between 0 and 1")
    a, b = _table(first), _table(second)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"arms have {a.shape[1]!r} and {b.shape[1]!r} images; valid: the same images")
    images = a.shape[1]
    by_image = a.mean(axis=0) - b.mean(axis=0)
    difference, square = float(by_image.mean()), float(by_image.var(ddof=1)) / images
    error = float(np.sqrt(square))
    p = 2 * float(special.ndtr(-abs(difference) / error)) if error else None
    reach = float(special.ndtri((1 + confidence) / 2)) * error
    seed_part = image_part = None
    if len(a) > 1 and len(b) > 1:
        runs = float(_spread(a).mean() / len(a) + _spread(b).mean() / len(b)) / images
        seed_part = min(runs, square)  # the difference of two estimates can fall below zero
        image_part = square - seed_part
    apart = int(np.count_nonzero(by_image))
    return ImageDifference(difference, error, difference - reach, difference + reach, p, seed_part, image_part, apart)


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """The exact (binomial) test of two runs, (N,) each: of the images that one of them has right, is it half each?

    p is 1 where they are right on the same images. ValueError for other shapes.
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"runs have shapes {a.shape!r} and {b.shape!r}; valid: (N,) twice")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = 2 * float(special.bdtr(min(only_a, only_b), only_a + only_b, 0.5))
    return McNemar(only_a, only_b, min(1.0, p))


def sd_disagreement(seeds_sd: float, df: int, images_sd: Estimate) -> float:
    """Two-sided p that the sd over seeds, on `df` degrees of freedom, estimates the same as that from the images.

    An F test: the images' variance counts as one on value^2 / (2 standard_error^2) degrees of freedom, mostly so many
    that it is the chi-square test of a known variance. Where it is small and
    - `seeds_sd` is the greater: whole runs are better or worse than others (training luck that hits many images at
      once, or arms that are not replicates: other code, data or hardware). Intervals from images alone are too short.
    - `seeds_sd` is the smaller: the runs are more alike than independent ones (repeated or shared seeds or weights,
      a choice made on the accuracy itself), or luck. Intervals from the seeds are too short.
    Pooled over arms whose true variances differ threefold, a level of 5 % becomes about 8 %.
    ValueError for df < 1.
    """
    if df < 1:
        raise ValueError(f"df is {df!r}; valid: at least 1")
    if not images_sd.value:
        return float(not seeds_sd)
    ratio = (seeds_sd / images_sd.value) ** 2
    if images_sd.standard_error:
        others = 0.5 * (images_sd.value / images_sd.standard_error) ** 2
        tails = special.fdtr(df, others, ratio), special.fdtrc(df, others, ratio)
    else:
        tails = special.chdtr(df, df * ratio), special.chdtrc(df, df * ratio)
    return min(1.0, 2 * float(min(tails)))


def _table(correct: ArrayLike) -> NDArray[np.bool_]:
    table = np.asarray(correct, dtype=bool)
    if table.ndim != 2 or not len(table) or table.shape[1] < 2:
        raise ValueError(f"correct has shape {table.shape!r}; valid: (seeds, images), at least 1 and 2")
    return table


def _spread(table: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Unbiased p_i (1 - p_i) for each image, (S, N) -> (N,)."""
    seeds, right = len(table), table.sum(axis=0, dtype=np.float64)
    spread: NDArray[np.float64] = right * (seeds - right) / (seeds * (seeds - 1))
    return spread
