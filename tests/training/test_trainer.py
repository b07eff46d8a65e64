"""Training steps and evaluation against a loop in plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from small_runs import SMALL
from torch.nn import functional as F

from sqzlab.config import Config
from sqzlab.data.open import Data, open_data
from sqzlab.networks.resnet import build
from sqzlab.resolving import resolve
from sqzlab.training.schedule import learning_rate
from sqzlab.training.trainer import Trainer, set_numerics

CPU = torch.device("cpu")


def configured(squeeze: str = "baseline", seed: int = 0, **train: Any) -> Config:
    values = {**SMALL, "model.squeeze": squeeze, **{f"train.{key}": value for key, value in train.items()}}
    if squeeze != "baseline":
        values["model.reduction"] = 4
    config = resolve(values, seed)
    assert isinstance(config, Config), config
    return config


@pytest.fixture
def digits() -> Iterator[Data]:
    config = configured()
    data = open_data(config.data, batch_size=config.train.batch_size, seed=0)
    yield data
    data.close()


def run(trainer: Trainer, epochs: int) -> None:
    for _ in range(epochs):
        for _ in trainer.train_epoch():
            pass
        trainer.close_epoch()


def plain_loop(config: Config, data: Data, epochs: int) -> torch.nn.Module:
    """Two decay groups, warm-up and cosine, written out."""
    train = config.train
    model = build(config.model, seed=config.seed, init=train.init)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": train.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=1.0,
        momentum=train.momentum,
        nesterov=train.nesterov,
    )
    mean, std = 255 * torch.tensor(data.mean).view(3, 1, 1), 255 * torch.tensor(data.std).view(3, 1, 1)
    step = 0
    for epoch in range(epochs):
        for number, batch in enumerate(data.train_batches(epoch)):
            if number == train.limit_batches:
                break
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(train, step, train.limit_batches or data.steps_per_epoch)
            loss = F.cross_entropy(
                model((batch.images.float() - mean) / std), batch.labels, label_smoothing=train.label_smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            if train.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip_norm)
            optimizer.step()
            step += 1
    return model


@pytest.mark.parametrize(
    "train", [{}, {"label_smoothing": 0.1}, {"clip_norm": 0.5}, {"nesterov": False, "warmup_epochs": 0}]
)
def test_training_is_that_of_a_plain_loop(digits: Data, train: dict[str, Any]) -> None:
    config = configured(channels_last=False, **train)
    trainer = Trainer(config, digits, CPU)
    run(trainer, 2)
    expected = plain_loop(config, digits, 2).state_dict()
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_every_option_of_the_plain_loop_matters(digits: Data) -> None:
    ends = []
    for train in ({}, {"label_smoothing": 0.1}, {"clip_norm": 0.5}, {"nesterov": False}, {"warmup_epochs": 0}):
        trainer = Trainer(configured(**train), digits, CPU)
        run(trainer, 2)
        ends.append(trainer.model.state_dict()["fc.weight"])
    for number, end in enumerate(ends):
        assert not any(torch.equal(end, other) for other in ends[:number])


def test_evaluation_counts_what_a_sort_of_the_logits_counts(digits: Data) -> None:
    trainer = Trainer(configured(limit_batches=100, epochs=2), digits, CPU)
    found = trainer.evaluate()
    trainer.model.eval()
    logits, labels = [], []
    with torch.no_grad():
        for batch in digits.val_batches():
            images = (batch.images.float() - trainer.mean) / trainer.std
            logits.append(trainer.model(images.contiguous(memory_format=torch.channels_last)))
            labels.append(batch.labels)
    scores, truth = torch.cat(logits), torch.cat(labels)
    order = scores.argsort(dim=1, descending=True)
    assert found.top1.tolist() == (order[:, 0] == truth).tolist()
    assert found.top5.tolist() == (order[:, :5] == truth[:, None]).any(1).tolist()
    assert found.loss == pytest.approx(float(F.cross_entropy(scores, truth)), rel=1e-6)
    assert len(found.top1) == digits.val_images


def test_a_tie_with_the_label_is_a_miss(digits: Data) -> None:
    trainer = Trainer(configured(limit_batches=100, epochs=2), digits, CPU)
    with torch.no_grad():
        trainer.model.fc.weight.zero_()
        trainer.model.fc.bias.zero_()
    found = trainer.evaluate()
    assert not found.top1.any()
    assert not found.top5.any()


def test_bf16_keeps_weights_and_statistics_in_float32_and_differs_from_fp32(digits: Data) -> None:
    ends = []
    for precision in ("fp32", "bf16"):
        trainer = Trainer(configured("gapXstd", precision=precision), digits, CPU)
        kinds = set()
        trainer.model.layer1[0].se.squeeze.register_forward_hook(lambda *call, kinds=kinds: kinds.add(call[2].dtype))
        run(trainer, 1)
        assert kinds == {torch.float32}
        assert {value.dtype for value in trainer.model.parameters()} == {torch.float32}
        ends.append(trainer.model.fc.weight)
    assert not torch.equal(ends[0], ends[1])


def test_what_is_compiled_does_not_depend_on_the_shapes_before_it(
    digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that resumes with an evaluation trains with the graph of one that does not."""
    symbolic = []

    def backend(graph: Any, inputs: list[Any]) -> Any:
        symbolic.append(any(isinstance(value, torch.SymInt) for value in inputs))
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    trainer = Trainer(configured(compile=True, limit_batches=None), digits, CPU)
    trainer.evaluate()
    next(trainer.train_epoch())
    assert symbolic == [False, False]  # evaluation, its short last batch too, and training
    torch.compiler.reset()


def test_float32_on_a_gpu_is_not_tf32() -> None:
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = conv.fp32_precision, matmul.fp32_precision, torch.backends.cudnn.benchmark
    try:
        set_numerics(configured(device="cuda"))
        assert (conv.fp32_precision, matmul.fp32_precision) == ("ieee", "ieee")
    finally:
        conv.fp32_precision, matmul.fp32_precision, torch.backends.cudnn.benchmark = before


def test_random_does_not_depend_on_the_batch_size_at_evaluation(digits: Data) -> None:
    config = configured("random", limit_batches=100, epochs=2)
    trainer = Trainer(config, digits, CPU)
    larger = open_data(config.data, batch_size=config.train.batch_size, seed=0, val_batch_size=199)
    whole = Trainer(config, larger, CPU).evaluate()
    part = trainer.evaluate()
    assert part.loss == pytest.approx(whole.loss, rel=1e-5)
    assert part.top1.tolist() == whole.top1.tolist()
