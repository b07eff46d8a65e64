"""The pixels of a batch's parts: cut out, resized with antialiasing and flipped, from one table of boxes.

Two ways to the same images: image by image on the CPU in 8-bit arithmetic, and for a whole batch on a GPU in float32.
Both are the bilinear filter of torchvision's antialiased `resized_crop`: a triangle as wide as a pixel of the result,
or of the part where that is larger. They differ by rounding, 1/255. OpenCV enlarges parts of stored images, in 0.7 of
the time; it rounds down between lines and columns, so that they are a tenth of a level darker.
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

    They are parts of the images at `rows` (N,), of all where that is absent.
    """
    device = images.device
    if rows is None:
        rows = torch.arange(len(boxes), device=device)
    if device.type == "cpu":
        return cropped(images.numpy(), rows.numpy(), boxes, size)
    from sqzlab.data.crop_kernel import crop as crop_on_gpu

    table = sent(torch.from_numpy(np.column_stack([boxes.boxes, boxes.flips]).astype(np.int32)), device)  # (N, 5)
    made = torch.empty(len(boxes), size, size, 3, dtype=torch.uint8, device=device)
    crop_on_gpu(images, rows, table, made)
    return made.permute(0, 3, 1, 2)
