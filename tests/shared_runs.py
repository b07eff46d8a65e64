"""Several processes that train one run together, as the tasks of a job of submitit's local executor would."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["sqzlab.launching.worker"])
_jobs = count()


class Tasks:
    """`size` processes that run `function(*arguments[rank])`; killed where the block leaves them alive."""

    def __init__(self, function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> None:
        self.job, size = f"{os.getpid()}-{next(_jobs)}", len(arguments)
        self.pipes, self.processes = [], []
        for rank, given in enumerate(arguments):
            said, told = _context.Pipe(duplex=False)
            process = _context.Process(target=_task, args=(told, self.job, rank, size, function, given))
            process.start()
            told.close()
            self.pipes.append(said)
            self.processes.append(process)

    def __enter__(self) -> Tasks:
        return self

    def __exit__(self, *_: object) -> None:
        for process, said in zip(self.processes, self.pipes, strict=True):
            process.kill()
            process.join()
            process.close()
            said.close()
        for left in Path(tempfile.gettempdir()).glob(f"sqzlab-{os.getuid()}-local-{self.job}-*"):  # by killed ones
            left.unlink()

    def told(self, rank: int, within_s: float = 120.0) -> Any:
        """What the process returned; an error as its text."""
        assert self.pipes[rank].poll(within_s), f"process {rank} says nothing"
        return self.pipes[rank].recv()


def together(function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    """What each process returned, in the order of ranks."""
    with Tasks(function, arguments) as tasks:
        return [tasks.told(rank) for rank in range(len(arguments))]


def _task(told: Any, job: str, rank: int, size: int, function: Callable[..., Any], given: tuple[Any, ...]) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    torch.set_num_threads(1)
    place = {"JOB_ID": job, "NTASKS": size, "GLOBALID": rank, "LOCALID": rank}
    os.environ |= {"SUBMITIT_EXECUTOR": "local", **{f"SUBMITIT_LOCAL_{key}": str(v) for key, v in place.items()}}
    try:
        told.send(function(*given))
    except Exception as error:
        traceback.print_exc()
        told.send(f"{type(error).__name__}: {error}")


# ---- what they run -----------------------------------------------------------------------------


def executed(folder: Path, after_steps: int | None) -> str:
    from sqzlab.runs.execute import execute
    from sqzlab.runs.stop import StopFlag

    return execute(folder, StopFlag(after_steps))


def trained(config: Any, epochs: int) -> dict[str, Any]:
    """Some epochs of a trainer and an evaluation."""
    from sqzlab.training.world import World, joined

    world = World.here()
    with joined(world, config.train.world_size, torch.device("cpu"), "trained", lambda: False):
        trainer, data = _trainer(config, world)
        closed = []
        for _ in range(epochs):
            for _ in trainer.train_epoch():
                pass
            closed.append(trainer.close_epoch())
        state, evaluation = trainer.state(), trainer.evaluate()
        data.close()
    return {
        "closed": closed,
        "model": {name: value.numpy() for name, value in state["model"].items()},
        "momentum": [value["momentum_buffer"].numpy() for value in state["optimizer"]["state"].values()],
        "evaluation": evaluation,
    }


def half_an_epoch(config: Any) -> dict[str, Any]:
    """The state after two steps."""
    from sqzlab.training.world import World, joined

    world = World.here()
    with joined(world, config.train.world_size, torch.device("cpu"), "state", lambda: False):
        trainer, data = _trainer(config, world)
        for _ in zip(range(2), trainer.train_epoch(), strict=False):
            pass
        data.close()
        return in_numpy(trainer.state())


def evaluated(config: Any, val_batch_sizes: list[int]) -> list[Any]:
    """Evaluations of an untrained network, in batches of these sizes."""
    from sqzlab.training.world import World, joined

    world, found = World.here(), []
    with joined(world, config.train.world_size, torch.device("cpu"), "evaluated", lambda: False):
        for size in val_batch_sizes:
            trainer, data = _trainer(config, world, size)
            calls: list[None] = []
            found.append((trainer.evaluate(lambda calls=calls: calls.append(None)), len(calls)))
            data.close()
    return found


def graphs_and_evaluation(config: Any, val_batch_size: int, steps: int) -> tuple[int, Any]:
    """Graphs that a compiled network needs for an evaluation of its start and these steps; the evaluation."""
    from functools import partial

    from torch._dynamo.utils import counters

    from sqzlab.training.world import World, joined

    made: list[Any] = []

    def backend(graph: Any, _inputs: Any) -> Any:
        made.append(graph)
        return graph.forward

    torch.compile = partial(torch.compile, backend=backend)  # this process ends with the call
    world = World.here()
    with joined(world, config.train.world_size, torch.device("cpu"), "graphs", lambda: False):
        trainer, data = _trainer(config, world, val_batch_size)
        evaluation = trainer.evaluate()
        for _ in zip(range(steps), trainer.train_epoch(), strict=False):
            pass
        data.close()
    assert not counters["graph_break"]
    return len(made), evaluation


def _trainer(config: Any, world: Any, val_batch_size: int | None = None) -> Any:
    from sqzlab.data.open import open_data
    from sqzlab.training.trainer import Trainer

    data = open_data(
        config.data,
        batch_size=config.train.batch_size,
        seed=config.seed,
        val_batch_size=val_batch_size,
        rank=world.rank,
        world_size=world.size,
    )
    return Trainer(config, data, torch.device("cpu"), world), data


def normalised(parts: list[Any], grads: list[Any], channels_last: bool) -> dict[str, Any]:
    """One training pass of a synchronised BatchNorm over this process's part."""
    from sqzlab.training.sync_batch_norm import synchronise
    from sqzlab.training.world import World, joined

    world = World.here()
    with joined(world, world.size, torch.device("cpu"), "normalised", lambda: False):
        x, grad = (torch.from_numpy(values[world.rank]) for values in (parts, grads))
        if channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        norm = batch_norm(x)
        synchronise(norm, world)
        return passed(norm, x, grad)


def in_numpy(value: Any) -> Any:
    """Tensors would be shared with the process that sends them, which ends."""
    if isinstance(value, dict):
        return {key: in_numpy(one) for key, one in value.items()}
    return value.numpy() if isinstance(value, Tensor) else value


def batch_norm(x: Tensor) -> nn.Sequential:
    """A BatchNorm for such maps, with weights that differ between channels."""
    channels = x.shape[1]
    norm = nn.BatchNorm2d(channels) if x.ndim == 4 else nn.BatchNorm1d(channels)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, channels))
        norm.bias.copy_(torch.linspace(-1, 1, channels))
    return nn.Sequential(norm).to(x.dtype)


def passed(model: nn.Module, x: Tensor, grad: Tensor) -> dict[str, Any]:
    x = x.requires_grad_()
    y = model(x)
    y.backward(grad)
    found = {"y": y, "x": x.grad, **{f"grad {name}": p.grad for name, p in model.named_parameters()}}
    found |= model.state_dict()
    return {
        name: value.detach().float().numpy() if value.dtype == torch.bfloat16 else value.detach().numpy()
        for name, value in found.items()
    }
