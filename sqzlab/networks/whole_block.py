"""What the whole blocks share: their options, and the form of those that are one gate on the channels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from sqzlab.networks.statistics import in_float32


@dataclass(frozen=True)
class BlockOptions:
    """Hidden units, biases and gate of an excitation; None where the block's row in `catalog` has no such argument."""

    hidden: int | None
    fc_bias: bool | None
    gate: str | None


class ChannelBlock(nn.Module, ABC):
    """Scales every map by its gate, (N, C, H, W) -> (N, C, H, W); a subclass gives `gates`."""

    def forward(self, x: Tensor) -> Tensor:
        gate = in_float32(self.gates, x)  # (N, C)
        return x * gate.to(x.dtype)[:, :, None, None]

    @abstractmethod
    def gates(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C), both float32 or both float64."""
