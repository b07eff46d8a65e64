"""`python -m sqzlab excitation`: the role of excitation (arXiv:1709.01507, section 7.2) in trained networks."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqzlab.catalog import DEVICES
from sqzlab.commands.network import Said, add_data, positive, progress
from sqzlab.errors import ConfigError, SqzlabError

if TYPE_CHECKING:
    from rich.console import Console

    from sqzlab.analysis.gates import Gates
    from sqzlab.analysis.tables import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Writes into DIR, for each RUN, its gates (npz) and two figures: -classes, the mean gates by class in the last "
        "block of each stage (figure 6 of the paper), and -within, their spread within a class (figure 7). For all "
        "together: excitation.csv, a line a block, and the figure depth, which compares the networks."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run id, run folder, file of weights, or npz of gates")
    add_data(parser, "the run's own")
    parser.add_argument(
        "--classes", metavar="A,B,...", default="", help="to draw, by name or number; default: four, evenly spaced"
    )
    parser.add_argument(
        "--channels", type=positive, default=50, metavar="N", help="to draw, evenly spaced; default: 50"
    )
    parser.add_argument(
        "--images-per-class", type=positive, default=50, metavar="N", help="the first ones; default: 50"
    )
    parser.add_argument("--batch-size", type=positive, default=64, metavar="N", help="images at a time; default: 64")
    parser.add_argument("--device", choices=tuple(DEVICES), help="default: the GPU if there is one")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="where run ids are sought (results)"
    )
    parser.add_argument("--out", type=Path, default=Path("excitation"), metavar="DIR", help="default: excitation")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 where a network or an image had to be left out."""
    from rich.console import Console

    from sqzlab.analysis.gates import blocks_table, chosen_classes, to_npz

    said = Said()
    several = _recorded(arguments, said)
    _check_comparable(several)
    first = several[0]
    classes = chosen_classes(first.classes, first.blocks[0].images > 0, _wanted(arguments))

    from sqzlab.analysis.excitation import draw
    from sqzlab.analysis.files import write_files
    from sqzlab.analysis.writers import to_csv

    table = blocks_table(several)
    files = draw(several, classes, arguments.channels) | {"excitation.csv": to_csv(table).encode()}
    files |= {f"{gates.run}.npz": to_npz(gates) for gates in several}
    write_files(arguments.out, files)
    if arguments.json:
        told = [{"run": gates.run, "blocks_without": gates.without} for gates in several]
        print(json.dumps({"runs": told, "blocks": table.data, "files": sorted(files), "folder": str(arguments.out)}))
    else:
        _show(Console(highlight=False), table, several)
        print(f"written: {len(files)} files in {arguments.out}")
    return 1 if said.faults else 0


def _recorded(arguments: argparse.Namespace, said: Said) -> list[Gates]:
    """The gates of every network that has some; raises where none has, with what is wrong with each of them."""
    several: list[Gates] = []
    errors: list[SqzlabError] = []
    for text in arguments.runs:
        try:
            several.append(_gates(text, arguments, said))
        except SqzlabError as fault:
            errors.append(fault)
    if not several:
        raise type(errors[0])("\n".join(map(str, errors)))
    for error in errors:
        said.bad(str(error))
    return several


def _wanted(arguments: argparse.Namespace) -> list[str]:
    return [text.strip() for text in arguments.classes.split(",") if text.strip()]


def _gates(text: str, arguments: argparse.Namespace, said: Said) -> Gates:
    from sqzlab.analysis.gates import chosen_classes, read_npz

    if text.endswith(".npz"):
        return read_npz(Path(text))

    from sqzlab.inference.checkpoint import open_network
    from sqzlab.inference.excitation import class_labels, record_gates
    from sqzlab.inference.validation import open_validation

    network = open_network(text, arguments.results, arguments.device)
    root = arguments.root or (os.environ.get("IMAGENET_DIR") if arguments.data == "imagenet" else None)
    images = open_validation(network, arguments.data, root, arguments.val_list)
    classes = class_labels(network, images)
    there = images.labels.bincount(minlength=len(classes)).numpy() > 0
    chosen_classes(classes, there, _wanted(arguments))  # told before the long part
    with progress(len(images.labels)) as done:
        return record_gates(
            network,
            images,
            images_per_class=arguments.images_per_class,
            batch_size=arguments.batch_size,
            bad=said.bad,
            done=done,
        )


def _check_comparable(several: Sequence[Gates]) -> None:
    """Raises ConfigError where networks have one name, or gates are of other images."""
    first = several[0]
    for i, gates in enumerate(several):
        if not re.fullmatch(r"[A-Za-z0-9._-]+", gates.run):
            raise ConfigError(f"{gates.run!r} cannot name files; valid: letters, digits, dots and dashes")
        if gates.run in [other.run for other in several[:i]]:
            raise ConfigError(f"{gates.run!r} is named twice")
        if gates.classes != first.classes or (gates.blocks[0].images != first.blocks[0].images).any():
            raise ConfigError(f"{gates.run}: its gates are of other images than those of {first.run}")


def _show(console: Console, table: Table, several: Sequence[Gates]) -> None:
    from rich.markup import escape
    from rich.table import Table as Grid

    for section, gates in zip(table.sections, several, strict=True):
        grid = Grid(title=escape(section.title), title_justify="left", title_style="bold", box=None, pad_edge=False)
        for column in table.columns:
            grid.add_column(column.title, justify="right" if column.number else "left", no_wrap=True)
        for row in section.rows:
            grid.add_row(*(escape(str(entry)) for entry in row))
        console.print(grid)
        if gates.without:
            console.print(f"no gate of channels in {', '.join(gates.without)}", style="dim", markup=False)
        console.print()
    console.print(table.caption, style="dim", markup=False)
