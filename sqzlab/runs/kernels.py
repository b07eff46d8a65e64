"""What torch.compile made for a run: compiled once for each graph of a study, then copied to every node.

    <study>/kernels/<graph>-<machine>.zip           whole or absent; who publishes first wins
    <temporary>/sqzlab-<user>-kernels/<graph>-<machine>/    of this node: what its runs read and write

Torch's own cache is many small files with locks, which shared file systems serve badly; an archive is one file that
is read once. Torch decides itself, by content, whether a kernel fits: a wrong archive costs time, never a result.
"""

from __future__ import annotations

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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from sqzlab.config import Config
from sqzlab.run import CONFIG, Run
from sqzlab.runs.files import read_json, write_whole
from sqzlab.runs.graphs import FOLDER, graph_of
from sqzlab.runs.provenance import machine
from sqzlab.training.inductor import kernels_in, own_cache
from sqzlab.training.warm_up import compile_graphs
from sqzlab.training.world import World, joined

UNUSED_S = 7 * 24 * 3600.0
"""A node's folder that no run has begun with for so long is removed by the next run there."""


@contextmanager
def kernels_of(config: Config, study_folder: Path, device: torch.device, world: World) -> Iterator[None]:
    """Within the block, what the run compiles is there already.

    Where there is no archive, the graphs are compiled now and published. A user's own cache wins: then nothing of this
    happens. In a world of several all processes call it.
    """
    if not config.train.compile or own_cache():
        yield
        return
    kernels, there = None, False
    if world.rank == 0:
        kernels = Kernels.of(config, study_folder, device)
        there = kernels.fetch()
    kernels, there = world.tell((kernels, there))
    assert kernels is not None
    with kernels_in(kernels.local):
        if not there:
            compile_graphs(config, device, world)
        if world.rank == 0:
            kernels.publish()
        yield


def prepare(folder: Path, stopped: Callable[[], bool]) -> None:
    """Compiles and publishes what the run in `folder` needs, unless there is an archive; the run is left alone.

    In a world of several all processes call it; LeftError where `stopped` before all had come.
    """
    run = Run.from_json(read_json(folder / CONFIG) or {})
    train = run.config.train
    world = World.here() if train.world_size > 1 else World()
    name = f"{run.run_id}-kernels"
    with (
        joined(world, train.world_size, torch.device(train.device), name, stopped),
        kernels_of(run.config, folder.parent, world.device(train.device), world),
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
        return cls(study_folder / FOLDER / f"{name}.zip", node_folder() / name)

    def fetch(self) -> bool:
        """Whether all that was compiled for the graph is in the local folder now, which exists in any case.

        An archive is unpacked aside, then renamed: of several runs that do so at once one is the first, and the others
        take its folder. A damaged one is removed, to be made anew.
        """
        sweep(self.local.parent)
        if not self._complete() and self.archive.exists():
            self._unpack()
        self.local.mkdir(exist_ok=True)
        os.utime(self.local)
        return self._complete()

    def publish(self) -> None:
        """Makes an archive of the local folder unless there is one: whole or absent, whoever is killed.

        A disk that does not take it costs the other runs their time, no more.
        """
        (self.local / COMPLETE).touch()
        if self.archive.exists():
            return
        try:
            self.archive.parent.mkdir(exist_ok=True)
            write_whole(self.archive, self._pack)
        except OSError as error:
            print(f"{self.archive}: is not written: {error.strerror or error}", flush=True)

    def _complete(self) -> bool:
        return (self.local / COMPLETE).exists()

    def _unpack(self) -> None:
        aside = Path(tempfile.mkdtemp(prefix=f".{self.local.name}.", dir=self.local.parent))
        try:
            with zipfile.ZipFile(self.archive) as archive:
                archive.extractall(aside)  # compares every file with its checksum
            (aside / COMPLETE).touch()
            self._take(aside)
        except DAMAGED as error:
            print(f"{self.archive}: is damaged and is made anew: {error}", flush=True)
            self.archive.unlink(missing_ok=True)
        except OSError as error:  # a full disk, a file server that is gone for a moment
            print(f"{self.archive}: cannot be used: {error.strerror or error}", flush=True)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _take(self, aside: Path) -> None:
        try:
            aside.rename(self.local)
        except OSError:
            if self._complete():  # another run was faster
                return
            if not self.local.is_dir():
                raise
            for path in sorted(aside.rglob("*"), key=lambda path: path.name == COMPLETE):  # a run compiles here, or did
                target = self.local / path.relative_to(aside)
                if path.is_dir():
                    target.mkdir(exist_ok=True)
                else:
                    path.replace(target)

    def _pack(self, file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False) as archive:
            for path in sorted(self.local.rglob("*")):
                if path.is_file() and path.suffix not in PASSING and path.name != COMPLETE:
                    with suppress(FileNotFoundError):  # another run's, for a moment
                        archive.write(path, path.relative_to(self.local))


def node_folder() -> Path:
    """Where this user's runs keep kernels on this node: their own, as what lies there is executed."""
    base = Path(os.environ.get("SLURM_TMPDIR", ""))
    if not base.is_absolute() or not base.is_dir():
        base = Path(tempfile.gettempdir())
    folder = base / f"sqzlab-{os.getuid()}-kernels"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return folder
    return Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=base))


def sweep(folder: Path) -> None:
    """Removes what no run on this node has begun with for `UNUSED_S`."""
    for path in folder.iterdir():
        with suppress(OSError):  # another run sweeps as well
            if time.time() - path.stat().st_mtime > UNUSED_S:
                shutil.rmtree(path, ignore_errors=True)


def machine_of(device: torch.device) -> str:
    """8 hexadecimal digits, the same for devices that run the same kernels. C++ is compiled for the very processor."""
    if device.type == "cuda":
        kind = [torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device), torch.version.cuda]
    else:
        kind = [machine()["cpu"], torch.backends.cpu.get_cpu_capability()]
    return hashlib.sha256(repr([platform.machine(), *kind]).encode()).hexdigest()[:8]


COMPLETE = "complete"  # in a local folder: nothing of the graph is lacking
PASSING = (".lock", ".tmp")
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError)
