"""TrivialAugmentWide (arXiv:2103.10158) for a whole batch: a random operation of a random strength for each image.

Operations, strengths and arithmetic are those of torchvision's v2.TrivialAugmentWide, which takes one image a call,
draws from the global generator and, on a GPU, has the host wait. Here all images of one operation are one call, draws
are functions of (seed, epoch, index), and nothing waits.
Differs: products and sums are rounded one by one, not fused, so that no pixel depends on the rest of its batch. Of
Color and both shears up to 1 % of an image's values differ for that, by a level or by one pixel along an edge.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sqzlab.data.crop_pixels import sent
from sqzlab.data.order import TRIVIAL
from sqzlab.data.philox import image_draws

BINS = 31  # strengths of an operation


def trivial_augment(images: Tensor, seed: int, epoch: int, index: NDArray[np.int64]) -> Tensor:
    """The images uint8 (N, 3, H, W) at the places `index` (N,) of their split, augmented, on their device."""
    return applied(images, *drawn(seed, epoch, index))


def drawn(seed: int, epoch: int, index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each image (N,) the number of its operation in `OPERATIONS`, and its strength."""
    which, how_much, sign = image_draws(seed, epoch, index, 3, TRIVIAL).T
    operation = (which * len(OPERATIONS)).astype(np.int64)
    strength = _STRENGTHS[operation, (how_much * BINS).astype(np.int64)]
    return operation, np.where(_SIGNED[operation] & (sign < 0.5), -strength, strength)


def applied(images: Tensor, operation: NDArray[np.int64], strength: NDArray[np.float32]) -> Tensor:
    """Each image (3, H, W) of a batch after its operation."""
    order = np.argsort(operation, kind="stable")
    there, back = (sent(torch.from_numpy(at), images.device) for at in (order, np.argsort(order)))
    strengths = sent(torch.from_numpy(strength[order]), images.device)[:, None, None, None]
    images = images[there]
    ends = np.searchsorted(operation[order], np.arange(len(OPERATIONS)), side="right")
    made, start = [], 0
    for (act, _, _), end in zip(OPERATIONS.values(), ends.tolist(), strict=True):
        if end > start:
            made.append(act(images[start:end], strengths[start:end]))
        start = end
    return torch.cat(made)[back]


# ---- operations: images uint8 (n, 3, H, W), strength float32 (n, 1, 1, 1) ---------------------------


def _same(images: Tensor, _: Tensor) -> Tensor:
    return images


def _shear_x(images: Tensor, shear: Tensor) -> Tensor:
    x, y = _places(images)
    return _sampled(images, x + shear[:, 0] * (y + images.shape[2] / 2), y)


def _shear_y(images: Tensor, shear: Tensor) -> Tensor:
    x, y = _places(images)
    return _sampled(images, x, y + shear[:, 0] * (x + images.shape[3] / 2))


def _translate_x(images: Tensor, pixels: Tensor) -> Tensor:
    x, y = _places(images)
    return _sampled(images, x - pixels[:, 0].trunc(), y)


def _translate_y(images: Tensor, pixels: Tensor) -> Tensor:
    x, y = _places(images)
    return _sampled(images, x, y - pixels[:, 0].trunc())


def _rotate(images: Tensor, degrees: Tensor) -> Tensor:
    x, y = _places(images)
    angle = degrees[:, 0].deg2rad()
    return _sampled(images, angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y)


def _brightness(images: Tensor, change: Tensor) -> Tensor:
    return _levels(images * (1 + change))


def _colour(images: Tensor, change: Tensor) -> Tensor:
    return _blended(images, _grey(images), 1 + change)


def _contrast(images: Tensor, change: Tensor) -> Tensor:
    grey = _grey(images)
    mean = grey.sum((1, 2, 3), keepdim=True, dtype=torch.float64) / grey[0].numel()  # of whole numbers: exact
    return _blended(images, mean.float(), 1 + change)


