"""What the commands that use a trained network have in common: its arguments, progress, and files to write."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqzlab.catalog import DATASETS, DEVICES
from sqzlab.errors import ConfigError

if TYPE_CHECKING:
    from sqzlab.inference.checkpoint import Network

LINE_EVERY_S = 30.0
EXIT_CODES = (
    "exit codes: 0 all images, 1 some could not be used, 2 none could, or what was written is wrong, "
    "3 data, weights or GPU lacking, 130 Ctrl-C"
)
PREPARED = (
    "Images are prepared as in the validation of the network's training: short side to 256/224 of the crop, its centre "
    "(digits and CIFAR: all of it); EXIF orientation is not applied, of an animation the first frame is taken. "
)


def add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="run id, run folder, or file of `import` or `export`")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="where run ids are sought (results)"
    )
    parser.add_argument(
        "--device", choices=tuple(DEVICES), help="default: the GPU if there is one and the run was not trained without"
    )
    parser.add_argument("--batch-size", type=positive, metavar="N", help="images at a time")
    parser.add_argument(
        "--image-size", type=positive, metavar="PIXELS", help="side of the crop (default: that of the training)"
    )


def add_data(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--data", choices=tuple(DATASETS), metavar="NAME", help=f"{', '.join(DATASETS)} (default: {default})"
    )
    parser.add_argument("--root", metavar="DIR", help="folder of the data set")
    parser.add_argument("--val-list", metavar="FILE", help="of imagelist: text file with `name label` a line")


def positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is out of range; valid: whole numbers from 1")
    return number


def opened(arguments: argparse.Namespace) -> Network:
    from sqzlab.inference.checkpoint import open_network

    return open_network(arguments.checkpoint, arguments.results, arguments.device, image_size=arguments.image_size)


def check_writable(flag: str, path: Path | None, suffix: str) -> None:
    """Raises ConfigError, before any work is done, where a file of this name cannot be written."""
    if path is None:
        return
    if path.suffix != suffix:
        raise ConfigError(f"{flag} {str(path)!r}: valid: a file that ends in {suffix}")
    if path.is_dir() or not path.parent.is_dir():
        why = "is a folder" if path.is_dir() else f"there is no folder {str(path.parent)!r}"
        raise ConfigError(f"{flag} {str(path)!r}: {why}")


class Said:
    """Lines on stderr, beside whatever is shown there; `bad` are counted."""

    def __init__(self) -> None:
        self.faults = 0

    def bad(self, text: str) -> None:
        self.faults += 1
        self.remark(text)

    def remark(self, text: str) -> None:
        print(text, file=sys.stderr)


def about(network: Network, said: Said, *, given: bool = False) -> None:
    """Remarks on what it is, and on what the order of images that were `given` one by one means to it."""
    if network.run and network.epoch < (epochs := network.run.config.train.epochs):
        said.remark(f"{network.name} is not done: these are its weights after {network.epoch} of {epochs} epochs")
    if given and network.config.squeeze == "random":
        said.remark(
            "the noise of squeeze 'random' is drawn by an image's place: elsewhere in the list it scores otherwise"
        )


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """Told how many images were done now, shows it: a bar on a terminal, a line each half a minute in a log."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True, highlight=False)
    done, began, said_at = 0, time.monotonic(), time.monotonic()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("images", total=total)

        def count(images: int) -> None:
            nonlocal done, said_at
            done += images
            bar.update(task, completed=done)
            if bar.disable and time.monotonic() - said_at > LINE_EVERY_S:
                said_at = time.monotonic()
                print(f"{done:,} of {total:,} images in {said_at - began:.0f} s", file=sys.stderr)

        yield count
