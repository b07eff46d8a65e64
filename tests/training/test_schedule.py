"""Warm-up and cosine by themselves; the published recipes' rates stand in test_recipes.py."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sqzlab.config import Config, resolve
from sqzlab.training.schedule import learning_rate


def resolved(recipe: str, **train: object) -> Config:
    values = {"model.backbone": "resnet50", "data.name": "imagenet", "train.recipe": recipe}
    found = resolve({**values, **{f"train.{key}": value for key, value in train.items()}}, seed=0)
    assert isinstance(found, Config), found
    return found


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
