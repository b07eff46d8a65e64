"""The one table through which every stored value becomes a number that is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    key: str  # column of the records
    label: str
    transform: Callable[[Any], Any]  # on numbers and arrays


METRICS = {
    "top1": Metric("top1", "Top-1 accuracy (%)", lambda fraction: 100 * fraction),
    "top5": Metric("top5", "Top-5 accuracy (%)", lambda fraction: 100 * fraction),
    "top1_err": Metric("top1", "Top-1 error (%)", lambda fraction: 100 * (1 - fraction)),
    "top5_err": Metric("top5", "Top-5 error (%)", lambda fraction: 100 * (1 - fraction)),
    "improved": Metric("top1", "Top-1 gain over the baseline (%p)", lambda fraction: 100 * fraction),
    "train_loss": Metric("train_loss", "training loss", lambda loss: loss),
    "gflops": Metric("macs", "GMACs (convolutions and linear layers)", lambda macs: macs / 1e9),
    "mflops": Metric("macs", "MMACs (convolutions and linear layers)", lambda macs: macs / 1e6),
}
