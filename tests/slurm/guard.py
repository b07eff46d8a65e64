"""The process under which a cluster's daemons run: `guard.py FOLDER PARENT`, started by `cluster.py`.

It adopts whatever the daemons detach (a "child subreaper"), so every process of the cluster is its descendant. On
SIGTERM, or when process PARENT is gone (0: there is none to watch), it kills them all and removes the folder.
Through the socket `guard.sock` it takes requests, one line each, and answers `done` or what went wrong:
`start NAME`, `end NAME`, `kill NAME` (a daemon, or a node's), `lose NODE` (with all its steps and tasks), `repair`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

START_S = 60  # the longest that one daemon may take to answer, or to end
USABLE = re.compile(r"(idle|mixed|allocated|completing|planned)-?")  # the dash: planned for a job


class DaemonError(RuntimeError):
    """A daemon did not start or end; the message ends with the last lines of its log."""


def guard(folder: Path, parent: int) -> None:
    """Starts the daemons, says so, and serves until SIGTERM or until the end of process `parent` (0: of none)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(36, 1, 0, 0, 0):  # PR_SET_CHILD_SUBREAPER
        raise OSError(ctypes.get_errno(), "prctl")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    (folder / "guard.pid").write_text(str(os.getpid()))
    try:
        daemons = Daemons(folder)
        daemons.repair()
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(folder / "guard.sock"))
            listening.listen()
            listening.settimeout(0.2)
            print("ready", flush=True)
            while parent in (0, os.getppid()):
                _reap()
                with contextlib.suppress(TimeoutError):
                    _serve(listening.accept()[0], daemons)
    except DaemonError as error:
        print(f"\n{error}", flush=True)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _kill(lambda: list(_descendants()))
        shutil.rmtree(folder)


def _serve(client: socket.socket, daemons: Daemons) -> None:
    """One request. A client that goes away before its answer is nobody's trouble."""
    with client, contextlib.suppress(OSError), client.makefile("rw") as talk:
        client.settimeout(START_S)
        try:
            verb, *names = talk.readline().split()
            VERBS[verb](daemons, *names)
            talk.write("done\n")
        except (DaemonError, LookupError, ValueError, subprocess.SubprocessError) as error:
            talk.write(f"{type(error).__name__}: {error}\n")


