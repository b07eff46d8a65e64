"""Blocks of a residual network that gate or change its maps, each (N, C, H, W) -> (N, C, H, W).

A squeeze with an excitation makes an `SEBlock`; what is more than another statistic is a whole block, built as
`BLOCKS[name](channels, size, options)` for maps of size x size. Sums over a map are taken in float32 whatever the
input's half type and whether or not autocast is on; float64 stays float64. Each whole block's `passes` are the times
that it goes over full-size maps, each counted as one operation an element in the papers' counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqzlab.catalog import SQUEEZES as ROWS
from sqzlab.catalog import Site, hidden_width
from sqzlab.config import ModelConfig
from sqzlab.networks.cbam import CBAM
from sqzlab.networks.gsop import GSoP
from sqzlab.networks.se_block import Excitation, Gate, SEBlock
from sqzlab.networks.squeezes import SQUEEZES, Attention
from sqzlab.networks.statistics import mean_and_std
from sqzlab.networks.whole_block import BlockOptions as BlockOptions
from sqzlab.networks.whole_block import ChannelBlock


def make_block(config: ModelConfig, site: Site, last_size: int) -> nn.Module:
    """The block of a complete configuration at one place; maps are last_size x last_size in the last stage."""
    hidden = None
    if config.reduction is not None and config.width_rule is not None:
        hidden = hidden_width(site.channels, config.reduction, config.width_rule)
    if ROWS[config.squeeze].whole:
        return BLOCKS[config.squeeze](site.channels, site.size, BlockOptions(hidden, config.fc_bias, config.gate))
    assert hidden is not None
    assert config.fc_bias is not None
    assert config.gate is not None
    squeeze = SQUEEZES[config.squeeze](site.channels, site.size, last_size)
    return SEBlock(squeeze, Excitation(site.channels, hidden, bias=config.fc_bias, gate=config.gate))


class NoSqueeze(nn.Module):
    """Excitation of every pixel by itself: the layers of an SE block as 1x1 convolutions. arXiv:1709.01507 table 16.

    Names and shapes of its parameters are an SE block's, so both start equal. The gate is (N, C, H, W).
    """

    passes: ClassVar[int] = 1

    def __init__(self, channels: int, size: int, options: BlockOptions) -> None:
        super().__init__()
        assert options.hidden is not None
        assert options.fc_bias is not None
        assert options.gate is not None
        self.excitation = Excitation(channels, options.hidden, bias=options.fc_bias, gate=options.gate)

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(_per_pixel(self.excitation.fc1, x))  # (N, hidden, H, W)
        gate: Tensor = self.excitation.gate(_per_pixel(self.excitation.fc2, z))  # (N, C, H, W)
        return x * gate.to(x.dtype)


class SRM(ChannelBlock):
    """Gate of each channel by its own mean and standard deviation. arXiv:1903.10829.

    Two weights a channel, which start at 0, then BatchNorm and sigmoid, as released: variance unbiased, 1e-5 added.
    Raises ValueError on 1x1 maps, where it is not defined.
    """

    passes: ClassVar[int] = 3
    initial: ClassVar[Mapping[str, float]] = {"weight": 0.0}

    def __init__(self, channels: int, size: int, options: BlockOptions) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 2))
        self.norm = nn.BatchNorm1d(channels)
        self.gate = Gate("sigmoid")

    def gates(self, x: Tensor) -> Tensor:
        mean, std = mean_and_std(x)
        style = torch.stack([mean, (std.square() + 1e-5).sqrt()], dim=2)  # (N, C, 2)
        gate: Tensor = self.gate(self.norm((style * self.weight).sum(dim=2).to(self.weight.dtype)))
        return gate


class ECA(ChannelBlock):
    """Gate by the means of a channel and its neighbours: one convolution along the channels. arXiv:1910.03151.

    Its odd kernel grows with C by the paper's rule (gamma 2, b 1). Differs: the released ResNet-50
    was trained with kernels of 3, 5, 5, 7; the rule, and this, gives 5, 5, 5, 7.
    """

    passes: ClassVar[int] = 2

    def __init__(self, channels: int, size: int, options: BlockOptions) -> None:
        super().__init__()
        kernel = int(abs((math.log2(channels) + 1) / 2)) // 2 * 2 + 1
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        self.gate = Gate("sigmoid")

    def gates(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3)).to(self.conv.weight.dtype)
        gate: Tensor = self.gate(self.conv(mean[:, None])[:, 0])
        return gate


class GCT(ChannelBlock):
    """Gate 1 + tanh of each channel's l2 norm, compared with the other channels'. arXiv:1909.11519.

    Starts as the identity. Differs: the original stands before convolutions, this where `placement` says; there,
    weight decay may leave out beta.
    """

    passes: ClassVar[int] = 2
    initial: ClassVar[Mapping[str, float]] = {"alpha": 1.0, "gamma": 0.0, "beta": 0.0}

    def __init__(self, channels: int, size: int, options: BlockOptions) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        self.gate = TanhGate("tanh")

    def gates(self, x: Tensor) -> Tensor:
        embedding = self.alpha * (x.square().sum(dim=(2, 3)) + 1e-5).sqrt()  # (N, C)
        scale = self.gamma * (embedding.square().mean(dim=1, keepdim=True) + 1e-5).rsqrt()
        gate: Tensor = self.gate(embedding * scale + self.beta)
        return gate


class TanhGate(Gate):
    """1 + tanh."""

    def forward(self, z: Tensor) -> Tensor:
        return 1 + super().forward(z)


class GC(nn.Module):
    """Global context: attention pooling, two layers with LayerNorm and ReLU between, added to every pixel.

    arXiv:1904.11492 fig. 4d. The last layer starts at 0, and so the block as the identity. It has no gate.
    """

    passes: ClassVar[int] = 2
    initial: ClassVar[Mapping[str, float]] = {"fc2.weight": 0.0, "fc2.bias": 0.0}

    def __init__(self, channels: int, size: int, options: BlockOptions) -> None:
        super().__init__()
        assert options.hidden is not None
        self.squeeze = Attention(channels, size, size)
        self.fc1 = nn.Linear(channels, options.hidden)
        self.norm = nn.LayerNorm(options.hidden)
        self.fc2 = nn.Linear(options.hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        z = self.squeeze(x).to(self.fc1.weight.dtype)  # (N, C)
        context: Tensor = self.fc2(F.relu(self.norm(self.fc1(z))))  # (N, C)
        return x + context.to(x.dtype)[:, :, None, None]


BLOCKS: dict[str, type[nn.Module]] = {
    "no_squeeze": NoSqueeze,
    "CBAM": CBAM,
    "SRM": SRM,
    "ECA": ECA,
    "GCT": GCT,
    "GSoP": GSoP,
    "GC": GC,
}


def _per_pixel(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.conv2d(x, layer.weight[:, :, None, None], layer.bias)
