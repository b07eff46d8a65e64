"""Many short runs on a real Slurm cluster that never comes to rest: are all results those of a quiet machine?

    python benchmarks/slurm_soak.py [--runs N] [--seed N] [--jobs N] [--out FILE]

Needs root and Debian's packages, as `tests/slurm/cluster.py` says. One launch submits all runs to a throw-away cluster
of four nodes; from then on, every few seconds, one thing happens at random: a node is preempted, a running job is
requeued, a node is killed with all that runs on it and started again, a training process is killed. The user launches
again once a minute. At the end every metrics.json and every per-image outcome is compared with a local run's.

Steps trained are told as an upper bound: a process that was killed counts as if it had just reached its next
checkpoint without saving it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "slurm")]

from cluster import Cluster, ClusterError, wait_until  # noqa: E402
from trial import Outcome, Trial, clean_results  # noqa: E402

OUT = ROOT / "benchmarks" / "results" / "slurm_soak.md"
ARMS = ("baseline", "gap", "gmp", "std")
EPOCHS, BATCHES, INTERVAL = 2, 20, 5  # steps of an epoch, and between checkpoints
STUDY = """
matrix:
  model.squeeze: [{arms}]
seeds: [{seeds}]
baseline: {{model.squeeze: baseline}}
defaults:
  model: {{backbone: resnet18, stem: small, width: 0.125, reduction: 4}}
  data: {{name: digits}}
  train: {{recipe: digits, epochs: {epochs}, batch_size: 16, limit_batches: {batches}, checkpoint_steps: {interval}}}
