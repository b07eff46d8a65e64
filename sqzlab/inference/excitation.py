"""Records the gates of every block of a network over the images of a data set, class by class.

Sums are kept, never gates: 32 bytes for each class and channel, whatever the number of images. That is 0.5 GB for a
ResNet-50 on ImageNet and 1.5 GB for a ResNet-152.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sqzlab.analysis.gates import HIGH, LOW, BlockGates, Gates
from sqzlab.errors import ConfigError
from sqzlab.inference.checkpoint import Network
from sqzlab.inference.validation import Labelled
from sqzlab.networks.se_block import Gate


def record_gates(
    network: Network,
    images: Labelled,
    *,
    images_per_class: int | None = None,
    batch_size: int = 64,
    bad: Callable[[str], object] = lambda text: None,
    done: Callable[[int], object] = lambda images: None,
) -> Gates:
    """The gates of a network over the first `images_per_class` images of each class, or over all; never in bfloat16.

    Gates of pixels (no_squeeze) are averaged over each map first; the saturated ones among them are counted one by
    one. `bad` is told of every image that cannot be read, `done` how many were read now. Raises ConfigError where
    no block gates channels, no image is left, or a gate is not finite.
    """
    gates = channel_gates(network.model)
    if not gates:
        raise ConfigError(f"{network.name}: squeeze {network.config.squeeze!r} has no gates of channels to record")
    classes = class_labels(network, images)
    chosen = _first_of_classes(images.labels, images_per_class or len(images.labels))
    counts = torch.zeros(len(classes), dtype=torch.int64)
    sums = {name: _Sums(len(classes), bounded=gate.kind == "sigmoid") for name, gate in gates.items()}
    found: dict[str, Tensor] = {}
    hooks = [gate.register_forward_hook(_keeper(found, name)) for name, gate in gates.items()]
    try:
        for batch in images.batches(batch_size, bad):
            kept = chosen[batch.index]
            if kept.any():
                index = batch.index[kept]
                network.logits(batch.images[kept], index)
                for name, values in found.items():
                    sums[name].add(values, images.labels[index])
                counts += torch.bincount(images.labels[index], minlength=len(classes))
            done(len(batch.index))
    finally:
        for hook in hooks:
            hook.remove()
    if not counts.any():
        raise ConfigError(f"{network.name}: no image to record gates of")
    blocks = tuple(sums.pop(name).block(name, counts.numpy()) for name in gates)  # each sum is let go of at once
    for block in blocks:
        if not np.isfinite(block.mean[block.images > 0]).all():
            raise ConfigError(f"{network.name}: the gates of {block.name} are not finite")
    return Gates(network.name, network.config.squeeze, classes, blocks, _without(network.model, gates))


def class_labels(network: Network, images: Labelled) -> tuple[str, ...]:
    """A name for each class; for those of ImageNet-1k "goldfish" rather than its folder's, "n01443537"."""
    names = images.class_names or network.labels
    if images.data == "imagenet" and len(names) == 1000 and all(re.fullmatch(r"n\d{8}", name) for name in names):
        from torchvision.models import ResNet50_Weights

        return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])  # in the order of the folders
    return names


def channel_gates(model: nn.Module) -> dict[str, Gate]:
    """The gate of each residual block that has one, by the block's name ("layer1.0"), in order of depth."""
    named = ((name.split("."), module) for name, module in model.named_modules())
    return {".".join(parts[:2]): module for parts, module in named if isinstance(module, Gate)}


class _Sums:
    """Sums over the images of each class of one block's gates, (classes, C).

    They are of distances to the first image's gates, so that a gate that never moves has a deviation of exactly 0.
    """

    def __init__(self, classes: int, *, bounded: bool) -> None:
        self.classes, self.bounded = classes, bounded
        self.origin: Tensor | None = None

    def add(self, gates: Tensor, labels: Tensor) -> None:
        """(N, C) or (N, C, H, W) gates of N images."""
        low, high = (_over_pixels(part.float()) for part in (gates < LOW, gates > HIGH))
        values = _over_pixels(gates.double())  # (N, C)
        if self.origin is None:
            shape = self.classes, values.shape[1]
            self.origin = values[0].clone()
            self.sum, self.squares = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
            self.low, self.high = (torch.zeros(shape) for _ in range(2))
        distance = values - self.origin
        for total, part in (
            *((self.sum, distance), (self.squares, distance.square())),
            *((self.low, low), (self.high, high)),
        ):
            total.index_add_(0, labels, part)

    def block(self, name: str, images: NDArray[np.int64]) -> BlockGates:
        assert self.origin is not None
        n = torch.from_numpy(np.where(images, images, np.nan))[:, None]
        offset = self.sum / n
        std = (self.squares / n - offset.square()).clamp_(min=0).sqrt()
        low, high = ((part.double() / n).numpy() if self.bounded else None for part in (self.low, self.high))
        return BlockGates(name, images, (self.origin + offset).numpy(), std.numpy(), low, high)


def _keeper(found: dict[str, Tensor], name: str) -> Callable[[nn.Module, object, Tensor], None]:
    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        found[name] = output.detach().cpu()

    return keep


def _over_pixels(values: Tensor) -> Tensor:
    return values.mean(dim=(2, 3)) if values.ndim == 4 else values


def _first_of_classes(labels: Tensor, most: int) -> Tensor:
    """Which images are among the first `most` of their class, bool (n,)."""
    order = np.argsort(labels.numpy(), kind="stable")
    sorted_labels = labels.numpy()[order]
    place = np.empty(len(order), dtype=np.int64)  # of each image in its class, from 0
    place[order] = np.arange(len(order)) - np.searchsorted(sorted_labels, sorted_labels)
    return torch.from_numpy(place < most)


def _without(model: nn.Module, gates: dict[str, Gate]) -> tuple[str, ...]:
    """Residual blocks that have no gate."""
    stages = (f"layer{stage}" for stage in range(1, 5))
    blocks = (f"{stage}.{index}" for stage in stages for index, _ in model.get_submodule(stage).named_children())
    return tuple(name for name in blocks if name not in gates)
