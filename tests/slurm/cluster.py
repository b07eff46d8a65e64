"""A throw-away Slurm cluster on this machine: real daemons, virtual nodes, pretended GPUs.

    with Cluster(nodes=2, gpus=2) as cluster:
        subprocess.run(["sinfo"], env={**os.environ, **cluster.env})
        cluster.kill_node("n1")
        cluster.repair()

By hand: `eval "$(python tests/slurm/cluster.py up)"`, later `python tests/slurm/cluster.py down`.
Needs root on Debian or Ubuntu (a container will do: no systemd, no cgroups); missing packages are installed.

The daemons run under a guard (`guard.py`), which ends them when it is told to or when the process that started it
is gone, however that ended. Nothing outside the cluster's own temporary folder is touched.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from slurm_conf import Settings, write
from slurm_packages import install, why_unavailable

GUARD = Path(__file__).with_name("guard.py")


class ClusterError(RuntimeError):
    """The cluster did not start or did not do as told; the message ends with the last lines of a log."""


@dataclass
class Cluster(Settings):
    """Partition `gpu` (default; preempted by requeueing after `grace_s`) and `high`, both over all nodes n1, n2, ..."""

    env: dict[str, str] = field(default_factory=dict, init=False)  # what a client needs: SLURM_CONF
    _guard: subprocess.Popen[str] | None = field(default=None, init=False)

    def start(self, attached: bool = True) -> None:
        """Returns when all nodes are idle. Unless `attached`, the cluster outlives this process.

        Raises ClusterError, or CalledProcessError where a package cannot be installed.
        """
        install(self.accounting)
        folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # unix sockets allow 107 bytes of path
        write(folder, self)
        command = [sys.executable, str(GUARD), str(folder), str(os.getpid() if attached else 0)]
        self._guard = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self._guard.stdout is not None
        if self._guard.stdout.readline() != "ready\n":
            said = self._guard.stdout.read()
            self.stop()
            raise ClusterError(said.strip() or "the guard ended")
        self.env["SLURM_CONF"] = str(folder / "slurm.conf")

    def stop(self) -> None:
        """Ends every process of the cluster, its jobs too, and removes its folder."""
        self.env.clear()
        if self._guard is not None and self._guard.stdout is not None:
            self._guard.terminate()
            self._guard.wait()
            self._guard.stdout.close()
            self._guard = None

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- a client ------------------------------------------------------------------------------

    @property
    def node_names(self) -> list[str]:
        return [f"n{i + 1}" for i in range(self.nodes)]

    @property
    def conf(self) -> Path:
        return Path(self.env["SLURM_CONF"])

    def run(self, *command: str) -> str:
        """What a client's command prints. Raises ClusterError with its last words where it fails."""
        said = subprocess.run(command, env={**os.environ, **self.env}, capture_output=True, text=True, timeout=120)
        if said.returncode:
            raise ClusterError(f"{shlex.join(command)}: {said.stderr.strip()}")
        return said.stdout.strip()

    def state(self, job_id: str) -> str:
        """Slurm's word for a job (`12` or `12_3`): PENDING, RUNNING, ...; empty where it knows it no longer."""
        with contextlib.suppress(ClusterError):
            return self.run("squeue", "-h", "--states=all", "-j", job_id, "-o", "%T")
        return ""

    # ---- faults --------------------------------------------------------------------------------

    def kill_node(self, name: str) -> None:
        """SIGKILL to the node's slurmd, steps and tasks. Slurm finds it DOWN after some 30 s."""
        self._tell("lose", name)

    def kill_daemon(self, name: str) -> None:
        """SIGKILL to `slurmctld`, `slurmdbd`, `mariadbd` or, by a node's name, to its slurmd: its tasks live on."""
        self._tell("kill", name)

    def kill_controller(self) -> None:
        """It may forget jobs of its last 5 s and give their ids out again."""
        self.kill_daemon("slurmctld")

    def stop_controller(self) -> None:
        """In good order, nothing forgotten. Clients fail after 9 s, jobs run on."""
        self._tell("end", "slurmctld")

    def start_controller(self) -> None:
        """Returns when it answers."""
        self._tell("start", "slurmctld")

    def repair(self) -> None:
        """Starts whatever is dead and resumes nodes that are down or drained; returns when all may get jobs."""
        self._tell("repair")

    @contextlib.contextmanager
    def preempt(self, node: str, wait_s: float = 180) -> Iterator[str]:
        """Holds a whole node by a job of partition `high`, whose id it yields: what ran there is preempted.

        The body runs once the node is free of everything else, which may take `grace_s` and 30 s.
        """
        whole_node = ["--partition=high", "--nodelist", node, "--exclusive", "--no-requeue"]
        job = self.run("sbatch", "--parsable", *whole_node, "--output=/dev/null", "--wrap", "sleep 3600")
        try:
            if not wait_until(lambda: self.state(job) == "RUNNING", wait_s):
                raise ClusterError(f"{node} was not given to job {job}, which is {self.state(job) or 'gone'}")
            yield job
        finally:
            with contextlib.suppress(ClusterError):  # the controller may be down by now
                self.run("scancel", job)

    def _tell(self, *request: str) -> None:
        """Asks the guard, and returns when it has done so."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.conf.with_name("guard.sock")))
            client.sendall(f"{' '.join(request)}\n".encode())
            with client.makefile() as answer:
                said = answer.read()
        if said != "done\n":
            raise ClusterError(said.strip() or "the guard ended")


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition held within this time; it is tried ten times a second."""
    end = time.monotonic() + seconds
    while not (reached := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return reached


def processes_of(conf: Path, node: str = "") -> dict[int, str]:
    """Command lines of the processes that were started with this SLURM_CONF; with `node`, only those on that node."""
    marks = {f"SLURM_CONF={conf}".encode()} | ({f"SLURMD_NODENAME={node}".encode()} if node else set())
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marks <= set((folder / "environ").read_bytes().split(b"\0")):
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ").strip()
        except OSError:  # it ended meanwhile
            continue
    return found


# ---- by hand -----------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="start one and print how a shell finds it")
    up.add_argument("--nodes", type=int, default=2, metavar="N", help="n1, n2, ... (default: 2)")
    up.add_argument("--accounting", action="store_true", help="with a database, hence sacct")
    up.add_argument("--user-signal", action="store_true", help="preemption sends the signal of --signal first")
    verbs.add_parser("down", help="stop the one that SLURM_CONF names")
    given = parser.parse_args()
    if given.verb == "up":
        if reason := why_unavailable(given.accounting):
            sys.exit(reason)
        cluster = Cluster(nodes=given.nodes, accounting=given.accounting, user_signal=given.user_signal)
        cluster.start(attached=False)
        print(f"export SLURM_CONF={shlex.quote(cluster.env['SLURM_CONF'])}")
    else:
        _down()


def _down() -> None:
    folder = Path(os.environ.get("SLURM_CONF", "")).parent
    if not (folder / "guard.pid").is_file():
        sys.exit("no cluster to stop: SLURM_CONF is not that of one started here")
    os.kill(int((folder / "guard.pid").read_text()), signal.SIGTERM)
    while folder.exists():
        time.sleep(0.1)


if __name__ == "__main__":
    main()
