"""Everything that a run leaves in its folder, written by the one process that holds its lease."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

import numpy as np
import torch

from sqzlab.data.order import permutation
from sqzlab.networks.cost import measure
from sqzlab.run import CORRECT, EPOCHS, FAILURE, METRICS, PROGRESS, Run
from sqzlab.runs import checkpoint
from sqzlab.runs.lease import Lease
from sqzlab.runs.provenance import Provenance
from sqzlab.training.trainer import Evaluation, Trainer


class Record:
    """The files of one process's share in a run, from its newest checkpoint on."""

    def __init__(self, run: Run, lease: Lease) -> None:
        self.run, self.lease = run, lease
        self.epochs: list[dict[str, Any]] = []  # the lines of epochs.jsonl, also in every checkpoint

    def load(self) -> dict[str, Any] | None:
        """The state to go on from, or None where the run begins."""
        state = checkpoint.load(self.lease, self.run.config.digest())
        if state is not None:
            self.epochs = state["epochs"]
        return state

    def begin(self, step: int) -> None:
        """Opens this process's segment; what stands beyond the loaded state is taken back."""
        self.lease.write(EPOCHS, lambda file: file.writelines(map(_line, self.epochs)))
        self.provenance = Provenance(self.lease, step)
        with self.lease.held():
            (self.lease.folder / FAILURE).unlink(missing_ok=True)

    def save(self, state: dict[str, Any]) -> None:
        checkpoint.save(self.lease, self.run.config.digest(), {**state, "epochs": self.epochs})
        self.provenance.reached(state["step"])

    def close_epoch(self, closed: dict[str, Any]) -> None:
        self.epochs.append(closed)
        self.lease.append(EPOCHS, _line(closed))

    def ended(self, step: int, why: str) -> None:
        """Closes the segment."""
        self.provenance.ended(step, why)

    def finish(self, trainer: Trainer, evaluation: Evaluation, initial_weights: str) -> None:
        """Writes the per-image outcomes, then the metrics, which make the run done."""
        config, folder = self.run.config, self.lease.folder
        model, data, train = config.model, config.data, config.train
        top1, top5 = np.packbits(evaluation.top1), np.packbits(evaluation.top5)
        order, n = np.array(trainer.data.order_hash), np.array(len(evaluation.top1))
        self.lease.write(CORRECT, lambda file: np.savez_compressed(file, top1=top1, top5=top5, n=n, order_hash=order))
        self.ended(trainer.step, "done")
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
            "compile": train.compile,
            "block_form": train.block_form,
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


def _line(closed: dict[str, Any]) -> bytes:
    return (json.dumps(closed, allow_nan=False) + "\n").encode()


def _seconds(segment: dict[str, Any]) -> float:
    if segment["end"] is None:
        return 0.0
    return (datetime.fromisoformat(segment["end"]) - datetime.fromisoformat(segment["start"])).total_seconds()
