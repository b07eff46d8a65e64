"""SGD as the recipes state it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn
from torch.optim import SGD

from sqzlab.config import TrainConfig

FACTOR = "factor"
"""A group's factor on the rate that the schedule gives."""


def make_optimizer(model: nn.Module, train: TrainConfig, pretrained: Collection[str] = ()) -> SGD:
    """SGD with momentum over two groups: decayed parameters first, then norm and bias parameters.

    The second group is there in every case, with the same decay where the recipe says `decay_norm_and_bias`, so
    that a checkpoint has one form. It has every parameter of one dimension: the norms' and the biases, and of blocks
    GCT's alpha, gamma and beta and GeM's p. Differs: the source of GCT has a flag that spares beta alone.
    With `train.lrp` there are four: these two of the new parameters, then these two of the `pretrained` ones (by name),
    whose factor is `lrp`. A factor of 0 leaves their weights as they are; BatchNorm's running statistics still move.

    torch steps all parameters at once (foreach) on CUDA, one by one on the CPU. The rate is a number of Python's: no
    step waits for the device to read it.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if train.lrp is None:
        return _sgd(_groups([p for _, p in named], train), train)
    new = _groups([p for name, p in named if name not in pretrained], train)
    loaded = _groups([p for name, p in named if name in pretrained], train)
    factors = (1.0, 1.0, train.lrp, train.lrp)
    return _sgd([{**group, FACTOR: f} for group, f in zip(new + loaded, factors, strict=True)], train)


def set_rate(optimizer: SGD, rate: float) -> None:
    """Gives every group this rate times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(FACTOR, 1.0)


def _groups(parameters: list[nn.Parameter], train: TrainConfig) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": train.weight_decay},
        {
            "params": [p for p in parameters if p.ndim <= 1],
            "weight_decay": train.weight_decay if train.decay_norm_and_bias else 0.0,
        },
    ]


def _sgd(groups: list[dict[str, Any]], train: TrainConfig) -> SGD:
    return SGD(groups, lr=train.lr, momentum=train.momentum, nesterov=train.nesterov)
