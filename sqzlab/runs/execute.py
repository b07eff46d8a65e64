"""Executes one run in its folder; called again after anything, it does only what is missing."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from sqzlab.data.open import open_data
from sqzlab.data.order import permutation
from sqzlab.errors import ConfigError, UnavailableError
from sqzlab.networks.cost import measure
from sqzlab.run import CONFIG, CORRECT, EPOCHS, FAILURE, METRICS, PROGRESS, Run
from sqzlab.runs import checkpoint
from sqzlab.runs.files import read_json
from sqzlab.runs.lease import BusyError, Lease, LeaseLostError
from sqzlab.runs.provenance import Provenance, timestamp
from sqzlab.training.trainer import Evaluation, Trainer

Outcome = Literal["done", "interrupted", "busy", "lost"]
BEAT_S = 1.0


class StopFlag:
    """Set by a signal, read at the next step boundary: nothing is saved inside a signal handler."""

    def __init__(self, after_steps: int | None = None) -> None:
        self.after_steps = after_steps  # stops by itself after so many steps of this process
        self.why: str | None = None

    def set(self, why: str) -> None:
        self.why = self.why or why

    @contextmanager
    def on_signals(self, *numbers: signal.Signals) -> Iterator[StopFlag]:
        """Sets the flag on these signals; a second one acts as it did before."""
        before = {number: signal.getsignal(number) for number in numbers}

        def handle(number: int, _frame: object) -> None:
            self.set(signal.Signals(number).name)
            signal.signal(number, before[signal.Signals(number)])

        for number in numbers:
            signal.signal(number, handle)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def execute(folder: Path, stop: StopFlag | None = None) -> Outcome:
    """Trains the run that `folder/config.json` describes, from its newest checkpoint, to `metrics.json`.

    Returns `done` (also where it was done before), `interrupted` (the flag was set; the state is saved), `busy`
    (another process holds it) or `lost` (another process took it over). Anything else is recorded in
    `failure.json` and raised. Raises ConfigError where config.json is missing or damaged.
    """
    if read_json(folder / METRICS) is not None:
        return "done"
    try:
        run = Run.from_json(read_json(folder / CONFIG) or {})
    except (LookupError, ValueError):
        raise ConfigError(f"{folder / CONFIG}: missing or damaged; launch the study again to renew it") from None
    try:
        lease = Lease.acquire(folder)
    except BusyError:
        return "busy"
    try:
        if read_json(folder / METRICS) is not None:  # finished between the first look and the lease
            lease.release()
            return "done"
        outcome = _Execution(run, lease, stop or StopFlag()).carry_out()
        lease.release()
        return outcome
    except LeaseLostError:
        return "lost"
    except Exception as error:
        try:
            lease.write_json(FAILURE, failure(error))
            lease.release()
        except LeaseLostError:  # the run is another's, whatever went wrong here: a take-over sweeps half-written files
            return "lost"
        except OSError:  # a full disk takes no record either; the error itself goes on
            pass
        raise


def failure(error: BaseException) -> dict[str, Any]:
    return {
        "error": _told(error),
        "traceback": traceback.format_exc(),
        "time": timestamp(),
        "host": socket.gethostname(),
    }


@dataclass
class _Execution:
    """One process's share in a run: from its newest checkpoint to its end or to the stop flag."""

    run: Run
    lease: Lease
    stop: StopFlag
    epochs: list[dict[str, Any]] = field(default_factory=list)  # the lines of epochs.jsonl, also in every checkpoint

    def carry_out(self) -> Outcome:
        config = self.run.config
        with _Heartbeat(self.lease) as heartbeat:  # from the start: listing a data set may outlast a silent lease
            device = _device(config.train.device)
            data = open_data(config.data, batch_size=config.train.batch_size, seed=config.seed)
            try:
                trainer = Trainer(config, data, device)
                initial_weights = trainer.shared_weights_digest()
                if (state := checkpoint.load(self.lease, config.digest())) is not None:
                    trainer.load_state(state)
                    self.epochs = state["epochs"]
                self._begin(trainer)
                heartbeat.follow(trainer)
                evaluation = self._train_or_tell(trainer, heartbeat)
            finally:
                data.close()
        if evaluation is None:
            self.provenance.ended(trainer.step, f"interrupted: {self.stop.why}")
            return "interrupted"
        self._finish(trainer, evaluation, initial_weights)
        return "done"

    def _begin(self, trainer: Trainer) -> None:
        """Opens this process's segment; what stands beyond the loaded state is taken back."""
        self.lease.write(EPOCHS, lambda file: file.writelines(map(_line, self.epochs)))
        self.provenance = Provenance(self.lease, trainer.step)
        with self.lease.held():
            (self.lease.folder / FAILURE).unlink(missing_ok=True)

    def _train_or_tell(self, trainer: Trainer, heartbeat: _Heartbeat) -> Evaluation | None:
        """`_train`, and an error's place in the segment that it ends."""
        try:
            return self._train(trainer, heartbeat)
        except Exception as error:
            with suppress(OSError):  # a full disk
                self.provenance.ended(trainer.step, f"failed: {_told(error)}")
            raise

    def _train(self, trainer: Trainer, heartbeat: _Heartbeat) -> Evaluation | None:
        """The last epoch's evaluation, or None where the flag stopped the run before it.

        The state is saved within an epoch when it is due and after its last step, before it is evaluated: whatever
        point a run is killed at, it goes on from the steps of a saved state and needs no second way through here.
        """
        train, first = self.run.config.train, trainer.step
        evaluation = None
        while trainer.epoch < train.epochs:
            saved, saved_at = trainer.step, time.monotonic()
            began, begin_step, begin_s = time.perf_counter(), trainer.step, trainer.train_s
            for _ in trainer.train_epoch():
                heartbeat.check()
                if self.stop.after_steps is not None and trainer.step - first >= self.stop.after_steps:
                    self.stop.set(f"after {self.stop.after_steps} steps, as asked")
                due = time.monotonic() - saved_at > train.checkpoint_s
                due |= train.checkpoint_steps is not None and trainer.step - saved >= train.checkpoint_steps
                if due or self.stop.why:
                    self._save(trainer)
                    saved, saved_at = trainer.step, time.monotonic()
                if self.stop.why:
                    return None
            if saved != trainer.step:
                self._save(trainer)
            images, seconds = (trainer.step - begin_step) * train.batch_size, trainer.train_s - begin_s
            evaluation = self._close_epoch(trainer, began, images / seconds if images else None)
        return evaluation

    def _save(self, trainer: Trainer) -> None:
        trainer.check_finite()
        checkpoint.save(self.lease, self.run.config.digest(), {**trainer.state(), "epochs": self.epochs})
        self.provenance.reached(trainer.step)

    def _close_epoch(self, trainer: Trainer, began: float, images_per_s: float | None) -> Evaluation:
        """Evaluates and appends the epoch's line; its speed and seconds are those of this process."""
        train_loss, train_top1 = trainer.close_epoch()
        evaluation = trainer.evaluate()
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
        self.epochs.append(closed)
        self.lease.append(EPOCHS, _line(closed))
        return evaluation

    def _finish(self, trainer: Trainer, evaluation: Evaluation, initial_weights: str) -> None:
        """Writes the per-image outcomes, then the metrics, which make the run done."""
        config, folder = self.run.config, self.lease.folder
        model, data, train = config.model, config.data, config.train
        top1, top5 = np.packbits(evaluation.top1), np.packbits(evaluation.top5)
        order, n = np.array(trainer.data.order_hash), np.array(len(evaluation.top1))
        self.lease.write(CORRECT, lambda file: np.savez_compressed(file, top1=top1, top5=top5, n=n, order_hash=order))
        self.provenance.ended(trainer.step, "done")
        cost = measure(model)
        order_of_first_epoch = permutation(config.seed, 0, data.train_images)
        metrics = {
            "run_id": self.run.run_id,
            "study": self.run.study,
            "profile": self.run.profile,
            "cell": dict(self.run.cell),
            "backbone": model.backbone,
            "squeeze": model.squeeze,
            "reduction": model.reduction,
            "fc_bias": model.fc_bias,
            "seed": config.seed,
            **{key: self.epochs[-1][key] for key in ("top1", "top5", "val_loss", "train_loss")},
            "epochs": train.epochs,
            "steps": trainer.step,
            "batch_size": train.batch_size,
            "params": cost.params,
            "macs": cost.macs,
            "train_images_per_s": trainer.step * train.batch_size / trainer.train_s,
            "time_s": sum(_seconds(segment) for segment in self.provenance.values["segments"]),
            "data": data.name,
            "classes": data.classes,
            "train_images": data.train_images,
            "val_images": len(evaluation.top1),
            "recipe": train.recipe,
            "precision": train.precision,
            "device": train.device,
            "gpu": self.provenance.values["gpu"],
            "git_commit": self.provenance.values["git_commit"],
            "git_dirty": self.provenance.values["git_dirty"],
            "torch": torch.__version__,
            "initial_weights": initial_weights,
            "data_order": hashlib.sha256(order_of_first_epoch.tobytes()).hexdigest()[:16],
        }
        self.lease.write_json(METRICS, metrics)
        checkpoint.drop_previous(self.lease)
        with self.lease.held():
            (folder / FAILURE).unlink(missing_ok=True)
            (folder / PROGRESS).unlink(missing_ok=True)


