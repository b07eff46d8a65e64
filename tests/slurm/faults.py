"""What can go wrong with a study on a cluster: `FAULTS[name](lab, trial)` makes it happen once, and checks what the
user is told. What it has cost, `Trial.finish` finds out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults_of_jobs as jobs
import faults_of_launches as launches
from cluster import Cluster
from trial import Outcome, Results, Trial


def attempt(fault: str, folder: Path, clean: Results, **settings: Any) -> Outcome:
    """One trial on a cluster of its own.

    Raises AssertionError where something was told or done wrongly, CannotBeMadeError where this machine does not allow
    the fault.
    """
    with Cluster(nodes=2, gpus=2, grace_s=5, **settings) as lab:
        trial = Trial(lab, folder)
        FAULTS[fault](lab, trial)
        return trial.finish(clean)


FAULTS: dict[str, Callable[[Cluster, Trial], None]] = {
    "job killed": jobs.job_killed,
    "run folder deleted": jobs.run_folder_deleted,
    "disk full": jobs.disk_full,
    "requeued by hand": jobs.requeued_by_hand,
    "requeued after its end": jobs.requeued_after_its_end,
    "scancelled": jobs.scancelled,
    "cancelled": jobs.cancelled,
    "time limit": jobs.time_limit,
    "preempted": jobs.preempted,
    "writer stopped past its lease": jobs.writer_stopped_past_its_lease,
    "node killed": jobs.node_killed,
    "node restarted": jobs.node_restarted,
    "node set down": jobs.node_set_down,
    "slurmd killed": jobs.slurmd_killed,
    "launcher killed before sbatch": launches.launcher_killed_before_sbatch,
    "launcher killed after sbatch": launches.launcher_killed_after_sbatch,
    "launcher killed with the runs prepared": launches.launcher_killed_once_there_is("*/config.json"),
    "launcher killed with the code copied": launches.launcher_killed_once_there_is("slurm/code/*"),
    "launcher killed with the intent written": launches.launcher_killed_once_there_is("slurm/*/batch.json"),
    "launcher killed with the id written": launches.launcher_killed_once_there_is("slurm/*/job_id"),
    "two launchers": launches.two_launchers,
    "sbatch refuses": launches.sbatch_refuses,
    "controller down at launch": launches.controller_down_at_launch,
    "controller down at status": launches.controller_down_at_status,
    "interrupted while the controller is down": launches.interrupted_while_the_controller_is_down,
    "controller killed": launches.controller_killed,
    "controller killed after sbatch": launches.controller_killed_after_sbatch,
    "database down": launches.database_down,
    "lease of a dead host": jobs.lease_of_a_dead_host,
    "clocks an hour apart": jobs.clocks_an_hour_apart,
}
