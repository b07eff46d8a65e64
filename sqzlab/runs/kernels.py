"""What torch.compile made for a run: compiled once for each graph of a study, then copied to every node.

    <study>/kernels/<graph>-<machine>.zip           whole or absent; who publishes first wins
    <temporary>/sqzlab-<user>-kernels/<graph>-<machine>-<boot>/    of this node: what its runs read and write
    <temporary>/sqzlab-<user>-kernels/<graph>-<machine>-<boot>.lock    held while that is made: one process at a time

Torch's own cache is many small files with locks, which shared file systems serve badly; an archive is one file that
is read once. Torch decides itself, by content, whether a kernel fits: a wrong archive costs time, never a result. A
crash of the node may cut what was written there, so nothing is taken from before its last boot.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import stat
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch._functorch import config as autograd

from sqzlab.config import Config
from sqzlab.run import CONFIG, Run
from sqzlab.runs.files import read_json, write_whole
from sqzlab.runs.graphs import FOLDER, graph_of
from sqzlab.runs.provenance import machine
from sqzlab.training.inductor import OF_TRITON, kernels_in, own_cache
from sqzlab.training.meeting import LeftError
from sqzlab.training.warm_up import compile_graphs
from sqzlab.training.world import World, joined

UNUSED_S = 7 * 24 * 3600.0
"""A node's folder that no run has begun with for so long is removed by the next run there."""
POLL_S = 0.05
BOOT = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def kernels_of(
    config: Config, study_folder: Path, device: torch.device, world: World, stopped: Callable[[], bool]
) -> Iterator[None]:
    """Within the block, what the run compiles is there already.

    Where there is no archive, the graphs are compiled now and published; of several runs on a node that lack the same,
    one does so and the others wait. A user's own cache wins: then nothing of this happens. A disk of the node that does
    not take it costs time: the run compiles where torch would by itself. In a world of several all processes call it.
    Raises LeftError where `stopped` while another run compiled.
    """
    if not config.train.compile or own_cache():
        yield
        return
    kernels, there, left = None, False, False
    with ExitStack() as held:
        if world.rank == 0:
            try:
                kernels = Kernels.of(config, study_folder, device)
                held.enter_context(kernels.locked(stopped))
                there = kernels.fetch()
            except LeftError:
                left = True
            except OSError as error:
                _tell(error.filename or tempfile.gettempdir(), "cannot be used", error)
                kernels = None
        kernels, there, left = world.tell((kernels, there, left))
        if left:
            raise LeftError
        if kernels is not None and not there:
            with graphs_in(kernels.local):
                compile_graphs(config, device, world)
        published = world.rank == 0 and kernels is not None and kernels.publish()
    usable = world.tell(published)
    with graphs_in(kernels.local) if kernels is not None and usable else nullcontext():
        yield


@contextmanager
def graphs_in(folder: Path) -> Iterator[None]:
    """`kernels_in`, of folded blocks, too, whose functions have backwards of their own.

    By itself torch keeps no graph with such functions whole, as their code may change beneath it. Ours cannot: its
    digest is part of the folder's name.
    """
    with kernels_in(folder), autograd.patch(autograd_cache_allow_custom_autograd_functions=True):
        yield


def prepare(folder: Path, stopped: Callable[[], bool]) -> None:
    """Compiles and publishes what the run in `folder` needs, unless there is an archive; the run is left alone.

    In a world of several all processes call it; LeftError where `stopped` before all had come or while another run
    compiled the same.
    """
    run = Run.from_json(read_json(folder / CONFIG) or {})
    train = run.config.train
    world = World.here() if train.world_size > 1 else World()
    name = f"{run.run_id}-kernels"
    with (
        joined(world, train.world_size, torch.device(train.device), name, stopped),
        kernels_of(run.config, folder.parent, world.device(train.device), world, stopped),
    ):
        pass


