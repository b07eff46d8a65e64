"""Whole-process wall times of launch.py: `python benchmarks/startup.py [--runs N] [--out FILE]`.

Every command runs once a round, in an order that rotates, so that a slow moment of the machine hits all alike. Goals:
0.5 s for --help and --status, 1.5 s for a plan whose costs are known, 6 s for one whose costs are not, 5 s for
10,000 runs. `cold` means an empty cache of costs; files of the installed packages are warm in memory throughout.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STUDY = "experiments/squeeze_ablation.yaml"

LARGE_STUDY = """\
matrix:
  model.squeeze: [baseline, gap, gmp, std, gapXstd, random, SP, RG]
  train.lr: [0.02, 0.05, 0.1, 0.2, 0.5]
  train.weight_decay: [0.00001, 0.00005, 0.0001, 0.0005, 0.001]
  train.label_smoothing: [0.0, 0.05, 0.1, 0.15, 0.2]
seeds: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
baseline: {model.squeeze: baseline}
defaults:
  model: {backbone: resnet18, stem: small, width: 0.125, reduction: 4}
  data: {name: digits, image_size: 32}
  train: {recipe: digits}
"""


def wall_s(arguments: list[str], cache: Path) -> float:
    env = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    env.pop("IMAGENET_DIR", None)
    began = time.perf_counter()
    said = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True)
    taken = time.perf_counter() - began
    if said.returncode != 0:
        sys.exit(f"{' '.join(arguments)} ended with {said.returncode}:\n{said.stdout}{said.stderr}")
    return taken


def measured(work: Path, runs: int) -> dict[str, list[float]]:
    """Seconds of every run of every command."""
    large, warm = work / "large.yaml", work / "cache"
    large.write_text(LARGE_STUDY)
    small = ["launch.py", STUDY, "--profile", "laptop", "--results", str(work / "results")]
    commands = {
        "python -c pass": ["-c", "pass"],
        "--help": ["launch.py", "--help"],
        "--status": [*small, "--status"],
        "--dry-run, warm": [*small, "--dry-run"],
        "--dry-run, cold": [*small, "--dry-run"],
        "--dry-run of 10,000 runs, warm": ["launch.py", str(large), "--results", str(work / "results"), "--dry-run"],
    }
    for arguments in commands.values():  # fills the cache of costs and the files' memory
        wall_s(arguments, warm)
    times: dict[str, list[float]] = {name: [] for name in commands}
    names = list(commands)
    for turn in range(runs):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            cache = Path(tempfile.mkdtemp(dir=work)) if name.endswith("cold") else warm
            times[name].append(wall_s(commands[name], cache))
    return times


def table(times: dict[str, list[float]]) -> str:
    runs = len(next(iter(times.values())))
    lines = [f"{f'launch.py, wall seconds of {runs} runs':<40}  median     min     max    goal"]
    for name, taken in times.items():
        goal = f"{GOALS_S[name]:8.1f}" if name in GOALS_S else ""
        lines.append(f"{name:<40}{statistics.median(taken):8.2f}{min(taken):8.2f}{max(taken):8.2f}{goal}")
    return "\n".join(lines)


GOALS_S = {
    "--help": 0.5,
    "--status": 0.5,
    "--dry-run, warm": 1.5,
    "--dry-run, cold": 6.0,
    "--dry-run of 10,000 runs, warm": 5.0,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=7, metavar="N")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        text = table(measured(Path(work), given.runs))
    print(text)
    if given.out:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
