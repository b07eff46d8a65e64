"""Gates as a recording would have them, from the gates of single images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sqzlab.analysis.gates import HIGH, LOW, BlockGates, Gates


def block_of(x: NDArray[np.float64], labels: NDArray[np.int64], classes: int, name: str = "layer1.0") -> BlockGates:
    """(N, C) gates and (N,) labels."""
    parts = [x[labels == k] if (labels == k).any() else np.full((1, x.shape[1]), np.nan) for k in range(classes)]
    low, high = ([np.where(np.isnan(p), np.nan, found(p)).mean(0) for p in parts] for found in (_low, _high))
    return BlockGates(
        name,
        np.bincount(labels, minlength=classes),
        np.array([p.mean(0) for p in parts]),
        np.array([p.std(0) for p in parts]),
        np.array(low),
        np.array(high),
    )


def gates_of(
    names: tuple[str, ...] = ("layer1.0", "layer1.1", "layer2.0"),
    *,
    run: str = "a-run",
    squeeze: str = "gap",
    classes: int = 5,
    channels: int = 8,
    seed: int = 0,
) -> Gates:
    """Drawn gates that depend on the class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(6 * classes) % classes)
    blocks = []
    for name in names:
        centres = rng.uniform(0.1, 0.9, (classes, channels))
        x = np.clip(centres[labels] + rng.normal(0, 0.05, (len(labels), channels)), 0, 1)
        blocks.append(block_of(x, labels, classes, name))
    return Gates(run, squeeze, tuple(f"class {k}" for k in range(classes)), tuple(blocks), ("layer4.0",))


def _low(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return (x < LOW).astype(float)


def _high(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return (x > HIGH).astype(float)
