"""Training of one network: steps, evaluation and the state that a run resumes from.

A `Trainer` knows nothing of folders, leases or signals. Its state after k steps depends only on the configuration
and k, so a run that is saved, killed and loaded ends with the bits of the run that was not.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sqzlab.config import Config
from sqzlab.data.open import Batch, Data
from sqzlab.networks.random_squeeze import set_random_keys
from sqzlab.networks.resnet import build
from sqzlab.training.optimizer import make_optimizer
from sqzlab.training.schedule import learning_rate

TRAIN, VAL = 0, 1  # the split's number in the keys of `random`


class DivergedError(ArithmeticError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True)
class Evaluation:
    """The whole validation set, each image once; the arrays are (val_images,) in the data set's fixed order."""

    loss: float
    top1: NDArray[np.bool_]
    top5: NDArray[np.bool_]


class Trainer:
    """One network, its optimiser and its position in the run."""

    def __init__(self, config: Config, data: Data, device: torch.device) -> None:
        train = config.train
        self.config, self.data, self.device = config, data, device
        set_numerics(config)
        self.model = build(config.model, seed=config.seed, init=train.init).to(device)
        if train.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.network: Callable[[Tensor], Tensor] = self.model
        if train.compile:  # static: else a graph, and with it the bits, depends on the shapes that came before it
            torch.compiler.reset()  # past its recompile limit, a process would go on uncompiled without a word
            self.network = torch.compile(self.model, dynamic=False)
        self.optimizer = make_optimizer(self.model, train)
        self.mean = 255 * torch.tensor(data.mean, device=device).view(1, 3, 1, 1)
        self.std = 255 * torch.tensor(data.std, device=device).view(1, 3, 1, 1)
        self.steps_per_epoch = min(data.steps_per_epoch, train.limit_batches or data.steps_per_epoch)
        self.steps = train.epochs * self.steps_per_epoch
        self.step = self.epoch = 0  # steps done; epochs closed, so also the number of the current one
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)  # loss and correct images of this epoch
        self.train_s = 0.0  # seconds in training steps and their loading, over all segments of the run

    # ---- training ------------------------------------------------------------------------------

    def train_epoch(self) -> Iterator[None]:
        """Trains what is left of the current epoch, yielding after every step (the boundary to save at)."""
        self.model.train()
        done = self.step - self.epoch * self.steps_per_epoch
        batches = self.data.train_batches(self.epoch, start=done)
        began = time.perf_counter()
        for batch in islice(batches, self.steps_per_epoch - done):
            self._train_step(batch)
            self.train_s += time.perf_counter() - began
            yield
            began = time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # steps were queued, not done, when their calls returned
        self.train_s += time.perf_counter() - began

    def _train_step(self, batch: Batch) -> None:
        train = self.config.train
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(train, self.step, self.steps_per_epoch)
        logits, labels = self._predict(batch, TRAIN)  # (N, classes), (N,)
        loss = F.cross_entropy(logits, labels, label_smoothing=train.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if train.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), train.clip_norm)
        self.optimizer.step()
        correct = (logits.detach().argmax(1) == labels).sum()
        self.sums += torch.stack([loss.detach().double() * len(labels), correct.double()])
        self.step += 1

    def close_epoch(self) -> tuple[float, float]:
        """Mean training loss and top-1 fraction of the epoch whose steps are all done; the next one begins."""
        self.check_finite()
        images = self.steps_per_epoch * self.config.train.batch_size
        loss, correct = (self.sums / images).tolist()
        self.sums.zero_()
        self.epoch += 1
        return loss, correct

    def check_finite(self) -> None:
        """Raises DivergedError where the loss has left the finite numbers."""
        if not math.isfinite(float(self.sums[0])):
            raise DivergedError(f"the training loss is not finite at step {self.step} (epoch {self.epoch + 1})")

    # ---- evaluation ----------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Loss and correctness on the validation set. A tie with the label's logit counts as a miss."""
        self.model.eval()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        ranks = []
        for batch in islice(self.data.val_batches(), self.config.train.limit_batches):
            logits, labels = self._predict(batch, VAL)
            total += F.cross_entropy(logits, labels, reduction="sum").double()
            own = logits.gather(1, labels[:, None])
            ranks.append((logits >= own).sum(1))  # (N,), 1 where the label leads
        rank = torch.cat(ranks).cpu().numpy()
        loss = float(total) / len(rank)
        if not math.isfinite(loss):
            raise DivergedError(f"the validation loss is not finite after {self.step} steps")
        return Evaluation(loss, rank <= 1, rank <= 5)

    def _predict(self, batch: Batch, split: int) -> tuple[Tensor, Tensor]:
        """Float32 logits (N, classes) and labels (N,) on the device."""
        train = self.config.train
        images = batch.images.to(self.device, non_blocking=True)
        labels = batch.labels.to(self.device, non_blocking=True)
        images = (images.float() - self.mean) / self.std
        if train.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        set_random_keys(self.model, seed=self.config.seed, split=split, epoch=self.epoch, image_index=batch.index)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=train.precision == "bf16"):
            logits = self.network(images)
        return logits.float(), labels

    # ---- state ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "epoch": self.epoch,
            "sums": self.sums,
            "train_s": self.train_s,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.epoch, self.train_s = state["step"], state["epoch"], state["train_s"]
        self.sums.copy_(state["sums"])

    def shared_weights_digest(self) -> str:
        """SHA-256 over the weights that every arm has (all outside the SE blocks), in the order of their names."""
        digest = hashlib.sha256()
        for name, value in sorted(self.model.named_parameters()):
            if ".se." not in name:
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def set_numerics(config: Config) -> None:
    """The process-wide settings that change sums: threads, and on CUDA TF32 (off) and the choice of algorithms."""
    torch.set_num_threads(config.train.threads)
    if config.train.device == "cuda":
        # torch computes convolutions in TF32 unless told otherwise
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        torch.backends.cudnn.benchmark = not config.train.deterministic
        torch.use_deterministic_algorithms(config.train.deterministic)
