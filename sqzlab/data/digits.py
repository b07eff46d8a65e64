"""scikit-learn's handwritten digits: 1,797 grey images of 8x8 pixels, enlarged.

They are the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, UCI, CC BY 4.0), kept
here as `digits.npz`: scikit-learn, with what it imports, would take each run two seconds. A test compares them.
The split is the same for every seed: sorted by class, the images at every fourth place (450 of 1,797, evenly spread)
are for validation, so that each class and, as the images come writer by writer, most writers stand in both parts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from sqzlab.catalog import DATASETS
from sqzlab.data.arrays import ArraySource

GREATEST = 16  # the images' values are 0 to 16
MEAN, STD = 0.3048, 0.3235
"""Of the 1,347 training images at 32x32, divided by 255."""


def open_digits(image_size: int) -> ArraySource:
    """Training images are shifted by up to a sixteenth of their side (2 pixels of 32) and not flipped."""
    with np.load(Path(__file__).with_name("digits.npz")) as digits:
        images, labels = enlarge(digits["images"], image_size), digits["labels"].astype(np.int64)
    val = validation_part(labels)
    return ArraySource(
        (images[~val], labels[~val]),
        (images[val], labels[val]),
        classes=10,
        mean=(MEAN, MEAN, MEAN),
        std=(STD, STD, STD),
        shift=round(image_size / 16),
        flip=False,
    )


def validation_part(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which images are for validation, (n,)."""
    counts = DATASETS["digits"].counts
    assert counts is not None
    place = np.arange(len(labels) + 1) * counts[2] // len(labels)
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[np.argsort(labels, kind="stable")] = np.diff(place) == 1
    return chosen


def enlarge(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(n, 8, 8) of 0 to 16 to (n, 1, size, size) of 0 to 255, bilinear (exact where size is 8 times a power of 2)."""
    grey = torch.from_numpy(images).float()[:, None]
    large = F.interpolate(grey, size=(size, size), mode="bilinear", align_corners=False)
    enlarged: NDArray[np.uint8] = (large * (255 / GREATEST)).round().to(torch.uint8).numpy()
    return enlarged
