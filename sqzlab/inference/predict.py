"""The most likely classes of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from sqzlab.errors import ConfigError, SqzlabError
from sqzlab.inference.checkpoint import Network, open_network
from sqzlab.inference.images import ImageBatch, ImageLike, image_batches

BATCH_SIZE = 32
GIVEN = 2
"""The split of images that a user gives, in the keys of `random`, beside training and validation."""


@dataclass(frozen=True)
class Prediction:
    """One class of one image; `score` is the softmax."""

    name: str
    index: int
    score: float


def predict(
    network: Network | str,
    images: Sequence[ImageLike],
    top: int = 5,
    *,
    batch_size: int = BATCH_SIZE,
    device: str | None = "cpu",
) -> list[list[Prediction]]:
    """The `top` most likely classes of each image, best first; all classes where there are fewer.

    `network` is what `open_network` takes, opened on `device`, or what it returns. An image is a file, an image of
    Pillow or uint8 (3, H, W), prepared as the validation images of the network's data set. Raises ConfigError with a
    line for every image that cannot be used. The noise of the squeeze `random` depends on an image's place in `images`.
    """
    if top < 1:
        raise ConfigError(f"top {top!r} is out of range; valid: at least 1")
    opened = opened_network(network, device)
    found: list[list[Prediction]] = []
    for batch in given_batches(opened, images, batch_size):
        found += predicted(opened, batch, top)
    return found


def predicted(network: Network, batch: ImageBatch, top: int) -> Iterator[list[Prediction]]:
    """The `top` classes of each image of a batch."""
    logits = network.logits(batch.images, batch.index, split=GIVEN)  # (N, classes)
    if not logits.isfinite().all():
        raise SqzlabError(f"{network.name}: its output is not finite")
    scores, classes = logits.double().softmax(1).sort(dim=1, descending=True, stable=True)
    for row, order in zip(scores[:, :top].tolist(), classes[:, :top].tolist(), strict=True):
        yield [Prediction(network.labels[index], index, score) for score, index in zip(row, order, strict=True)]


def opened_network(network: Network | str, device: str | None) -> Network:
    return network if isinstance(network, Network) else open_network(str(network), device=device)


def given_batches(network: Network, images: Sequence[ImageLike], batch_size: int) -> Iterator[ImageBatch]:
    """All images, or ConfigError: what a function returns must not lack any."""
    if isinstance(images, str | Path | Image.Image) or (isinstance(images, Tensor) and images.ndim != 4):
        raise ConfigError("images: is a single image; valid: a sequence of them")
    if batch_size < 1:
        raise ConfigError(f"batch size {batch_size!r} is out of range; valid: at least 1")
    faults: list[str] = []
    for batch in image_batches(images, network.data, network.config.image_size, batch_size, bad=faults.append):
        if not faults:
            yield batch
    if faults:
        raise ConfigError(faults)
