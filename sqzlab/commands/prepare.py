"""`python -m sqzlab prepare --data NAME --root DIR --size 256 --out DIR`: images resized once, in a file all read."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sqzlab.commands.network import positive, progress
from sqzlab.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from sqzlab.data.store.format import Header
    from sqzlab.data.store.plan import Plan

SPLITS = ("train", "val")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Training images are the whole picture squeezed into a square, validation images its centre square: 256 pixels "
        "for crops of 224, whatever --size is. The same command takes up an interrupted one; no file has its name "
        "before it is whole. "
        "exit codes: 0 all done, 2 what was written is wrong, 3 bad images, data or disk space lacking, 130 Ctrl-C"
    )
    parser.add_argument("--data", default="imagenet", metavar="NAME", help="imagenet, imagefolder or imagelist")
    parser.add_argument("--root", metavar="DIR", help="folder of the data set (imagenet: IMAGENET_DIR)")
    parser.add_argument("--train-list", metavar="FILE", help="of imagelist: text file with `name label` a line")
    parser.add_argument("--val-list", metavar="FILE", help="of imagelist: text file with `name label` a line")
    parser.add_argument("--size", type=positive, default=256, metavar="PIXELS", help="side of training images (256)")
    parser.add_argument(
        "--val-size",
        type=positive,
        default=256,
        metavar="PIXELS",
        help="side of validation images, 256/224 of the crop (256)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for train.store and val.store")
    parser.add_argument("--workers", type=_count, metavar="N", help="processes (one for each core)")
    parser.add_argument(
        "--skip-bad",
        type=_count,
        default=0,
        metavar="N",
        help="leave out and list up to N bad images of a split",
    )
    parser.add_argument(
        "--verify", action="store_true", help="only read the stores in --out and compare every image with its checksum"
    )


def run(arguments: argparse.Namespace) -> int:
    workers = _cores() if arguments.workers is None else arguments.workers
    if arguments.verify:
        return _verify(arguments.out, workers)
    from sqzlab.data.store.listing import listings
    from sqzlab.data.store.plan import Plan
    from sqzlab.data.store.writer import prepare

    lists = (arguments.train_list, arguments.val_list)
    if arguments.data != "imagelist" and any(lists):
        raise ConfigError(
            f"--train-list, --val-list: do not apply to data set {arguments.data!r}; they apply to 'imagelist'"
        )
    root = arguments.root or (os.environ.get("IMAGENET_DIR") if arguments.data == "imagenet" else None)
    sizes = (arguments.size, arguments.val_size)
    found = listings(arguments.data, root, *lists)
    arguments.out.mkdir(parents=True, exist_ok=True)
    plans = [Plan(listing, size, arguments.out) for listing, size in zip(found, sizes, strict=True)]
    _check_room(plans, arguments.out)
    for plan in plans:
        with progress(len(plan.listing.names)) as done:
            header = prepare(plan, workers=workers, skip_bad=arguments.skip_bad, done=done)
        _say(plan, header)
    return 0


def _check_room(plans: list[Plan], out: Path) -> None:
    """States what the stores need. Raises UnavailableError where the disk has less."""
    need = 0
    for plan in plans:
        header, more = plan.header(), plan.bytes_to_write()
        need += more
        state = "there already" if plan.path.exists() else "begun" if plan.unfinished.exists() else "to be made"
        print(
            f"{plan.listing.split}: {header.rows:,} images of {header.classes:,} classes at {header.size} pixels, "
            f"{_told(header.text_at)}, {state}"
        )
    free = shutil.disk_usage(out).free
    print(f"disk: {_told(need)} to be written, {_told(free)} free in {str(out)!r}", flush=True)
    if need > free:
        raise UnavailableError(f"--out {str(out)!r}: has {_told(free)} free; valid: {_told(need)} and more")


def _say(plan: Plan, header: Header) -> None:
    from sqzlab.data.store.reader import Store

    bad = Store(plan.path).skipped() if header.images != header.rows else []
    for _, why in bad:
        print(f"left out: {why}", file=sys.stderr)
    without = f" without {len(bad):,} bad ones" if bad else ""
    print(f"{plan.path}: {header.images:,} images{without}, {_told(header.file_bytes)}, digest {header.digest}")


def _verify(out: Path, workers: int) -> int:
    from sqzlab.data.store.reader import Store, read_headers, store_path
    from sqzlab.data.store.verify import damaged

    read_headers(out)
    faults = 0
    for split in SPLITS:
        store = Store(store_path(out, split), split=split)
        with progress(len(store)) as done:
            bad = damaged(store, workers=workers, done=done)
        faults += len(bad)
        for name in bad:
            print(f"{store.path}: image {name!r} is damaged", file=sys.stderr)
        print(f"{store.path}: {len(store) - len(bad):,} of {len(store):,} images are as written")
    if faults:
        raise UnavailableError(f"{faults:,} damaged images; remove the store that has them and prepare it again")
    return 0


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is out of range; valid: whole numbers from 0")
    return int(text)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _told(size: int) -> str:
    """Bytes for people."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1e3:.1f} kB"
