"""`launch.py --selftest` on a real Slurm cluster: what works is said, and nothing of it stays."""

from __future__ import annotations

import io
import os
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest
from cluster import Cluster, wait_until
from launching.conftest import Launch, command, launch  # noqa: F401  (fixtures)
from rich.console import Console

from sqzlab.launching.selftest import selftest

pytestmark = pytest.mark.slurm

STEPS = (
    "submit",
    "start",
    "results",
    "software",
    "code",
    "signal",
    "requeue",
    "cancel",
    "resume",
    "result",
    "cancelled",
)


def queued(cluster: Cluster) -> list[str]:
    """Names of the selftests' jobs that Slurm has."""
    return [
        name for name in cluster.run("squeue", "-h", "-o", "%j").splitlines() if "selftest" in name or "undi" in name
    ]


def left(results: Path) -> list[Path]:
    return list(results.glob("selftest-*"))


def test_on_a_cluster_where_all_works_every_step_says_so(cluster: Cluster, launch: Launch, tmp_path: Path) -> None:  # noqa: F811
    said = launch("--selftest", "--cluster", "slurm", **cluster.env)
    assert (said.returncode, said.stderr) == (0, ""), said.stdout
    lines = said.stdout.splitlines()
    ended = [line.split()[1].rstrip(":") for line in lines if line.startswith("ok ")]
    assert [what for what in ended if what in STEPS] == list(STEPS)
    assert "not available  accounting: Slurm accounting storage is disabled" in said.stdout
    assert not [line for line in lines if len(line) > 80 and str(tmp_path) not in line]
    assert not queued(cluster)
    assert not left(tmp_path / "results")


def test_a_partition_that_does_not_exist_ends_it_with_one_line(
    cluster: Cluster,
    launch: Launch,  # noqa: F811
    tmp_path: Path,
) -> None:
    said = launch("--selftest", "--slurm", "partition=nope", **cluster.env)
    assert said.returncode == 3
    assert "invalid partition" in said.stderr.lower()
    assert len(said.stderr.splitlines()) == 1
    assert not left(tmp_path / "results")


def test_jobs_that_do_not_start_in_time_are_cancelled_and_the_reason_is_told(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", cluster.env["SLURM_CONF"])
    said = io.StringIO()
    assert selftest(tmp_path, {"hold": True}, Console(file=said, width=200), patience_s=1) == 1
    failed = [line for line in said.getvalue().splitlines() if line.startswith("FAILED")]
    assert len(failed) == 1
    assert "start: no start within 1 s: held by its user (JobHeldUser); the jobs are cancelled" in failed[0]
    assert "--slurm partition=" in failed[0]
    assert not queued(cluster)
    assert len(left(tmp_path)) == 1


def test_a_run_that_fails_on_the_node_is_told_with_its_log(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pretended GPUs of the cluster are none that torch could use."""
    monkeypatch.setenv("SLURM_CONF", cluster.env["SLURM_CONF"])
    said = io.StringIO()
    assert selftest(tmp_path, {"gpus_per_node": "1"}, Console(file=said, width=400)) == 1
    failed = [line for line in said.getvalue().splitlines() if line.startswith("FAILED")]
    assert len(failed) == 1
    assert "the run asks for a GPU and" in failed[0]
    log = Path(failed[0].rpartition("log: ")[2])
    assert "has none that can be used" in log.read_text()
    assert not queued(cluster)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_ctrl_c_or_a_closed_terminal_leaves_no_job_and_no_folder(
    number: signal.Signals, cluster: Cluster, tmp_path: Path
) -> None:
    asked = command("--results", tmp_path, "--selftest", "--slurm", "hold=true")
    assert not queued(cluster)
    with subprocess.Popen(
        asked,
        env={**os.environ, **cluster.env},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, number, signal.SIG_DFL),  # ignored where pytest runs in the background
    ) as process:
        try:
            assert wait_until(lambda: len(queued(cluster)) > 0, 240)
            process.send_signal(number)
            process.communicate(timeout=240)
        finally:
            process.kill()
    assert process.returncode == 130
    assert not queued(cluster)
    assert not left(tmp_path)


def test_without_a_cluster_it_ends_with_exit_code_3_and_elsewhere_it_does_not_apply(launch: Launch) -> None:  # noqa: F811
    said = launch("--selftest", PATH=os.devnull)
    assert said.returncode == 3
    assert "no Slurm cluster" in said.stderr
    said = launch("--selftest", "--cluster", "local")
    assert said.returncode == 2
    assert "--cluster local" in said.stderr
