"""JPEG files decoded by torchvision, whose import takes a second: a module of its own, imported by tier `jpeg` only."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
import torchvision.io
from PIL import Image
from torch import Tensor

from sqzlab.data.image_folder import UNREADABLE, decode
from sqzlab.errors import UnavailableError

try:
    _decode = torch.ops.image.decode_jpeg.default  # its function of Python warns at each call, for good, since 0.29
except (AttributeError, RuntimeError):
    raise UnavailableError(
        f"data.tier: 'jpeg' needs decode_jpeg, which torchvision {torchvision.__version__} lacks; valid: pil, store"
    ) from None

RGB = int(torchvision.io.ImageReadMode.RGB.value)
FORMATS = ("JPEG", "MPO")
"""What Pillow calls a JPEG file, and one with further pictures behind the first."""
MODES = ("RGB", "L")


def decode_jpeg_file(file: Path) -> Tensor:
    """As `decode` makes of the file. It also decodes whatever torchvision cannot, or says why it does not."""
    pixels = _of_jpeg(file)
    return decode(file) if pixels is None else pixels


def _of_jpeg(file: Path) -> Tensor | None:
    """None for what is not a grey or coloured JPEG file, or is damaged."""
    try:
        content = np.fromfile(file, dtype=np.uint8)  # writable, as torch wants it
        with Image.open(io.BytesIO(content.data)) as header:  # 20 us: what Pillow refuses is refused here too
            if header.format not in FORMATS or header.mode not in MODES:
                return None
        pixels: Tensor = _decode(torch.from_numpy(content), RGB)
    except (*UNREADABLE, Image.DecompressionBombError, RuntimeError):
        return None
    return pixels
