"""Times of repeated calls, and the ceilings of a machine that they give."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

TURN_S = 0.3  # a row's turn in a round, where nothing else is asked for


def seconds(call: Callable[[], object], times: int, device: torch.device) -> float:
    """Of so many calls. On a GPU between two events, which the host waits for only at the end."""
    if device.type != "cuda":
        began = time.perf_counter()
        for _ in range(times):
            call()
        return time.perf_counter() - began
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    for _ in range(times):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000


def calls_a_turn(call_s: float) -> int:
    """How many calls of this length make a turn."""
    return max(1, round(TURN_S / max(call_s, 1e-6)))


class Ceilings:
    """Copy bandwidth in bytes read plus written a second, and multiplication in FLOP/s at this precision.

    Both are of large tensors: a copy of far more than the caches hold, a product of square matrices.
    """

    def __init__(self, device: torch.device, precision: str) -> None:
        self.device = device
        gpu = device.type == "cuda"
        self.source = torch.ones((1 << 30 if gpu else 1 << 28) // 4, device=device)
        self.target = torch.empty_like(self.source)
        side = 8192 if gpu else 2048
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.a, self.b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        self.product = torch.empty(side, side, dtype=dtype, device=device)
        self.times: dict[str, int] = {}

    def bytes_per_s(self) -> float:
        moved = 2 * self.source.numel() * self.source.element_size()
        return self._per_s("copy", lambda: self.target.copy_(self.source), moved)

    def flops_per_s(self) -> float:
        done = 2 * len(self.a) ** 3
        return self._per_s("matmul", lambda: torch.mm(self.a, self.b, out=self.product), done)

    def _per_s(self, name: str, call: Callable[[], object], amount: int) -> float:
        if name not in self.times:
            call()
            self.times[name] = calls_a_turn(seconds(call, 1, self.device))
        return amount * self.times[name] / seconds(call, self.times[name], self.device)
