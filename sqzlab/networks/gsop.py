"""GSoP, (N, C, H, W) -> (N, C, H, W): a gate on the channels by their covariance. arXiv:1811.12006."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqzlab.networks.se_block import Gate
from sqzlab.networks.statistics import in_float32
from sqzlab.networks.whole_block import BlockOptions

WIDTH = 128
"""Channels whose covariance is taken."""


class GSoP(nn.Module):
    """Covariance of 128 channels, its rows weighted into 4 numbers each, mixed into one gate a channel.

    The layers and their order are those of the released code's channel attention (ZilinGao, `chan_att`): ReLU, 1x1
    convolution to 128 with BatchNorm and ReLU, biased covariance, BatchNorm over its rows, row-wise convolution, 1x1
    convolution to C, sigmoid; all convolutions with bias.

    Differs: there it stands in the last residual block of each stage only, the first stage's 128 channels are taken at
    every other row and column, and the last stage keeps maps of 14x14.
    """

    passes: ClassVar[int] = 1  # the sums are over 128 channels, not over the maps

    def __init__(self, channels: int, size: int, options: BlockOptions) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, WIDTH, 1)
        self.norm = nn.BatchNorm2d(WIDTH)
        self.row_norm = nn.BatchNorm2d(WIDTH)
        self.rows = nn.Conv2d(WIDTH, 4 * WIDTH, (WIDTH, 1), groups=WIDTH)
        self.expand = nn.Conv2d(4 * WIDTH, channels, 1)
        self.gate = Gate("sigmoid")

    def forward(self, x: Tensor) -> Tensor:
        reduced = F.relu(self.norm(self.reduce(F.relu(x))))  # (N, 128, H, W)
        rows = in_float32(covariance, reduced).to(self.rows.weight.dtype)[:, :, :, None]  # (N, 128, 128, 1)
        z = self.expand(self.rows(self.row_norm(rows)))  # (N, C, 1, 1)
        gate: Tensor = self.gate(z.flatten(1))  # (N, C)
        return x * gate.to(x.dtype)[:, :, None, None]


def covariance(x: Tensor) -> Tensor:
    """Of the channels over the pixels, divided by H*W: (N, C, H, W) -> (N, C, C)."""
    deviation = (x - x.mean(dim=(2, 3), keepdim=True)).flatten(2)  # (N, C, H * W)
    return torch.bmm(deviation, deviation.transpose(1, 2)) / deviation.shape[2]
