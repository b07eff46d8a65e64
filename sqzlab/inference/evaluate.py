"""How well a network does on the validation part of a data set, image by image.

On its own data set, with the batch size and the device of its training, a run's network gives the very numbers of the
run's record: the same batches, precision and noise.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sqzlab.errors import ConfigError, SqzlabError
from sqzlab.inference.checkpoint import Network
from sqzlab.inference.validation import Labelled, Tell
from sqzlab.training.trainer import set_numerics

BATCH_SIZE = 64


@dataclass(frozen=True)
class Evaluated:
    """What was found for n images, in the data set's order; `index` are their places in it."""

    loss: float  # mean cross-entropy
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]  # a tie with the label's score is another class: it counts as a miss
    scores: NDArray[np.float64]  # of the predicted class, softmax
    top5: NDArray[np.bool_]

    @property
    def top1(self) -> NDArray[np.bool_]:
        return np.equal(self.predicted, self.labels)

    def confusion(self, classes: int) -> NDArray[np.int64]:
        """(classes, classes): how many images of the row's class were taken for the column's."""
        pairs = np.bincount(self.labels * classes + self.predicted, minlength=classes**2)
        return pairs.reshape(classes, classes).astype(np.int64)


def evaluate(
    network: Network,
    data: Labelled,
    *,
    batch_size: int | None = None,
    bad: Tell,
    done: Callable[[int], object] = lambda images: None,
) -> Evaluated:
    """Evaluates all images that can be read; `bad` is told of the others, `done` of every batch's images.

    A run that was cut to a few batches (`train.limit_batches`) is evaluated on their images. Where the device is
    that of its training, torch's process-wide numerics are set as there.
    """
    train = network.run.config.train if network.run else None
    if network.run and network.device.type == network.run.config.train.device:
        set_numerics(network.run.config)
    size, most = batch_size or BATCH_SIZE, len(data.labels)
    if train and data.own:
        size = batch_size or train.batch_size
        most = min(most, train.limit_batches * train.batch_size) if train.limit_batches else most
    total, parts = 0.0, []
    for batch in islice(data.batches(size, bad), -(-most // size)):
        kept = batch.index < most
        images, index = batch.images[kept], batch.index[kept]
        if not len(index):
            break
        labels = data.labels[index].to(network.device)
        logits = network.logits(images, index, bf16=train is not None and train.precision == "bf16")
        if not logits.isfinite().all():
            raise SqzlabError(f"{network.name}: its output for {data.names[int(index[0])]!r} is not finite")
        total += float(F.cross_entropy(logits, labels, reduction="sum").double())
        parts.append((index, labels.cpu(), *(part.cpu() for part in _judged(logits, labels))))
        done(len(index))
    if not parts:
        raise ConfigError(f"data set {data.data!r}: none of the images can be used")
    columns = [torch.cat(column).numpy() for column in zip(*parts, strict=True)]
    return Evaluated(total / len(columns[0]), *columns)


def _judged(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N, classes), (N,) -> the predicted class, its score, whether the label is among the first five, (N,) each."""
    own = logits.gather(1, labels[:, None])
    place = (logits >= own).sum(1)  # 1 where the label leads, as in training
    others = logits.scatter(1, labels[:, None], -torch.inf).argmax(1)
    predicted = torch.where(place <= 1, labels, others)
    scores = logits.double().softmax(1).gather(1, predicted[:, None])[:, 0]
    return predicted, scores, place <= 5


# ---- as text -----------------------------------------------------------------------------------


def predictions_csv(found: Evaluated, data: Labelled, names: Sequence[str]) -> bytes:
    """A line an image, in the data set's order."""
    header = ["image", "label", "label_name", "predicted", "predicted_name", "score", "correct", "top5"]
    columns = (found.index, found.labels, found.predicted, found.scores, found.top1, found.top5)
    return _csv(
        header,
        [
            [data.names[index], label, names[label], predicted, names[predicted], score, int(correct), int(top5)]
            for index, label, predicted, score, correct, top5 in zip(*(c.tolist() for c in columns), strict=True)
        ],
    )


def confusion_csv(found: Evaluated, names: Sequence[str]) -> bytes:
    """A row a true class, a column a predicted one."""
    rows = found.confusion(len(names)).tolist()
    return _csv(["label", *names], [[name, *row] for name, row in zip(names, rows, strict=True)])


def _csv(header: list[str], rows: list[list[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return os.fsencode(text.getvalue())  # file names need not be UTF-8
