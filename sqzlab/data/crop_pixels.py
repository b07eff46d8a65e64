"""The pixels of a batch's parts: cut out, resized with antialiasing and flipped, from one table of boxes.

Two ways to the same images: image by image on the CPU in 8-bit arithmetic, and for a whole batch on a device as two
matrix products. Both are the bilinear filter of torchvision's antialiased `resized_crop`: a triangle as wide as a
pixel of the result, or of the part where that is larger. They differ by rounding, 1/255; so do parts of stored images
that are enlarged, which OpenCV resizes in 0.7 of the time.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqzlab.data.crop_boxes import CropBoxes


AT_ONCE = 32
"""Images of one product on a device: what lies between takes 60 MB for 224 of 256 pixels, and stays in a GPU's cache
for the most part."""


def cropped(images: NDArray[np.uint8], rows: NDArray[np.int64], boxes: CropBoxes, size: int) -> Tensor:
    """uint8 (N, 3, size, size), channels last in memory, from the images (n, S, S, 3) at `rows` (N,).

    Only the parts themselves are read, so `images` may be a file in memory.
    """
    made = np.empty((len(rows), size, size, 3), dtype=np.uint8)
    stored = _writable(images)
    cv2.setNumThreads(torch.get_num_threads())
    where = zip(rows.tolist(), boxes.boxes.tolist(), boxes.flips.tolist(), made, strict=True)
    for row, (top, left, height, width), flip, out in where:
        part: NDArray[Any] = stored[row, top : top + height, left : left + width]
        if flip:
            part = cv2.flip(part, 1)
        if max(height, width) <= size:  # INTER_LINEAR does not antialias
            cv2.resize(part, (size, size), dst=out, interpolation=cv2.INTER_LINEAR)
        else:
            _resize(_channels_first(part), _channels_first(out))
    return torch.from_numpy(made).permute(0, 3, 1, 2)


def blank(images: int, size: int) -> Tensor:
    """uint8 (images, 3, size, size), channels last in memory, to be filled."""
    pixels = np.empty((images, size, size, 3), dtype=np.uint8)  # in huge pages, unlike torch.empty: 30 % faster
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def crop(images: Iterable[Tensor], boxes: CropBoxes, made: Tensor) -> None:
    """Fills `made`, which `blank` gives, with the parts of images (3, H, W), which are channels last in memory too."""
    size = made.shape[2:]
    where = zip(images, boxes.boxes.tolist(), boxes.flips.tolist(), made[:, None], strict=True)
    for image, (top, left, height, width), flip, out in where:
        part = image[None, :, top : top + height, left : left + width]
        part = part.flip(3) if flip else part
        if part.shape[2:] == size:
            out.copy_(part)
        else:
            _resize(part, out)


def _resize(part: Tensor, out: Tensor) -> None:
    """`out` (1, 3, H, W) becomes the resized part. F.interpolate takes no `out`: a copy would take as long again."""
    torch.ops.aten._upsample_bilinear2d_aa.out(part, out.shape[2:], False, None, None, out=out)


def _channels_first(image: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) as (1, 3, H, W)."""
    return torch.from_numpy(image)[None].permute(0, 3, 1, 2)


def _writable(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same memory. It is only read: of memory that cannot be written, torch would warn."""
    pointer, _ = images.__array_interface__["data"]
    told = SimpleNamespace(__array_interface__={**images.__array_interface__, "data": (pointer, False)})
    return np.asarray(told)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The same on the device; the host does not wait for a GPU."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def cropped_on_device(images: Tensor, boxes: CropBoxes, size: int, rows: Tensor | None = None) -> Tensor:
    """uint8 (N, 3, size, size), channels last in memory, on the device of `images`, uint8 (n, S, S, 3).

    They are parts of the images at `rows` (N,), of all where that is absent. All products have the same shape: what is
    made of an image does not depend on the batch that it is in.

    On a GPU the products are float16 with sums in float32 (`set_numerics` of the trainer sees to that): a stored pixel
    is exact in it, weights and results of both products are good to 2**-11, so that a value is off by 3/8 of a level
    at most before it is rounded. Else they are float32.
    """
    device, count, side = images.device, len(boxes), images.shape[1]
    exact = torch.float16 if device.type == "cuda" else torch.float32
    table = sent(torch.from_numpy(np.column_stack([boxes.boxes, boxes.flips]).astype(np.float32)), device)  # (N, 5)
    made = torch.empty(count, 3, size, size, dtype=torch.uint8, device=device, memory_format=torch.channels_last)
    pixels = torch.zeros(AT_ONCE, side, side * 3, dtype=exact, device=device)  # of a short part, only its beginning
    places = torch.ones(AT_ONCE, 5, device=device)
    for start in range(0, count, AT_ONCE):
        part = slice(start, min(start + AT_ONCE, count))
        filled = slice(part.stop - start)
        pixels[filled] = (images[part] if rows is None else images[rows[part]]).flatten(2)
        places[filled] = table[part]
        top, left, height, width, flip = places.unbind(1)
        down = resizing(top, height, side, size).to(exact)  # (B, size, S)
        across = resizing(left, width, side, size, flip.bool()).to(exact)
        lines = (down @ pixels).view(AT_ONCE, size, side, 3).transpose(2, 3)  # (B, size, 3, S)
        resized = lines.reshape(AT_ONCE, size * 3, side) @ across.transpose(1, 2)
        resized.round_().clamp_(0, 255)
        made[part] = resized.view(AT_ONCE, size, 3, size)[filled].transpose(1, 2)
    return made


def resizing(start: Tensor, length: Tensor, side: int, size: int, flips: Tensor | None = None) -> Tensor:
    """(N, size, side) float32 weights that make `size` pixels of those from `start` (N,) on, `length` (N,) many.

    Row i weighs by a triangle around the middle of pixel i of the result; rows sum to 1. Flipped ones are reversed.
    """
    scale = (length / size)[:, None, None]
    middle = torch.arange(size, device=start.device)[:, None] + 0.5
    if flips is not None:
        middle = torch.where(flips[:, None, None], size - middle, middle)  # (N, size, 1)
    pixel = torch.arange(side, device=start.device) - start[:, None, None] + 0.5  # (N, 1, side), from the part's edge
    weights = pixel - middle * scale
    weights.abs_().div_(scale.clamp(min=1)).neg_().add_(1).clamp_(min=0)
    weights.mul_((pixel > 0) & (pixel < length[:, None, None]))
    return weights.div_(weights.sum(2, keepdim=True))