class Daemons:
    """The daemons of one cluster, by name; a node's name is that of its slurmd."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        os.environ |= {"SLURM_CONF": f"{folder}/slurm.conf", "MYSQL_UNIX_PORT": f"{folder}/db.sock"}
        conf = (folder / "slurm.conf").read_text()
        self.nodes = [line.split()[0].partition("=")[2] for line in conf.splitlines() if line.startswith("NodeName=")]
        accounting = ("mariadbd", "slurmdbd") if "slurmdbd" in conf else ()
        self.names = ("munged", *accounting, "slurmctld", *self.nodes)

    def start(self, name: str) -> None:
        """Returns when it answers, at once where it runs already."""
        if name in self.running and self.running[name].poll() is None:
            return
        if name in self.nodes:  # the variable marks its steps and tasks, which have it from Slurm, too
            self._run(name, "slurmd", "-D", "-N", name, ready=lambda: True, SLURMD_NODENAME=name)
        else:
            STARTS[name](self)

    def repair(self) -> None:
        """Starts whatever does not run; returns when all nodes may get jobs."""
        for name in self.names:
            self.start(name)
        end = time.monotonic() + START_S
        while unusable := self._unusable_nodes():
            if time.monotonic() > end:
                raise DaemonError(f"nodes that get no jobs: {unusable}:\n{_last_lines(self.folder / 'log', 'slurmd')}")
            for name, state in unusable.items():
                if state.startswith(("down", "drain")):
                    _says("scontrol", "update", f"NodeName={name}", "State=RESUME")
            time.sleep(0.1)

    def end(self, name: str) -> None:
        self.running[name].terminate()
        self._wait_for_end(name)

    def kill(self, name: str) -> None:
        self.running[name].kill()
        self._wait_for_end(name)

    def lose(self, node: str) -> None:
        """Kills the slurmd, steps and tasks of a node, also those that it is just starting."""
        _kill(lambda: _with_descendants([pid for pid in _descendants() if _marked(pid, node)]))
        self._wait_for_end(node)

    def munged(self) -> None:
        folder = self.folder
        files = [f"--key-file={folder}/munge.key", f"--seed-file={folder}/munge.seed", f"--pid-file={folder}/munge.pid"]
        address = f"--socket={folder}/munge.sock"
        command = ["munged", "--foreground", "--force", address, *files, f"--log-file={folder}/log/munged.log"]
        self._run("munged", *command, ready=lambda: _says("munge", "-n", address))

    def mariadbd(self) -> None:
        folder = self.folder
        data = ["--no-defaults", "--user=root", f"--datadir={folder}/db", f"--tmpdir={folder}"]
        if not (folder / "db").exists():
            create = ["mariadb-install-db", *data, "--skip-test-db", "--force"]
            subprocess.run(create, check=True, stdout=subprocess.DEVNULL)
        (folder / "db.sock").unlink(missing_ok=True)
        alone = [f"--socket={folder}/db.sock", f"--pid-file={folder}/db.pid", "--skip-networking"]
        self._run("mariadbd", "mariadbd", *data, *alone, ready=(folder / "db.sock").exists)

    def slurmdbd(self) -> None:
        self._run("slurmdbd", "slurmdbd", "-D", ready=lambda: _says("sacctmgr", "-n", "list", "cluster"))
        if not _output("sacctmgr", "-n", "list", "cluster").strip():
            subprocess.run(["sacctmgr", "-i", "add", "cluster", "test"], check=True, stdout=subprocess.DEVNULL)

    def slurmctld(self) -> None:
        self._run("slurmctld", "slurmctld", "-D", ready=lambda: _says("scontrol", "ping"))

    def _run(self, name: str, *command: str, ready: Callable[[], bool], **environment: str) -> None:
        """Runs a daemon in the foreground; it dies with the guard, should that be killed."""
        log_name = f"slurmd-{name}" if name in self.nodes else name
        with (self.folder / f"log/{log_name}.out").open("ab") as log:
            self.running[name] = started = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                preexec_fn=_die_along,
            )
        end = time.monotonic() + START_S
        while not ready():
            if started.poll() is not None or time.monotonic() > end:
                raise DaemonError(f"{name} did not start:\n{_last_lines(self.folder / 'log', log_name)}")
            time.sleep(0.1)

    def _wait_for_end(self, name: str) -> None:
        try:
            self.running[name].wait(START_S)
        except subprocess.TimeoutExpired:
            raise DaemonError(f"{name} did not end:\n{_last_lines(self.folder / 'log', name)}") from None

    def _unusable_nodes(self) -> dict[str, str]:
        """Their states, in Slurm's words."""
        told = [line.split() for line in _output("sinfo", "-hN", "-p", "high", "-o", "%N %T").splitlines()]
        found = dict.fromkeys(self.nodes, "unknown") | {name: state for name, state in told}
        return {name: state for name, state in found.items() if not USABLE.fullmatch(state)}


STARTS: dict[str, Callable[[Daemons], None]] = {
    "munged": Daemons.munged,
    "mariadbd": Daemons.mariadbd,
    "slurmdbd": Daemons.slurmdbd,
    "slurmctld": Daemons.slurmctld,
}
VERBS: dict[str, Callable[..., None]] = {
    "start": Daemons.start,
    "end": Daemons.end,
    "kill": Daemons.kill,
    "lose": Daemons.lose,
    "repair": Daemons.repair,
}


def _die_along() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout


def _says(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, timeout=30).returncode == 0


def _last_lines(folder: Path, name: str) -> str:
    lines = [line for path in sorted(folder.glob(f"{name}*")) for line in path.read_text().splitlines()]
    return "\n".join(lines[-12:])


# ---- processes ---------------------------------------------------------------------------------


def _kill(find: Callable[[], list[int]]) -> None:
    """Until none is found any more: one may be just about to start another."""
    while pids := find():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(map(_alive, pids)):
            time.sleep(0.01)
        _reap()


def _descendants() -> Iterator[int]:
    """All processes below this one, zombies too."""
    own = os.getpid()
    return (pid for pid in _with_descendants([own]) if pid != own)


def _with_descendants(pids: list[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            above = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(above, []).append(int(stat.parent.name))
    found, waiting = dict.fromkeys(pids), list(pids)
    while waiting:
        below = children.get(waiting.pop(), [])
        waiting += [pid for pid in below if pid not in found]
        found |= dict.fromkeys(below)
    return list(found)


def _marked(pid: int, node: str) -> bool:
    """Whether it belongs to this node; a zombie no longer does."""
    try:
        return f"SLURMD_NODENAME={node}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    guard(Path(sys.argv[1]), parent=int(sys.argv[2]))
