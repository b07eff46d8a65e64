"""The configuration files of a throw-away cluster.

Its delays are short: a lost node is DOWN after 30 s, a requeued job may restart after 6 s, a signalled job is killed
after 5 s, a job that ended is forgotten after 10 to 20 s. Slurm looks at time limits and at the end of a grace time
every 30 s, whatever is configured.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

LABS = {  # settings in which the clusters of two sites may differ for us
    "stock": {"accounting": False, "user_signal": False},
    "accounting": {"accounting": True, "user_signal": False},
    "user signal": {"accounting": False, "user_signal": True},
    "accounting, user signal": {"accounting": True, "user_signal": True},
}


@dataclass
class Settings:
    """What of a cluster can be chosen."""

    nodes: int = 2  # n1, n2, ...
    gpus: int = 2  # a node; Slurm sets CUDA_VISIBLE_DEVICES, CUDA is not there
    cpus: int = 8  # a node, claimed
    accounting: bool = False  # with a database, hence sacct
    grace_s: int = 5  # between SIGTERM and SIGKILL; Slurm looks every 30 s only, so it may take that much longer
    user_signal: bool = False  # preemption sends the signal of `--signal` first
    max_array: int = 1001  # array indices stay below it
    extra: tuple[str, ...] = ()  # lines of slurm.conf


def write(folder: Path, settings: Settings) -> None:
    """The configuration files, with ports that are free now."""
    folder.chmod(0o755)  # munged refuses a socket that others cannot reach
    for name in ("gpu", "log", "state", *(f"spool/n{i + 1}" for i in range(settings.nodes))):
        (folder / name).mkdir(parents=True)
    for i in range(settings.gpus):
        _pretend_gpu(folder / f"gpu/gpu{i}")
    _secret(folder / "munge.key", os.urandom(128))
    values = {
        "folder": folder,
        "host": socket.gethostname().partition(".")[0],
        "gres": f" Gres=gpu:{settings.gpus}" if settings.gpus else "",
        "grace_s": settings.grace_s,
        "max_array": settings.max_array,
        "preempt": "preempt_send_user_signal" if settings.user_signal else "idle_on_node_suspend",  # never empty
        "storage": "slurmdbd" if settings.accounting else "none",
    }
    ports = _free_ports(settings.nodes + 2)
    conf = SLURM_CONF.format(port=ports[0], **values)
    for i, port in enumerate(ports[2:], start=1):
        conf += NODE.format(name=f"n{i}", port=port, cpus=settings.cpus, **values)
    if settings.accounting:
        conf += ACCOUNTING.format(port=ports[1], **values)
        _secret(folder / "slurmdbd.conf", SLURMDBD_CONF.format(port=ports[1], **values).encode())
    conf += "".join(f"{line}\n" for line in settings.extra)
    (folder / "slurm.conf").write_text(conf)
    gres = f"Name=gpu Flags=nvidia_gpu_env File={folder}/gpu/gpu[0-{settings.gpus - 1}]\n" if settings.gpus else ""
    (folder / "gres.conf").write_text(gres)
    version = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True, check=True).stdout.split()[-1]
    plugin = "disabled" if int(version.partition(".")[0]) >= 23 else "cgroup/v1"  # both: no cgroups are used
    (folder / "cgroup.conf").write_text(f"CgroupPlugin={plugin}\n")


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
    """Below those that the system gives to clients: a daemon that is started again finds its own still free."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            port = random.randrange(10_000, 32_000)
            opened = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                opened.bind(("127.0.0.1", port))
                found.append(port)
        return found


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
MaxArraySize={max_array}
KillWait=5
MinJobAge=10
SlurmdTimeout=5
ReturnToService=2
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
