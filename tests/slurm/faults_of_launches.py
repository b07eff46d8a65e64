"""Faults of the launcher and of Slurm itself."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

from cluster import Cluster, wait_until
from trial import Trial

# ---- the launcher ------------------------------------------------------------------------------


def launcher_killed_before_sbatch(lab: Cluster, trial: Trial) -> None:
    _launch_with_sbatch(trial, "kill -9 $PPID")
    assert not trial.jobs()


def launcher_killed_after_sbatch(lab: Cluster, trial: Trial) -> None:
    """Slurm has the jobs and nobody has read their id."""
    _launch_with_sbatch(trial, f'{shutil.which("sbatch")} "$@" && kill -9 $PPID')
    assert not list(trial.folder.glob("slurm/*/job_id"))
    there = {line.split()[0] for line in trial.jobs()}
    assert there
    again = trial.launch()
    assert again.returncode == 0, again.stderr
    assert "submitting" not in again.stdout, "the orphans were not adopted"


def _launch_with_sbatch(trial: Trial, script: str) -> None:
    """Puts another sbatch before the real one; it ends the launcher, which is its parent."""
    programs = trial.file.parent / "bin"
    programs.mkdir()
    (programs / "sbatch").write_text(f"#!/bin/sh\n{script}\n")
    (programs / "sbatch").chmod(0o755)
    said = trial.launch(PATH=f"{programs}:{os.environ['PATH']}")
    assert said.returncode == -signal.SIGKILL, said.stdout + said.stderr


def launcher_killed_once_there_is(pattern: str) -> Callable[[Cluster, Trial], None]:
    """At the first sight of such a file in the study's folder."""

    def fault(lab: Cluster, trial: Trial) -> None:
        command = trial.command("--cluster", "slurm")
        with subprocess.Popen(command, env=trial.env(), stdout=subprocess.DEVNULL) as launcher:
            while not any(trial.folder.glob(pattern)):
                assert launcher.poll() is None, f"it ended without {pattern}"
                time.sleep(0.001)
            launcher.kill()

    return fault


def two_launchers(lab: Cluster, trial: Trial) -> None:
    command = trial.command("--cluster", "slurm")
    both = [subprocess.Popen(command, env=trial.env(), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [launcher.communicate(timeout=300)[0] for launcher in both]
    assert sum("submitted 1 jobs" in text for text in said) == 1, said
    assert [launcher.returncode for launcher in both] == [0, 0]


# ---- Slurm itself ------------------------------------------------------------------------------


def sbatch_refuses(lab: Cluster, trial: Trial) -> None:
    trial.refused("--slurm", "partition=nope", words="Invalid partition")
    trial.refused("--slurm", "gpus_per_node=9", words="Requested node configuration is not available")
    trial.refused("--slurm", "mem=100G", words="Requested node configuration is not available")


def controller_down_at_launch(lab: Cluster, trial: Trial) -> None:
    lab.stop_controller()
    trial.refused(words="no Slurm cluster")
    lab.start_controller()
    assert lab.run("squeue", "-h") == ""


def controller_down_at_status(lab: Cluster, trial: Trial) -> None:
    trial.submit()
    caught = trial.catch()
    lab.stop_controller()
    said = trial.status()
    assert "Slurm does not answer" in said, said
    assert re.search(rf"{caught.folder.name} +running", said), said
    lab.start_controller()
    caught.resume()


def interrupted_while_the_controller_is_down(lab: Cluster, trial: Trial) -> None:
    """A job that ended now would count as completed: it must wait for the controller and ask it for a requeue."""
    trial.submit()
    caught = trial.catch()
    lab.stop_controller()
    os.kill(caught.pid, signal.SIGUSR2)
    caught.resume()
    assert wait_until(lambda: "interrupted: SIGUSR2" in trial.ends(caught), 240)
    assert not wait_until(lambda: not caught.alive(), 12), "it ended without being queued again"
    lab.start_controller()
    assert wait_until(lambda: lab.state(caught.job) == "PENDING", 240)


def controller_killed(lab: Cluster, trial: Trial) -> None:
    trial.submit()
    caught = trial.catch()
    lab.kill_controller()
    caught.resume()
    time.sleep(3)
    lab.start_controller()


def controller_killed_after_sbatch(lab: Cluster, trial: Trial) -> None:
    """It may have forgotten the jobs, and give their id to others."""
    trial.submit()
    lab.kill_controller()
    lab.start_controller()
    lab.run("sbatch", "--output=/dev/null", "--array=0-1", "--wrap", "sleep 5")


def database_down(lab: Cluster, trial: Trial) -> None:
    """Where there is one; where there is none this is how it always is."""
    trial.submit()
    caught = trial.catch()
    if lab.accounting:
        lab.kill_daemon("slurmdbd")
        lab.kill_daemon("mariadbd")
    assert "running" in trial.status()
    caught.kill()
    assert wait_until(lambda: lab.state(caught.job) in ("FAILED", ""), 240)
    assert re.search(rf"{caught.folder.name} +(interrupted|lost)", trial.status())
