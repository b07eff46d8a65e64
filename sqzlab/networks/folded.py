"""The end of a residual block as one function of its last convolution's output: BatchNorm, squeeze, gate, addition
and ReLU.

Every squeeze that is a function of sums over the maps after BatchNorm is one of sums over the maps before it, which
BatchNorm reads for its own statistics; the gate then joins BatchNorm's scale and shift, and what is left to do is
relu(y * A[n, c] + B[n, c] + shortcut). A compiled block goes over its maps as often as one without a squeeze. It is
the same mathematics as the plain block's with other roundings: nothing is rounded to a half type between the
convolution and the output but the excitation. BatchNorm stays the holder of parameters and running statistics.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sqzlab.networks.moments import Moments, Sums, moments
from sqzlab.networks.se_block import SEBlock
from sqzlab.networks.statistics import without_autocast


class SharedStatistics(ABC):
    """A BatchNorm whose batch is shared by several processes."""

    @abstractmethod
    def over_all(self, mean: Tensor, var: Tensor, pixels: int) -> tuple[Tensor, Tensor, int]:
        """Mean (C,), biased variance (C,) and pixels a channel of the whole batch, from those of this process."""


def folds(se: nn.Module | None) -> bool:
    """Whether `folded` can do what this block does; None and nn.Identity are none at all."""
    if se is None or isinstance(se, nn.Identity):
        return True
    return isinstance(se, SEBlock) and (se.squeeze.passes == 0 or se.squeeze.sums is not None)


def folded(y: Tensor, norm: _BatchNorm, se: nn.Module | None, shortcut: Tensor | None = None) -> Tensor:
    """relu(se(norm(y)) + shortcut), all (N, C, H, W), where `se` `folds`.

    Raises ValueError where the squeeze does on maps of this size, and in training where a channel has one pixel in the
    whole batch.
    """
    assert folds(se)
    block = se if isinstance(se, SEBlock) else None
    sums = None
    if block is not None and block.squeeze.sums is not None:
        block.squeeze.check(y)
        sums = block.squeeze.sums_of(y)
    found = None
    if norm.training or sums is not None:
        found = moments(y, sums or Sums(), norm.weight.detach().sign())
    mean, var = _statistics(norm, found)
    scale = norm.weight * (var + norm.eps).rsqrt()  # (C,)
    if block is None:
        return _scale_add_relu(y, mean, scale.expand(len(y), -1), norm.bias.expand(len(y), -1), shortcut)
    if sums is None:
        z = block.squeeze(y[:, :, :1, :1])
    else:
        assert found is not None
        with without_autocast(y):
            z = block.squeeze.of_moments(found.scaled(scale, mean, norm.bias))  # (N, C)
    gate = block.excitation(z.to(block.excitation.fc1.weight.dtype)).to(scale.dtype)  # (N, C)
    return _scale_add_relu(y, mean, scale * gate, norm.bias * gate, shortcut)


def _statistics(norm: _BatchNorm, found: Moments | None) -> tuple[Tensor, Tensor]:
    """Mean and biased variance to normalise with, (C,) each; in training the batch's, and the running ones move."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    if not norm.training:
        return norm.running_mean, norm.running_var
    assert found is not None
    assert norm.momentum is not None
    assert norm.num_batches_tracked is not None
    n = len(found.mean) * found.pixels
    mean = found.mean.mean(dim=0)
    var = (found.squares.sum(dim=0) + found.pixels * (found.mean - mean).square().sum(dim=0)) / n
    if isinstance(norm, SharedStatistics):
        mean, var, n = norm.over_all(mean, var, n)
    if n < 2:
        raise ValueError("in training, BatchNorm needs more than one pixel a channel")
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(var * (n / (n - 1)), norm.momentum)
    return mean, var


def _scale_add_relu(y: Tensor, origin: Tensor, scale: Tensor, shift: Tensor, shortcut: Tensor | None) -> Tensor:
    """relu((y - origin) * scale + shift + shortcut): origin (C,), scale and shift (N, C), shortcut (N, C, H, W)."""
    return cast(Tensor, _ScaleAddReLU.apply(y, origin, scale, shift, shortcut))


class _ScaleAddReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, origin: Tensor, scale: Tensor, shift: Tensor, shortcut: Tensor | None) -> Tensor:
        u = (y - origin[:, None, None]) * scale[:, :, None, None] + shift[:, :, None, None]
        if shortcut is not None:
            u = u + shortcut
        out = torch.relu(u).to(y.dtype)
        ctx.save_for_backward(y, origin, scale, out)
        ctx.shortcut_type = None if shortcut is None else shortcut.dtype
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, origin, scale, out = ctx.saved_tensors
        g = torch.where(out > 0, grad, 0)
        total = g.sum(dim=(2, 3), dtype=scale.dtype)
        along = (g * (y - origin[:, None, None])).sum(dim=(2, 3))
        grad_y = (g * scale[:, :, None, None]).to(y.dtype)
        grad_shortcut = None if ctx.shortcut_type is None else g.to(ctx.shortcut_type)
        return grad_y, -(scale * total).sum(dim=0), along, total, grad_shortcut
