"""What a network computes before its classifier: one vector an image, and one a stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from sqzlab.errors import ConfigError
from sqzlab.inference.checkpoint import Network
from sqzlab.inference.images import ImageBatch, ImageLike
from sqzlab.inference.predict import BATCH_SIZE, GIVEN, given_batches, opened_network

POOLED = "pooled"
STAGES = {"conv2": "layer1", "conv3": "layer2", "conv4": "layer3", "conv5": "layer4"}
"""A stage's name in arXiv:1512.03385, table 1, and in torchvision."""

Features = dict[str, NDArray[np.float32]]


def extract_features(
    network: Network | str,
    images: Sequence[ImageLike],
    stages: bool = False,
    *,
    batch_size: int = BATCH_SIZE,
    device: str | None = "cpu",
) -> Features:
    """`pooled` (N, C), what the classifier reads, in the order of `images`; takes and raises what `predict` does.

    With `stages` also `conv2` to `conv5`: the spatial mean of each stage's output. That of `conv5` is `pooled`.
    """
    opened = opened_network(network, device)
    parts = [features(opened, batch, GIVEN, stages) for batch in given_batches(opened, images, batch_size)]
    if not parts:
        raise ConfigError("images: there are none; valid: at least one")
    return joined(parts)


def features(network: Network, batch: ImageBatch, split: int, stages: bool) -> Features:
    """Those of one batch; `split` is what `Network.logits` takes."""
    with _kept(network.model, stages) as kept:
        network.logits(batch.images, batch.index, split=split)
    return {name: kept[name].float().cpu().numpy() for name in (POOLED, *STAGES) if name in kept}


def joined(parts: Sequence[Features]) -> Features:
    """The batches as one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@contextmanager
def _kept(model: nn.Module, stages: bool) -> Iterator[dict[str, Tensor]]:
    """Within the block, the vectors of each forward."""
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, given, made: kept.__setitem__(name, made.mean((2, 3)))

    hooks = [model.get_submodule(path).register_forward_hook(keep(n)) for n, path in STAGES.items() if stages]
    classifier = model.get_submodule("fc")
    hooks.append(classifier.register_forward_pre_hook(lambda module, given: kept.__setitem__(POOLED, given[0])))
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()
