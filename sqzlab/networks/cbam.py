"""CBAM, (N, C, H, W) -> (N, C, H, W): a gate on the channels, then a gate on the pixels. arXiv:1807.06521."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqzlab.networks.se_block import Excitation
from sqzlab.networks.statistics import in_float32, maximum
from sqzlab.networks.whole_block import BlockOptions


class CBAM(nn.Module):
    """Gate on the channels by their means and maxima, through the same two layers, added; then `SpatialGate`.

    As released (Jongchan/attention-module). The pixels' gate starts at 0.5, its BatchNorm's weight at 0.
    """

    passes: ClassVar[int] = 6  # mean, maximum and scale, once in each direction
    initial: ClassVar[Mapping[str, float]] = {"spatial.norm.weight": 0.0}

    def __init__(self, channels: int, size: int, options: BlockOptions) -> None:
        super().__init__()
        assert options.hidden is not None
        assert options.fc_bias is not None
        self.excitation = Excitation(channels, options.hidden, bias=options.fc_bias, gate="sigmoid")
        self.spatial = SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        fc1, fc2 = self.excitation.fc1, self.excitation.fc2
        z = in_float32(_mean_and_maximum, x).to(fc1.weight.dtype)  # (2 N, C)
        from_mean, from_maximum = fc2(F.relu(fc1(z))).chunk(2)
        gate: Tensor = self.excitation.gate(from_mean + from_maximum)  # (N, C)
        scaled: Tensor = self.spatial(x * gate.to(x.dtype)[:, :, None, None])
        return scaled


class SpatialGate(nn.Module):
    """Scales every pixel by a gate from a 7x7 convolution over maximum and mean of its channels, in this order.

    It is no `Gate`: those are on channels. Ties: one channel receives the whole gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(1, momentum=0.01)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        maps = in_float32(_over_channels, x).to(self.conv.weight.dtype)  # (N, 2, H, W)
        gate = torch.sigmoid(self.norm(self.conv(maps)))  # (N, 1, H, W)
        return x * gate.to(x.dtype)


def _mean_and_maximum(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (2 N, C)."""
    return torch.cat([x.mean(dim=(2, 3)), maximum(x)])


def _over_channels(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 2, H, W)."""
    return torch.cat([x.max(dim=1, keepdim=True).values, x.mean(dim=1, keepdim=True)], dim=1)
