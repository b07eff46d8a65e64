"""TrivialAugment against torchvision's own transform, given the same draws."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from sqzlab.data.augment import BINS, OPERATIONS, drawn, trivial_augment
from sqzlab.data.open import open_data
from sqzlab.data.order import TRIVIAL
from sqzlab.data.philox import image_draws

DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]
FUSED = ("Color", "ShearX", "ShearY")  # by torchvision: some values differ in their last bit before they are rounded


def pictures(n: int, size: int) -> Tensor:
    """Smooth, noisy, of one level and grey ones, uint8 (n, 3, size, size)."""
    generator = torch.Generator().manual_seed(n)
    smooth = F.interpolate(256 * torch.rand(n, 3, 6, 6, generator=generator), size=(size, size), mode="bilinear")
    made = smooth.to(torch.uint8)
    made[1::4] = torch.randint(256, made[1::4].shape, dtype=torch.uint8, generator=generator)
    made[2::4] = made[2::4, :, :1, :1]
    made[3::4] = made[3::4, :1]
    return made


def by_torchvision(image: Tensor, draws: NDArray[np.float64]) -> tuple[str, Tensor]:
    """The operation's name, and what v2.TrivialAugmentWide makes of the image where it draws these three numbers."""
    whole = iter(draws[:2])
    with (
        patch("torch.randint", lambda high, _: torch.tensor(int(next(whole) * high))),
        patch("torch.rand", lambda _: torch.tensor(draws[2])),
    ):
        return list(OPERATIONS)[int(draws[0] * len(OPERATIONS))], v2.TrivialAugmentWide()(image)


@pytest.mark.parametrize("size", [32, 33])
def test_an_image_is_what_torchvision_makes_of_it_with_the_same_draws(size: int) -> None:
    index = np.arange(600)
    images = pictures(len(index), size)
    ours = trivial_augment(images, 1, 2, index)
    done = set()
    for image, our, draws in zip(images, ours, image_draws(1, 2, index, 3, TRIVIAL), strict=True):
        name, theirs = by_torchvision(image, draws)
        differing = (our != theirs).float().mean()
        assert differing <= (0.01 if name in FUSED else 0), name
        done.add(name)
    assert done == set(OPERATIONS) == v2.TrivialAugmentWide._AUGMENTATION_SPACE.keys()


def test_operations_strengths_and_signs_are_equally_likely() -> None:
    operation, strength = drawn(0, 0, np.arange(30_000))
    assert stats.chisquare(np.bincount(operation, minlength=len(OPERATIONS))).pvalue > 0.01
    rotated = strength[operation == list(OPERATIONS).index("Rotate")]
    degrees, counts = np.unique(rotated[rotated != 0], return_counts=True)
    np.testing.assert_allclose(degrees, np.delete(np.linspace(-135, 135, 2 * BINS - 1), BINS - 1), rtol=1e-6)
    assert stats.chisquare(counts).pvalue > 0.01
    assert stats.binomtest(int((rotated == 0).sum()), len(rotated), 1 / BINS).pvalue > 0.01


@pytest.mark.parametrize("device", DEVICES)
def test_an_image_depends_neither_on_its_batch_nor_on_its_place_there(device: str) -> None:
    index = np.arange(40, 100)
    images = pictures(60, 24)
    alone = torch.cat([trivial_augment(images[i : i + 1], 3, 4, index[i : i + 1]) for i in range(60)])
    mixed = np.random.default_rng(0).permutation(60)
    together = trivial_augment(images[mixed].to(device), 3, 4, index[mixed])
    assert torch.equal(together.cpu(), alone[mixed])


def test_seeds_and_epochs_augment_differently_and_nothing_draws_from_the_global_generators() -> None:
    images, index = pictures(1, 24).expand(30, -1, -1, -1), np.arange(30)
    first = trivial_augment(images, 0, 0, index)
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert torch.equal(trivial_augment(images, 0, 0, index), first)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    for seed, epoch in ((1, 0), (0, 1)):
        assert (trivial_augment(images, seed, epoch, index) != first).flatten(1).any(1).sum() > 20


def test_no_value_on_the_device_is_waited_for() -> None:
    images = torch.empty(300, 3, 16, 16, dtype=torch.uint8, device="meta")  # which has no values
    assert trivial_augment(images, 0, 0, np.arange(300)).shape == images.shape


def test_a_batch_is_augmented_alike_by_any_number_of_workers_and_processes_from_any_start(config_of) -> None:
    """After the crop of the same image, and only where asked for."""
    config = config_of("imagefolder")
    plain = list(open_data(config, batch_size=4, seed=1).train_batches(3))
    whole = list(open_data(config, batch_size=4, seed=1, trivial_augment=True).train_batches(3))
    for batch, augmented in zip(plain, whole, strict=True):
        assert torch.equal(trivial_augment(batch.images, 1, 3, batch.index.numpy()), augmented.images)
    assert not all(torch.equal(one.images, other.images) for one, other in zip(plain, whole, strict=True))

    in_workers = open_data(config_of("imagefolder", workers=2), batch_size=4, seed=1, trivial_augment=True)
    for made, expected in zip(in_workers.train_batches(3, start=1), whole[1:], strict=True):
        assert torch.equal(made.images, expected.images)
    in_workers.close()
    parts = [
        open_data(config, batch_size=4, seed=1, rank=rank, world_size=2, trivial_augment=True).train_batches(3)
        for rank in range(2)
    ]
    for expected, *shares in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([share.images for share in shares]), expected.images)


def test_validation_images_are_not_augmented(config_of, same) -> None:
    data = [open_data(config_of("digits"), batch_size=50, seed=0, trivial_augment=asked) for asked in (False, True)]
    same(*(one.val_batches() for one in data))
