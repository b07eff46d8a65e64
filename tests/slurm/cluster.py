"""A throw-away Slurm cluster on this machine: real daemons, virtual nodes, pretended GPUs.

    with Cluster(nodes=2, gpus=2) as cluster:
        subprocess.run(["sinfo"], env={**os.environ, **cluster.env})

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
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = ("slurm-wlm", "munge")
ACCOUNTING_PACKAGES = ("slurmdbd", "mariadb-server-core", "mariadb-client-core")
GUARD = Path(__file__).with_name("guard.py")


class ClusterError(RuntimeError):
    """The cluster did not start; the message ends with the last lines of the log."""


@dataclass
class Cluster:
    """Partition `gpu` (default; preempted by requeueing after `grace_s`) and `high`, both over all nodes n1, n2, ..."""

    nodes: int = 2
    gpus: int = 2  # a node; Slurm sets CUDA_VISIBLE_DEVICES, CUDA is not there
    cpus: int = 8  # a node, claimed
    accounting: bool = False  # with a database, hence sacct
    grace_s: int = 5  # between SIGTERM and SIGKILL; Slurm looks every 30 s only, so it may take that much longer
    user_signal: bool = False  # preemption sends the signal of `--signal` first
    env: dict[str, str] = field(default_factory=dict, init=False)  # what a client needs: SLURM_CONF
    _guard: subprocess.Popen[str] | None = field(default=None, init=False)

    def start(self, attached: bool = True) -> None:
        """Returns when all nodes are idle. Unless `attached`, the cluster outlives this process.

        Raises ClusterError, or CalledProcessError where a package cannot be installed.
        """
        if missing := _missing(self.accounting):
            _apt("install", *missing)
        folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # unix sockets allow 107 bytes of path
        self._write(folder)
        command = [sys.executable, str(GUARD), str(folder), str(os.getpid() if attached else 0)]
        self._guard = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self._guard.stdout is not None
        if self._guard.stdout.readline() != "ready\n":
            said = self._guard.stdout.read()
            self._guard.wait()
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

    def _write(self, folder: Path) -> None:
        """The configuration files, with ports that are free now."""
        folder.chmod(0o755)  # munged refuses a socket that others cannot reach
        for name in ("gpu", "log", "state", *(f"spool/n{i + 1}" for i in range(self.nodes))):
            (folder / name).mkdir(parents=True)
        for i in range(self.gpus):
            _pretend_gpu(folder / f"gpu/gpu{i}")
        _secret(folder / "munge.key", os.urandom(128))
        values = {
            "folder": folder,
            "host": socket.gethostname().partition(".")[0],
            "gres": f" Gres=gpu:{self.gpus}" if self.gpus else "",
            "grace_s": self.grace_s,
            "preempt": "preempt_send_user_signal" if self.user_signal else "idle_on_node_suspend",  # never empty
            "storage": "slurmdbd" if self.accounting else "none",
        }
        ports = _free_ports(self.nodes + 2)
        conf = SLURM_CONF.format(port=ports[0], **values)
        for i, port in enumerate(ports[2:], start=1):
            conf += NODE.format(name=f"n{i}", port=port, cpus=self.cpus, **values)
        if self.accounting:
            conf += ACCOUNTING.format(port=ports[1], **values)
            _secret(folder / "slurmdbd.conf", SLURMDBD_CONF.format(port=ports[1], **values).encode())
        (folder / "slurm.conf").write_text(conf)
        gres = f"Name=gpu Flags=nvidia_gpu_env File={folder}/gpu/gpu[0-{self.gpus - 1}]\n" if self.gpus else ""
        (folder / "gres.conf").write_text(gres)
        version = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True, check=True).stdout.split()[-1]
        plugin = "disabled" if int(version.partition(".")[0]) >= 23 else "cgroup/v1"  # both: no cgroups are used
        (folder / "cgroup.conf").write_text(f"CgroupPlugin={plugin}\n")


def why_unavailable(accounting: bool = False) -> str | None:
    """Why no cluster can be started here, or None."""
    if sys.platform != "linux":
        return f"Slurm's daemons need Linux, not {sys.platform}"
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    if missing := _missing(accounting):
        if shutil.which("apt-get") is None:
            return f"not installed, and there is no apt-get: {', '.join(missing)}"
        try:
            _apt("install", "--simulate", *missing)
        except subprocess.CalledProcessError as error:
            return f"apt-get cannot install {', '.join(missing)}: {error.stderr.strip().rpartition(chr(10))[2]}"
    return None


# ---- packages and files ------------------------------------------------------------------------


def _missing(accounting: bool) -> list[str]:
    def installed(name: str) -> bool:
        query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", name]
        return subprocess.run(query, capture_output=True, text=True).stdout == "installed"

    wanted = PACKAGES + (ACCOUNTING_PACKAGES if accounting else ())
    return [name for name in wanted if shutil.which("dpkg-query") is None or not installed(name)]


def _apt(*arguments: str) -> None:
    """Runs apt-get; where it fails, refreshes the list of packages and tries once more."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}

    def run(*words: str) -> None:
        command = ["apt-get", "-qq", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", *words]
        subprocess.run(command, env=env, check=True, capture_output=True, text=True)

    try:
        run(*arguments)
    except subprocess.CalledProcessError:
        run("update")
        run(*arguments)


def _secret(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


def _pretend_gpu(path: Path) -> None:
    """A copy of /dev/null, or a plain file where a container forbids device files."""
    try:
        os.mknod(path, 0o666 | 0o020000, Path("/dev/null").stat().st_rdev)
    except PermissionError:
        path.touch()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [int(opened.getsockname()[1]) for opened in sockets]


# ---- configuration -----------------------------------------------------------------------------

# cred_expire also delays the restart of a requeued job; munge's own life time would make that two minutes.
SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
GresTypes=gpu
KillWait=5
SlurmdParameters=config_overrides
SlurmctldParameters={preempt}
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/{storage}
PartitionName=gpu Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace_s}
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=64000{gres}\n"
ACCOUNTING = """\
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.sock
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/linux
"""
SLURMDBD_CONF = """\
DbdHost=localhost
DbdPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
PidFile={folder}/slurmdbd.pid
LogFile={folder}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageUser=root
StorageLoc=slurm
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="start one and print how a shell finds it")
    up.add_argument("--accounting", action="store_true", help="with a database, hence sacct")
    verbs.add_parser("down", help="stop the one that SLURM_CONF names")
    given = parser.parse_args()
    if given.verb == "up":
        if reason := why_unavailable(given.accounting):
            sys.exit(reason)
        cluster = Cluster(accounting=given.accounting)
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
