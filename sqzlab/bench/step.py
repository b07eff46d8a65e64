"""One step of a network, as a function of nothing: training or inference, eager or compiled, on static inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from sqzlab.bench.plan import COMPILED, GRAPHS, TRAINING, Entry, Settings
from sqzlab.networks.random_squeeze import Places, set_random_keys

Step = Callable[[], None]


@dataclass(frozen=True)
class Inputs:
    """Noise that stands for a batch, the same for all entries and on the device from the start."""

    images: Tensor  # (N, 3, H, W) float32
    labels: Tensor  # (N,)
    index: Tensor  # (N,) each image's place in its data set

    @classmethod
    def of(cls, settings: Settings) -> Inputs:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(settings.batch, 3, settings.size, settings.size, generator=generator)
        if settings.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.randint(1000, (settings.batch,), generator=generator)
        device = torch.device(settings.device)
        return cls(images.to(device), labels.to(device), torch.arange(settings.batch, device=device))


def make_step(model: nn.Module, entry: Entry, settings: Settings, inputs: Inputs) -> Step:
    """A step of the entry's network, which goes to the device; nothing is compiled before the first one.

    It does what a training or validation loop does, but for its data and metrics. Training: the forward under autocast,
    cross entropy in float32, the backward, SGD with momentum and decay over all parameters at once (`foreach`),
    gradients set to None.
    """
    model = model.to(settings.device)
    if settings.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model.train(entry.kind == TRAINING)
    called = _compiled(model, entry.mode)
    places: Places | None = {} if entry.mode == GRAPHS else None

    def predict() -> Tensor:
        set_random_keys(model, seed=0, split=0, epoch=0, image_index=inputs.index, places=places)
        if entry.mode == GRAPHS:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with torch.autocast(settings.device, torch.bfloat16, enabled=settings.precision == "bf16"):
            logits: Tensor = called(inputs.images)
        return logits.float()

    if entry.kind != TRAINING:

        @torch.no_grad()
        def infer() -> None:
            predict()

        return infer

    optimizer = SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4, foreach=True)

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(predict(), inputs.labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return train


def _compiled(model: nn.Module, mode: str) -> Callable[[Tensor], Tensor]:
    if mode == COMPILED:
        return torch.compile(model, dynamic=False)
    if mode == GRAPHS:
        return torch.compile(model, dynamic=False, mode="reduce-overhead")
    return model
