"""Training from a prepared store against training on one batch that stays on the GPU: `python -m benchmarks.gpu_data`.

ResNet-18, compiled, bf16, channels_last, at 224 and 160 px: steps of the trainer with the loader on (tiers `store` and
`resident`), and the same steps on one synthetic batch that is there already. All take turns; a ratio is of two turns of
one round. Goal: at least 0.97. The clock is the GPU's own, and nothing waits for it to start. The stores are prepared
first, of synthetic photographs under many names. Under ten minutes; a table is printed, and all rounds are written to a
JSON file.

`--device cpu --batch 4 --images 28 --sizes 32 --rounds 1 --no-compile --out FILE` rehearses all of it without a GPU;
its figures are of a CPU and say so.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.photos import make_files, prepare_files
from sqzlab.config import Config
from sqzlab.data.open import Batch, Data, open_data
from sqzlab.data.store.reader import digest_of, read_headers
from sqzlab.resolving import resolve
from sqzlab.training.trainer import Trainer

RESULTS = Path(__file__).resolve().parent / "results"
GOAL = 0.97
TIERS = ("store", "resident")
SYNTHETIC = "synthetic"
BOUNDS = {224: 35_600, 160: 69_100}
"""Images a second of an H200, compiled: predictions by a roofline at 4.8 TB/s."""
DISTINCT = 256
WARM = 0.1
"""Of the steps of a turn, which are not timed: they use up the batches that are made before the first step."""


@dataclass
class Row:
    """One size and way of getting batches; images a second of each round, and bytes of an image read for them."""

    size: int
    name: str
    rounds: list[float] = field(default_factory=list)
    image_bytes: int = 0


def main() -> int:
    given = _arguments()
    began, rows = time.perf_counter(), []
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        root = Path(folder, "files")
        _make_names(root, given.images)
        for size in given.sizes:
            out = Path(folder, f"store {size}")
            seconds, images = prepare_files(root, out, round(size * 256 / 224), _cores())
            print(
                f"{time.perf_counter() - began:4.0f} s: {images / seconds:,.0f} img/s prepared at {size} px", flush=True
            )
            rows += measured(given, out, size)
    found = {
        "device": torch.cuda.get_device_name() if given.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "settings": {name: value for name, value in vars(given).items() if name not in ("out", "folder")},
        "seconds": time.perf_counter() - began,
        "rows": [vars(row) | judged(row, rows) for row in rows],
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    lines = [f"{found['device']}, torch {found['torch']}, batch {given.batch}, {given.rounds} rounds", *table(rows)]
    given.out.with_suffix(".txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


def measured(given: argparse.Namespace, out: Path, size: int) -> list[Row]:
    """Every way of getting batches of one size, in turns, through one trainer."""
    device = torch.device(given.device)
    configs = {tier: configured(given, out, size, tier) for tier in TIERS}
    opened = {
        tier: open_data(config.data, batch_size=given.batch, seed=0, device=device) for tier, config in configs.items()
    }
    trainer = Trainer(configs["store"], opened["store"], device)
    try:
        turns = {SYNTHETIC: _synthetic(opened["store"], device, size)}
        turns |= {tier: _loaded(data, size, pinned=given.device == "cuda") for tier, data in opened.items()}
        image_bytes = {"store": read_headers(out)[0].image_bytes}  # of an epoch; a resident store is read once
        rows = [Row(size, name, image_bytes=image_bytes.get(name, 0)) for name in turns]
        for number in range(given.rounds + 1):
            for row in rows:
                rate = images_per_s(trainer, turns[row.name](number), opened["store"].steps_per_epoch)
                if number:  # the first one compiles and chooses kernels
                    row.rounds.append(rate)
        return rows
    finally:
        for data in opened.values():
            data.close()


def configured(given: argparse.Namespace, out: Path, size: int, tier: str) -> Config:
    train, val = headers = read_headers(out)
    values: dict[str, Any] = {
        "model.backbone": "resnet18",
        "data.name": "imagefolder",
        "data.tier": tier,
        "data.store": str(out),
        "data.image_size": size,
        "data.workers": min(given.workers, _cores()),
        "train.recipe": "torchvision",
        "train.batch_size": given.batch,
        "train.epochs": 100,
        "train.precision": "bf16",
        "train.channels_last": True,
        "train.compile": given.compile,
        "train.device": given.device,
    }
    config = resolve(values, 0, (train.classes, train.images, val.images), {"data.store_digest": digest_of(*headers)})
    assert isinstance(config, Config), config
    return config


def _synthetic(data: Data, device: torch.device, size: int) -> Callable[[int], Iterator[Batch]]:
    first = next(iter(data.train_batches(0, size=size)))
    data.close()
    kept = Batch(first.images.to(device), first.labels.to(device), first.index.to(device))
    return lambda epoch: iter([kept] * data.steps_per_epoch)


def _loaded(data: Data, size: int, *, pinned: bool) -> Callable[[int], Iterator[Batch]]:
    return lambda epoch: data.train_batches(epoch, pinned=pinned, size=size)


def images_per_s(trainer: Trainer, batches: Iterator[Batch], steps: int) -> float:
    """Of the steps of a turn after the first tenth, from the end of one step to the end of the last."""
    warm = max(int(WARM * steps), 1)
    for batch in islice(batches, warm):
        trainer._train_step(batch)
    began, images = _mark(trainer.device), 0
    for batch in batches:
        trainer._train_step(batch)
        images += len(batch.index)
    return images / _seconds(began, _mark(trainer.device))


def _mark(device: torch.device) -> torch.cuda.Event | float:
    """The time at which the device is done with what it has been given until now; nobody waits for it."""
    if device.type == "cuda":
        return torch.cuda.current_stream(device).record_event(torch.cuda.Event(enable_timing=True))
    return time.perf_counter()


def _seconds(began: torch.cuda.Event | float, ended: torch.cuda.Event | float) -> float:
    if isinstance(began, float) or isinstance(ended, float):
        return float(ended) - float(began)  # type: ignore[arg-type]
    ended.synchronize()
    return float(began.elapsed_time(ended)) / 1e3


def judged(row: Row, rows: list[Row]) -> dict[str, float | bool | None]:
    """Median images a second, the median ratio to the synthetic batches of the same round, and whether it is enough."""
    rate = statistics.median(row.rounds)
    found: dict[str, float | bool | None] = {"images_per_s": rate}
    if row.image_bytes:  # what the disk must give while the system has nothing of the store in memory
        found["cold_gb_per_s"] = rate * row.image_bytes / 1e9
    if row.name == SYNTHETIC:
        return found
    peer = next(other for other in rows if (other.size, other.name) == (row.size, SYNTHETIC))
    ratio = statistics.median(own / there for own, there in zip(row.rounds, peer.rounds, strict=True))
    return {**found, "ratio": ratio, "met": ratio >= GOAL}


def table(rows: list[Row]) -> Iterator[str]:
    rates = "".join(f"{name:>9}" for name in ("img/s", "min", "max"))
    yield f"{'size':>5} {'batches':<12}{rates}{'of bound':>10}{'cold GB/s':>11}{'ratio':>8}{'goal':>6}"
    for row in rows:
        found = judged(row, rows)
        rate = statistics.median(row.rounds)
        bound = f"{rate / BOUNDS[row.size]:.2f}" if row.size in BOUNDS else ""
        ratio = f"{found['ratio']:8.3f}{GOAL:6.2f} {'met' if found['met'] else 'MISSED'}" if "ratio" in found else ""
        cold = f"{found['cold_gb_per_s']:.2f}" if "cold_gb_per_s" in found else ""
        spread = "".join(f"{value:9,.0f}" for value in (rate, min(row.rounds), max(row.rounds)))
        yield f"{row.size:>5} {row.name:<12}{spread}{bound:>10}{cold:>11}{ratio}"


def _make_names(root: Path, images: int) -> None:
    """Files for `images` training images, of which 256 at most are different."""
    made = min(images, DISTINCT)
    make_files(root, made)
    files = sorted((root / "train").glob("*/*.jpg"))
    for number in range(made, images):
        file = files[number % made]
        os.link(file, file.with_name(f"{number:06}.jpg"))


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--images", type=int, default=85_504, metavar="N", help="of an epoch, which is a turn")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 160], metavar="PIXELS")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--workers", type=int, default=8, metavar="N", help="threads that copy from the store")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--folder", type=Path, metavar="DIR", help="for 26 GB of stores")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_data.json", metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
