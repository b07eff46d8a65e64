"""Training-step speed of a debug run against plain PyTorch: `python -m benchmarks.debug_speed [--out FILE]`.

Plain is what PyTorch does by default: float32, NCHW. Debug is what `launch.py --debug` runs of the real study on a
CPU: channels_last maps and bf16 autocast, not compiled. One thread, SGD with momentum, generated images; the two
take turns, and each ratio is of two neighbouring steps. Goal: 1.9 times, where the CPU has bf16 instructions.
About 4 minutes; memory 4 GB.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import torch
from torch.nn import functional as F

import sqzlab

GOAL = 1.9


def training_step(backbone: str, squeeze: str, batch: int, image_size: int, *, debug: bool) -> Callable[[], None]:
    """A function that does one step: forward, backward, update."""
    model = sqzlab.create_model(backbone, squeeze, image_size=image_size, seed=0)
    images = torch.randn(batch, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(batch)
    if debug:
        model = model.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=debug):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def step_s(step: Callable[[], None]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def compared(backbone: str, squeeze: str, batch: int, image_size: int, pairs: int) -> str:
    """One line of the table."""
    plain = training_step(backbone, squeeze, batch, image_size, debug=False)
    debug = training_step(backbone, squeeze, batch, image_size, debug=True)
    for step in (plain, debug):  # the first step allocates and chooses kernels
        step()
    times = [(step_s(plain), step_s(debug)) for _ in range(pairs)]
    ratios = [slow / fast for slow, fast in times]
    speeds = [batch / statistics.median(column) for column in zip(*times, strict=True)]
    return (
        f"{backbone:<10}{squeeze:<10}{batch:>5}{image_size:>6}{speeds[0]:>13.1f}{speeds[1]:>13.1f}"
        f"{statistics.median(ratios):>8.2f}{min(ratios):>8.2f}{max(ratios):>8.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--squeeze", default="baseline")
    parser.add_argument("--pairs", type=int, default=9, metavar="N", help="steps of each kind, for every line")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"torch {torch.__version__}, 1 thread, CPU {_bf16()} bf16 instructions; goal: {GOAL} times",
        "backbone  squeeze   batch    px  plain img/s  debug img/s   ratio     min     max",
    ]
    print("\n".join(lines))
    for backbone, image_size, batch in product(("resnet18", "resnet50"), (128, 224), (8, 16)):
        lines.append(compared(backbone, given.squeeze, batch, image_size, given.pairs))
        print(lines[-1], flush=True)
    if given.out:
        given.out.write_text("\n".join(lines) + "\n")


def _bf16() -> str:
    return "with" if "bf16" in Path("/proc/cpuinfo").read_text() else "without"


if __name__ == "__main__":
    main()
