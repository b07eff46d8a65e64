"""Published recipes against their sources, written out here a second time: the learning rate of every epoch above all.

The oracle of the cosine and of the line are PyTorch's own schedulers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, SequentialLR

from sqzlab.config import TrainConfig
from sqzlab.recipes import RECIPES
from sqzlab.resolving import resolve
from sqzlab.training.schedule import learning_rate

STEPS = 50  # an epoch here


@dataclass(frozen=True)
class Published:
    """Where a step schedule drops, as (first epoch, rate from there on); empty for the others."""

    epochs: int
    batch: int
    drops: tuple[tuple[int, float], ...]
    zero_init_gamma: bool
    init: str = "torchvision"
    label_smoothing: float = 0.0
    warmup_epochs: int = 0
    weight_decay: float = 1e-4
    decay_norm_and_bias: bool = True
    sizes: tuple[tuple[int, ...], tuple[int, ...]] | None = None  # of crops, and the epochs at which the next begins


def drops(lr: float, *milestones: int) -> tuple[tuple[int, float], ...]:
    return tuple((epoch, lr / 10**index) for index, epoch in enumerate((0, *milestones)))


PUBLISHED = {
    "ssenet": Published(90, 256, drops(0.01, 30, 60), True),
    "senet2018": Published(100, 1024, drops(0.6, 30, 60, 90), False),
    "senet270": Published(270, 256, drops(0.1, 125, 200, 250), False, label_smoothing=0.1),
    "sprg": Published(100, 256, drops(0.1, 30, 60, 90), False, "zero_bias"),
    "cbam": Published(100, 256, drops(0.1, 30, 60, 90), False, "zero_bias"),
    "mmpretrain": Published(140, 256, drops(0.1, 40, 80, 120), True),
    "mmpretrain101": Published(100, 256, drops(0.1, 30, 60, 90), True),
    "torchvision": Published(90, 256, drops(0.1, 30, 60), False),
    "moskomule": Published(90, 256, drops(0.6 / 1024 * 256, 50, 70), False),
    "srm": Published(90, 256, drops(0.1, 31, 61), False),
    "fcanet": Published(100, 256, (), False, label_smoothing=0.1, warmup_epochs=5),
    "fast16": Published(
        *(16, 1024, (), False),
        label_smoothing=0.1,
        warmup_epochs=2,
        weight_decay=5e-5,
        decay_norm_and_bias=False,
        sizes=((160, 192), (12,)),
    ),
}


def resolved(recipe: str) -> tuple[TrainConfig, bool]:
    found = resolve({"model.backbone": "resnet50", "data.name": "imagenet", "train.recipe": recipe}, seed=0)
    assert not isinstance(found, list), found
    return found.train, found.model.zero_init_gamma


def test_every_published_recipe_is_compared_here() -> None:
    assert set(RECIPES) - {"digits"} == set(PUBLISHED)


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_everything_but_the_schedule_is_as_published(recipe: str) -> None:
    published, (train, zero_init_gamma) = PUBLISHED[recipe], resolved(recipe)
    assert (train.epochs, train.batch_size) == (published.epochs, published.batch)
    assert (train.momentum, train.nesterov, train.weight_decay) == (0.9, False, published.weight_decay)
    assert train.decay_norm_and_bias == published.decay_norm_and_bias
    sizes = None if train.train_sizes is None else (train.train_sizes, train.size_milestones)
    assert sizes == published.sizes
    assert (train.label_smoothing, train.warmup_epochs) == (published.label_smoothing, published.warmup_epochs)
    assert (train.init, zero_init_gamma, train.clip_norm) == (published.init, published.zero_init_gamma, None)


@pytest.mark.parametrize("recipe", [name for name, published in PUBLISHED.items() if published.drops])
def test_the_rate_at_every_epoch_boundary_is_the_published_one(recipe: str) -> None:
    published, (train, _) = PUBLISHED[recipe], resolved(recipe)
    for epoch in range(published.epochs):
        rate = [rate for first, rate in published.drops if first <= epoch][-1]
        for step in (epoch * STEPS, (epoch + 1) * STEPS - 1):
            assert learning_rate(train, step, STEPS) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_every_step_has_the_rate_of_torchs_own_schedulers(recipe: str) -> None:
    train, _ = resolved(recipe)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=train.lr)
    warmup = train.warmup_epochs * STEPS
    scheduler: Any
    if train.schedule == "step":
        assert train.milestones is not None
        scheduler = MultiStepLR(optimizer, [epoch * STEPS for epoch in train.milestones], gamma=0.1)
    else:
        rising = LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
        left = train.epochs * STEPS - warmup
        falling: Any = CosineAnnealingLR(optimizer, left)
        if train.schedule == "linear":
            falling = LinearLR(optimizer, start_factor=1, end_factor=0, total_iters=left)
        scheduler = SequentialLR(optimizer, [rising, falling], milestones=[warmup])
    for step in range(train.epochs * STEPS):
        assert learning_rate(train, step, STEPS) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-6, abs=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_a_source_does_not_say_is_marked_by_its_key_and_explained(recipe: str) -> None:
    row = RECIPES[recipe]
    assert set(row.unstated) <= {*row.train, "zero_init_gamma"}
    assert all(row.unstated.values())


@pytest.mark.parametrize(
    ("recipe", "keys"),
    [
        ("ssenet", {"epochs"}),
        ("senet270", {"batch_size", "label_smoothing", "weight_decay", "zero_init_gamma"}),
        ("moskomule", {"batch_size", "lr"}),
        ("sprg", set()),
        ("srm", set()),
        ("fcanet", set()),
        ("fast16", {"decay_norm_and_bias", "warmup_epochs", "size_milestones", "train_sizes"}),
    ],
)
def test_our_own_choices_are_marked(recipe: str, keys: set[str]) -> None:
    assert set(RECIPES[recipe].unstated) == keys
