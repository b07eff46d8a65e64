"""Several processes train as one does: against plain loops over whole batches, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from shared_runs import batch_norm, evaluated, half_an_epoch, normalised, passed, together, trained
from small_runs import SMALL
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from sqzlab.config import Config
from sqzlab.data.open import open_data
from sqzlab.errors import UnavailableError
from sqzlab.networks.random_squeeze import set_random_keys
from sqzlab.networks.resnet import build
from sqzlab.resolving import resolve
from sqzlab.training.schedule import learning_rate
from sqzlab.training.trainer import Trainer
from sqzlab.training.world import World, joined

EPOCHS = 2
CPU = torch.device("cpu")


def configured(squeeze: str = "baseline", **train: Any) -> Config:
    values = {**SMALL, "model.squeeze": squeeze, "train.precision": "fp64", "train.world_size": 2}
    values["train.batch_size"] = 16
    values |= {f"train.{key}": value for key, value in train.items()}
    if squeeze != "baseline":
        values["model.reduction"] = 4
    config = resolve(values, 0)
    assert isinstance(config, Config), config
    return config


class GroupedBatchNorm(nn.Module):
    """Normalises each of several equal groups of the batch by itself; the first one's statistics are remembered."""

    def __init__(self, norm: _BatchNorm, groups: int) -> None:
        super().__init__()
        self.norms = [norm, *(type(norm)(norm.num_features, dtype=torch.float64) for _ in range(groups - 1))]
        for other in self.norms[1:]:
            other.weight, other.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([norm(part) for norm, part in zip(self.norms, x.chunk(len(self.norms)), strict=True)])


def grouped(module: nn.Module, groups: int) -> None:
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, GroupedBatchNorm(child, groups))
        else:
            grouped(child, groups)


