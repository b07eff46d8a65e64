"""How many slots of `--jobs 4` lie idle? `python benchmarks/slurm_throttle.py [--out FILE]`

On the tests' own Slurm cluster, with a study of two resource classes, hence two arrays: 18 short runs and 6 long ones.
Slurm's own limit is one array's. At first the slots are shared by the numbers of runs, 3 and 1; then the jobs pass on
what one array no longer needs. Beside it the same without passing on, which is what a fixed split gives. The queue is
looked at twice a second. A slot is idle while fewer jobs run than may and some wait; Slurm's own time from one
job to the next is in it. Takes 10 to 20 minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "slurm"))
from cluster import Cluster  # noqa: E402

JOBS, RUNS = 4, 24
STUDY = """\
matrix:
  train.epochs: [1, 2, 3, 12]
seeds: [0, 1, 2, 3, 4, 5]
defaults:
  model: {backbone: resnet18, squeeze: gap, stem: small, width: 0.125, reduction: 4}
  data: {name: digits}
  train: {recipe: digits, warmup_epochs: 0}
slurm:
  cpus: 1
  memory: 1GB
  time: 0:30:00
  include:
    - {train.epochs: 12, time: 1:00:00}
"""
EVERY_S = 0.5


@dataclass
class Watched:
    """The queue from the submission to the end of the last job."""

    wall_s: float = 0.0
    idle_s: float = 0.0  # summed over slots
    busy_s: float = 0.0
    most: int = 0  # jobs that ran at once

    @property
    def run_s(self) -> float:
        """Mean length of a job."""
        return self.busy_s / RUNS

    @property
    def idle(self) -> float:
        return self.idle_s / (JOBS * self.wall_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")
    given = parser.parse_args()
    with Cluster(nodes=2) as cluster, tempfile.TemporaryDirectory() as work:
        passed_on = watched(cluster, Path(work) / "passed on", passing_on=True)
        fixed = watched(cluster, Path(work) / "fixed", passing_on=False)
        text = table(passed_on, fixed, cluster.run("scontrol", "--version"))
    print(text)
    if given.out:
        given.out.write_text(text + "\n")


def watched(cluster: Cluster, folder: Path, passing_on: bool) -> Watched:
    folder.mkdir()
    study = folder / "two.yaml"
    study.write_text(STUDY)
    command = [sys.executable, str(ROOT / "launch.py"), str(study), "--results", str(folder), "--cluster", "slurm"]
    said = subprocess.run(
        [*command, "--jobs", str(JOBS)], env={**os.environ, **cluster.env}, capture_output=True, text=True
    )
    if said.returncode != 0:
        sys.exit(f"{said.stdout}{said.stderr}")
    if not passing_on:
        (folder / "two" / "slurm" / "throttle.json").unlink()  # without the limit's file no job passes on anything
    seen = follow(cluster)
    done = len(list(folder.glob("two/*/metrics.json")))
    if done != RUNS:
        sys.exit(f"only {done} of {RUNS} runs are done in {folder}")
    return seen


def follow(cluster: Cluster) -> Watched:
    seen = Watched()
    began = last = time.monotonic()
    while states := cluster.run("squeue", "-h", "-r", "-o", "%T").split():
        now = time.monotonic()
        running, waiting = states.count("RUNNING"), states.count("PENDING")
        seen.most = max(seen.most, running)
        seen.busy_s += (now - last) * running
        seen.idle_s += (now - last) * max(0, min(JOBS - running, waiting))
        last = now
        time.sleep(max(0.0, EVERY_S - (time.monotonic() - now)))
    seen.wall_s = last - began
    return seen


def table(passed_on: Watched, fixed: Watched, version: str) -> str:
    lines = [
        f"Idle slots under --jobs {JOBS}: two arrays, 18 short runs and 6 long ones",
        "",
        f"{version} on {os.cpu_count()} cores that run the jobs, too; one study each.",
        "",
        "| slots | most jobs at once | mean job, s | wall, s | idle slot-seconds | idle share |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, seen in (("passed on by the jobs", passed_on), ("fixed, 3 and 1", fixed)):
        times = f"{seen.run_s:.0f} | {seen.wall_s:.0f} | {seen.idle_s:.0f}"
        lines.append(f"| {name} | {seen.most} | {times} | {seen.idle:.1%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
