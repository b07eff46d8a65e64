"""The process under which a cluster's daemons run: `guard.py FOLDER PARENT`, started by `cluster.py`.

It adopts whatever the daemons detach (a "child subreaper"), so every process of the cluster is its descendant. On
SIGTERM, or when process PARENT is gone (0: there is none to watch), it kills them all and removes the folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

START_S = 60  # the longest that one daemon may take to answer


class StartError(RuntimeError):
    """A daemon did not start; the message ends with the last lines of its log."""


def guard(folder: Path, parent: int) -> None:
    """Starts the daemons, says so, and waits for SIGTERM or for the end of process `parent` (0: of none)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(36, 1, 0, 0, 0):  # PR_SET_CHILD_SUBREAPER
        raise OSError(ctypes.get_errno(), "prctl")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    (folder / "guard.pid").write_text(str(os.getpid()))
    try:
        _start_daemons(folder)
        print("ready", flush=True)
        while parent in (0, os.getppid()):
            _reap()
            time.sleep(0.2)
    except StartError as error:
        print(f"\n{error}", flush=True)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while pids := list(_descendants()):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _reap()
            time.sleep(0.05)
        shutil.rmtree(folder)


def _start_daemons(folder: Path) -> None:
    os.environ |= {"SLURM_CONF": f"{folder}/slurm.conf", "MYSQL_UNIX_PORT": f"{folder}/db.sock"}
    conf = (folder / "slurm.conf").read_text()

    def daemon(name: str, *command: str, ready: Callable[[], bool]) -> None:
        """Runs in the foreground; dies with the guard, should that be killed."""
        with (folder / f"log/{name}.out").open("ab") as log:
            started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_along)
        end = time.monotonic() + START_S
        while not ready():
            if started.poll() is not None or time.monotonic() > end:
                raise StartError(f"{name} did not start:\n{_last_lines(folder / 'log', name)}")
            time.sleep(0.1)

    socket = f"--socket={folder}/munge.sock"
    files = [f"--key-file={folder}/munge.key", f"--seed-file={folder}/munge.seed", f"--pid-file={folder}/munge.pid"]
    munged = ["munged", "--foreground", "--force", socket, *files, f"--log-file={folder}/log/munged.log"]
    daemon("munged", *munged, ready=lambda: _says("munge", "-n", socket))
    if "slurmdbd" in conf:
        data = ["--no-defaults", "--user=root", f"--datadir={folder}/db"]
        create = ["mariadb-install-db", *data, "--skip-test-db", "--force"]
        subprocess.run(create, check=True, stdout=subprocess.DEVNULL)
        alone = [f"--socket={folder}/db.sock", f"--pid-file={folder}/db.pid", "--skip-networking"]
        daemon("mariadbd", "mariadbd", *data, *alone, ready=(folder / "db.sock").exists)
        daemon("slurmdbd", "slurmdbd", "-D", ready=lambda: _says("sacctmgr", "-n", "list", "cluster"))
        subprocess.run(["sacctmgr", "-i", "add", "cluster", "test"], check=True, stdout=subprocess.DEVNULL)
    daemon("slurmctld", "slurmctld", "-D", ready=lambda: _says("scontrol", "ping"))
    nodes = [line.split()[0].partition("=")[2] for line in conf.splitlines() if line.startswith("NodeName=")]
    for name in nodes:
        daemon(f"slurmd-{name}", "slurmd", "-D", "-N", name, ready=lambda: True)
    end = time.monotonic() + START_S
    while (states := _output("sinfo", "-hN", "-p", "high", "-o", "%T").split()) != ["idle"] * len(nodes):
        if time.monotonic() > end:
            raise StartError(f"nodes are {states}, not idle:\n{_last_lines(folder / 'log', 'slurmd')}")
        time.sleep(0.1)


def _die_along() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout


def _says(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, timeout=30).returncode == 0


def _last_lines(folder: Path, name: str) -> str:
    lines = [line for path in sorted(folder.glob(f"{name}*")) for line in path.read_text().splitlines()]
    return "\n".join(lines[-12:])


def _descendants() -> Iterator[int]:
    """All processes below this one, zombies too."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            above = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(above, []).append(int(stat.parent.name))
    waiting = [os.getpid()]
    while waiting:
        found = children.get(waiting.pop(), [])
        yield from found
        waiting += found


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    guard(Path(sys.argv[1]), parent=int(sys.argv[2]))
