"""Training of one network: steps, evaluation and the state that a run resumes from.

A `Trainer` knows nothing of folders, leases or signals. Its state after k steps depends only on the configuration
and k, so a run that is saved, killed and loaded ends with the bits of the run that was not.

In a world of several, each process trains with its part of every batch, and gradients are averaged over them
(DistributedDataParallel). BatchNorm then sees a process's part only, and what is saved and evaluated with are the
running statistics of process 0; `sync_batch_norm` makes both those of the whole batch.
"""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sqzlab.config import Config
from sqzlab.data.fingerprint import pretrained_digest
from sqzlab.data.image_list import expanded
from sqzlab.data.open import Batch, Data
from sqzlab.errors import UnavailableError
from sqzlab.networks.pretrained import load_pretrained
from sqzlab.networks.random_squeeze import Places, set_random_keys
from sqzlab.networks.resnet import build
from sqzlab.training.augment import augmented
from sqzlab.training.optimizer import make_optimizer, set_rate
from sqzlab.training.schedule import crop_size, crop_sizes, learning_rate
from sqzlab.training.sync_batch_norm import synchronise
from sqzlab.training.world import World

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
    """One network, its optimiser and its position in the run.

    In a world of several, every method but the digest is for all processes to call, in the same order.
    """

    def __init__(self, config: Config, data: Data, device: torch.device, world: World | None = None) -> None:
        train = config.train
        self.config, self.data, self.device, self.world = config, data, device, world or World()
        set_numerics(config)
        self.dtype = torch.float64 if train.precision == "fp64" else torch.float32
        model = build(config.model, seed=config.seed, init=train.init, block_form=train.block_form)
        pretrained = _start_from(config, model, warn=self.world.rank == 0)  # a saved state is laid over it
        self.model = model.to(device, self.dtype)
        if train.sync_batch_norm:
            synchronise(self.model, self.world)
        if train.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.network: nn.Module = self.model
        if train.compile:  # static: else a graph, and with it the bits, depends on the shapes that came before it
            torch.compiler.reset()  # past its recompile limit, a process would go on uncompiled without a word
            graphs = 2 * len(crop_sizes(train, config.data.image_size))
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, graphs)
            mode = "reduce-overhead" if train.cuda_graphs else None
            self.network = torch.compile(self.model, dynamic=False, mode=mode)  # type: ignore[assignment]
        self.noise: Places | None = {} if train.cuda_graphs else None
        self.optimizer = make_optimizer(self.model, train, pretrained)
        self.mean = 255 * torch.tensor(data.mean, dtype=self.dtype, device=device).view(1, 3, 1, 1)
        self.std = 255 * torch.tensor(data.std, dtype=self.dtype, device=device).view(1, 3, 1, 1)
        self.steps_per_epoch = min(data.steps_per_epoch, train.limit_batches or data.steps_per_epoch)
        self.val_steps = min(data.val_steps, train.limit_batches or data.val_steps)
        self.steps = train.epochs * self.steps_per_epoch
        self.step = self.epoch = 0  # steps done; epochs closed, so also the number of the current one
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)  # this process's loss and correct images so far
        self.train_s = 0.0  # seconds in training steps and their loading, over all segments of the run
        self.trained = self.network
        if self.world.size > 1:
            self._share_gradients()

    # ---- training ------------------------------------------------------------------------------

    def train_epoch(self) -> Iterator[None]:
        """Trains what is left of the current epoch, yielding after every step (the boundary to save at)."""
        self.model.train()
        done = self.step - self.epoch * self.steps_per_epoch
        size = crop_size(self.config.train, self.epoch, self.config.data.image_size)
        batches = self.data.train_batches(self.epoch, start=done, pinned=self.device.type == "cuda", size=size)
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
        set_rate(self.optimizer, learning_rate(train, self.step, self.steps_per_epoch))
        self.optimizer.zero_grad(set_to_none=True)  # before the forward: a CUDA graph writes over its last gradients
        logits, labels, targets = self._predict(self.trained, batch, TRAIN)
        loss = F.cross_entropy(logits, targets, label_smoothing=train.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        if train.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), train.clip_norm)
        self.optimizer.step()
        correct = (logits.detach().argmax(1) == labels).sum()
        self.sums += torch.stack([loss.detach().double() * len(labels), correct.double()])
        self.step += 1

    def close_epoch(self) -> tuple[float, float]:
        """Mean training loss and top-1 fraction of the epoch whose steps are all done; the next one begins.

        A mixed image counts as correct where the label of the image that it began as leads.
        """
        self.check_finite()
        images = self.steps_per_epoch * self.config.train.batch_size
        loss, correct = (self.world.sum(self.sums.clone()) / images).tolist()
        self.sums.zero_()
        self.epoch += 1
        return loss, correct

    def check_finite(self) -> None:
        """Raises DivergedError where the loss has left the finite numbers."""
        if not math.isfinite(float(self.world.sum(self.sums[:1].clone()))):
            raise DivergedError(f"the training loss is not finite at step {self.step} (epoch {self.epoch + 1})")

    # ---- evaluation ----------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, between: Callable[[], None] = lambda: None) -> Evaluation:
        """Loss and correctness on the validation set. A tie with the label's logit counts as a miss.

        A compiled network sees a short last batch filled up to the size of the others, so that one graph serves all.

        `between` is called before every batch, and equally often in every process; what it raises ends the evaluation.
        """
        self.model.eval()
        if self.world.size > 1:
            for buffer in self.model.buffers():
                dist.broadcast(buffer, 0)
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)  # loss, images
        place = torch.zeros(self.data.val_images, dtype=torch.int64, device=self.device)
        batches = self.data.val_batches(pinned=self.device.type == "cuda")
        for _ in range(self.val_steps):
            between()
            if (batch := next(batches, None)) is None:  # no part in the last one
                continue
            logits, labels, _ = self._predict(self.network, self._filled(batch), VAL)
            logits, labels = logits[: len(batch.index)], labels[: len(batch.index)]
            loss = F.cross_entropy(logits, labels, reduction="sum").double()
            sums += torch.stack([loss, torch.full_like(loss, len(labels))])
            own = logits.gather(1, labels[:, None])
            index = batch.index.to(self.device, non_blocking=True)
            place[index] = (logits >= own).sum(1)  # (N,), 1 where the label leads
        total, images = self.world.sum(sums).tolist()
        label_place = self.world.sum(place)[: int(images)].cpu().numpy()  # each image was one process's
        mean_loss = total / images
        if not math.isfinite(mean_loss):
            raise DivergedError(f"the validation loss is not finite after {self.step} steps")
        return Evaluation(mean_loss, label_place <= 1, label_place <= 5)

    def _filled(self, batch: Batch) -> Batch:
        """What the network is given of a validation batch; images do not depend on each other there."""
        short = self.config.train.compile and len(batch.index) < self.data.val_batch_images
        return batch.padded(self.data.val_batch_images) if short else batch

    # ---- both ----------------------------------------------------------------------------------

    def _predict(self, network: nn.Module, batch: Batch, split: int) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, classes) in float32 (or 64), labels (N,) and the loss's targets; no host waits for the device.

        Targets are the labels, or in training with mixup or cutmix shares (N, classes) of the mixed images.
        """
        train = self.config.train
        images = batch.images.to(self.device, non_blocking=True)
        labels = batch.labels.to(self.device, non_blocking=True)
        images, targets = (images.to(self.dtype) - self.mean) / self.std, labels
        if split == TRAIN:
            place = self.config.seed, self.epoch, self.step
            images, targets = augmented(train, images, labels, batch.index, self.data.classes, *place)
        layout = torch.channels_last if train.channels_last else torch.contiguous_format
        images = images.contiguous(memory_format=layout)  # sources have either
        index = batch.index.to(self.device, non_blocking=True)
        set_random_keys(
            self.model, seed=self.config.seed, split=split, epoch=self.epoch, image_index=index, places=self.noise
        )
        if train.cuda_graphs:
            # nothing of an older step's outputs is read any more
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=train.precision == "bf16"):
            logits = network(images)
        return logits.to(self.dtype), labels, targets

    # ---- several processes ---------------------------------------------------------------------

    def _share_gradients(self) -> None:
        """Averages the gradients of every backward from now on, in buckets laid out once and for all.

        After its first backward DDP lays its buckets out anew, in the order in which the gradients came, and sums
        depend on the layout: without a backward for nothing here, a resumed run would differ from one that was not.
        The compiled network is inside DDP: one graph, all of whose gradients come at its end.
        """
        config = self.config
        if config.train.compile:
            torch._dynamo.config.optimize_ddp = False  # else it cuts the graph by DDP's buckets, and folded blocks too
        device_ids = [self.device] if self.device.type == "cuda" else None
        self.trained = nn.parallel.DistributedDataParallel(
            self.network, device_ids=device_ids, gradient_as_bucket_view=True
        )
        before = [buffer.clone() for buffer in self.model.buffers()]
        n, size = config.train.batch_size // self.world.size, crop_size(config.train, 0, config.data.image_size)
        nothing = Batch(torch.zeros(n, 3, size, size, dtype=torch.uint8), torch.zeros(n).long(), torch.arange(n))
        logits, labels, _ = self._predict(self.trained, nothing, TRAIN)
        with warnings.catch_warnings():  # told once a process: the strides of dimensions of size 1, which mean nothing
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            F.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, value in zip(self.model.buffers(), before, strict=True):
            buffer.copy_(value)

    # ---- state ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs, whatever its world; process 0's is the one to save."""
        sums = self.world.gather(self.sums)  # (size, 2): each process's own, so that resuming changes no sum
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "epoch": self.epoch,
            "sums": sums if self.world.size > 1 else self.sums,
            "train_s": self.train_s,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.epoch, self.train_s = state["step"], state["epoch"], state["train_s"]
        sums = state["sums"].view(-1, 2)
        if len(sums) == self.world.size:
            self.sums.copy_(sums[self.world.rank])
        else:
            self.sums.copy_(sums.sum(0) * (self.world.rank == 0))

    def shared_weights_digest(self) -> str:
        """SHA-256 over the weights that every arm has (all outside the SE blocks), in the order of their names.

        Pretrained ones count but for powers of two, by which layers take back the factor of a block that is new.
        """
        digest = hashlib.sha256()
        for name, value in sorted(self.model.named_parameters()):
            if ".se." not in name:
                weights = value.detach().cpu().contiguous().numpy()
                digest.update(name.encode())
                digest.update((np.frexp(weights)[0] if self.config.train.pretrained else weights).tobytes())
        return digest.hexdigest()[:16]


def _start_from(config: Config, model: nn.Module, *, warn: bool) -> tuple[str, ...]:
    """Lays `train.pretrained` over the drawn weights and returns the names of what it has.

    Raises UnavailableError where it is not the file that the run was planned with.
    """
    train = config.train
    if train.pretrained is None:
        return ()
    found = pretrained_digest(train.pretrained)
    if found != train.pretrained_digest:
        raise UnavailableError(
            f"train.pretrained: {train.pretrained!r} has the digest {found}, but the run was planned with "
            f"{train.pretrained_digest}"
        )
    return load_pretrained(model, config.model, expanded(train.pretrained), warn=warn).loaded


def set_numerics(config: Config) -> None:
    """The process-wide settings that change sums: threads, and on CUDA TF32 (off) and the choice of algorithms."""
    torch.set_num_threads(config.train.threads)
    if config.train.device == "cuda":
        # torch computes convolutions in TF32 unless told otherwise
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        torch.backends.cudnn.benchmark = not config.train.deterministic
        torch.use_deterministic_algorithms(config.train.deterministic)
