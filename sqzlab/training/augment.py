"""What a training step does to a batch that is normalised and on its device: random erasing, then mixup or cutmix.

All draws are made on the host, so that neither waits for the other.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqzlab.config import TrainConfig
from sqzlab.data.crop_pixels import sent
from sqzlab.data.order import ERASE, mix_seed
from sqzlab.data.philox import image_draws

AREA = (0.02, 0.33)
ASPECT = (0.3, 3.3)
TRIES = 10


def augmented(
    train: TrainConfig, images: Tensor, labels: Tensor, index: Tensor, classes: int, seed: int, epoch: int, step: int
) -> tuple[Tensor, Tensor]:
    """Images (N, 3, H, W) and what the loss compares their logits with: labels (N,), or shares (N, classes).

    `index` (N,) is in the host's memory.
    """
    if train.random_erasing:
        images = erase(images, train.random_erasing, seed, epoch, index.numpy())
    if train.mixup_alpha is not None or train.cutmix_alpha is not None:
        return mix(images, labels, classes, train.mixup_alpha, train.cutmix_alpha, seed, epoch, step)
    return images, labels


# ---- random erasing ----------------------------------------------------------------------------


def erase(images: Tensor, probability: float, seed: int, epoch: int, index: NDArray[np.int64]) -> Tensor:
    """The images at the places `index` (N,) of their split with 0, the mean colour, in a part of some of them.

    arXiv:1708.04896 with the law of torchvision's v2.RandomErasing, in one call for the whole batch.
    """
    height, width = images.shape[2:]
    boxes = erased_boxes(probability, height, width, seed, epoch, index)
    top, left, h, w = sent(torch.from_numpy(boxes), images.device).T[:, :, None]  # (N, 1) each
    y, x = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    rows, columns = (top <= y) & (y < top + h), (left <= x) & (x < left + w)
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


def erased_boxes(
    probability: float, height: int, width: int, seed: int, epoch: int, index: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(N, 4) of (top, left, height, width): 2 to 33 % of the area with an aspect of 0.3 to 3.3; no height, no part.

    The first of ten tries that is smaller than the image in both directions is taken, else nothing is erased.
    """
    draws = image_draws(seed, epoch, index, 3 + 2 * TRIES, ERASE)
    areas = height * width * (AREA[0] + (AREA[1] - AREA[0]) * draws[:, 3 : 3 + TRIES])
    aspects = np.exp(np.log(ASPECT[0]) + np.log(ASPECT[1] / ASPECT[0]) * draws[:, 3 + TRIES :])
    heights, widths = np.rint(np.sqrt(areas * aspects)), np.rint(np.sqrt(areas / aspects))  # (N, TRIES)
    fits = (heights < height) & (widths < width)
    first = fits.argmax(axis=1)[:, None]
    h, w = (np.take_along_axis(sides, first, 1)[:, 0] for sides in (heights, widths))
    h = np.where((draws[:, 0] < probability) & fits.any(axis=1), h, 0)
    top, left = np.floor(draws[:, 1] * (height - h + 1)), np.floor(draws[:, 2] * (width - w + 1))
    return np.stack([top, left, h, w], axis=1).astype(np.int64)


# ---- mixup and cutmix --------------------------------------------------------------------------


def mix(
    images: Tensor,
    labels: Tensor,
    classes: int,
    mixup_alpha: float | None,
    cutmix_alpha: float | None,
    seed: int,
    epoch: int,
    step: int,
) -> tuple[Tensor, Tensor]:
    """Images (N, 3, H, W) mixed with their partners, and their shares in the classes (N, classes).

    torchvision's v2.MixUp (arXiv:1710.09412), v2.CutMix (arXiv:1905.04899) or, with both, one of them at random each
    step, by draws from (seed, epoch, step): all processes of a world mix alike. Differs: the partners are the images
    0 and 1, 2 and 3, and so on, where torchvision has each image's predecessor. So the result does not depend on how
    many processes share a batch, as long as each has an even part of it. The last of an odd part has the first for a
    partner: then the pairs, but nothing else, depend on the processes.
    """
    name, params = mixing(mixup_alpha, cutmix_alpha, images.shape[2:], seed, epoch, step)
    partner = torch.arange(len(images), device=images.device) ^ 1
    partner[len(images) - len(images) % 2 :] = 0
    others = images[partner]
    if name == "mixup":
        own = params["lam"]
        mixed = others.mul_(1 - own).add_(images * own)
    else:
        own = params["lam_adjusted"]
        left, top, right, bottom = params["box"]
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    shares = (labels[:, None] == torch.arange(classes, device=labels.device)).to(images.dtype)
    return mixed, shares[partner].mul_(1 - own).add_(shares * own)


def mixing(
    mixup_alpha: float | None, cutmix_alpha: float | None, size: torch.Size, seed: int, epoch: int, step: int
) -> tuple[str, dict[str, Any]]:
    """'mixup' or 'cutmix', and the parameters that torchvision draws for images of this height and width."""
    laws = _laws(mixup_alpha, cutmix_alpha)
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
        torch.default_generator.manual_seed(mix_seed(seed, epoch, step))  # torch.manual_seed would set CUDA's, too
        chosen = int(torch.multinomial(torch.full((2,), 0.5), 1)) if len(laws) == 2 else 0  # as v2.RandomChoice
        name, law = laws[chosen]
        return name, law.make_params([torch.empty(1, 3, *size, device="meta")])


@lru_cache(maxsize=1)
def _laws(mixup_alpha: float | None, cutmix_alpha: float | None) -> list[tuple[str, Any]]:
    from torchvision.transforms import v2  # a second to import, and few runs mix

    given = (("mixup", v2.MixUp, mixup_alpha), ("cutmix", v2.CutMix, cutmix_alpha))
    return [(name, law(alpha=alpha)) for name, law, alpha in given if alpha is not None]
