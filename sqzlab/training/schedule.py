"""The learning rate of every step and the crop size of every epoch, as plain functions of the configuration."""

from __future__ import annotations

import math

from sqzlab.config import TrainConfig


def learning_rate(train: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Rate of step `step`, counted from 0 over the whole run.

    Warm-up rises linearly by step and reaches the peak at its last step; `step` then drops by `gamma` at the start
    of each milestone epoch (epochs counted from 0), `cosine` and `linear` fall by step to 0 after the last one.
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
    if train.schedule == "linear":
        return train.lr * (1 - share)
    return train.lr * 0.5 * (1 + math.cos(math.pi * share))


def crop_size(train: TrainConfig, epoch: int, image_size: int) -> int:
    """Side in pixels of the training crops of an epoch, counted from 0; `image_size` is that of the validation's."""
    if train.train_sizes is None:
        return image_size
    return train.train_sizes[sum(milestone <= epoch for milestone in train.size_milestones or ())]


def crop_sizes(train: TrainConfig, image_size: int) -> tuple[int, ...]:
    """Every side that training crops have, each once, in the order in which they come."""
    return tuple(dict.fromkeys(train.train_sizes or (image_size,)))
