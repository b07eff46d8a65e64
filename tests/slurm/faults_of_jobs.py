"""Faults of jobs, of the nodes that they run on, and of their disks and clocks."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cluster import Cluster, wait_until
from trial import ROOT, CannotBeMadeError, Trial

COMES_BACK_S = 15.0  # a job that comes back to life after its cancelling does so within this time


# ---- the job -----------------------------------------------------------------------------------


def job_killed(lab: Cluster, trial: Trial) -> None:
    trial.submit()
    trial.catch().kill()


def run_folder_deleted(lab: Cluster, trial: Trial) -> None:
    trial.submit()
    caught = trial.catch()
    shutil.rmtree(caught.folder)
    caught.resume()
    assert wait_until(lambda: not caught.alive(), 60), "it trains on into nothing"


def disk_full(lab: Cluster, trial: Trial) -> None:
    with tempfile.TemporaryDirectory() as name:  # not in the results: nothing of the study may lie below the mount
        small = Path(name)
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", name], capture_output=True, text=True)
        if made.returncode:
            raise CannotBeMadeError(f"no file system can be mounted: {made.stderr.strip()}")
        try:
            _fill_up_once(trial, small)
        finally:
            subprocess.run(["umount", name], check=True)


def _fill_up_once(trial: Trial, small: Path) -> None:
    home, trial.results = trial.results, small / "results"
    trial.folder = trial.results / trial.folder.name
    trial.submit()
    caught = trial.catch()
    with (small / "ballast").open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(1 << 14))
        except OSError:
            pass
    caught.resume()
    assert wait_until(lambda: not trial.jobs(), 90), "a job goes on without a disk"
    trial.refused(words="MB are free")
    trial.status()
    (small / "ballast").unlink()
    shutil.copytree(trial.results, home, dirs_exist_ok=True)
    trial.results, trial.folder = home, home / trial.folder.name


def requeued_by_hand(lab: Cluster, trial: Trial) -> None:
    trial.submit()
    caught = trial.catch()
    lab.run("scontrol", "requeue", caught.job)
    assert wait_until(lambda: lab.state(caught.job) == "PENDING", 240)


def requeued_after_its_end(lab: Cluster, trial: Trial) -> None:
    trial.submit()
    array = _array(trial)
    assert wait_until(lambda: lab.state(f"{array}_0") == "COMPLETED", 240)
    lab.run("scontrol", "requeue", f"{array}_0")
    assert wait_until(lambda: lab.state(f"{array}_0") == "RUNNING", 240)


def scancelled(lab: Cluster, trial: Trial) -> None:
    trial.submit()
    caught = trial.catch()
    lab.run("scancel", caught.job)
    assert wait_until(lambda: lab.state(caught.job) in ("CANCELLED", ""), 240)
    assert not wait_until(lambda: lab.state(caught.job) in ("PENDING", "RUNNING"), COMES_BACK_S), "a zombie"


def cancelled(lab: Cluster, trial: Trial) -> None:
    other = Trial(lab, trial.file.parent / "other")
    other.submit("--slurm", "begin=now+1hour")
    theirs = other.jobs()
    trial.submit()
    trial.catch()
    said = subprocess.run(trial.command("--cancel"), env=trial.env(), capture_output=True, text=True, timeout=300)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "cancelled 1 jobs" in said.stdout, said.stdout
    assert not wait_until(lambda: bool(trial.jobs()), COMES_BACK_S), f"zombies: {trial.jobs()}"
    assert "cancelled at step" in trial.status()
    assert other.jobs() == theirs, "jobs of another study were cancelled"
    subprocess.run(other.command("--cancel"), env=other.env(), check=True, capture_output=True)
    assert not other.jobs()


def time_limit(lab: Cluster, trial: Trial) -> None:
    trial.submit("--slurm", "time=1")
    caught = trial.catch()  # it would be done within a minute; the warning wakes it up
    before = len(trial.ends(caught))  # on a slow machine the warning has met it earlier too, before it was caught
    assert wait_until(lambda: "interrupted: SIGUSR2" in trial.ends(caught)[before - 1 :], 240)
    lab.run("scontrol", "update", f"JobId={caught.job}", "TimeLimit=60")


def preempted(lab: Cluster, trial: Trial) -> None:
    trial.submit()
    caught = trial.catch()
    with lab.preempt(caught.node):
        assert lab.state(caught.job) != "COMPLETED", "lost: it ended by itself"


def writer_stopped_past_its_lease(lab: Cluster, trial: Trial) -> None:
    trial.submit()
    caught = trial.catch()
    assert wait_until(lambda: time.time() - (caught.folder / "lease.json").stat().st_mtime > 62, 240)
    code = "import sys; from sqzlab.runs.execute import execute; from pathlib import Path; "
    code += "print(execute(Path(sys.argv[1])))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    second = [sys.executable, "-c", code, str(caught.folder)]
    said = subprocess.run(second, env=env, capture_output=True, text=True, check=True)
    assert said.stdout == "done\n", said.stdout
    before = _contents(caught.folder)
    caught.resume()
    assert wait_until(lambda: not caught.alive(), 240)
    assert _contents(caught.folder) == before, "the first writer went on"


# ---- nodes -------------------------------------------------------------------------------------


def node_killed(lab: Cluster, trial: Trial) -> None:
    trial.submit()
    caught = trial.catch()
    lab.kill_node(caught.node)
    assert not caught.alive()
    assert wait_until(lambda: lab.state(caught.job) == "PENDING", 240)


def node_restarted(lab: Cluster, trial: Trial) -> None:
    """Back before Slurm has noticed that it was gone."""
    trial.submit()
    caught = trial.catch()
    lab.kill_node(caught.node)
    lab.repair()


def node_set_down(lab: Cluster, trial: Trial) -> None:
    trial.submit()
    caught = trial.catch()
    lab.run("scontrol", "update", f"NodeName={caught.node}", "State=DOWN", "Reason=test")
    assert wait_until(lambda: not caught.alive(), 240)
    # Slurm takes the node back at once. If it starts the job there beside what is left of its former self, it holds it
    # and drains the node ("Duplicate jobid"): the launches of `Trial.finish` must release it then.
    back = wait_until(lambda: lab.state(caught.job) in ("RUNNING", "COMPLETED", "") or _held_by_slurm(lab), 120)
    assert back, f"{lab.run('scontrol', 'show', 'job', caught.job)}\n{lab.run('sinfo', '--Node', '--long')}"


def _held_by_slurm(lab: Cluster) -> bool:
    return "launch failed requeued held" in lab.run("squeue", "-h", "-o", "%r")


def slurmd_killed(lab: Cluster, trial: Trial) -> None:
    """Its task wakes up beside the copy that Slurm has started on the other node."""
    trial.submit()
    caught = trial.catch()
    lease = caught.folder / "lease.json"
    lab.kill_daemon(caught.node)
    assert wait_until(lambda: f'"pid": {caught.pid}' not in lease.read_text(), 240), "no copy took the run over"
    caught.resume()
    assert wait_until(lambda: not caught.alive(), 60), "two writers"


# ---- other machines ----------------------------------------------------------------------------


def lease_of_a_dead_host(lab: Cluster, trial: Trial) -> None:
    """It died a moment ago: only its silence tells."""
    lab.run("scontrol", "update", "PartitionName=gpu", "State=DOWN")  # takes jobs and starts none
    trial.submit()
    for folder in trial.run_folders():
        held = '{"token": 7, "host": "gone", "boot": "", "pid": 1, "started": "1"}'
        (folder / "lease.json").write_text(held)
    lab.run("scontrol", "update", "PartitionName=gpu", "State=UP")
    assert wait_until(lambda: lab.state(f"{_array(trial)}_0") == "RUNNING", 240)
    lease = trial.run_folders()[0] / "lease.json"
    assert not wait_until(lambda: '"token": 7' not in lease.read_text(), 30), "taken over from one who may live"


def clocks_an_hour_apart(lab: Cluster, trial: Trial) -> None:
    """The first job's clock is an hour fast; the user's and the second job's an hour slow."""
    source, library = trial.file.with_name("clock.c"), trial.file.with_name("clock.so")
    source.write_text(CLOCK)
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    except FileNotFoundError:
        raise CannotBeMadeError("there is no C compiler to fake a clock with") from None
    fast, slow = ({"LD_PRELOAD": str(library), "CLOCK_AHEAD_S": f"{sign}3600"} for sign in ("", "-"))
    trial.submit(**fast)
    caught = trial.catch()
    began = json.loads((caught.folder / "provenance.json").read_text())["segments"][0]["start"]
    assert datetime.fromisoformat(began) > datetime.now(UTC) + timedelta(minutes=50), "its clock is right"
    assert re.search(rf"{caught.folder.name} +running", trial.status(**slow))
    assert "nothing to run" in trial.launch(**slow).stdout
    caught.kill()
    assert wait_until(lambda: not trial.jobs(), 240)
    again = trial.launch(**slow)
    assert "submitted 1 jobs" in again.stdout, again.stdout + again.stderr


CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

/* only of Python: Slurm's clients wait until a time of day */
static long ahead(void) {
    const char *seconds = getenv("CLOCK_AHEAD_S");
    return seconds && !strncmp(program_invocation_short_name, "python", 6) ? atol(seconds) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += ahead();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
    int failed = real(now, zone);
    if (!failed) now->tv_sec += ahead();
    return failed;
}

time_t time(time_t *kept) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (kept) *kept = now.tv_sec;
    return now.tv_sec;
}
"""


def _array(trial: Trial) -> str:
    return next(trial.folder.glob("slurm/*/job_id")).read_text()


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
