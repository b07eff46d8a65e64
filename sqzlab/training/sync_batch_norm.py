"""BatchNorm whose statistics are those of the whole batch, which several processes share.

One implementation for every device, made of BatchNorm's own kernels. torch's SyncBatchNorm refuses the CPU, where
the tests are, and waits for the GPU in every layer, because it allows for parts of different sizes; ours are equal.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from sqzlab.networks.folded import SharedStatistics
from sqzlab.training.world import World


class SyncBatchNorm(_BatchNorm, SharedStatistics):
    """(N, C, ...) -> (N, C, ...), with the parameters, buffers and names of the BatchNorm that it replaces."""

    def __init__(self, norm: _BatchNorm, world: World) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(norm.__dict__)  # its very parameters: optimisers and hooks keep theirs
        self.world = world

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        return self._over_all(x) if self.training else super().forward(x)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # as below
    def over_all(self, mean: Tensor, var: Tensor, pixels: int) -> tuple[Tensor, Tensor, int]:
        mean, var = _OverAll.apply(mean, var, self.world)
        return mean, var, self.world.size * pixels

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a compiled graph cannot hold what processes say to each other
    def _over_all(self, x: Tensor) -> Tensor:
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        y, mean, var = _Normalise.apply(x, self.weight, self.bias, self.eps, self.world)
        n = self.world.size * x.numel() // x.shape[1]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (n / (n - 1)), self.momentum)
        return cast(Tensor, y)


def synchronise(module: nn.Module, world: World) -> None:
    """Replaces every BatchNorm within `module`, in place."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, SyncBatchNorm(child, world))
        else:
            synchronise(child, world)


class _OverAll(torch.autograd.Function):
    """(mean (C,), biased variance (C,)) of a process's part -> those of the whole batch."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, var: Tensor, world: World) -> tuple[Tensor, Tensor]:
        vars_, means = world.gather(torch.stack([var, mean])).unbind(1)  # (size, C) each
        apart = mean - means.mean(0)
        ctx.save_for_backward(apart)
        ctx.world = world
        return means.mean(0), vars_.mean(0) + (means - means.mean(0)).square().mean(0)

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_var: Tensor) -> tuple[Tensor | None, ...]:
        (apart,) = ctx.saved_tensors
        grad_mean, grad_var = (ctx.world.sum(torch.stack([grad_mean, grad_var])) / ctx.world.size).unbind()
        return grad_mean + 2 * apart * grad_var, grad_var, None


class _Normalise(torch.autograd.Function):
    """(x, weight, bias) -> (normalised x, mean (C,), biased variance (C,)).

    The gradients of weight and bias are this process's share, as those of all other parameters are.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, world: World
    ) -> tuple[Tensor, Tensor, Tensor]:
        exact = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        var, mean = torch.var_mean(exact, dim=[0, *range(2, x.ndim)], correction=0)
        vars_, means = world.gather(torch.stack([var, mean])).unbind(1)  # (size, C) each
        mean = means.mean(0)
        var = vars_.mean(0) + (means - mean).square().mean(0)  # never a difference of large squares
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps, ctx.world = eps, world
        ctx.mark_non_differentiable(mean, var)
        return F.batch_norm(x, mean, var, weight, bias, eps=eps), mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _mean: Tensor, _var: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        eps = ctx.eps
        direct, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, var, None, None, False, eps, [True, True, True]
        )
        n = ctx.world.size * x.numel() // x.shape[1]
        over_all = ctx.world.sum(torch.stack([grad_weight, grad_bias])) / n
        slope = -weight * (var + eps).rsqrt()
        # what x does through mean and variance: -w/s * (mean of g + x^ * mean of g x^), a batch norm of x itself
        through = F.batch_norm(x, mean, var, slope * over_all[0], slope * over_all[1], eps=eps)
        return direct.add_(through), grad_weight, grad_bias, None, None
