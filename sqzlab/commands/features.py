"""`python -m sqzlab features CHECKPOINT IMAGE ... --out FILE.npz`: what the classifier of a network reads.

The file holds `pooled` (N, C), with --stages also `conv2` to `conv5`, and `names` (N,); with --data also `labels` (N,).
Every image that cannot be used is named on stderr, with the reason, and the others go on.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from sqzlab.commands.network import (
    EXIT_CODES,
    PREPARED,
    Said,
    about,
    add_data,
    add_network,
    check_writable,
    opened,
    progress,
)
from sqzlab.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = PREPARED + EXIT_CODES
    add_network(parser)
    images = parser.add_argument("images", nargs="+", metavar="IMAGE", help="image file, or folder to be searched")
    images.required = False  # nargs="*" would take nothing where an option stands between CHECKPOINT and the images
    add_data(parser, "none: the images named")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="npz file to write")
    parser.add_argument("--stages", action="store_true", help="also the spatial mean of each stage's output")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 where some images could not be used, 2 where none could."""
    check_writable("--out", arguments.out, ".npz")
    if bool(arguments.images) == bool(arguments.data):
        raise ConfigError("valid: images and folders, or --data NAME, and not both")
    if not arguments.data and (arguments.root or arguments.val_list):
        raise ConfigError(f"{'--root' if arguments.root else '--val-list'}: applies only beside --data")
    import numpy as np

    from sqzlab.inference.features import features, joined
    from sqzlab.inference.images import image_batches, image_files
    from sqzlab.inference.predict import BATCH_SIZE, GIVEN
    from sqzlab.inference.validation import open_validation
    from sqzlab.runs.files import write_whole
    from sqzlab.training.trainer import VAL

    network, said = opened(arguments), Said()
    about(network, said, given=not arguments.data)
    batch_size, labels = arguments.batch_size or BATCH_SIZE, None
    if arguments.data:
        root = arguments.root or (os.environ.get("IMAGENET_DIR") if arguments.data == "imagenet" else None)
        data = open_validation(network, arguments.data, root, arguments.val_list)
        names, labels, split = data.names, data.labels, VAL
        batches = data.batches(batch_size, said.bad)
    else:
        files = image_files(arguments.images, said.bad)
        names, split, size = [str(file) for file in files], GIVEN, network.config.image_size
        batches = image_batches(files, network.data, size, batch_size, bad=said.bad, remark=said.remark)
    parts, places = [], []
    with progress(len(names)) as done:
        for batch in batches:
            parts.append(features(network, batch, split, arguments.stages))
            places += batch.index.tolist()
            done(len(batch.index))
    if not parts:
        raise ConfigError("none of the images can be used; nothing is written")
    arrays = {**joined(parts), "names": np.array([names[place] for place in places])}
    if labels is not None:
        arrays["labels"] = labels[places].numpy()
    write_whole(arguments.out, lambda file: np.savez(file, allow_pickle=False, **arrays))
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    print(f"{arguments.out}: {shapes}")
    return 1 if said.faults else 0
