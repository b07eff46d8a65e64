"""NumPy's Philox streams of many images at once: what `order.image_rng` draws for each, without a loop over images.

Philox4x64-10 (doi:10.1145/2063384.2063405) turns a counter and a key into four words. Every image has its own counters,
so that a batch's draws depend on nothing but (seed, epoch, index of each image). A test compares them with NumPy's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sqzlab.data.order import CROP, augment_key

Words = NDArray[np.uint64]

ROUNDS = 10
_FACTORS = (np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157))
_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)  # of the key, from round to round
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def image_draws(
    seed: int, epoch: int, index: NDArray[np.int64], draws: int, purpose: int = CROP
) -> NDArray[np.float64]:
    """(N, draws) in [0, 1): row i has for a crop what `image_rng(seed, epoch, index[i]).random(draws)` gives."""
    blocks = -(-draws // 4)
    words = philox(
        augment_key(seed, epoch, purpose), np.arange(1, blocks + 1, dtype=np.uint64), index.astype(np.uint64)[:, None]
    )
    bits = words.reshape(len(index), 4 * blocks)[:, :draws] >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def philox(key: Words, first: Words, second: Words) -> Words:
    """Words (..., 4) for the counters (first, second, 0, 0), which broadcast; `key` is (2,)."""
    a, b = (np.array(part) for part in np.broadcast_arrays(first, second))
    c, d = np.zeros_like(a), np.zeros_like(a)
    for turn in range(ROUNDS):
        k0, k1 = (np.uint64((int(k) + turn * step) % 2**64) for k, step in zip(key, _STEPS, strict=True))
        (high0, low0), (high1, low1) = _product(a, _FACTORS[0]), _product(c, _FACTORS[1])
        a, b, c, d = high1 ^ b ^ k0, low1, high0 ^ d ^ k1, low0
    return np.stack([a, b, c, d], axis=-1)


def _product(x: Words, factor: np.uint64) -> tuple[Words, Words]:
    """The high and the low half of the products of 128 bits."""
    low, high = x & _LOW, x >> _HALF
    f_low, f_high = factor & _LOW, factor >> _HALF
    middle = high * f_low + (low * f_low >> _HALF)
    carried = low * f_high + (middle & _LOW)
    return high * f_high + (middle >> _HALF) + (carried >> _HALF), x * factor
