"""`python -m sqzlab evaluate CHECKPOINT`: top-1, top-5, loss and confusion on the validation part of a data set."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqzlab.commands.network import EXIT_CODES, Said, about, add_data, add_network, check_writable, opened, progress
from sqzlab.run import METRICS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqzlab.inference.checkpoint import Network
    from sqzlab.inference.evaluate import Evaluated
    from sqzlab.inference.validation import Labelled

WORST = 10  # classes in the table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXIT_CODES
    add_network(parser)
    add_data(parser, "that of the run")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the prediction for every image")
    parser.add_argument("--confusion", type=Path, metavar="FILE", help="write the confusion matrix, true classes down")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(arguments: argparse.Namespace) -> int:
    """The exit codes of the epilog: images that cannot be read are named, the others are evaluated."""
    check_writable("--csv", arguments.csv, ".csv")
    check_writable("--confusion", arguments.confusion, ".csv")
    from sqzlab.inference.evaluate import confusion_csv, evaluate, predictions_csv
    from sqzlab.inference.validation import open_validation
    from sqzlab.runs.files import read_json, write_whole

    network = opened(arguments)
    root = arguments.root or (os.environ.get("IMAGENET_DIR") if arguments.data == "imagenet" else None)
    data = open_validation(network, arguments.data, root, arguments.val_list)
    said = Said()
    about(network, said)
    if network.run and not arguments.data and not data.own:
        said.remark(f"{data.data!r} is not as the run had it: its record cannot be compared")
    names = network.class_names or data.class_names or network.labels
    if data.class_names and data.class_names != names:
        said.remark(f"classes are called otherwise in {data.data!r} than in {network.name}: matched by their order")
    with progress(len(data.labels)) as done:
        found = evaluate(network, data, batch_size=arguments.batch_size, bad=said.bad, done=done)
    if arguments.csv:
        write_whole(arguments.csv, lambda file: file.write(predictions_csv(found, data, names)))
    if arguments.confusion:
        write_whole(arguments.confusion, lambda file: file.write(confusion_csv(found, names)))
    values = _values(network, data, found, names, said.faults)
    if data.own and network.folder and (recorded := read_json(network.folder / METRICS)):
        values["recorded"] = {key: recorded[key] for key in ("top1", "top5", "val_loss")}
    if arguments.json:
        print(json.dumps(values, indent=1))
    else:
        _show(values)
    return 1 if said.faults else 0


def _values(
    network: Network, data: Labelled, found: Evaluated, names: Sequence[str], unreadable: int
) -> dict[str, Any]:
    confusion = found.confusion(len(names))
    classes = []
    for label, row in enumerate(confusion):
        images, hits = int(row.sum()), int(row[label])
        row[label] = 0
        mistaken = names[int(row.argmax())] if images > hits else None
        recall = hits / images if images else None
        classes.append({"name": names[label], "images": images, "recall": recall, "most_taken_for": mistaken})
    return {
        "checkpoint": network.name,
        "data": data.data,
        "image_size": network.config.image_size,
        "device": network.device.type,
        "epoch": network.epoch if network.run else None,
        "images": len(found.labels),
        "unreadable": unreadable,
        "top1": float(found.top1.mean()),
        "top5": float(found.top5.mean()),
        "val_loss": found.loss,
        "classes": classes,
    }


def _show(values: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    unreadable = f", {values['unreadable']:,} could not be read" if values["unreadable"] else ""
    about = f"{values['images']:,} images of {values['data']}{unreadable}, on {values['device']}"
    console.print(f"{values['checkpoint']}: {about}", markup=False, soft_wrap=True)
    recorded = values.get("recorded")
    table = Table("", "here", *(["recorded by the run"] if recorded else []), box=None, padding=(0, 2, 0, 0))
    for title, key, form in (("top-1", "top1", "{:.2%}"), ("top-5", "top5", "{:.2%}"), ("loss", "val_loss", "{:.4f}")):
        table.add_row(title, form.format(values[key]), *([form.format(recorded[key])] if recorded else []))
    console.print(table)
    missed = sorted((c for c in values["classes"] if c["images"] and c["recall"] < 1), key=lambda c: c["recall"])
    if not missed:
        console.print("every class without a miss")
        return
    table = Table("class", "images", "recall", "most often taken for", box=None, padding=(0, 2, 0, 0))
    for found in missed[:WORST]:
        name, other = Text(found["name"]), Text(found["most_taken_for"])
        table.add_row(name, f"{found['images']:,}", f"{found['recall']:.2%}", other)
    console.print(f"\nworst {min(len(missed), WORST)} of {len(values['classes'])} classes")
    console.print(table)
