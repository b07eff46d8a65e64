"""Learning rates against the published recipes, written out here from their sources."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sqzlab.config import Config, resolve
from sqzlab.recipes import RECIPES
from sqzlab.training.schedule import learning_rate

PUBLISHED = {  # recipe: (epochs, batch, [(first epoch, rate from there on)], weight decay)
    "ssenet": (90, 256, [(0, 0.01), (30, 0.001), (60, 0.0001)], 1e-4),
    "senet2018": (100, 1024, [(0, 0.6), (30, 0.06), (60, 0.006), (90, 0.0006)], 1e-4),
    "sprg": (100, 256, [(0, 0.1), (30, 0.01), (60, 0.001), (90, 0.0001)], 1e-4),
    "mmpretrain": (140, 256, [(0, 0.1), (40, 0.01), (80, 0.001), (120, 0.0001)], 1e-4),
}


def resolved(recipe: str, **train: object) -> Config:
    values = {"model.backbone": "resnet50", "data.name": "imagenet", "train.recipe": recipe}
    found = resolve({**values, **{f"train.{key}": value for key, value in train.items()}}, seed=0)
    assert isinstance(found, Config), found
    return found


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_the_rate_at_every_epoch_boundary_is_the_published_one(recipe: str) -> None:
    epochs, batch, drops, decay = PUBLISHED[recipe]
    train = resolved(recipe).train
    assert (train.epochs, train.batch_size, train.weight_decay) == (epochs, batch, decay)
    assert (train.momentum, train.nesterov, train.label_smoothing, train.warmup_epochs) == (0.9, False, 0.0, 0)
    steps = 1000
    for epoch in range(epochs):
        rate = [rate for first, rate in drops if first <= epoch][-1]
        for step in (epoch * steps, (epoch + 1) * steps - 1):
            assert learning_rate(train, step, steps) == pytest.approx(rate, rel=1e-12)


def test_every_published_recipe_is_compared_here() -> None:
    assert set(RECIPES) - {"digits"} == set(PUBLISHED)


def test_what_a_source_does_not_say_is_marked() -> None:
    assert "epochs" in RECIPES["ssenet"].unstated
    assert not RECIPES["sprg"].unstated


def test_the_cosine_starts_at_the_peak_and_ends_next_to_zero() -> None:
    train = resolved("sprg", schedule="cosine", warmup_epochs=5, epochs=20).train
    rates = [learning_rate(train, step, 10) for step in range(200)]
    assert rates[0] == pytest.approx(train.lr / 50)
    assert rates[49] == rates[50] == train.lr
    assert rates[125] == pytest.approx(train.lr / 2)
    assert 0 < rates[-1] < train.lr / 1000
    assert all(a >= b for a, b in pairwise(rates[50:]))


def test_warm_up_rises_by_the_same_amount_each_step() -> None:
    train = resolved("senet2018", warmup_epochs=2).train
    rates = [learning_rate(train, step, 4) for step in range(9)]
    assert rates == pytest.approx([0.075, 0.15, 0.225, 0.3, 0.375, 0.45, 0.525, 0.6, 0.6])
