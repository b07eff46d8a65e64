"""The throw-away cluster itself: it runs what submitit sends, preempts, and leaves nothing behind."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import submitit
from cluster import Cluster, processes_of, wait_until

pytestmark = pytest.mark.slurm

# Deaf to SIGTERM as submitit's own jobs are: a job that ends in its grace time counts as completed.
UNTIL_RESTART = """test -n "$SLURM_RESTART_COUNT" && echo restarted || { trap '' TERM; touch '%s'; sleep 600; }"""


@pytest.fixture(autouse=True)
def _client(slurm: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)


def _executor(folder: Path, **parameters: object) -> submitit.AutoExecutor:
    executor = submitit.AutoExecutor(folder, cluster="slurm")
    executor.update_parameters(timeout_min=60, **parameters)
    return executor


def test_an_array_of_four_jobs_returns_four_results(tmp_path: Path) -> None:
    jobs = _executor(tmp_path, gpus_per_node=1).map_array(math.factorial, [1, 2, 3, 4])
    assert wait_until(lambda: all(job.paths.result_pickle.exists() for job in jobs), 240)
    assert [job.result() for job in jobs] == [1, 2, 6, 24]
    assert {job.job_id.partition("_")[2] for job in jobs} == {"0", "1", "2", "3"}


def test_a_job_sees_as_many_devices_as_it_asked_for(slurm: dict[str, str]) -> None:
    said = subprocess.run(
        ["srun", "--gpus-per-node=2", "printenv", "CUDA_VISIBLE_DEVICES"], capture_output=True, text=True, check=True
    )
    assert said.stdout == "0,1\n"


def test_a_job_of_partition_high_requeues_a_job_of_partition_gpu(tmp_path: Path) -> None:
    started = tmp_path / "started"
    waiting = submitit.helpers.CommandFunction(["bash", "-c", UNTIL_RESTART % started], verbose=False)
    whole_node = {"slurm_exclusive": True, "slurm_additional_parameters": {"nodelist": "n1"}}
    low = _executor(tmp_path, slurm_partition="gpu", **whole_node).submit(waiting)
    assert wait_until(started.exists, 240)
    high = _executor(tmp_path, slurm_partition="high", **whole_node).submit(math.factorial, 5)
    assert wait_until(high.paths.result_pickle.exists, 90)  # Slurm looks at the grace time every 30 s
    assert wait_until(low.paths.result_pickle.exists, 240)
    assert (high.result(), low.result()) == (120, "restarted")


def test_there_is_no_sacct_without_accounting() -> None:
    said = subprocess.run(["sacct"], capture_output=True, text=True)
    assert said.returncode != 0
    assert "accounting storage is disabled" in said.stderr


def test_stopping_leaves_no_process_and_no_folder() -> None:
    cluster = Cluster(nodes=1)
    cluster.start()
    conf = Path(cluster.env["SLURM_CONF"])
    job = ["sbatch", "--output=/dev/null", "--wrap", "sleep 600"]
    subprocess.run(job, env={**os.environ, **cluster.env}, check=True, capture_output=True)
    assert wait_until(lambda: "sleep 600" in processes_of(conf).values(), 240)
    cluster.kill_daemon("n1")  # the job's processes are nobody's now
    cluster.stop()
    assert processes_of(conf) == {}
    assert not conf.parent.exists()


def test_a_killed_client_leaves_no_process_and_no_folder() -> None:
    code = (
        "from cluster import Cluster; c = Cluster(nodes=1); c.start(); print(c.env['SLURM_CONF'], flush=True); input()"
    )
    client = subprocess.Popen(
        [sys.executable, "-u", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    )
    with client:
        assert client.stdout is not None
        conf = Path(client.stdout.readline().strip())
        assert conf.is_file()
        client.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not conf.parent.exists(), 240)
    assert processes_of(conf) == {}
