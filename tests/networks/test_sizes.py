"""Networks on images of another size than they were built for, as progressive resizing gives them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqzlab import catalog
from sqzlab.config import ModelConfig
from sqzlab.networks.random_squeeze import set_random_keys
from sqzlab.networks.resnet import build
from sqzlab.resolving import model_config

BUILT = 56
SIZES = (40, 48)
"""Pixels with the small stem: maps of 56, 28, 14 and 7, and those of 160 and 192 where that is 224."""
OTHERS = [name for name in catalog.SQUEEZES if name != "dct"]


def configured(squeeze: str, image_size: int) -> ModelConfig:
    given: dict[str, Any] = {"num_classes": 10, "stem": "small", "width": 0.125, "zero_init_gamma": False}
    if "reduction" in catalog.SQUEEZES[squeeze].arguments:
        given["reduction"] = 4
    return model_config(backbone="resnet18", squeeze=squeeze, image_size=image_size, **given)


def step(model: nn.Module, size: int) -> dict[str, Tensor]:
    """Logits and gradients of a training step, buffers after it, and logits of evaluation."""
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(size))
    index = torch.arange(4)
    set_random_keys(model, seed=0, split=0, epoch=0, image_index=index)
    logits = model.train()(images)
    F.cross_entropy(logits, index).backward()  # type: ignore[no-untyped-call]
    found = {"logits": logits.detach(), **model.state_dict()}
    found |= {f"grad of {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    set_random_keys(model, seed=0, split=1, epoch=0, image_index=index)
    with torch.no_grad():
        found["evaluated"] = model.eval()(images)
    return found


@pytest.mark.parametrize(
    ("squeeze", "form"), [*((name, "plain") for name in OTHERS), ("SP", "folded"), ("RG", "folded")]
)
def test_on_other_images_a_network_is_the_one_that_was_built_for_them(squeeze: str, form: str) -> None:
    for size in SIZES:
        moved = build(configured(squeeze, BUILT), seed=1, block_form=form)
        made = build(configured(squeeze, size), seed=1, block_form=form)
        found, wanted = step(moved, size), step(made, size)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert torch.equal(found[name], value), (size, name)
            assert bool(value.isfinite().all())


@pytest.mark.parametrize("squeeze", ["SP", "RG"])
def test_images_that_are_not_square_are_refused_where_there_are_grids(squeeze: str) -> None:
    with pytest.raises(ValueError, match="square maps only"):
        build(configured(squeeze, BUILT), seed=1)(torch.zeros(2, 3, BUILT, 48))


def test_windows_that_the_grid_does_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="a grid of 8x8 windows does not divide maps of 44x44"):
        build(configured("RG", BUILT), seed=1)(torch.zeros(2, 3, 44, 44))
