"""Wall time of the laptop study from nothing, and the share of it that is spent outside training steps.

    python benchmarks/laptop_study.py [--out FILE]

Runs `launch.py experiments/squeeze_ablation.yaml --profile laptop` in a temporary folder, then once more with
everything done. The share is 1 - (seconds in training steps, summed over the runs) / (wall time x cores): start-up,
planning, evaluation, checkpoints, idle cores, tables and figures are all outside.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def timed(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "launch.py", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["experiments/squeeze_ablation.yaml", "--profile", "laptop", "--cluster", "local"]
        arguments += ["--results", folder]
        wall, again = timed(arguments), timed(arguments)
        runs = [json.loads(path.read_text()) for path in Path(folder).glob("*/*/metrics.json")]
    steps = sum(run["steps"] * run["batch_size"] / run["train_images_per_s"] for run in runs)
    text = (
        f"{len(runs)} runs on {cores} cores, torch {runs[0]['torch']}\n"
        f"wall time                      {wall:7.1f} s\n"
        f"in training steps, all runs    {steps:7.1f} s\n"
        f"share outside training steps   {1 - steps / (wall * cores):7.1%}   (goal: under 15 %)\n"
        f"launched again, all done       {again:7.2f} s   (goal: under 2 s)\n"
    )
    print(text, end="")
    if out is not None:
        out.write_text(text)


if __name__ == "__main__":
    main()
