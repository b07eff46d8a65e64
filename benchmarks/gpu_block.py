"""What one residual block moves in a training step: `python -m benchmarks.gpu_block --squeeze gap --form folded`.

The second block of ResNet-50's first stage, compiled, forward and backward, on maps (N, 256, size/4, size/4) in
channels_last. Prints one line of JSON: `step_s`, the median of single steps; `inductor_bytes`, what Inductor's own
counter says its kernels read and write; and, where Nsight Compute is on the PATH and may read the counters,
`dram_bytes`, what the DRAM read and wrote (else `why_no_dram`). The last runs this program once more, under `ncu`.
With `--only count` it compiles into the cache that TORCHINDUCTOR_CACHE_DIR names and does not time; with `--only time`
it takes from there.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from sqzlab.bench.clock import seconds
from sqzlab.networks.resnet import create_model

METRICS = ("dram__bytes_read.sum", "dram__bytes_write.sum")
WARM_STEPS, TURNS, STEPS_A_TURN = 3, 5, 10
COUNT, TIME = "count", "time"


def main() -> None:
    given = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        if given.only is None:  # the counter counts what is compiled, not what is found; the profiled one finds it
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        _run(given)


def _run(given: argparse.Namespace) -> None:
    step = block_step(given.squeeze, given.form, given.batch, given.size, given.precision, given.device)
    found: dict[str, float | str] = {"inductor_bytes": inductor_bytes(step)}
    device = torch.device(given.device)
    if given.only == COUNT:
        print(json.dumps(found))
        return
    seconds(step, WARM_STEPS, device)
    if given.profiled:
        torch.cuda.profiler.start()
        step()
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()
        return
    found["step_s"] = statistics.median(seconds(step, STEPS_A_TURN, device) / STEPS_A_TURN for _ in range(TURNS))
    if given.only == TIME:
        del found["inductor_bytes"]  # nothing was compiled
    print(json.dumps(found), flush=True)  # whatever becomes of the rest
    print(json.dumps({**found, **_dram(given.seconds)}))


def block_step(squeeze: str, form: str, batch: int, size: int, precision: str, device: str) -> Callable[[], None]:
    """A function that does a forward and a backward; gradients of input and parameters are written anew."""
    block = create_model("resnet50", squeeze, image_size=size, seed=0, block_form=form).layer1[1]
    block = block.to(device).to(memory_format=torch.channels_last)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    maps = torch.randn(batch, 256, size // 4, size // 4, device=device, dtype=dtype)
    maps = maps.contiguous(memory_format=torch.channels_last).requires_grad_()
    gradient = torch.randn_like(maps)
    compiled = torch.compile(block, dynamic=False)

    def step() -> None:
        maps.grad = None
        block.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            out = compiled(maps)
        out.backward(gradient)

    return step


def inductor_bytes(step: Callable[[], None]) -> int:
    """Of the graphs that this step compiles."""
    from torch._inductor import metrics
    from torch._inductor.compile_fx import inductor_metrics_log

    inductor_metrics_log.setLevel(logging.INFO)  # else nothing is counted
    inductor_metrics_log.propagate = False
    before = metrics.num_bytes_accessed
    step()
    return int(metrics.num_bytes_accessed - before)


def _dram(limit_s: float) -> dict[str, float | str]:
    """By this program under Nsight Compute, which reads the counters of every kernel of one step."""
    if (ncu := shutil.which("ncu")) is None:
        return {"why_no_dram": "ncu is not on the PATH"}
    command = [ncu, "--csv", "--page", "raw", "--print-units", "base", "--metrics", ",".join(METRICS)]
    command += ["--profile-from-start", "off", "--clock-control", "none", "--cache-control", "none"]
    words = [sys.executable, "-m", "benchmarks.gpu_block", *sys.argv[1:], "--only", TIME, "--profiled"]
    try:
        said = subprocess.run(
            [*command, *words], cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        return {"why_no_dram": f"ncu took more than {limit_s:.0f} s"}
    total = dram_bytes(said.stdout)
    if said.returncode or not total:
        lines = [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("==ERROR==")]
        return {"why_no_dram": lines[0] if lines else f"ncu ended with {said.returncode}"}
    return {"dram_bytes": total}


def dram_bytes(text: str) -> float:
    """The sum over all kernels in what ncu prints: its own lines, a header, a line of units, a line a kernel.

    0 where a counter could not be read, which ncu prints as `n/a`.
    """
    lines = [line for line in text.splitlines() if line.startswith('"')]
    rows = csv.DictReader(io.StringIO("\n".join(lines)))
    try:
        return sum(float(row[name].replace(",", "")) for row in rows if row["ID"] for name in METRICS)
    except ValueError:
        return 0.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--squeeze", default="baseline")
    parser.add_argument("--form", default="plain")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", choices=(COUNT, TIME))
    parser.add_argument("--seconds", type=float, default=120.0, help="for Nsight Compute")
    parser.add_argument("--profiled", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