@dataclass(frozen=True)
class Kernels:
    """Of one graph on one kind of machine."""

    archive: Path
    local: Path  # of this node

    @classmethod
    def of(cls, config: Config, study_folder: Path, device: torch.device) -> Kernels:
        name = f"{graph_of(config)}-{machine_of(device)}"
        return cls(study_folder / FOLDER / f"{name}.zip", node_folder() / f"{name}-{boot()}")

    @contextmanager
    def locked(self, stopped: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """One process of the node at a time fetches or compiles. Raises LeftError where `stopped` before its turn."""
        path = self.local.with_name(f"{self.local.name}.lock")
        with path.open("ab") as file:
            os.utime(path)
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if stopped():
                        raise LeftError from None
                    time.sleep(POLL_S)
            try:
                yield
            finally:  # closing is not enough where a process was forked meanwhile: it has the file open, too
                fcntl.flock(file, fcntl.LOCK_UN)

    def fetch(self) -> bool:
        """Whether all that was compiled for the graph is in the local folder now, which exists in any case.

        What a killed run has left there goes: nobody knows whether its files are whole. An archive is unpacked aside,
        then renamed; a damaged one is removed, to be made anew. The caller holds the lock. Raises OSError where the
        node's disk does not take it.
        """
        sweep(self.local.parent)
        with suppress(OSError):  # there is none, or it is another user's
            os.utime(self.archive)  # it is in use
        if not self._complete():
            if self.local.exists():
                shutil.rmtree(self.local)
            if self.archive.exists():
                self._unpack()
        self.local.mkdir(exist_ok=True)
        os.utime(self.local)
        return self._complete()

    def publish(self) -> bool:
        """Makes an archive of the local folder unless there is one: whole or absent, whoever is killed.

        A disk that does not take it costs the other runs their time, no more. Where torch has kept no graph, its
        compiler or its cache is switched off: an archive would only keep others from making a good one. Returns False
        where the local folder is not to be used.
        """
        try:
            (self.local / COMPLETE).touch()
        except OSError as error:
            _tell(self.local, "cannot be used", error)
            return False
        try:
            if (self.local / GRAPHS).is_dir() and not self.archive.exists():
                self.archive.parent.mkdir(exist_ok=True)
                write_whole(self.archive, self._pack)
        except OSError as error:
            _tell(self.archive, "is not written", error)
        return True

    def _complete(self) -> bool:
        return (self.local / COMPLETE).exists()

    def _unpack(self) -> None:
        aside = Path(tempfile.mkdtemp(prefix=f".{self.local.name}.", dir=self.local.parent))
        try:
            with zipfile.ZipFile(self.archive) as archive:
                archive.extractall(aside)  # compares every file with its checksum
            (aside / COMPLETE).touch()
            aside.rename(self.local)
        except DAMAGED as error:
            _tell(self.archive, "is damaged and is made anew", error)
            self.archive.unlink(missing_ok=True)
        except OSError as error:  # a full disk, a file server that is gone for a moment
            _tell(self.archive, "cannot be used", error)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _pack(self, file: IO[bytes]) -> None:
        """All but Triton's own files, which name each other by absolute paths.

        Torch keeps them in its graphs, too, and lays them down again where there are none (its TritonBundler).
        """
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as archive:
            for path in sorted(self.local.rglob("*")):
                name = path.relative_to(self.local)
                if path.is_file() and path.suffix not in PASSING and name.parts[0] not in (COMPLETE, OF_TRITON):
                    with suppress(FileNotFoundError):  # another run's, for a moment
                        archive.write(path, name)


def node_folder() -> Path:
    """Where this user's runs keep kernels on this node: their own, as what lies there is executed."""
    name = f"sqzlab-{os.getuid()}-kernels"
    for base in (Path(os.environ.get("SLURM_TMPDIR", "")), Path(tempfile.gettempdir())):
        if base.is_absolute():
            with suppress(OSError):
                (base / name).mkdir(mode=0o700)
            if _own(base / name):
                return base / name
    return Path(tempfile.mkdtemp(prefix=f"{name}-"))


def _own(folder: Path) -> bool:
    """Whether this user, and no other, can write there."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return mine and os.access(folder, os.W_OK | os.X_OK)


def sweep(folder: Path) -> None:
    """Removes what no run on this node has begun with for `UNUSED_S`."""
    for path in folder.iterdir():
        with suppress(OSError):  # another run sweeps as well
            if time.time() - path.stat().st_mtime > UNUSED_S:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def boot() -> str:
    """8 hexadecimal digits of this node's last boot."""
    told = BOOT.read_text() if BOOT.exists() else ""
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def machine_of(device: torch.device) -> str:
    """8 hexadecimal digits, the same for devices that run the same kernels. C++ is compiled for the very processor."""
    if device.type == "cuda":
        kind = [torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device), torch.version.cuda]
    else:
        kind = [machine()["cpu"], torch.backends.cpu.get_cpu_capability()]
    return hashlib.sha256(repr([platform.machine(), *kind]).encode()).hexdigest()[:8]


def _tell(what: object, how: str, error: Exception) -> None:
    print(f"{what}: {how}: {getattr(error, 'strerror', None) or error}", flush=True)


COMPLETE = "complete"  # in a local folder: nothing of the graph is lacking
GRAPHS = "fxgraph"  # in a local folder: torch's own, of the compiled graphs it would find again
PASSING = (".lock", ".tmp")
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError)
