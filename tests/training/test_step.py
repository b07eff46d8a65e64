"""What a training step has beside its arithmetic: graphs, waits of the host, addresses, the optimiser's path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from shared_runs import graphs_and_evaluation, together
from small_runs import SMALL
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from sqzlab.catalog import BLOCK_FORMS, SQUEEZES
from sqzlab.config import Config
from sqzlab.data.open import Data, open_data
from sqzlab.resolving import resolve
from sqzlab.training.trainer import Evaluation, Trainer

OF_THE_STUDY = ("baseline", "gap", "gmp", "std", "gapXstd", "random", "SP", "RG")
DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]


def configured(squeeze: str = "baseline", device: str = "cpu", **train: Any) -> Config:
    """Two steps and two validation batches an epoch.

    Not in channels_last: oneDNN may crash on narrow networks there (uxlfoundation/oneDNN, issue 6035).
    """
    values = {**SMALL, "model.squeeze": squeeze, "train.batch_size": 16, "train.limit_batches": 2, "train.epochs": 2}
    values |= {"train.warmup_epochs": 0, "train.device": device, "train.channels_last": False}
    values |= {f"train.{key}": value for key, value in train.items()}
    if "reduction" in SQUEEZES[squeeze].arguments:
        values["model.reduction"] = 4
    if squeeze == "dct":
        values["data.image_size"] = 56
    config = resolve(values, 0)
    assert isinstance(config, Config), config
    return config


@contextmanager
def opened(config: Config) -> Iterator[Data]:
    """Of the validation batches the last is short: 450 images are 256 and 194."""
    data = open_data(config.data, batch_size=config.train.batch_size, seed=0, val_batch_size=256)
    yield data
    data.close()


def run(trainer: Trainer) -> Evaluation:
    """Two epochs, each evaluated."""
    for _ in range(2):
        for _ in trainer.train_epoch():
            pass
        trainer.close_epoch()
        evaluation = trainer.evaluate()
    return evaluation


@pytest.fixture
def quickly_compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Traced and guarded as ever, but run without Inductor."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    counters.clear()
    yield
    torch.compiler.reset()


# ---- graphs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", BLOCK_FORMS)
@pytest.mark.parametrize("squeeze", OF_THE_STUDY)
def test_a_whole_run_compiles_one_graph_for_training_and_one_for_evaluation(
    quickly_compiled: None, squeeze: str, form: str
) -> None:
    config = configured(squeeze, compile=True, block_form=form)
    with opened(config) as data:
        run(Trainer(config, data, torch.device("cpu")))
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]


@pytest.mark.parametrize("squeeze", ["random", "SP"])
def test_a_compiled_evaluation_counts_what_one_that_is_not_compiled_counts(
    quickly_compiled: None, squeeze: str
) -> None:
    found = []
    for compiled in (False, True):
        config = configured(squeeze, compile=compiled)
        with opened(config) as data:
            found.append(run(Trainer(config, data, torch.device("cpu"))))
    plain, filled = found
    assert len(filled.top1) == 450
    np.testing.assert_array_equal(filled.top1, plain.top1)
    np.testing.assert_array_equal(filled.top5, plain.top5)
    assert filled.loss == pytest.approx(plain.loss, rel=1e-6)


def test_processes_that_train_together_have_as_many_graphs_each_and_count_as_one_does() -> None:
    """By itself, DistributedDataParallel has the graph of training cut where its first bucket of 1 MB is full."""
    config = configured("gap", world_size=2, compile=True)
    config = config.model_copy(update={"model": config.model.model_copy(update={"width": 0.25})})  # 2.8 MB
    alone = config.model_copy(update={"train": config.train.model_copy(update={"world_size": 1, "compile": False})})
    with opened(alone) as data:
        expected = Trainer(alone, data, torch.device("cpu")).evaluate()
    for graphs, evaluation in together(graphs_and_evaluation, [(config, 256, 1)] * 2):
        assert graphs == 2
        np.testing.assert_array_equal(evaluation.top1, expected.top1)
        assert evaluation.loss == pytest.approx(expected.loss, rel=1e-6)


# ---- the host ----------------------------------------------------------------------------------


class NoWaiting(TorchDispatchMode):
    """Fails on what makes the host wait for a GPU: reading a value, or shapes that depend on values.

    Copies between host and device there are none of on the CPU: only CUDA's own mode sees those.
    """

    WAITING = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "item", "masked_select", "unique", "_unique2")

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function.overloadpacket.__name__ not in self.WAITING, f"{function} in a training step"
        return function(*args, **(kwargs or {}))


@contextmanager
def no_waiting(device: str) -> Iterator[None]:
    if device == "cpu":
        with NoWaiting():
            yield
        return
    torch.cuda.set_sync_debug_mode("error")  # sees copies between host and device too
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", BLOCK_FORMS)
@pytest.mark.parametrize("squeeze", SQUEEZES)
def test_no_training_step_waits_for_the_device(squeeze: str, form: str, device: str) -> None:
    config = configured(
        squeeze, device, block_form=form, batch_size=8, limit_batches=3, clip_norm=1.0, label_smoothing=0.1
    )
    with opened(config) as data:
        trainer = Trainer(config, data, torch.device(device))
        steps = trainer.train_epoch()
        next(steps)  # convolutions are chosen, memory is taken
        with no_waiting(device):
            next(steps)
            next(steps)


def test_what_waits_is_seen() -> None:
    with NoWaiting(), pytest.raises(AssertionError, match="_local_scalar_dense"):
        float(torch.ones(()) + 1)


# ---- addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_with_cuda_graphs_asked_for_noise_is_as_ever_and_stays_where_it_is(quickly_compiled: None, device: str) -> None:
    """The backend records no graphs: this is about what they would read."""
    config = configured("random", "cuda", compile=True, cuda_graphs=True)
    config = config.model_copy(update={"train": config.train.model_copy(update={"device": device})})
    with opened(config) as data:
        trainer = Trainer(config, data, torch.device(device))
        places, values = set(), []
        for _ in range(2):
            for _ in trainer.train_epoch():
                places.add(tuple(kept.data_ptr() for kept in trainer.noise.values()))
                values.append(trainer.noise[0, 0].clone())
            trainer.close_epoch()
    with opened(config) as data:
        batches = [batch for epoch in range(2) for batch, _ in zip(data.train_batches(epoch), range(2), strict=False)]
    assert len(places) == 1
    assert len(trainer.noise) == 8  # a residual block each
    for found, batch, epoch in zip(values, batches, (0, 0, 1, 1), strict=True):
        assert torch.equal(found.cpu(), noise_of(config, epoch, batch.index))


def noise_of(config: Config, epoch: int, index: torch.Tensor) -> torch.Tensor:
    """What a network of the same configuration is given in its first block."""
    from sqzlab.networks.random_squeeze import set_random_keys
    from sqzlab.networks.resnet import build

    model = build(config.model, seed=config.seed)
    set_random_keys(model, seed=config.seed, split=0, epoch=epoch, image_index=index)
    return model.layer1[0].se.squeeze.noise.values


# ---- the optimiser -----------------------------------------------------------------------------


class Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.called: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.called.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("device", DEVICES)
def test_parameters_are_stepped_all_at_once_on_a_gpu_and_one_by_one_on_the_cpu(device: str) -> None:
    config = configured("gap", device, batch_size=8)
    with opened(config) as data:
        trainer = Trainer(config, data, torch.device(device))
        steps = trainer.train_epoch()
        next(steps)
        with Recording() as recorded:
            next(steps)
    assert any(name.startswith("_foreach_") for name in recorded.called) == (device == "cuda")