def plain_loop(config: Config, groups: int) -> tuple[nn.Module, list[Tensor], list[tuple[float, float]], float]:
    """One process: model, momentum of decayed and then other parameters, (loss, top-1) of every epoch, last loss."""
    train = config.train
    assert train.limit_batches is not None
    data = open_data(config.data, batch_size=train.batch_size, seed=config.seed)
    model = build(config.model, seed=config.seed, init=train.init).double()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    parameters = list(model.parameters())
    grouped(model, groups)
    decayed, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": train.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=1.0,
        momentum=train.momentum,
        nesterov=train.nesterov,
    )
    mean = 255 * torch.tensor(data.mean, dtype=torch.float64).view(3, 1, 1)
    std = 255 * torch.tensor(data.std, dtype=torch.float64).view(3, 1, 1)
    step, closed = 0, []
    for epoch in range(EPOCHS):
        losses, correct = 0.0, 0
        for batch, _ in zip(data.train_batches(epoch), range(train.limit_batches), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(train, step, train.limit_batches)
            set_random_keys(model, seed=config.seed, split=0, epoch=epoch, image_index=batch.index)
            logits = model((batch.images.double() - mean) / std)
            loss = F.cross_entropy(logits, batch.labels, label_smoothing=train.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            if train.clip_norm is not None:
                nn.utils.clip_grad_norm_(parameters, train.clip_norm)
            optimizer.step()
            losses += loss.item() * train.batch_size
            correct += int((logits.argmax(1) == batch.labels).sum())
            step += 1
        images = train.batch_size * train.limit_batches
        closed.append((losses / images, correct / images))
    momentum = [optimizer.state[p]["momentum_buffer"] for p in decayed + others]
    plain = build(config.model, seed=config.seed, init=train.init).double()
    with torch.no_grad():
        for mine, value in zip(plain.parameters(), parameters, strict=True):
            mine.copy_(value)
        for mine, norm in zip((m for m in plain.modules() if isinstance(m, _BatchNorm)), norms, strict=True):
            mine.load_state_dict(norm.state_dict())
    plain.eval()
    total = 0.0
    for batch, _ in zip(data.val_batches(), range(train.limit_batches), strict=False):
        set_random_keys(plain, seed=config.seed, split=1, epoch=EPOCHS, image_index=batch.index)
        with torch.no_grad():
            logits = plain((batch.images.double() - mean) / std)
        total += F.cross_entropy(logits, batch.labels, reduction="sum").item()
    return plain, momentum, closed, total / images


def close(found: Any, expected: Any, what: str = "") -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11, err_msg=what)


@pytest.mark.parametrize("sync", [False, True], ids=["own statistics", "synchronised"])
@pytest.mark.parametrize(
    ("squeeze", "form"),
    [(squeeze, "plain") for squeeze in ("baseline", "gap", "random", "SP")] + [("gmp", "folded"), ("SP", "folded")],
)
def test_two_processes_train_as_one_does(squeeze: str, form: str, sync: bool) -> None:
    """Without synchronised BatchNorm: as one whose BatchNorm normalises the two halves of a batch separately."""
    config = configured(squeeze, sync_batch_norm=sync, limit_batches=3, clip_norm=2.0, block_form=form)
    model, momentum, closed, loss = plain_loop(config, groups=1 if sync else 2)
    first, second = together(trained, [(config, EPOCHS)] * 2)
    assert first["model"].keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        close(first["model"][name], value, name)
    for number, value in enumerate(momentum):
        close(first["momentum"][number], value, f"momentum {number}")
    assert first["closed"] == second["closed"]
    close(first["closed"], closed)
    close(first["evaluation"].loss, loss)
    assert first["evaluation"].loss == second["evaluation"].loss
    for name, value in second["model"].items():
        if sync or "running" not in name:
            np.testing.assert_array_equal(value, first["model"][name], err_msg=name)


@pytest.mark.parametrize("shape", [(8, 5, 6, 4), (8, 5)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_synchronised_batch_norm_is_batch_norm_over_the_whole_batch(
    shape: tuple[int, ...], channels_last: bool
) -> None:
    rng = np.random.default_rng(0)
    x, grad = 3 + 2 * rng.standard_normal(shape), rng.standard_normal(shape)
    halves = [list(np.split(values, 2)) for values in (x, grad)]
    whole = torch.from_numpy(x)
    expected = passed(batch_norm(whole), whole, torch.from_numpy(grad))
    found = together(normalised, [(*halves, channels_last and len(shape) == 4)] * 2)
    for name, value in expected.items():
        if name in ("y", "x"):
            close(np.concatenate([part[name] for part in found]), value, name)
        elif name.startswith("grad"):
            close(sum(part[name] for part in found), value, name)
        else:
            for part in found:
                close(part[name], value, name)


def test_validation_counts_every_image_once_whatever_the_batches() -> None:
    sizes = [29, 449]  # parts that differ by one image; a last batch of one image, with none for process 0
    config = configured("random", limit_batches=None)
    several = together(evaluated, [(config, sizes)] * 2)
    (alone,) = together(evaluated, [(configured("random", limit_batches=None, world_size=1), sizes)])
    for expected, *found in zip(alone, *several, strict=True):
        assert len({calls for _, calls in [expected, *found]}) == 1, "the processes would wait for each other"
        for evaluation, _ in found:
            assert len(evaluation.top1) == config.data.val_images
            np.testing.assert_array_equal(evaluation.top1, expected[0].top1)
            np.testing.assert_array_equal(evaluation.top5, expected[0].top5)
            assert evaluation.loss == pytest.approx(expected[0].loss, rel=1e-13)


def test_a_job_with_another_number_of_tasks_is_refused() -> None:
    told = r"the run shares each step among 2 processes, but this job has 1; valid: launch it on Slurm"
    with pytest.raises(UnavailableError, match=told), joined(World.here(), 2, CPU, "run", lambda: False):
        pass
    (said,) = together(trained, [(configured(), 1)])
    assert said == f"UnavailableError: {told}"


def test_a_checkpoint_of_several_processes_goes_on_in_one() -> None:
    config = configured("gap", limit_batches=3)
    states = together(half_an_epoch, [(config,)] * 2)
    data = open_data(config.data, batch_size=config.train.batch_size, seed=0)
    trainer = Trainer(configured("gap", limit_batches=3, world_size=1), data, CPU)
    assert not [name for name in states[0]["model"] if name.startswith("module.")]
    state = states[0] | {"model": {name: torch.from_numpy(value) for name, value in states[0]["model"].items()}}
    state["sums"] = torch.from_numpy(state["sums"])
    for value in state["optimizer"]["state"].values():
        value["momentum_buffer"] = torch.from_numpy(value["momentum_buffer"])
    trainer.load_state(state)
    assert (trainer.step, trainer.epoch) == (2, 0)
    assert trainer.sums.tolist() == states[0]["sums"].sum(0).tolist()
    for _ in trainer.train_epoch():
        pass
    trainer.close_epoch()
