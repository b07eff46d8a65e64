"""Parts of a batch's images on a GPU: read, resized with antialiasing and flipped by one Triton kernel.

It reads the parts and writes the result, no more: at most 0.35 MB an image for 224 of 256 pixels. To be imported where
there is a GPU only, as torch brings Triton there; its first launch needs a C compiler, as torch.compile does.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

LINES, VALUES, WARPS = 32, 64, 2
"""Of the result that one program makes: lines, and values (three a pixel) of each. By its machine code, an H200 would
issue it in 0.4 to 0.8 us an image of 224 pixels: 1 to 3 % of the 28 us in which ResNet-18 can train on one at most."""


def crop(images: Tensor, rows: Tensor, boxes: Tensor, made: Tensor) -> None:
    """Fills `made`, uint8 (N, size, size, 3), with parts of the images at `rows`, int64 (N,), of uint8 (n, S, S, 3).

    `boxes`, int32 (N, 5): top, left, height, width, and 1 for a flip. Weights and sums are float32, rounded once.
    """
    count, size = made.shape[:2]
    if not count:
        return
    grid = (count, triton.cdiv(size, LINES), triton.cdiv(3 * size, VALUES))
    with torch.cuda.device_of(made):
        _crop[grid](images, rows, boxes, made, images.shape[1], size, LINES, VALUES, **OPTIONS)


OPTIONS = {"num_warps": WARPS, "enable_fp_fusion": True}


@triton.jit
def _weights(places, middles, support, length):
    """Of pixels `places` of a part for the pixels of the result around `middles`: a triangle, not normalised."""
    weights = tl.maximum(1 - tl.abs(places + 0.5 - middles) / support, 0.0)
    return tl.where((places >= 0) & (places < length), weights, 0.0)


@triton.jit
def _crop(images, rows, boxes, made, side, size, LINES: tl.constexpr, VALUES: tl.constexpr):
    image = tl.program_id(0).to(tl.int64)
    y = tl.program_id(1) * LINES + tl.arange(0, LINES)
    value = tl.program_id(2) * VALUES + tl.arange(0, VALUES)
    x, channel = value // 3, value % 3
    top, left = tl.load(boxes + 5 * image), tl.load(boxes + 5 * image + 1)
    height, width = tl.load(boxes + 5 * image + 2), tl.load(boxes + 5 * image + 3)
    flip = tl.load(boxes + 5 * image + 4)
    part = images + ((tl.load(rows + image) * side + top) * side + left) * 3

    down, across = height.to(tl.float32) / size, width.to(tl.float32) / size  # pixels of the part for one of the result
    reach_y, reach_x = tl.maximum(down, 1.0), tl.maximum(across, 1.0)
    middle_y, middle_x = (y + 0.5) * down, (tl.where(flip != 0, size - 1 - x, x) + 0.5) * across
    first_y = tl.floor(middle_y - reach_y + 0.5).to(tl.int32)
    first_x = tl.floor(middle_x - reach_x + 0.5).to(tl.int32)

    sums = tl.zeros((LINES, VALUES), tl.float32)
    all_y, all_x = tl.zeros((LINES,), tl.float32), tl.zeros((VALUES,), tl.float32)
    for step_y in range(tl.ceil(2 * reach_y).to(tl.int32)):
        all_y += _weights(first_y + step_y, middle_y, reach_y, height)
    for step_x in range(tl.ceil(2 * reach_x).to(tl.int32)):
        at_x = first_x + step_x
        weight_x = _weights(at_x, middle_x, reach_x, width)  # (VALUES,)
        all_x += weight_x
        for step_y in range(tl.ceil(2 * reach_y).to(tl.int32)):
            at_y = first_y + step_y
            weights = _weights(at_y, middle_y, reach_y, height)[:, None] * weight_x[None]  # (LINES, VALUES)
            pixels = tl.load(part + at_y[:, None] * side * 3 + (at_x * 3 + channel)[None], mask=weights > 0, other=0)
            sums += weights * pixels.to(tl.float32)
    inside_y, inside_x = y < size, value < 3 * size  # beyond, weights may be 0
    shares = (1 / tl.where(inside_y, all_y, 1.0))[:, None] * (1 / tl.where(inside_x, all_x, 1.0))[None]
    result = (sums * shares + 0.5).to(tl.uint8)
    line = made + (image * size + y) * size * 3
    tl.store(line[:, None] + value[None], result, mask=inside_y[:, None] & inside_x[None])
