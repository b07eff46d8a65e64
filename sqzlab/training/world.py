"""The processes that train one run together: the tasks of its job, all on one node, one device each.

Contract: every process makes the same calls in the same order; a world of one makes none. Nothing is known
beforehand but the job's own environment, which submitit reads: no host name, no port. A process that fails says so
before it leaves, so that none of the others waits for it longer than `PATIENCE_S`.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import submitit
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import Store

from sqzlab.errors import UnavailableError
from sqzlab.training.meeting import meet, part

PATIENCE_S = 600.0  # for one process to reach what the others wait in: it may compile, read a slow disk, write to one

Told = TypeVar("Told")


class PeerFailedError(RuntimeError):
    """Another process of this run failed; `kind` is the name of its error's type."""

    def __init__(self, rank: int, kind: str, told: str) -> None:
        self.kind = kind
        super().__init__(f"process {rank} of this run failed: {kind}: {told}")


@dataclass(frozen=True)
class World:
    """A process's place among `size`. The collective calls need `joined` where there is more than one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    nodes: int = 1

    @classmethod
    def here(cls) -> World:
        """This process's place in its job; a world of one outside of any."""
        try:
            job = submitit.JobEnvironment()
        except RuntimeError:
            return cls()
        return cls(job.global_rank, job.num_tasks, job.local_rank, job.num_nodes)

    def device(self, name: str) -> torch.device:
        """The device `cpu` or `cuda` of this process. Raises UnavailableError where there is none for it.

        Slurm may show a task all GPUs of its job or only the one that is its own.
        """
        if name == "cuda" and not torch.cuda.is_available():
            raise UnavailableError(f"the run asks for a GPU and {socket.gethostname()} has none that can be used")
        if name == "cpu" or self.size == 1:
            return torch.device(name)
        gpus = torch.cuda.device_count()
        if 1 < gpus <= self.local_rank:
            raise UnavailableError(f"the run's {self.size} processes share {gpus} GPUs; valid: one GPU for each")
        device = torch.device(name, self.local_rank if gpus > 1 else 0)
        torch.cuda.set_device(device)
        return device

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place; the same bits in each."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, values: Tensor) -> Tensor:
        """Every process's values in the order of ranks, (size, *shape)."""
        if self.size == 1:
            return values[None]
        gathered = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(gathered, values.contiguous())
        return torch.stack(gathered)

    def tell(self, value: Told) -> Told:
        """What process 0 was given, in every process."""
        if self.size == 1:
            return value
        told = [value]
        dist.broadcast_object_list(told, src=0, device=torch.device("cpu"))
        return told[0]


@contextmanager
def joined(world: World, size: int, device: torch.device, name: str, stopped: Callable[[], bool]) -> Iterator[None]:
    """Within the block the processes of the run `name` can talk; GPUs through NCCL, all else through Gloo.

    Raises UnavailableError where the job has another number of tasks than `size`, or they are on several nodes;
    LeftError where `stopped` before all had come. An error that only follows from another process's is raised as
    PeerFailedError, which tells of that one.
    """
    if size == 1:
        yield
        return
    if world.size != size:
        raise UnavailableError(
            f"the run shares each step among {size} processes, but this job has {world.size}; valid: launch it on Slurm"
        )
    if world.nodes > 1:
        raise UnavailableError(f"the run's {size} processes are on {world.nodes} nodes; valid: one node")
    job = submitit.JobEnvironment()
    key = f"{job.name()}-{job.job_id}-{os.environ.get('SLURM_STEP_ID', 0)}-{name}"
    restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    store = meet(world.rank, size, key, restart, stopped, PATIENCE_S)
    try:
        with _loopback():
            dist.init_process_group(
                "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl",
                store=store,
                rank=world.rank,
                world_size=size,
                timeout=timedelta(seconds=PATIENCE_S),
            )
        yield
        dist.destroy_process_group()
    except BaseException as error:
        first = _first_failure(store, world.rank, error)
        if dist.is_initialized():
            dist.distributed_c10d._abort_process_group()  # what the others wait in ends now, with an error
        follows = type(error) is RuntimeError or isinstance(error, dist.DistError)
        if follows and first["rank"] != world.rank:
            raise PeerFailedError(**first) from error
        raise
    finally:
        part(store, size)


class Agreement:
    """What all processes do at a step boundary that each of them passes.

    Signals reach them at different steps and only one has the clock of the checkpoints. So each says at every
    boundary what it wants, and all do at the next what any wanted: by then the words have been exchanged, through
    Gloo and beside the training, and nobody waits for them or for the GPU. A world of one does at once what it wants.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.said: tuple[Tensor, dist.Work] | None = None

    def reached(self, *, stop: bool, save: bool) -> tuple[bool, bool]:
        """Whether all (stop, save) now. After a stop nothing more may be said."""
        if self.world.size == 1:
            return stop, save
        agreed = (False, False)
        if self.said is not None:
            words, work = self.said
            work.wait()
            agreed, self.said = (bool(words[0]), bool(words[1])), None
        if not agreed[0]:
            words = torch.tensor([stop, save], dtype=torch.int64)
            self.said = words, dist.all_reduce(words, op=dist.ReduceOp.MAX, async_op=True)
        return agreed

    def end(self) -> None:
        """Waits for the last words, which nobody heeds."""
        if self.said is not None:
            self.said[1].wait()
            self.said = None


def _first_failure(store: Store, rank: int, error: BaseException) -> dict[str, Any]:
    """The failure that was told first, which is this one where none was."""
    told = {"rank": rank, "kind": type(error).__name__, "told": " ".join(str(error).split())}
    first: dict[str, Any] = json.loads(store.compare_set("failed", "", json.dumps(told)))
    return first


@contextmanager
def _loopback() -> Iterator[None]:
    """Keeps Gloo off the network: all processes are on this node, whose name may not even resolve."""
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
    if loopback is None or "GLOO_SOCKET_IFNAME" in os.environ:
        yield
        return
    os.environ["GLOO_SOCKET_IFNAME"] = loopback
    try:
        yield
    finally:
        del os.environ["GLOO_SOCKET_IFNAME"]
