"""Which part of an image a training step sees, for whole batches: the crop law of every tier of the data.

A part has 8 to 100 % of the image's area and an aspect of 3/4 to 4/3; the first of ten tries that fits is taken, else
the largest centred part of an allowed aspect, as torchvision's RandomResizedCrop does. In an epoch an image has the
same part in each tier.

A stored image may be the whole image squeezed into a square. Its part is drawn on the original's grid and each edge is
then moved to the nearest edge of a stored pixel: by half a pixel at most, 0.2 % of a side of 256.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqzlab.data.philox import image_draws

Ints = NDArray[np.int64]

AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
TRIES = 10
_DRAWS = 2 * TRIES + 3  # areas, aspects, place (down, right), flip


@dataclass(frozen=True)
class CropBoxes:
    """For each of N images: int64 (N, 4) of (top, left, height, width) in its pixels, and bool (N,) whether to flip."""

    boxes: Ints
    flips: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.boxes)


def train_boxes(
    seed: int,
    epoch: int,
    index: Ints,
    sizes: NDArray[np.integer[Any]],
    stored: int | None = None,
    *,
    area: tuple[float, float] = AREA,
    aspect: tuple[float, float] = ASPECT,
) -> CropBoxes:
    """The parts of the images at the places `index` (N,) of their split, whose (height, width) are `sizes` (N, 2).

    With `stored` they are in pixels of the image squeezed into a square of that side. Half of the images are flipped.
    """
    made = drawn_boxes(train_draws(seed, epoch, index), sizes, area=area, aspect=aspect)
    return made if stored is None else CropBoxes(squeezed(made.boxes, sizes.astype(np.int64), stored), made.flips)


def train_draws(seed: int, epoch: int, index: Ints) -> NDArray[np.float64]:
    """What the parts of images (N,) are made of, before their sizes are known: (N, draws) in [0, 1)."""
    return image_draws(seed, epoch, index, _DRAWS)


def drawn_boxes(
    draws: NDArray[np.float64],
    sizes: NDArray[np.integer[Any]],
    *,
    area: tuple[float, float] = AREA,
    aspect: tuple[float, float] = ASPECT,
) -> CropBoxes:
    """The parts of images whose (height, width) are `sizes` (N, 2), from their draws."""
    return CropBoxes(parts(draws[:, :-1], sizes.astype(np.int64), area=area, aspect=aspect), draws[:, -1] < 0.5)


def parts(
    draws: NDArray[np.float64], sizes: Ints, *, area: tuple[float, float] = AREA, aspect: tuple[float, float] = ASPECT
) -> Ints:
    """(N, 4) boxes from draws (N, 2 * TRIES + 2) in [0, 1) and sizes (N, 2): torchvision's law, `get_params`."""
    height, width = sizes.T
    areas = (height * width)[:, None] * (area[0] + (area[1] - area[0]) * draws[:, :TRIES])
    aspects = np.exp(np.log(aspect[0]) + np.log(aspect[1] / aspect[0]) * draws[:, TRIES : 2 * TRIES])
    widths, heights = np.rint(np.sqrt(areas * aspects)), np.rint(np.sqrt(areas / aspects))  # (N, TRIES)
    fits = (widths > 0) & (widths <= width[:, None]) & (heights > 0) & (heights <= height[:, None])
    first = fits.argmax(axis=1)[:, None]
    found = fits.any(axis=1)
    h = np.where(found, np.take_along_axis(heights, first, 1)[:, 0], np.minimum(height, np.rint(width / aspect[0])))
    w = np.where(found, np.take_along_axis(widths, first, 1)[:, 0], np.minimum(width, np.rint(height * aspect[1])))
    h, w = h.astype(np.int64), w.astype(np.int64)
    down, right = draws[:, 2 * TRIES], draws[:, 2 * TRIES + 1]
    top = np.where(found, (down * (height - h + 1)).astype(np.int64), (height - h) // 2)
    left = np.where(found, (right * (width - w + 1)).astype(np.int64), (width - w) // 2)
    return np.stack([top, left, h, w], axis=1)


def squeezed(boxes: Ints, sizes: Ints, side: int) -> Ints:
    """The same parts of images (N, 2) resized to squares of `side` pixels; none is thinner than a pixel."""
    scale = side / sizes  # (N, 2)
    start = np.rint(boxes[:, :2] * scale).astype(np.int64)
    end = np.rint((boxes[:, :2] + boxes[:, 2:]) * scale).astype(np.int64)
    start = np.minimum(start, side - 1)
    return np.concatenate([start, np.maximum(end - start, 1)], axis=1)
