"""One file to one stored image: decoded as in training, resized to the square of its layout.

All of a picture is squeezed by the bicubic filter, as its parts are resized once more: crops of two photographs keep
0.66 of the energy of their gradients (500 to 256 pixels, then 224), with the bilinear filter 0.53. The centre squares
of validation are resized by the bilinear filter, as the published crop is.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sqzlab.data.image_folder import decode, resize
from sqzlab.errors import ConfigError, UnavailableError

MOST_PIXELS = 178_956_970
"""Of a picture whose short side is resized: what Pillow allows a file."""


def stored_picture(file: Path, size: int, crop: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """uint8 (size, size, 3), and the file's height and width; all of it if `crop` is 0, else its centre.

    Raises UnavailableError, which names the file, where it cannot be decoded or its sides are too unequal.
    """
    with warnings.catch_warnings():  # Pillow's remarks on odd metadata
        warnings.simplefilter("ignore")
        picture = decode(file)  # (3, H, W)
    height, width = picture.shape[1:]
    if not crop:
        made = _squeezed(picture, size)
    else:
        short, long = min(height, width), max(height, width)
        if size * size * long > MOST_PIXELS * short:
            raise UnavailableError(
                f"image {str(file)!r} cannot be resized: its sides of {width} and {height} are too unequal"
            )
        other = int(size * long / short)
        made = resize(picture, *((size, other) if height <= width else (other, size)))
        top, left = (centre_start(side, size, crop) for side in made.shape[1:])
        made = made[:, top : top + size, left : left + size]
    return np.ascontiguousarray(made.permute(1, 2, 0).numpy()), (height, width)


def _squeezed(picture: Tensor, size: int) -> Tensor:
    if picture.shape[1:] == (size, size):
        return picture
    return F.interpolate(picture[None], size=(size, size), mode="bicubic", antialias=True)[0]


def crop_of(size: int) -> int:
    """The side of the validation crop whose pictures have `size` pixels on their short side: 224 of 256.

    Raises ConfigError where no crop has such pictures.
    """
    near = round(size * 224 / 256)
    sizes = {round(crop * 256 / 224): crop for crop in range(max(near - 1, 1), near + 2)}
    if size not in sizes:
        able = ", ".join(f"{short} (of {crop})" for short, crop in sizes.items())
        raise ConfigError(f"{size!r} pixels are the short side of no validation crop; valid: {able}")
    return sizes[size]


def centre_start(side: int, size: int, crop: int) -> int:
    """Where the square begins on a side, so that the crop in its middle is that of the whole side, to the pixel."""
    return round((side - crop) / 2) - margin_of(size, crop)


def margin_of(size: int, crop: int) -> int:
    """Pixels between the square's edge and the crop in its middle."""
    return round((size - crop) / 2)
