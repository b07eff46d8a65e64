"""The Squeeze-and-Excitation block: squeeze (N, C, H, W) -> (N, C), excitation (N, C) -> (N, C), gate and scale.

Every module here and in `blocks.py` that scales channels takes the factors from a child that is a `Gate`, so that a
hook on the `Gate`s of a network sees all of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqzlab.networks.squeezes import Squeeze


class Gate(nn.Module):
    """What turns an excitation into the factors on the channels, elementwise; `kind` is one of `catalog.GATES`.

    Sigmoid: arXiv:1709.01507 eq. 3. Tanh and ReLU in its place: table 12.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.function = GATES[kind]

    def forward(self, z: Tensor) -> Tensor:
        return self.function(z)

    def extra_repr(self) -> str:
        return self.kind


class Excitation(nn.Module):
    """Two linear layers with ReLU between and a gate after, (N, C) -> (N, C). arXiv:1709.01507 eq. 3.

    `hidden` is the number of units between the layers.
    """

    def __init__(self, channels: int, hidden: int, *, bias: bool, gate: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden, bias=bias)
        self.fc2 = nn.Linear(hidden, channels, bias=bias)
        self.gate = Gate(gate)

    def forward(self, z: Tensor) -> Tensor:
        factors: Tensor = self.gate(self.fc2(F.relu(self.fc1(z))))
        return factors


class SEBlock(nn.Module):
    """Scales every map by a gate computed from the squeeze, (N, C, H, W) -> (N, C, H, W). arXiv:1709.01507 eq. 4."""

    def __init__(self, squeeze: Squeeze, excitation: Excitation) -> None:
        super().__init__()
        self.squeeze = squeeze
        self.excitation = excitation

    def forward(self, x: Tensor) -> Tensor:
        z = self.squeeze(x).to(self.excitation.fc1.weight.dtype)  # (N, C)
        gate: Tensor = self.excitation(z)  # (N, C)
        return x * gate.to(x.dtype)[:, :, None, None]


GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
}
