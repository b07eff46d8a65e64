"""Bytes that a compiled function moves, forward and backward, by Inductor's own count.

Code is generated, neither built nor run: the count is of the schedule, and the same on every machine of one kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn
from unittest.mock import patch

import torch
import torch._functorch.config as functorch_config
import torch._inductor.compile_fx as compile_fx
import torch._inductor.config as inductor_config
from torch import Tensor, nn
from torch._inductor import metrics
from torch._inductor.graph import GraphLowering
from torch._inductor.scheduler import BaseSchedulerNode
from torch._inductor.virtualized import V
from torch.nn import functional as F

from sqzlab.networks.folded import folded
from sqzlab.networks.se_block import Excitation, SEBlock
from sqzlab.networks.squeezes import SQUEEZES, Random


class _NotBuiltError(Exception):
    """Instead of running."""


def bytes_moved(function: Callable[..., Tensor], *inputs: Tensor) -> Counter[int]:
    """Bytes read and written by all kernels, by the number of elements of the buffer that they are of.

    A kernel counts once what it reads in several places. Raises RuntimeError where torch has changed so much that
    the parts do not add up to its own total.
    """
    torch.compiler.reset()
    metrics.reset()
    with _counting() as kernels, suppress(_NotBuiltError):
        torch.compile(function, dynamic=False)(*inputs)
    found = sum(kernels.values(), Counter[int]())
    if not found or sum(found.values()) != metrics.num_bytes_accessed:
        raise RuntimeError(f"{sum(found.values())} bytes of {metrics.num_bytes_accessed} were seen")
    return found


class Passes(NamedTuple):
    """Bytes, in those of one full-size map: of such maps, and of all else (N x C numbers, grids, weights, input)."""

    maps: float
    rest: float


def block_passes(
    squeeze: str, channels: int, size: int, dtype: torch.dtype, *, fold: bool, images: int, training: bool = True
) -> Passes:
    """What a 1x1 convolution of 16 channels, BatchNorm, squeeze and gate, addition and ReLU move, maps size x size.

    Forward and backward or, not `training`, forward alone with running statistics. `squeeze` is one of
    `networks.squeezes` or "none". The input is in channels_last; a half type comes by autocast.
    """
    block = _Block(squeeze, channels, size, fold=fold).to(memory_format=torch.channels_last).train(training)
    inputs = [
        torch.zeros(images, c, size, size, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
        for c in (16, channels)
    ]
    if squeeze == "random":
        inputs.append(torch.rand(images, channels))
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)
    with torch.set_grad_enabled(training), mixed:
        moved = bytes_moved(block, *inputs)
    full = images * channels * size * size
    one = full * dtype.itemsize
    return Passes(moved[full] / one, (moved.total() - moved[full]) / one)


class _Block(nn.Module):
    def __init__(self, squeeze: str, channels: int, size: int, *, fold: bool) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(16, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.fold = fold
        self.se: SEBlock | None = None
        if squeeze != "none":
            excitation = Excitation(channels, channels // 16, bias=False, gate="sigmoid")
            self.se = SEBlock(SQUEEZES[squeeze](channels, size, min(size, 7)), excitation)

    def forward(self, x: Tensor, shortcut: Tensor, noise: Tensor | None = None) -> Tensor:
        if noise is not None:  # drawn outside the graph, as in training
            assert self.se is not None
            assert isinstance(self.se.squeeze, Random)
            self.se.squeeze.noise.values = noise
        y = self.conv(x)
        if self.fold:
            return folded(y, self.norm, self.se, shortcut)
        u = self.norm(y)
        return F.relu((u if self.se is None else self.se(u)) + shortcut)


@contextmanager
def _counting() -> Iterator[dict[BaseSchedulerNode, Counter[int]]]:
    kernels: dict[BaseSchedulerNode, Counter[int]] = {}
    accesses = BaseSchedulerNode.get_read_write_buffer_accesses

    def noted(node: BaseSchedulerNode, include_reads: bool, include_writes: bool) -> dict[str, int]:
        found: dict[str, int] = accesses(node, include_reads, include_writes)
        if include_reads and include_writes:
            count: Counter[int] = Counter()
            for name, moved in found.items():
                count[int(V.graph.get_numel(name))] += moved
            kernels[node] = count
        return found

    with ExitStack() as stack:
        stack.enter_context(patch.object(BaseSchedulerNode, "get_read_write_buffer_accesses", noted))
        stack.enter_context(patch.object(GraphLowering, "compile_to_module", _generated))
        log = compile_fx.inductor_metrics_log  # torch counts only for it
        stack.enter_context(patch.object(log, "isEnabledFor", lambda level: True))
        stack.enter_context(patch.object(log, "info", lambda *_: None))
        stack.enter_context(inductor_config.patch(fx_graph_cache=False))
        stack.enter_context(functorch_config.patch(enable_autograd_cache=False, force_non_lazy_backward_lowering=True))
        yield kernels


def _generated(graph: GraphLowering) -> SimpleNamespace:
    graph.codegen()
    return SimpleNamespace(call=_stop, __file__="")


def _stop(*_: Any) -> NoReturn:
    raise _NotBuiltError