"""
PAUSE_S = (3.0, 9.0)  # between two events
LAUNCH_EVERY_S = 60.0
PATIENCE_S = 3 * 3600.0


class Storm:
    """Things that happen to a study, drawn from a seed."""

    def __init__(self, lab: Cluster, trial: Trial, seed: int) -> None:
        self.lab, self.trial, self.random = lab, trial, random.Random(seed)
        self.happened: Counter[str] = Counter()
        self.preemption: threading.Thread | None = None

    def strike(self) -> None:
        name = self.random.choice(list(EVENTS))
        try:
            happened = EVENTS[name](self)
        except ClusterError:  # what it aimed at has just ended
            return
        self.happened[name] += happened

    def preempt(self) -> bool:
        if self.preemption is not None and self.preemption.is_alive():
            return False
        self.preemption = threading.Thread(target=self._hold, args=(self.random.choice(self.lab.node_names),))
        self.preemption.start()
        return True

    def _hold(self, node: str) -> None:
        """Whether the node is free of other jobs in time does not matter: they have been told to go."""
        try:
            with self.lab.preempt(node):
                time.sleep(3)
        except ClusterError as error:
            print(error, file=sys.stderr)

    def requeue(self) -> bool:
        running = [line.split()[0] for line in self.trial.jobs() if line.endswith("RUNNING")]
        if running:
            self.lab.run("scontrol", "requeue", self.random.choice(running))
        return bool(running)

    def kill_node(self) -> bool:
        self.lab.kill_node(self.random.choice(self.lab.node_names))
        time.sleep(2)
        self.lab.repair()
        return True

    def kill_process(self) -> bool:
        holders = []
        for path in self.trial.folder.glob("*/lease.json"):
            lease = _read(path)
            if "pid" in lease and Path(f"/proc/{lease['pid']}").exists():
                holders.append(int(lease["pid"]))
        if holders:
            os.kill(self.random.choice(holders), signal.SIGKILL)
        return bool(holders)

    def release(self) -> int:
        """Jobs that Slurm itself has put on hold, because a node could not start them."""
        listed = self.lab.run("squeue", "-h", "--array", "-o", "%i|%r").splitlines()
        held = [line.partition("|")[0] for line in listed if "held" in line.lower()]
        for job in held:
            self.lab.run("scontrol", "release", job)
        return len(held)


EVENTS: dict[str, Callable[[Storm], bool]] = {
    "preemption of a node": Storm.preempt,
    "requeue of a job": Storm.requeue,
    "node killed": Storm.kill_node,
    "process killed": Storm.kill_process,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help=f"a multiple of {len(ARMS)} (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of what happens (default: 0)")
    parser.add_argument("--jobs", type=int, default=8, help="at a time (default: 8)")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    seeds = range(given.runs // len(ARMS))
    values = {"arms": ", ".join(ARMS), "seeds": ", ".join(map(str, seeds))}
    text = STUDY.format(**values, epochs=EPOCHS, batches=BATCHES, interval=INTERVAL)
    with tempfile.TemporaryDirectory() as name:
        began = time.monotonic()
        clean = clean_results(Path(name) / "clean", text)
        quiet_s = time.monotonic() - began
        with Cluster(nodes=4, gpus=0, grace_s=5, accounting=True) as lab:
            trial = Trial(lab, Path(name), text, runs=len(seeds) * len(ARMS), steps=EPOCHS * BATCHES)
            storm, launches = Storm(lab, trial, given.seed), 0
            began = time.monotonic()
            trial.submit("--jobs", str(given.jobs))
            launches = weather(storm, trial)
            stormy_s = time.monotonic() - began
            outcome = trial.finish(clean)
            at_most = steps_at_most(trial.segments())
    report = told(outcome, storm, launches, at_most, quiet_s, stormy_s)
    print(report)
    given.out.write_text(report)
    good = not outcome.lost and not outcome.twice and outcome.equal and at_most < 1.2 * outcome.planned
    return 0 if good else 1


def weather(storm: Storm, trial: Trial) -> int:
    """Until all runs are done; returns how often the user launched again."""
    end = time.monotonic() + PATIENCE_S
    launches, launched = 0, time.monotonic()
    arguments: list[str] = []
    while not trial.look() and time.monotonic() < end:
        storm.strike()
        wait_until(trial.look, storm.random.uniform(*PAUSE_S))
        if time.monotonic() - launched > LAUNCH_EVERY_S:
            said = trial.launch(*arguments)
            arguments = ["--retry-failed"] if said.returncode == 1 and not arguments else []
            storm.happened["job held by Slurm, released by hand"] += storm.release()
            launches, launched = launches + 1, time.monotonic()
            print(f"{len(trial.written)} of {trial.runs} done; {dict(storm.happened)}", flush=True)
    if storm.preemption is not None:
        storm.preemption.join()
    return launches


def steps_at_most(segments: dict[str, list[dict[str, Any]]]) -> int:
    """Steps trained, summed over all segments."""
    total = 0
    for parts in segments.values():
        for part, following in zip_longest(parts, parts[1:]):
            last = part["last_step"]
            if part["why"] == "killed" and following is not None:
                last = max(last, following["first_step"] + INTERVAL)
            total += last - part["first_step"]
    return total


def told(outcome: Outcome, storm: Storm, launches: int, at_most: int, quiet_s: float, stormy_s: float) -> str:
    rows = [
        ("runs", outcome.runs),
        ("runs lost", outcome.lost),
        ("runs done twice", outcome.twice),
        ("results equal to a local run's", "all" if outcome.equal else "NOT ALL"),
        *((name, count) for name, count in sorted(storm.happened.items())),
        ("launches after the first", launches),
        ("interruptions of a run that had begun to train", outcome.interruptions),
        (f"most steps repeated in one (checkpoint every {INTERVAL})", outcome.repeated),
        ("steps trained, at most / planned", f"{at_most} / {outcome.planned} = {at_most / outcome.planned:.3f}"),
        ("minutes on the cluster", f"{stormy_s / 60:.1f}"),
        ("minutes of the local launch", f"{quiet_s / 60:.1f}"),
    ]
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return {}


if __name__ == "__main__":
    sys.exit(main())
