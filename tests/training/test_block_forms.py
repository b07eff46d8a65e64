"""Networks trained in either form, eagerly and compiled, on the embedded digits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import fmean, stdev
from typing import Any

import pytest
import torch
from small_runs import SMALL

from sqzlab.config import Config
from sqzlab.data.open import Data, open_data
from sqzlab.resolving import resolve
from sqzlab.training.trainer import Trainer

EPOCHS, SEEDS = 3, 3


def configured(squeeze: str, seed: int, **train: Any) -> Config:
    values = {**SMALL, "model.squeeze": squeeze, **{f"train.{key}": value for key, value in train.items()}}
    config = resolve({**values, "model.reduction": 4, "train.epochs": EPOCHS}, seed)
    assert isinstance(config, Config), config
    return config


@pytest.fixture
def opened() -> Iterator[list[Data]]:
    found: list[Data] = []
    yield found
    for data in found:
        data.close()


def losses(opened: list[Data], config: Config, steps: int | None = None) -> list[float]:
    """The mean training loss of each epoch and the validation loss, or the first steps' running sums of losses."""
    data = open_data(config.data, batch_size=config.train.batch_size, seed=config.seed)
    opened.append(data)
    trainer = Trainer(config, data, torch.device("cpu"))
    found: list[float] = []
    if steps is not None:
        for _, _ in zip(range(steps), trainer.train_epoch(), strict=False):
            found.append(float(trainer.sums[0]))
        return found
    for _ in range(EPOCHS):
        for _ in trainer.train_epoch():
            pass
        found.append(trainer.close_epoch()[0])
    return [*found, trainer.evaluate().loss]


@pytest.mark.parametrize("squeeze", ["gmp"])
def test_training_in_either_form_ends_within_the_noise_of_seeds(opened: list[Data], squeeze: str) -> None:
    ends = {
        form: [
            losses(opened, configured(squeeze, seed, block_form=form, limit_batches=None))[-1] for seed in range(SEEDS)
        ]
        for form in ("plain", "folded")
    }
    assert max(*ends["plain"], *ends["folded"]) < 1.5, "hardly below log(10), that of a network that knows nothing"
    apart = [fold - plain for plain, fold in zip(ends["plain"], ends["folded"], strict=True)]
    assert abs(fmean(apart)) < 2 * stdev(ends["plain"]) / math.sqrt(SEEDS)


@pytest.mark.parametrize("form", ["folded"])
def test_compiled_and_uncompiled_begin_with_the_same_losses(opened: list[Data], form: str) -> None:
    """Later, roundings have grown: what is left to compare then is accuracy over seeds."""
    alone, compiled = (
        losses(opened, configured("std", 0, block_form=form, compile=on), steps=4) for on in (False, True)
    )
    assert compiled == pytest.approx(alone, rel=1e-4)
