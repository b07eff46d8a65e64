"""The learning rate of every step, as a plain function of the configuration."""

from __future__ import annotations

import math

from sqzlab.config import TrainConfig


def learning_rate(train: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Rate of step `step`, counted from 0 over the whole run.

    Warm-up rises linearly by step and reaches the peak at its last step; `step` then drops by `gamma` at the start
    of each milestone epoch (epochs counted from 0), `cosine` falls by step to 0 after the last one.
    """
    warmup_steps = train.warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return train.lr * (step + 1) / warmup_steps
    if train.schedule == "step":
        assert train.milestones is not None
        assert train.gamma is not None
        epoch = step // steps_per_epoch
        return train.lr * train.gamma ** sum(milestone <= epoch for milestone in train.milestones)
    share = (step - warmup_steps) / (train.epochs * steps_per_epoch - warmup_steps)
    return train.lr * 0.5 * (1 + math.cos(math.pi * share))
