"""Every fault that the throw-away cluster can be given, and that it gets over it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, ClusterError, processes_of, wait_until

pytestmark = pytest.mark.slurm

DEAF = "trap 'echo USR2' USR2; trap 'echo TERM' TERM; echo on; while true; do sleep 0.1; done"


@pytest.fixture
def breakable(cluster: Cluster) -> Iterator[Cluster]:
    """The session's cluster, whole and empty again after the test."""
    yield cluster
    cluster.repair()
    cluster.run("scancel", "--user=root")
    assert wait_until(lambda: not cluster.run("squeue", "-h"), 240)


def running(cluster: Cluster, node: str, command: str = "sleep 600", output: Path = Path("/dev/null")) -> str:
    """The id of a job that runs on this node."""
    options = ["--nodelist", node, "--output", str(output), "--signal=USR2@10"]
    job = cluster.run("sbatch", "--parsable", *options, "--wrap", command)
    assert wait_until(lambda: command in " ".join(processes_of(cluster.conf, node).values()), 240)
    assert wait_until(lambda: cluster.state(job) == "RUNNING", 240)
    return job


def test_a_killed_node_loses_its_tasks_at_once_and_its_job_runs_again_once_it_is_back(breakable: Cluster) -> None:
    lost, other = running(breakable, "n1"), running(breakable, "n2")
    breakable.kill_node("n1")
    assert processes_of(breakable.conf, "n1") == {}
    assert wait_until(lambda: breakable.state(lost) == "PENDING", 240), "the loss was never noticed"
    assert breakable.state(other) == "RUNNING"
    breakable.repair()
    assert wait_until(lambda: breakable.state(lost) == "RUNNING", 240)


def test_where_only_slurmd_is_killed_its_tasks_live_on_beside_the_requeued_job(breakable: Cluster) -> None:
    job = running(breakable, "n1")
    breakable.kill_daemon("n1")
    assert wait_until(lambda: breakable.state(job) == "PENDING", 240)
    assert "sleep 600" in processes_of(breakable.conf, "n1").values()


def test_a_stopped_controller_answers_nobody_and_has_forgotten_nothing(breakable: Cluster) -> None:
    job = running(breakable, "n1")
    breakable.stop_controller()
    with pytest.raises(ClusterError, match=r"[Uu]nable to contact slurm controller"):
        breakable.run("squeue")
    breakable.start_controller()
    assert breakable.state(job) == "RUNNING"


def test_the_jobs_of_a_killed_controller_run_on(breakable: Cluster) -> None:
    job = running(breakable, "n1")
    breakable.run("scontrol", "update", f"JobId={job}", "Comment=written")
    assert wait_until(lambda: b"written" in breakable.conf.with_name("state").joinpath("job_state").read_bytes(), 240)
    breakable.kill_controller()
    assert "sleep 600" in processes_of(breakable.conf, "n1").values()
    breakable.repair()
    assert breakable.state(job) == "RUNNING"


def test_a_repaired_cluster_has_no_node_down_or_drained(breakable: Cluster) -> None:
    breakable.run("scontrol", "update", "NodeName=n1", "State=DOWN", "Reason=test")
    breakable.run("scontrol", "update", "NodeName=n2", "State=DRAIN", "Reason=test")
    breakable.repair()
    assert breakable.run("sinfo", "-h", "-p", "high", "-o", "%D %T") == "2 idle"


def test_a_fault_that_does_not_exist_is_refused_and_the_cluster_lives_on(breakable: Cluster) -> None:
    with pytest.raises(ClusterError, match="n9"):
        breakable.kill_daemon("n9")
    assert breakable.run("squeue", "-h") == ""


def test_array_indices_stay_below_their_limit_and_extra_lines_are_heeded() -> None:
    with Cluster(nodes=1, gpus=0, max_array=5, extra=("MaxJobCount=77",)) as small:
        assert re.search(r"MaxJobCount += 77\b", small.run("scontrol", "show", "config"))
        small.run("sbatch", "--array=0-4", "--hold", "--wrap", "true")
        with pytest.raises(ClusterError, match="Invalid job array specification"):
            small.run("sbatch", "--array=0-5", "--hold", "--wrap", "true")


def test_a_preempted_node_is_free_and_its_job_comes_back_after_it(lab: Cluster, tmp_path: Path) -> None:
    script, said = tmp_path / "deaf.sh", tmp_path / "said"
    script.write_text(DEAF)
    job = running(lab, "n1", f"srun bash {script}", said)  # Slurm warns tasks, not the batch script
    assert wait_until(lambda: said.exists() and "on" in said.read_text(), 240)
    first = "USR2" if lab.user_signal else "TERM"
    with lab.preempt("n1"):
        assert lab.state(job) == "PENDING"
        assert next(word for word in said.read_text().split() if word in ("USR2", "TERM")) == first
    assert wait_until(lambda: lab.state(job) == "RUNNING", 240)
    lab.run("scancel", job)


def test_the_database_remembers_what_ended_also_after_an_outage(lab: Cluster) -> None:
    if not lab.accounting:
        with pytest.raises(ClusterError, match="accounting storage is disabled"):
            lab.run("sacct")
        return
    job = lab.run("sbatch", "--parsable", "--output=/dev/null", "--wrap", "true")
    assert wait_until(lambda: lab.run("sacct", "-nXP", "-j", job, "-o", "State") == "COMPLETED", 240)
    lab.kill_daemon("slurmdbd")
    lab.kill_daemon("mariadbd")
    with pytest.raises(ClusterError, match="onnection refused"):
        lab.run("sacct")
    lab.repair()
    assert lab.run("sacct", "-nXP", "-j", job, "-o", "State") == "COMPLETED"
