"""What squeezes and whole blocks share: the precision of their sums, the base class of squeezes, and the statistics
that more than one of them takes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqzlab.networks.moments import Moments, Sums


class Squeeze(nn.Module, ABC):
    """(N, C, H, W) -> (N, C), in float32 or float64; a subclass gives `statistic` and `passes`."""

    passes: ClassVar[int]
    """Times that it goes over its maps, each counted as one operation an element in the papers' counts."""
    sums: Sums | None = None
    """What `of_moments` reads; None where the statistic is no function of sums, or of no map at all."""

    def __init__(self, channels: int, size: int, last_size: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return in_float32(self.statistic, x)

    def check(self, x: Tensor) -> None:
        """Raises ValueError where it is not defined on maps of this size."""

    def sums_of(self, x: Tensor) -> Sums | None:
        """What `of_moments` reads of maps of this size."""
        return self.sums

    def of_moments(self, moments: Moments) -> Tensor:
        """The statistic, (N, C), from its maps' moments; for squeezes that have `sums`."""
        raise TypeError(f"{type(self).__name__} is no function of sums")

    @abstractmethod
    def statistic(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C), both float32 or both float64."""


def in_float32(compute: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`compute(x)` without autocast, and of a half type's float32; float64 stays float64."""
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()  # sums of squares overflow float16 from |x| of 200 on
    with without_autocast(x):
        return compute(x)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A block in which nothing on x's device is rounded to a half type unasked."""
    if x.is_meta or not torch.is_autocast_enabled(x.device.type):  # the meta device knows no autocast
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def maximum(x: Tensor) -> Tensor:
    """Spatial maximum, (N, C, H, W) -> (N, C).

    Ties: the first pixel in row-major order receives the whole gradient, in every memory format and on every device.
    """
    if x.is_cuda:  # adaptive_max_pool2d runs one thread a map there and its backward is not deterministic
        return x.flatten(2).max(dim=2).values
    return F.adaptive_max_pool2d(x, 1).flatten(1)  # with its backward, a sixth of amax's time in channels_last


def mean_and_std(x: Tensor) -> tuple[Tensor, Tensor]:
    """Spatial mean and unbiased standard deviation, each (N, C); the latter has gradient 0 where it is 0.

    Raises ValueError on 1x1 maps.
    """
    if x.shape[2] * x.shape[3] < 2:
        raise ValueError("the unbiased standard deviation is not defined on 1x1 maps")
    mean, std = _MeanAndStd.apply(x)
    return mean.flatten(1), std.flatten(1)


class _MeanAndStd(torch.autograd.Function):
    """Two passes and a closed-form gradient: a third of the time of torch.std, which is scalar code on the CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.is_cuda:  # one pass, and exact on constant maps as well
            var, mean = torch.var_mean(x, dim=(2, 3), keepdim=True)
        else:
            origin = x[:, :, :1, :1]  # a constant map less its first pixel is exactly 0, and so is its deviation
            deviation = x - origin
            offset = deviation.mean(dim=(2, 3), keepdim=True)
            mean = origin + offset
            var = deviation.sub_(offset).square_().sum(dim=(2, 3), keepdim=True) / (x.shape[2] * x.shape[3] - 1)
        std = var.sqrt()
        ctx.save_for_backward(x, mean, std)
        return mean, std  # (N, C, 1, 1) each

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_std: Tensor) -> Tensor:
        x, mean, std = ctx.saved_tensors
        pixels = x.shape[2] * x.shape[3]
        slope = grad_std / ((pixels - 1) * std).masked_fill(std == 0, torch.inf)  # 0 on constant maps
        return torch.addcmul(grad_mean / pixels, x - mean, slope)
