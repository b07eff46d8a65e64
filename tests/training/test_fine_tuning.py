"""Training that starts from a file of weights, against a loop in plain PyTorch with a group for every parameter."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import SMALL
from torch.nn import functional as F

from sqzlab.config import Config
from sqzlab.data.fingerprint import digests
from sqzlab.data.open import Data, open_data
from sqzlab.errors import UnavailableError
from sqzlab.networks.pretrained import PretrainedWarning, load_pretrained
from sqzlab.networks.resnet import build
from sqzlab.resolving import resolve
from sqzlab.training.schedule import learning_rate
from sqzlab.training.trainer import Trainer

CPU = torch.device("cpu")


def configured(file: Path, squeeze: str = "gap", **train: Any) -> Config:
    values = {**SMALL, "model.squeeze": squeeze, "train.limit_batches": 3, "train.epochs": 2, "train.batch_size": 16}
    values |= {"train.channels_last": False, "train.pretrained": str(file)}
    values |= {f"train.{key}": value for key, value in train.items()}
    if squeeze != "baseline":
        values["model.reduction"] = 4
    config = resolve(values, 0, digests=digests(None, None, str(file)))
    assert isinstance(config, Config), config
    return config


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state dict of another seed's network without blocks."""
    path = tmp_path_factory.mktemp("weights") / "baseline.pt"
    values = {**SMALL, "model.squeeze": "baseline"}
    config = resolve(values, 7)
    assert isinstance(config, Config)
    torch.save(build(config.model, seed=7).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def digits(file: Path) -> Iterator[Data]:
    config = configured(file)
    data = open_data(config.data, batch_size=config.train.batch_size, seed=0)
    yield data
    data.close()


def trainer_of(config: Config, data: Data) -> Trainer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PretrainedWarning)
        return Trainer(config, data, CPU)


def run(trainer: Trainer) -> None:
    while trainer.epoch < trainer.config.train.epochs:
        for _ in trainer.train_epoch():
            pass
        trainer.close_epoch()


def plain_loop(config: Config, data: Data, file: Path) -> torch.nn.Module:
    """A group for each parameter, whose rate is the schedule's times its factor."""
    train = config.train
    model = build(config.model, seed=config.seed, init=train.init)
    load_pretrained(model, config.model, file, warn=False)
    came = torch.load(file, weights_only=True).keys()
    groups, factors = [], []
    for name, parameter in model.named_parameters():
        decay = train.weight_decay if parameter.ndim > 1 or train.decay_norm_and_bias else 0.0
        groups.append({"params": [parameter], "weight_decay": decay})
        factors.append(1.0 if train.lrp is None or name not in came else train.lrp)
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=train.momentum, nesterov=train.nesterov)
    mean, std = 255 * torch.tensor(data.mean).view(3, 1, 1), 255 * torch.tensor(data.std).view(3, 1, 1)
    step = 0
    for epoch in range(train.epochs):
        for number, batch in enumerate(data.train_batches(epoch)):
            if number == train.limit_batches:
                break
            for group, factor in zip(optimizer.param_groups, factors, strict=True):
                group["lr"] = learning_rate(train, step, train.limit_batches) * factor
            loss = F.cross_entropy(model((batch.images.float() - mean) / std), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    return model


@pytest.mark.parametrize("train", [{}, {"lrp": 0.1}, {"lrp": 0.0}, {"lrp": 2.5, "decay_norm_and_bias": True}])
def test_fine_tuning_is_that_of_a_plain_loop(train: dict[str, Any], digits: Data, file: Path) -> None:
    config = configured(file, **train)
    trainer = trainer_of(config, digits)
    run(trainer)
    expected = plain_loop(config, digits, file).state_dict()
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_a_factor_of_0_moves_only_what_is_new(digits: Data, file: Path) -> None:
    trainer = trainer_of(configured(file, lrp=0.0), digits)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    run(trainer)
    moved = {name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])}
    assert moved
    assert all(".se." in name for name in moved)


def test_without_a_factor_a_checkpoint_has_the_form_of_other_runs(digits: Data, file: Path) -> None:
    other = resolve({**SMALL, "train.limit_batches": 3}, 0)
    assert isinstance(other, Config)
    forms = [
        [sorted(group) for group in trainer_of(config, digits).optimizer.state_dict()["param_groups"]]
        for config in (other, configured(file), configured(file, lrp=0.5))
    ]
    assert forms[0] == forms[1]
    assert (len(forms[1]), len(forms[2])) == (2, 4)


def test_the_rate_that_is_logged_is_the_schedules(digits: Data, file: Path) -> None:
    trainer = trainer_of(configured(file, "baseline", lrp=0.5), digits)  # nothing is new in it
    next(trainer.train_epoch())
    rate = learning_rate(trainer.config.train, 0, 3)
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [rate, rate, rate / 2, rate / 2]


@pytest.mark.parametrize("done", [0, 2, 4])
def test_a_resumed_run_ends_bit_for_bit_as_one_that_was_not_stopped(done: int, digits: Data, file: Path) -> None:
    config = configured(file, lrp=0.1)
    whole, first, second = (trainer_of(config, digits) for _ in range(3))
    run(whole)
    while first.step < done:
        for _ in first.train_epoch():
            if first.step == done:
                break
        else:
            first.close_epoch()
    second.load_state(first.state())
    run(second)
    expected, found = whole.state(), second.state()
    for name, value in expected["model"].items():
        assert torch.equal(found["model"][name], value), name
    for number, value in expected["optimizer"]["state"].items():
        assert torch.equal(found["optimizer"]["state"][number]["momentum_buffer"], value["momentum_buffer"])


def test_arms_that_start_from_one_file_are_known_to_share_their_weights(digits: Data, file: Path) -> None:
    found = {
        squeeze: trainer_of(configured(file, squeeze), digits).shared_weights_digest()
        for squeeze in ("baseline", "gap", "CBAM")
    }
    assert len(set(found.values())) == 1
    other = resolve(SMALL, 7)
    assert isinstance(other, Config)
    assert Trainer(other, digits, CPU).shared_weights_digest() not in found.values()


def test_what_the_file_has_not_is_told(digits: Data, file: Path) -> None:
    with pytest.warns(PretrainedWarning, match="8 blocks 'gap'"):
        Trainer(configured(file), digits, CPU)


def test_a_file_that_is_gone_is_named(digits: Data, file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.pt"
    copy.write_bytes(file.read_bytes())
    config = configured(copy)
    copy.unlink()
    with pytest.raises(UnavailableError, match=r"train.pretrained: '.*copy\.pt' cannot be read \(no such file"):
        Trainer(config, digits, CPU)


def test_another_file_than_planned_is_refused(digits: Data, file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.pt"
    copy.write_bytes(file.read_bytes())
    config = configured(copy)
    copy.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(UnavailableError, match=r"has the digest [0-9a-f]{16}, but the run was planned with"):
        Trainer(config, digits, CPU)


def test_the_content_of_the_file_counts_for_the_identity_and_not_its_place(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.pt"
    copy.write_bytes(file.read_bytes())
    assert configured(copy).digest() == configured(file).digest()
    copy.write_bytes(b"other")
    assert configured(copy).digest() != configured(file).digest()
