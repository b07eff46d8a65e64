"""`python -m sqzlab predict CHECKPOINT IMAGE ...`: the most likely classes of image files.

Every image that cannot be used is named on stderr, with the reason, and the others go on.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from sqzlab.commands.network import EXIT_CODES, PREPARED, Said, about, add_network, opened, positive
from sqzlab.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from sqzlab.inference.predict import Prediction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = PREPARED + EXIT_CODES
    add_network(parser)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image file, or folder to be searched for them")
    parser.add_argument("--top", type=positive, default=5, metavar="N", help="classes an image (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line and image")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 where some images could not be used, 2 where none could."""
    from rich.console import Console

    from sqzlab.inference.images import image_batches, image_files
    from sqzlab.inference.predict import BATCH_SIZE, predicted

    network, said, console = opened(arguments), Said(), Console(highlight=False)
    about(network, said, given=True)
    files = image_files(arguments.images, said.bad)
    batch_size, size = arguments.batch_size or BATCH_SIZE, network.config.image_size
    used = 0
    for batch in image_batches(files, network.data, size, batch_size, bad=said.bad, remark=said.remark):
        for place, top in zip(batch.index.tolist(), predicted(network, batch, arguments.top), strict=True):
            name = str(files[place])
            if arguments.json:
                print(json.dumps({"image": name, "top": [vars(one) for one in top]}), flush=True)
            else:
                _show(console, name, top)
            used += 1
    if not used:
        raise ConfigError("none of the images can be used")
    return 1 if said.faults else 0


def _show(console: Console, name: str, top: list[Prediction]) -> None:
    from rich.table import Table
    from rich.text import Text

    console.print(name, markup=False, soft_wrap=True)
    table = Table.grid("", "", padding=(0, 2))
    for one in top:
        table.add_row(f"  {one.score:8.3%}", Text(one.name))
    console.print(table)
