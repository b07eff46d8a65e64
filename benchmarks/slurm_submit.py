"""How long does it take to submit 1, 100 and 5,000 runs? `python benchmarks/slurm_submit.py [--out FILE]`

On the tests' own Slurm cluster, against submitit's `submit()` in a loop. All jobs are held, so nothing runs meanwhile.
`launch.py` is timed as a whole process: its start, the plan, a folder for each run, the arrays. The loop is timed
alone; it takes the same time for each job, so 200 of them stand for more. Goal: seconds for 5,000. Takes 5 minutes.
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
sys.path.insert(0, str(ROOT / "tests" / "slurm"))
from cluster import Cluster, wait_until  # noqa: E402

STUDY = """\
matrix:
  model.squeeze: [gap]
seeds: {seeds}
defaults:
  model: {{backbone: resnet18, stem: small, width: 0.125, reduction: 4}}
  data: {{name: digits}}
  train: {{recipe: digits}}
slurm: {{cpus: 1, memory: 1GB, time: 0:10:00}}
"""
ROUNDS = {1: 3, 100: 3, 5000: 1}
LOOPS = {1: 3, 100: 3, 200: 1}
LOOP = """\
import sys, time, submitit
executor = submitit.AutoExecutor(sys.argv[1], cluster="slurm")
executor.update_parameters(timeout_min=10, slurm_additional_parameters={"hold": True})
began = time.perf_counter()
for _ in range(int(sys.argv[2])):
    executor.submit(time.sleep, 0)
print(time.perf_counter() - began)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table there")
    given = parser.parse_args()
    with Cluster(nodes=2) as cluster, tempfile.TemporaryDirectory() as work:
        ours = {runs: [launch_s(cluster, Path(work), runs) for _ in range(rounds)] for runs, rounds in ROUNDS.items()}
        loop = {jobs: [loop_s(cluster, Path(work), jobs) for _ in range(rounds)] for jobs, rounds in LOOPS.items()}
        text = table(ours, loop, cluster.run("scontrol", "--version"))
    print(text)
    if given.out:
        given.out.write_text(text + "\n")


def launch_s(cluster: Cluster, work: Path, runs: int) -> float:
    """Seconds of a whole `launch.py` into a folder of its own; the costs of its one network are known."""
    folder = Path(tempfile.mkdtemp(dir=work))
    study = folder / "many.yaml"
    study.write_text(STUDY.format(seeds=list(range(runs))))
    command = [sys.executable, str(ROOT / "launch.py"), str(study), "--results", str(folder)]
    timed(cluster, work, [*command, "--dry-run"])
    taken, _ = timed(cluster, work, [*command, "--cluster", "slurm", "--slurm", "hold=true"])
    clear(cluster, runs)
    return taken


def loop_s(cluster: Cluster, work: Path, jobs: int) -> float:
    """Seconds of the loop alone, without the start of its process."""
    _, said = timed(cluster, work, [sys.executable, "-c", LOOP, tempfile.mkdtemp(dir=work), str(jobs)])
    clear(cluster, jobs)
    return float(said)


def timed(cluster: Cluster, work: Path, command: list[str]) -> tuple[float, str]:
    env = {**os.environ, **cluster.env, "XDG_CACHE_HOME": str(work / "cache")}
    began = time.perf_counter()
    said = subprocess.run(command, env=env, capture_output=True, text=True)
    taken = time.perf_counter() - began
    if said.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {said.returncode}:\n{said.stdout}{said.stderr}")
    return taken, said.stdout


def clear(cluster: Cluster, jobs: int) -> None:
    """Takes the jobs back, having seen that they are all there."""
    there = len(cluster.run("squeue", "-h", "-r", "-t", "PENDING", "-o", "%i").splitlines())
    if there != jobs:
        sys.exit(f"{jobs} jobs were submitted, and {there} are in the queue")
    cluster.run("scancel", "--user", cluster.run("whoami"))
    if not wait_until(lambda: not cluster.run("squeue", "-h", "-o", "%i"), 120):
        sys.exit("the queue does not empty")


def table(ours: dict[int, list[float]], loop: dict[int, list[float]], version: str) -> str:
    lines = [
        "Seconds to submit runs that are held",
        "",
        f"{version}, MaxArraySize 1001, on {os.cpu_count()} cores that run the cluster, too; median of 3, 5,000 once.",
        "`launch.py` is a whole process: start, plan, run folders, arrays. The loop is timed alone.",
        "",
        "| runs | `launch.py`, s | loop of submitit's `submit()`, s |",
        "|---:|---:|---:|",
    ]
    for runs, taken in ours.items():
        if runs in loop:
            text = f"{statistics.median(loop[runs]):.2f}"
        else:
            jobs = max(loop)
            each = statistics.median(loop[jobs]) / jobs
            text = f"not run; {jobs} took {statistics.median(loop[jobs]):.1f}, which is {each:.2f} each"
        lines.append(f"| {runs:,} | {statistics.median(taken):.2f} | {text} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
