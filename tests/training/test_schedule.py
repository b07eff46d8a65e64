"""Warm-up, cosine, line and sizes of crops by themselves; published recipes' rates stand in test_recipes.py."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from sqzlab.config import Config
from sqzlab.resolving import resolve
from sqzlab.training.schedule import crop_size, crop_sizes, learning_rate


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


def test_the_line_falls_by_the_same_amount_each_step_from_the_peak_to_next_to_zero() -> None:
    train = resolved("sprg", schedule="linear", warmup_epochs=2, epochs=10).train
    rates = [learning_rate(train, step, 7) for step in range(70)]
    falling = np.interp(np.arange(14, 71), [14, 70], [train.lr, 0])
    assert rates[13] == train.lr
    assert rates[14:] == pytest.approx(falling[:-1], rel=1e-12)


def test_without_warm_up_the_line_begins_at_the_peak() -> None:
    train = resolved("sprg", schedule="linear", epochs=4).train
    assert [learning_rate(train, step, 1) for step in range(4)] == pytest.approx([0.1, 0.075, 0.05, 0.025])


def test_the_fast_recipe_falls_as_ffcvs_and_rises_one_step_before_it() -> None:
    """By its own formula: a line of np.interp over epochs, and within an epoch another between its ends."""
    train, steps = resolved("fast16").train, 50
    edges = np.interp(np.arange(17), [0, 2, 16], [1e-4 * 0.5, 0.5, 0])
    theirs = [np.interp(step, [0, steps], edges[epoch : epoch + 2]) for epoch in range(16) for step in range(steps)]
    ours = [learning_rate(train, step, steps) for step in range(16 * steps)]
    assert ours[2 * steps :] == pytest.approx(theirs[2 * steps :], rel=1e-12)
    assert ours[: 2 * steps - 1] == pytest.approx(theirs[1 : 2 * steps], abs=1e-4 * 0.5)


def test_the_fast_recipe_has_ffcvs_crops() -> None:
    """`get_resolution` of its train_imagenet.py: a ramp rounded to multiples of 32."""

    def theirs(epoch: int) -> int:
        return 160 if epoch <= 11 else 192 if epoch >= 13 else round(np.interp(epoch, [11, 13], [160, 192]) / 32) * 32

    train = resolved("fast16").train
    assert [crop_size(train, epoch, 224) for epoch in range(16)] == [theirs(epoch) for epoch in range(16)]


def test_crops_have_the_size_of_their_epoch_and_that_of_the_data_where_none_is_said() -> None:
    assert [crop_size(resolved("sprg").train, epoch, 224) for epoch in (0, 99)] == [224, 224]
    assert crop_sizes(resolved("sprg").train, 224) == (224,)
    train = resolved("sprg", train_sizes=[128, 192, 128], size_milestones=[2, 5]).train
    assert [crop_size(train, epoch, 224) for epoch in range(7)] == [128, 128, 192, 192, 192, 128, 128]
    assert crop_sizes(train, 224) == (128, 192)
