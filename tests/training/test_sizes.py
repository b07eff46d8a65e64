"""Runs whose crops grow: what is compiled, what a resumed run is, and that processes agree."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from shared_runs import together, trained
from torch._dynamo.utils import counters

from sqzlab.config import Config
from sqzlab.data.open import Data, open_data
from sqzlab.resolving import resolve
from sqzlab.training.trainer import Trainer
from sqzlab.training.warm_up import compile_graphs

CPU = torch.device("cpu")


def configured(squeeze: str, sizes: tuple[int, ...] = (32, 40), **train: Any) -> Config:
    """Epochs of two steps, one size each and one more of the last, evaluated at 48 pixels."""
    values = {"model.backbone": "resnet18", "model.stem": "small", "model.width": 0.125, "model.squeeze": squeeze}
    values |= {"data.name": "generated", "data.image_size": 48, "train.recipe": "fast16", "train.warmup_epochs": 0}
    values |= {"train.batch_size": 4, "train.limit_batches": 2, "train.epochs": len(sizes) + 1, "train.lr": 0.01}
    values |= {"train.train_sizes": sizes, "train.size_milestones": tuple(range(1, len(sizes)))}
    values |= {"train.channels_last": False, **{f"train.{key}": value for key, value in train.items()}}
    if squeeze != "baseline":
        values["model.reduction"] = 4
    config = resolve(values, 0)
    assert isinstance(config, Config), config
    return config


@pytest.fixture
def opened() -> Iterator[list[Data]]:
    found: list[Data] = []
    yield found
    for data in found:
        data.close()


def trainer_of(config: Config, opened: list[Data]) -> Trainer:
    opened.append(open_data(config.data, batch_size=config.train.batch_size, seed=config.seed))
    return Trainer(config, opened[-1], CPU)


@pytest.fixture
def quickly_compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Traced and guarded as ever, but run without Inductor."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def test_each_epoch_has_crops_of_its_size_and_evaluation_those_of_the_data(opened: list[Data]) -> None:
    trainer = trainer_of(configured("baseline"), opened)
    seen: list[int] = []
    trainer.model.conv1.register_forward_pre_hook(lambda _module, given: seen.append(given[0].shape[-1]))
    for _ in range(3):
        for _ in trainer.train_epoch():
            pass
        trainer.close_epoch()
    trainer.evaluate()
    assert seen == [32, 32, 40, 40, 40, 40, 48, 48]


def test_every_size_has_a_graph_and_evaluation_one_though_torch_would_compile_fewer(
    quickly_compiled: None, opened: list[Data]
) -> None:
    config = configured("RG", compile=True, block_form="folded")
    with torch._dynamo.config.patch(recompile_limit=2):
        trainer = trainer_of(config, opened)
        for _ in range(config.train.epochs):
            for _ in trainer.train_epoch():
                pass
            trainer.close_epoch()
        trainer.evaluate()
    assert counters["stats"]["unique_graphs"] == 3
    assert not counters["graph_break"]


def test_what_is_compiled_beforehand_is_a_graph_of_every_size_and_one_of_evaluation(quickly_compiled: None) -> None:
    compile_graphs(configured("baseline", (32, 40, 32), compile=True), CPU)
    assert counters["stats"]["unique_graphs"] == 3


def test_a_run_that_was_cut_off_in_the_second_size_ends_with_the_same_weights(opened: list[Data]) -> None:
    config = configured("SP")
    whole, cut = trainer_of(config, opened), trainer_of(config, opened)

    def train(trainer: Trainer, until: int) -> None:
        while trainer.step < until:
            for _ in trainer.train_epoch():
                if trainer.step == until:
                    break
            if trainer.step == (trainer.epoch + 1) * trainer.steps_per_epoch:
                trainer.close_epoch()

    train(whole, 6)
    train(cut, 3)
    resumed = trainer_of(config, opened)
    resumed.load_state(cut.state())
    train(resumed, 6)
    wanted, found = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_processes_that_train_together_have_the_same_weights_after_both_sizes() -> None:
    config = configured("RG", world_size=2)
    first, second = together(trained, [(config, 3)] * 2)
    for name, value in first["model"].items():
        if "running" not in name and "num_batches" not in name:  # of a process's own part
            np.testing.assert_array_equal(second["model"][name], value)
    np.testing.assert_array_equal(first["evaluation"].top5, second["evaluation"].top5)
