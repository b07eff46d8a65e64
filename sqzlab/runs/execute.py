"""Executes one run in its folder; called again after anything, it does only what is missing.

A run of several processes is executed by all of them at once. Process 0 alone holds the lease and writes; it tells
the others whether to go on, and all of them save and stop at the same steps.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from sqzlab.data.open import open_data
from sqzlab.errors import ConfigError
from sqzlab.run import CHECKPOINT, CONFIG, FAILURE, METRICS, PROGRESS, Run
from sqzlab.runs import checkpoint
from sqzlab.runs.failure import failure, told
from sqzlab.runs.files import read_json
from sqzlab.runs.kernels import kernels_of
from sqzlab.runs.lease import BusyError, Lease, LeaseLostError
from sqzlab.runs.provenance import timestamp
from sqzlab.runs.record import Record
from sqzlab.runs.stop import StopFlag
from sqzlab.training.meeting import LeftError
from sqzlab.training.trainer import Evaluation, Trainer
from sqzlab.training.world import Agreement, PeerFailedError, World, joined

Outcome = Literal["done", "interrupted", "busy", "lost"]
BEAT_S = 1.0


def execute(folder: Path, stop: StopFlag | None = None) -> Outcome:
    """Trains the run that `folder/config.json` describes, from its newest checkpoint, to `metrics.json`.

    Returns `done` (also where it was done before), `interrupted` (the flag was set; the state is saved), `busy`
    (another process holds it) or `lost` (another process took it over); the same in every process of the run.
    Anything else is recorded in `failure.json` and raised. Raises ConfigError where config.json is missing or damaged.
    """
    try:
        run = Run.from_json(read_json(folder / CONFIG) or {})
    except (LookupError, ValueError):
        if read_json(folder / METRICS) is not None:
            return "done"
        raise ConfigError(f"{folder / CONFIG}: missing or damaged; launch the study again to renew it") from None
    world_size = run.config.train.world_size
    world = World.here() if world_size > 1 else World()
    claimed = _claim(folder) if world.rank == 0 else None
    if isinstance(claimed, str) and (world.size == 1 or world.size != world_size):
        return claimed  # nobody waits to be told
    lease, verdict = (claimed, None) if isinstance(claimed, Lease) else (None, claimed)
    try:
        execution = _Execution(run, folder, Record(run, lease) if lease else None, world, stop or StopFlag())
        outcome = execution.carry_out(verdict)
        if lease:
            lease.release()
        return outcome
    except LeaseLostError:
        return "lost"
    except Exception as error:
        if isinstance(error, PeerFailedError) and error.kind == LeaseLostError.__name__:
            return "lost"
        if lease is None:
            raise
        try:
            lease.write_json(FAILURE, failure(error))
            lease.release()
        except LeaseLostError:  # the run is another's, whatever went wrong here: a take-over sweeps half-written files
            return "lost"
        except OSError:  # a full disk takes no record either; the error itself goes on
            pass
        raise


def _claim(folder: Path) -> Lease | Literal["done", "busy"]:
    """The lease on what is left to do, or why there is none."""
    if read_json(folder / METRICS) is not None:
        return "done"
    try:
        lease = Lease.acquire(folder)
    except BusyError:
        return "busy"
    if read_json(folder / METRICS) is not None:  # finished between the first look and the lease
        lease.release()
        return "done"
    return lease


class _StoppedError(Exception):
    """All processes have agreed to stop between two batches of an evaluation."""


@dataclass
class _Execution:
    """One process's share in a run: from its newest checkpoint to its end or to the stop flag."""

    run: Run
    folder: Path
    record: Record | None  # of process 0
    world: World
    stop: StopFlag
    trainer: Trainer | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.agreement = Agreement(self.world)
        self.heartbeat = _Heartbeat(self.record.lease if self.record else None)

    def carry_out(self, verdict: Outcome | None) -> Outcome:
        """What process 0 says, where it says so at once; else trains. The last word is process 0's too."""
        train = self.run.config.train
        with self.heartbeat:  # from the start: listing a data set may outlast a silent lease
            try:
                kind, stopped = torch.device(train.device), lambda: self.stop.why is not None
                with joined(self.world, train.world_size, kind, self.run.run_id, stopped):
                    device = self.world.device(train.device)  # one that is broken is told to all, and recorded
                    verdict = self.world.tell(verdict)
                    return self.world.tell(self._go_on(device)) if verdict is None else verdict
            except LeftError:
                return "interrupted"
            except LeaseLostError:
                raise
            except Exception as error:
                if self.record and self.trainer:
                    with suppress(OSError):  # a full disk
                        self.record.ended(self.trainer.step, f"failed: {told(error)}")
                raise

    def _go_on(self, device: torch.device) -> Outcome:
        config, record, world = self.run.config, self.record, self.world
        data = open_data(
            config.data,
            batch_size=config.train.batch_size,
            seed=config.seed,
            rank=world.rank,
            world_size=world.size,
            device=device,
            trivial_augment=config.train.trivial_augment,
        )
        try:
            with kernels_of(config, self.folder.parent, device, world, lambda: self.stop.why is not None):
                trainer = Trainer(config, data, device, world)
                initial_weights = trainer.shared_weights_digest()
                if (state := self._saved_state()) is not None:
                    trainer.load_state(state)
                if record:
                    record.begin(trainer.step)
                self.trainer = trainer
                self.heartbeat.follow(trainer)
                evaluation = self._train(trainer)
        finally:
            data.close()
        self.heartbeat.end()
        if record and evaluation is None:
            record.ended(trainer.step, f"interrupted: {self.stop.why}")
        elif record and evaluation is not None:
            record.finish(trainer, evaluation, initial_weights)
        return "interrupted" if evaluation is None else "done"

    def _saved_state(self) -> dict[str, Any] | None:
        """The state to go on from: process 0 chooses the checkpoint and says of which step, all read that file."""
        state = self.record.load() if self.record else None
        step = self.world.tell(state and state["step"])
        if self.record or step is None:
            return state
        path = self.folder / CHECKPOINT
        state = checkpoint.read(path, self.run.config.digest())
        if state is None or state["step"] != step:
            raise RuntimeError(f"process {self.world.rank} does not find step {step} in {path}")
        return state

    def _train(self, trainer: Trainer) -> Evaluation | None:
        """The last epoch's evaluation, or None where the flag stopped the run before it.

        The state is saved within an epoch when it is due and after its last step, before it is evaluated: whatever
        point a run is killed at, it goes on from the steps of a saved state and needs no second way through here.
        """
        train, first = self.run.config.train, trainer.step
        evaluation = None
        while trainer.epoch < train.epochs:
            saved = asked = trainer.step
            asked_at = time.monotonic()
            began, begin_step, begin_s = time.perf_counter(), trainer.step, trainer.train_s
            for _ in trainer.train_epoch():
                if self.stop.after_steps is not None and trainer.step - first >= self.stop.after_steps:
                    self.stop.set(f"after {self.stop.after_steps} steps, as asked")
                due = time.monotonic() - asked_at > train.checkpoint_s
                due |= train.checkpoint_steps is not None and trainer.step - asked >= train.checkpoint_steps
                if due:
                    asked, asked_at = trainer.step, time.monotonic()
                stop, save = self._agree(save=due)
                if stop or save:
                    self._save(trainer)
                    saved, asked_at = trainer.step, time.monotonic()
                if stop:
                    return None
            if saved != trainer.step:
                self._save(trainer)
            images, seconds = (trainer.step - begin_step) * train.batch_size, trainer.train_s - begin_s
            try:
                evaluation = self._close_epoch(trainer, began, images / seconds if images else None)
            except _StoppedError:
                return None
        self.agreement.end()
        return evaluation

    def _agree(self, *, save: bool) -> tuple[bool, bool]:
        """Whether all processes now (stop, save)."""
        self.heartbeat.check()
        agreed = self.agreement.reached(stop=self.stop.why is not None, save=save)
        if agreed[0]:
            self.stop.set("another process of this run was told to")
        return agreed

    def _save(self, trainer: Trainer) -> None:
        trainer.check_finite()
        state = trainer.state()
        if self.record:
            self.record.save(state)

    def _close_epoch(self, trainer: Trainer, began: float, images_per_s: float | None) -> Evaluation:
        """Evaluates and appends the epoch's line; its speed and seconds are those of this process.

        Raises _StoppedError between two batches: the state before the evaluation is saved.
        """

        def between() -> None:
            if self._agree(save=False)[0]:
                raise _StoppedError

        train_loss, train_top1 = trainer.close_epoch()
        evaluation = trainer.evaluate(between)
        if self.record:
            closed = {
                "epoch": trainer.epoch,
                "step": trainer.step,
                "lr": trainer.optimizer.param_groups[0]["lr"],
                "train_loss": train_loss,
                "train_top1": train_top1,
                "val_loss": evaluation.loss,
                "top1": float(evaluation.top1.mean()),
                "top5": float(evaluation.top5.mean()),
                "images_per_s": images_per_s,
                "time_s": time.perf_counter() - began,
            }
            self.record.close_epoch(closed)
        return evaluation


