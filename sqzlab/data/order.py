"""All randomness of the data: what image comes when and how it is augmented, as functions of (seed, epoch, index).

Nothing else enters: not the batch size, the number of workers, the point of resumption or the network. The bits
come from Philox counters keyed by a SeedSequence; NumPy guarantees both streams from version to version (NEP 19).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_ORDER, CROP, TRIVIAL, ERASE, _MIX = range(5)  # purposes, so that no two uses share a stream


def permutation(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """The order of n images in one epoch, (n,)."""
    words = np.random.Philox(key=_key(_ORDER, seed, epoch)).random_raw(n)
    return np.argsort(words, kind="stable").astype(np.int64)  # sorting raw words: Generator.permutation may change


def image_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of one image's augmentation; 2**64 draws until it meets that of the next index."""
    return np.random.Generator(np.random.Philox(key=_key(CROP, seed, epoch), counter=[0, index, 0, 0]))


@lru_cache(maxsize=2)
def image_words(seed: int, epoch: int, n: int) -> NDArray[np.uint64]:
    """Four random words for each of n images, (n, 4): augmentation by small integers without a loop over images."""
    words = np.random.Philox(key=_key(CROP, seed, epoch)).random_raw((n, 4))
    words.flags.writeable = False  # the cached array is everyone's
    return words


def augment_key(seed: int, epoch: int, purpose: int = CROP) -> NDArray[np.uint64]:
    """The Philox key (2,) of every image's augmentation; an image's counters begin after [0, index, 0, 0]."""
    return _key(purpose, seed, epoch)


def mix_seed(seed: int, epoch: int, step: int) -> int:
    """Of the generator, torch's own, that draws how the images of one step are mixed; below 2**63."""
    return int(np.random.Philox(key=_key(_MIX, seed, epoch), counter=[0, step, 0, 0]).random_raw() >> 1)


@lru_cache(maxsize=8)
def _key(purpose: int, seed: int, epoch: int) -> NDArray[np.uint64]:
    return np.random.SeedSequence((purpose, seed, epoch)).generate_state(2, np.uint64).astype(np.uint64)
