import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzlab.data.order import image_rng, image_words, permutation

SEEDS = st.integers(0, 2**31 - 1)


@given(SEEDS, st.integers(0, 500), st.integers(0, 300))
def test_every_image_comes_once_an_epoch(seed, epoch, n):
    order = permutation(seed, epoch, n)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(n))


@given(SEEDS, st.integers(0, 500))
def test_seeds_and_epochs_have_orders_of_their_own(seed, epoch):
    orders = [permutation(s, e, 100) for s, e in ((seed, epoch), (seed + 1, epoch), (seed, epoch + 1), (epoch, seed))]
    expected = 3 if seed == epoch else 4
    assert len({order.tobytes() for order in orders}) == expected


def test_every_place_is_equally_likely_for_every_image():
    n, epochs = 8, 4000
    places = np.array([permutation(0, epoch, n) for epoch in range(epochs)])
    counts = np.array([np.bincount(places[:, i], minlength=n) for i in range(n)])
    expected = epochs / n
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 85.4  # 99.9th percentile at (n - 1)^2 = 49 degrees of freedom


def test_the_streams_are_those_of_earlier_versions():
    """Exact integers: a change here is a change of every result, to be told by config.RESULT_VERSION."""
    assert permutation(3, 5, 8).tolist() == GOLDEN_ORDER
    assert image_rng(3, 5, 7).integers(0, 2**32, 3).tolist() == GOLDEN_IMAGE
    assert (image_words(3, 5, 2) >> np.uint64(40)).tolist() == GOLDEN_WORDS


@given(SEEDS, st.integers(0, 500), st.integers(0, 2**31))
def test_an_image_draws_the_same_whatever_was_drawn_before(seed, epoch, index):
    first = image_rng(seed, epoch, index).random(5)
    image_rng(seed, epoch, index + 1).random(5)
    assert (image_rng(seed, epoch, index).random(5) == first).all()


def test_images_epochs_and_seeds_draw_differently():
    drawn = {image_rng(s, e, i).random() for s in range(5) for e in range(5) for i in range(40)}
    assert len(drawn) == 5 * 5 * 40


def test_words_do_not_depend_on_how_many_images_there_are():
    assert (image_words(1, 2, 10)[:6] == image_words(1, 2, 6)).all()


def test_words_that_are_shared_cannot_be_overwritten():
    with pytest.raises(ValueError, match="read-only"):
        image_words(0, 0, 4)[0] = 1


GOLDEN_ORDER = [4, 5, 0, 2, 6, 7, 3, 1]
GOLDEN_IMAGE = [3760527992, 4222195411, 2760434208]
GOLDEN_WORDS = [[5973851, 7241588, 12805276, 1616235], [14465880, 8580410, 8018530, 7092457]]
