"""Whole blocks in float64 whose weights and running statistics are all different, and maps for them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sqzlab import catalog
from sqzlab.networks.blocks import BLOCKS, BlockOptions


def made(name: str, channels: int = 6, size: int = 5, *, hidden: int = 3, fc_bias: bool = True) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    arguments = catalog.SQUEEZES[name].arguments
    options = BlockOptions(
        hidden if "reduction" in arguments else None,
        fc_bias if "fc_bias" in arguments else None,
        "sigmoid" if "gate" in arguments else None,
    )
    block = BLOCKS[name](channels, size, options).double()
    with torch.no_grad():
        for parameter in block.parameters():
            fan = max(parameter[0].numel(), 1) if parameter.ndim > 1 else 1
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(drawn / math.sqrt(fan))
        for key, buffer in block.named_buffers():
            if "running" in key:
                buffer.copy_(torch.rand(buffer.shape, generator=generator, dtype=torch.float64) + 0.5)
    return block


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