class _Heartbeat:
    """A thread that says every second that the holder lives and, once it follows a trainer, how far it is.

    Without a lease it does nothing.
    """

    def __init__(self, lease: Lease | None) -> None:
        self.lease = lease
        self.trainer: Trainer | None = None
        self.error: Exception | None = None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True)

    def follow(self, trainer: Trainer) -> None:
        self.first, self.began = trainer.step, time.monotonic()
        self.trainer = trainer

    def __enter__(self) -> _Heartbeat:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self.ended.set()
        self.thread.join()

    def check(self) -> None:
        """Raises in the training thread what ended this one: a lost lease, a full disk."""
        if self.error is not None:
            raise self.error

    def _beat(self) -> None:
        if self.lease is None:
            return
        try:
            while True:
                self._tell(self.lease)
                if self.ended.wait(BEAT_S):
                    return
        except Exception as error:
            self.error = error

    def _tell(self, lease: Lease) -> None:
        lease.beat()
        if (trainer := self.trainer) is None:
            return
        seconds, steps = time.monotonic() - self.began, trainer.step - self.first
        progress = {
            "step": trainer.step,
            "steps": trainer.steps,
            "epoch": trainer.epoch,
            "epochs": trainer.config.train.epochs,
            "images_per_s": steps * trainer.config.train.batch_size / seconds if seconds else None,
            "eta_s": seconds / steps * (trainer.steps - trainer.step) if steps else None,
            "updated": timestamp(),
        }
        lease.write_json(PROGRESS, progress, durable=False)
