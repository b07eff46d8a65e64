"""SGD as the recipes state it."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD

from sqzlab.config import TrainConfig


def make_optimizer(model: nn.Module, train: TrainConfig) -> SGD:
    """SGD with momentum over two groups: decayed parameters first, then norm and bias parameters.

    The second group is there in every case, with the same decay where the recipe says `decay_norm_and_bias`, so
    that a checkpoint has one form. One-dimensional parameters are exactly the norms' and the biases.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": train.weight_decay},
        {
            "params": [p for p in parameters if p.ndim <= 1],
            "weight_decay": train.weight_decay if train.decay_norm_and_bias else 0.0,
        },
    ]
    return SGD(groups, lr=train.lr, momentum=train.momentum, nesterov=train.nesterov)
