"""The Squeeze-and-Excitation block: squeeze (N, C, H, W) -> (N, C), excitation (N, C) -> (N, C), gate and scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqzlab.networks.squeezes import Squeeze


class Excitation(nn.Module):
    """Two linear layers with ReLU between and sigmoid after, (N, C) -> (N, C). arXiv:1709.01507 eq. 3."""

    def __init__(self, channels: int, reduction: int, *, bias: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // reduction, bias=bias)
        self.fc2 = nn.Linear(channels // reduction, channels, bias=bias)

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.fc2(F.relu(self.fc1(z))))


class SEBlock(nn.Module):
    """Scales every map by a gate computed from the squeeze, (N, C, H, W) -> (N, C, H, W). arXiv:1709.01507 eq. 4."""

    def __init__(self, squeeze: Squeeze, channels: int, reduction: int, *, fc_bias: bool) -> None:
        super().__init__()
        self.squeeze = squeeze
        self.excitation = Excitation(channels, reduction, bias=fc_bias)

    def forward(self, x: Tensor) -> Tensor:
        z = self.squeeze(x).to(self.excitation.fc1.weight.dtype)  # (N, C)
        gate: Tensor = self.excitation(z)  # (N, C)
        return x * gate.to(x.dtype)[:, :, None, None]
