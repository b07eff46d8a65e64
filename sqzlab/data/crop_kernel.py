"""Parts of a batch's images on a GPU: read, resized with antialiasing and flipped by one Triton kernel.

It reads the parts and writes the result, no more: at most 0.35 MB an image for 224 of 256 pixels. To be imported where
there is a GPU only: torch brings Triton there.
"""

from __future__ import annotations

import subprocess

import torch
import triton
import triton.language as tl
from torch import Tensor

from sqzlab.errors import UnavailableError

LINES, VALUES, WARPS = 32, 64, 2
"""Of the result that one program makes: lines, and values (three a pixel) of each. By its machine code, an H200 would
issue it in 0.4 to 0.8 us an image of 224 pixels: 1 to 3 % of the 28 us in which ResNet-18 can train on one at most."""


def crop(images: Tensor, rows: Tensor, boxes: Tensor, made: Tensor) -> None:
    """Fills `made`, uint8 (N, size, size, 3), with parts of the images at `rows`, int64 (N,), of uint8 (n, S, S, 3).

    `boxes`, int32 (N, 5): top, left, height, width, and 1 for a flip. Weights and sums are float32, rounded once.
    """
    assert all(tensor.is_contiguous() for tensor in (images, rows, boxes, made)), "a kernel knows no strides"
    assert (rows.dtype, boxes.dtype) == (torch.int64, torch.int32)
    count, size = made.shape[:2]
    if not count:
        return
    grid = (count, triton.cdiv(size, LINES), triton.cdiv(3 * size, VALUES))
    with torch.cuda.device_of(made):
        _crop[grid](images, rows, boxes, made, images.shape[1], size, LINES, VALUES, **OPTIONS)


def check_kernel(device: torch.device) -> None:
    """Compiles it, once a node. Raises UnavailableError where that cannot be done: before a data set is read."""
    image, row = torch.zeros(1, 1, 1, 3, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
    box = torch.tensor([[0, 0, 1, 1, 0]], dtype=torch.int32)
    try:
        crop(image.to(device), row.to(device), box.to(device), image.to(device))
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        raise UnavailableError(
            "crops on a GPU need a C compiler, Python's headers and a folder that can be written (TRITON_CACHE_DIR, or "
            f"~/.triton) on its node: {' '.join(str(error).split())}; valid: a node with them, or data.tier 'jpeg'"
        ) from None


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

    # pixels of the part for one of the result; `/` would be rounded otherwise on a GPU than on a CPU
    down, across = tl.div_rn(height.to(tl.float32), size * 1.0), tl.div_rn(width.to(tl.float32), size * 1.0)
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
