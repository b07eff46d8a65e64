"""One small study on one cluster, launched as a user does, and what is left of it after a fault."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from cluster import Cluster, wait_until

ROOT = Path(__file__).resolve().parents[2]
NAME = "faulty"
STUDY = """
matrix:
  model.squeeze: [gap]
seeds: [0]
defaults:
  model: {backbone: resnet18, stem: small, width: 0.125, reduction: 4}
  data: {name: digits}
  train: {recipe: digits, epochs: 3, batch_size: 16, limit_batches: 80, checkpoint_steps: 30}
"""
RUNS, STEPS, INTERVAL = 1, 240, 30  # of the study; of a run: planned, and between checkpoints
OF_THE_PLACE = {"train_images_per_s", "time_s", "git_commit", "git_dirty"}
RELAUNCH_S = 15.0  # how often the user launches again
PATIENCE_S = 480.0  # and how long

Results = Mapping[str, tuple[dict[str, Any], dict[str, list[Any]]]]  # run id: metrics, per-image outcomes


class CannotBeMadeError(RuntimeError):
    """This machine does not allow a fault to be made."""


@dataclass(frozen=True)
class Outcome:
    """What a fault has cost, over all runs of the study."""

    runs: int
    lost: int  # runs without a result, however often the user launched again
    twice: int  # runs whose result was written, or trained towards, again
    interruptions: int
    repeated: int  # most steps that one interruption cost; a killed process's steps are told by its last heartbeat
    trained: int  # steps, summed over segments
    planned: int
    equal: bool  # to an undisturbed local run

    @property
    def flawless(self) -> bool:
        return not self.lost and not self.twice and self.repeated <= INTERVAL and self.equal


@dataclass(frozen=True)
class Caught:
    """A training process that was stopped by SIGSTOP between two checkpoints."""

    folder: Path
    pid: int
    job: str  # `12_3`
    node: str

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def alive(self) -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        return False


class Trial:
    """The study `NAME`, of so many runs of so many steps, with results in a folder of its own."""

    def __init__(self, lab: Cluster, folder: Path, text: str = STUDY, runs: int = RUNS, steps: int = STEPS) -> None:
        self.lab, self.results = lab, folder / "results"
        self.runs, self.steps = runs, steps
        folder.mkdir(parents=True, exist_ok=True)
        self.results.mkdir(exist_ok=True)
        self.file = folder / f"{NAME}.yaml"
        self.file.write_text(text)
        self.folder = self.results / NAME
        self.written: dict[str, set[tuple[int, int]]] = defaultdict(set)  # every metrics.json ever seen, by run

    # ---- the user --------------------------------------------------------------------------------

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(ROOT / "launch.py"), str(self.file), "--results", str(self.results), *arguments]

    def env(self, **more: str) -> dict[str, str]:
        return {**os.environ, **self.lab.env, "COLUMNS": "80", **more}

    def launch(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """`launch.py STUDY --cluster slurm ARGUMENTS`."""
        command = self.command("--cluster", "slurm", *arguments)
        return subprocess.run(command, env=self.env(**env), capture_output=True, text=True, timeout=300)

    def submit(self, *arguments: str, **env: str) -> None:
        said = self.launch(*arguments, **env)
        assert said.returncode == 0, said.stdout + said.stderr
        assert f"submitted {self.runs} jobs" in said.stdout, said.stdout

    def refused(self, *arguments: str, words: str) -> None:
        """A launch must end with exit code 3 and these words in its only line on stderr, and submit nothing."""
        before = self.jobs() if self.controller_is_up() else []
        said = self.launch(*arguments)
        assert said.returncode == 3, said.stdout + said.stderr
        assert len(said.stderr.splitlines()) == 1, said.stderr
        assert words in said.stderr, said.stderr
        if self.controller_is_up():
            assert self.jobs() == before

    def status(self, **env: str) -> str:
        command = self.command("--status")
        said = subprocess.run(command, env=self.env(**env), capture_output=True, text=True, timeout=300)
        assert said.returncode == 0, said.stdout + said.stderr
        return said.stdout

    # ---- what there is ---------------------------------------------------------------------------

    def controller_is_up(self) -> bool:
        return subprocess.run(["scontrol", "ping"], env=self.env(), capture_output=True).returncode == 0

    def jobs(self) -> list[str]:
        """This study's jobs by its intents: lines of `id state`."""
        names = [json.loads(path.read_text())["job_name"] for path in self.folder.glob("slurm/*/batch.json")]
        return (
            self.lab.run("squeue", "-h", "--array", "-n", ",".join(names), "-o", "%i %T").splitlines() if names else []
        )

    def run_folders(self) -> list[Path]:
        return sorted(path.parent for path in self.folder.glob("*/config.json"))

    def catch(self, seconds: float = 120) -> Caught:
        """Stops the process of the first run that has saved a state and trained on, but is not done."""
        caught: list[Caught] = []

        def found() -> bool:
            for folder in self.run_folders():
                segment = (_json(folder / "provenance.json").get("segments") or [{"last_step": 0}])[-1]
                lease, step = _json(folder / "lease.json"), _json(folder / "progress.json").get("step", 0)
                if INTERVAL <= segment["last_step"] <= step - 5 and segment["end"] is None and "pid" in lease:
                    caught.append(self._stop(folder, lease))
                    return True
            return False

        assert wait_until(found, seconds), f"no run got to its first checkpoint: {self.jobs()}"
        assert not (caught[0].folder / "metrics.json").exists(), "it was done before it was stopped"
        return caught[0]

    def _stop(self, folder: Path, lease: dict[str, Any]) -> Caught:
        pid = int(lease["pid"])
        os.kill(pid, signal.SIGSTOP)
        lines = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        told = {key: value for key, _, value in (line.partition("=") for line in lines)}
        job = f"{told['SLURM_ARRAY_JOB_ID']}_{told['SLURM_ARRAY_TASK_ID']}"  # scancel takes no task's own number
        return Caught(folder, pid, job, told["SLURMD_NODENAME"])

    def look(self) -> bool:
        """Whether every run has its result; notes which file holds it."""
        folders = self.run_folders()
        for folder in folders:
            with contextlib.suppress(FileNotFoundError):
                found = (folder / "metrics.json").stat()
                self.written[folder.name].add((found.st_ino, found.st_mtime_ns))
        return len(folders) == len(self.written) == self.runs

    # ---- the end ---------------------------------------------------------------------------------

    def finish(self, clean: Results) -> Outcome:
        """Launches again and again, as a user would, until all is done and Slurm has no job left."""
        self.lab.repair()
        deadline = time.monotonic() + PATIENCE_S
        arguments: list[str] = []
        while not self.look() and time.monotonic() < deadline:
            said = self.launch(*arguments)
            arguments = ["--retry-failed"] if said.returncode == 1 and not arguments else []
            wait_until(self.look, RELAUNCH_S)
        assert wait_until(lambda: not self.jobs(), 240), f"{len(self.written)} of {self.runs} done, but: {self.jobs()}"
        self.look()
        if len(self.written) == self.runs:
            last = self.launch()
            assert last.returncode == 0, last.stdout + last.stderr
            assert "everything is done" in last.stdout, last.stdout
            assert not self.jobs(), "a finished study was submitted again"
        return self._outcome(clean)

    def segments(self) -> dict[str, list[dict[str, Any]]]:
        """What trained when, by run."""
        return {folder.name: _json(folder / "provenance.json").get("segments", []) for folder in self.run_folders()}

    def ends(self, caught: Caught) -> list[str]:
        """Why each segment of the caught run has ended so far."""
        return [part["why"] for part in self.segments().get(caught.folder.name, [])]

    def _outcome(self, clean: Results) -> Outcome:
        segments = self.segments()
        twice = {run for run, seen in self.written.items() if len(seen) > 1}
        twice |= {run for run, parts in segments.items() if any(part["why"] == "done" for part in parts[:-1])}
        pairs = [pair for parts in segments.values() for pair in pairwise(parts)]
        return Outcome(
            runs=self.runs,
            lost=self.runs - len(self.written),
            twice=len(twice),
            interruptions=len(pairs),
            repeated=max((max(0, before["last_step"] - after["first_step"]) for before, after in pairs), default=0),
            trained=sum(part["last_step"] - part["first_step"] for parts in segments.values() for part in parts),
            planned=self.runs * self.steps,
            equal=results(self.folder) == clean,
        )


def clean_results(folder: Path, text: str = STUDY) -> Results:
    """Of the same study, launched on this machine and left in peace."""
    file = folder / f"{NAME}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    command = [sys.executable, str(ROOT / "launch.py"), str(file), "--cluster", "local", "--results", str(folder)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=3600)
    return results(folder / NAME)


def results(folder: Path) -> Results:
    """All results of a study but what may differ between two places."""
    found = {}
    for path in folder.glob("*/metrics.json"):
        metrics = {key: value for key, value in _json(path).items() if key not in OF_THE_PLACE}
        with np.load(path.with_name("correct.npz")) as arrays:
            found[path.parent.name] = metrics, {name: arrays[name].tolist() for name in arrays.files}
    return found


def _json(path: Path) -> dict[str, Any]:
    """Empty where there is no such file or not a whole one."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_bytes())  # type: ignore[no-any-return]
    return {}