class _Heartbeat:
    """A thread that says every second that the holder lives and, once it follows a trainer, how far it is."""

    def __init__(self, lease: Lease) -> None:
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
        self.ended.set()
        self.thread.join()

    def check(self) -> None:
        """Raises in the training thread what ended this one: a lost lease, a full disk."""
        if self.error is not None:
            raise self.error

    def _beat(self) -> None:
        try:
            while True:
                self._tell()
                if self.ended.wait(BEAT_S):
                    return
        except Exception as error:
            self.error = error

    def _tell(self) -> None:
        self.lease.beat()
        if (trainer := self.trainer) is None:
            return
        seconds, steps = time.monotonic() - self.began, trainer.step - self.first
        told = {
            "step": trainer.step,
            "steps": trainer.steps,
            "epoch": trainer.epoch,
            "epochs": trainer.config.train.epochs,
            "images_per_s": steps * trainer.config.train.batch_size / seconds if seconds else None,
            "eta_s": seconds / steps * (trainer.steps - trainer.step) if steps else None,
            "updated": timestamp(),
        }
        self.lease.write_json(PROGRESS, told, durable=False)


def _line(closed: dict[str, Any]) -> bytes:
    return (json.dumps(closed, allow_nan=False) + "\n").encode()


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise UnavailableError(f"the run asks for a GPU and {socket.gethostname()} has none that can be used")
    return torch.device(name)


def _seconds(segment: dict[str, Any]) -> float:
    if segment["end"] is None:
        return 0.0
    return (datetime.fromisoformat(segment["end"]) - datetime.fromisoformat(segment["start"])).total_seconds()