def _sharpness(images: Tensor, change: Tensor) -> Tensor:
    """Towards or away from a blur; the outermost pixels stay as they are."""
    pixels = images.float()
    inner = pixels[:, :, 1:-1, 1:-1]
    blurred = (F.avg_pool2d(pixels, 3, stride=1, divisor_override=1) + 4 * inner) / 13  # whole numbers until here
    pixels[:, :, 1:-1, 1:-1] = inner + (blurred.round() - inner) * -change
    return _levels(pixels)


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    lost = (8 - bits).to(torch.uint8)
    return images >> lost << lost


def _solarize(images: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(images >= 255 * threshold, 255 - images, images)


def _autocontrast(images: Tensor, _: Tensor) -> Tensor:
    pixels = images.float()
    least, most = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    return torch.where(most > least, _levels((pixels - least) / ((most - least) * (1 / 255))), images)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    """Pillow's law: levels by the number of darker pixels, in each colour for itself."""
    n, colours, height, width = images.shape
    first = 256 * torch.arange(n * colours, device=images.device)
    at = (images.reshape(n * colours, -1).long() + first[:, None]).flatten()  # into the table of all levels
    counts = torch.zeros(n * colours * 256, dtype=torch.int64, device=images.device)
    counts = counts.scatter_add_(0, at, torch.ones_like(at)).view(-1, 256)
    summed = counts.cumsum(1)
    brightest = counts.gather(1, summed.argmax(1, keepdim=True))  # pixels at the highest level that is there
    step = (height * width - brightest) // 255  # (n * 3, 1)
    levels = ((summed - counts + step // 2) // step.clamp(min=1)).clamp(0, 255)
    levels = torch.where(step > 0, levels, torch.arange(256, device=images.device))
    return levels.to(torch.uint8).flatten()[at].view(images.shape)


# ---- their parts -------------------------------------------------------------------------------


def _places(images: Tensor) -> tuple[Tensor, Tensor]:
    """x (1, W) and y (H, 1) of the middles of all pixels, from the image's middle."""
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    return x, y[:, None]


def _sampled(images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The pixels nearest to (x, y), which broadcast to (n, H, W); black outside."""
    n, _, height, width = images.shape
    x, y = (place.expand(n, height, width) for place in (x / (width / 2), y / (height / 2)))
    grid = torch.stack([x, y], dim=3)
    found = F.grid_sample(images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return found.to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """(n, 1, H, W), whole numbers."""
    red, green, blue = images.float()[:, :, None].unbind(1)
    return (red * 0.2989 + green * 0.587 + blue * 0.114).floor()


def _blended(images: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return _levels(images * share + other * (1 - share))


def _levels(pixels: Tensor) -> Tensor:
    return pixels.clamp(0, 255).to(torch.uint8)


# ---- the table ---------------------------------------------------------------------------------

Act = Callable[[Tensor, Tensor], Tensor]
_NONE = torch.zeros(BINS)
_SHARES = torch.linspace(0.0, 0.99, BINS)
_PIXELS = torch.linspace(0.0, 32.0, BINS)
OPERATIONS: dict[str, tuple[Act, Tensor, bool]] = {
    "Identity": (_same, _NONE, False),
    "ShearX": (_shear_x, _SHARES, True),
    "ShearY": (_shear_y, _SHARES, True),
    "TranslateX": (_translate_x, _PIXELS, True),
    "TranslateY": (_translate_y, _PIXELS, True),
    "Rotate": (_rotate, torch.linspace(0.0, 135.0, BINS), True),
    "Brightness": (_brightness, _SHARES, True),
    "Color": (_colour, _SHARES, True),
    "Contrast": (_contrast, _SHARES, True),
    "Sharpness": (_sharpness, _SHARES, True),
    "Posterize": (_posterize, (8 - torch.arange(BINS) / 5).round(), False),
    "Solarize": (_solarize, torch.linspace(1.0, 0.0, BINS), False),
    "AutoContrast": (_autocontrast, _NONE, False),
    "Equalize": (_equalize, _NONE, False),
}
"""torchvision's names and order: what each does, its strengths, and whether half of them are negative."""
_STRENGTHS = np.stack([strengths.numpy() for _, strengths, _ in OPERATIONS.values()])
_SIGNED = np.array([signed for _, _, signed in OPERATIONS.values()])
