"""Images a second of every tier of the data: `python -m benchmarks.data_tiers --out FILE`, in under ten minutes.

`tiers`: training crops of the same images, JPEG files of 500x375 and 375x500 pixels, 4:2:0, about 110 kB as ImageNet's
are, or the store that `prepare` makes of them; it lies in memory. The peer is what most scripts do: Pillow,
RandomResizedCrop, flip, ToTensor and Normalize of torchvision's first transforms. The tiers take turns, one thread
each; a ratio is of two turns of one round. First one process, then one for each core at a time. With the extra `bench`
NVIDIA's DALI takes part; on a GPU, crops made there too.
Real photographs of ImageNet take some 1.45 times as long to decode as these (by arXiv:2605.08731's rates).
`memory`: of the loader with its processes over ten epochs, which must not grow.
`prepare`: images a second of `prepare`, of 50,000 small files, against decoding them, decoding and resizing them, and
writing the bytes.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.photos import make_files, make_small_files, prepare_files
from sqzlab.data.crop_boxes import CropBoxes, train_boxes
from sqzlab.data.crop_pixels import cropped
from sqzlab.data.image_folder import FolderSource, Paths, decode
from sqzlab.data.open import Data
from sqzlab.data.source import IMAGENET_MEAN, IMAGENET_STD, Source
from sqzlab.data.store.device import DeviceBatches
from sqzlab.data.store.listing import listings
from sqzlab.data.store.pictures import stored_picture
from sqzlab.data.store.source import StoreSource, boxes_of
from sqzlab.data.store.writer import in_order

Index = NDArray[np.int64]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Turn:
    """Makes the training images of an epoch, of `epochs` epochs in a row: short turns would measure the clock."""

    make: Callable[[int], object]
    epochs: int = 1


PEER = "Pillow, torchvision v1"
JPEG, STORE, ENLARGED, GATHER = "(a) jpeg", "(b) store", "(b) store, enlarged", "(b) gather for the GPU"
GOALS = {JPEG: 1.6, STORE: 20.0, ENLARGED: 30.0, GATHER: 80.0}
CONSUMERS = (
    ("ResNet-50", 8_000, "MLPerf's rate"),
    ("ResNet-18", 18_000, "60 % of its eager bound"),
    ("ResNet-18", 35_600, "its compiled bound"),
)
"""Images a second that one H200 can train at 224 pixels: MLPerf v4.0's measurement, then a roofline's predictions."""
REAL = 1.45
"""How much longer real photographs take to decode."""
DECODING = (PEER, "torchvision v2, uint8", "pil", JPEG, "DALI, CPU")
STORED, CROP = 256, 224
BATCH = 256
ROUNDS = 7
EPOCHS = 10
GROWTH = 0.05
"""Of memory after the second epoch, which is noise."""
SMALL, SMALL_STORED, DISTINCT = 50_000, 64, 500
PARTS = ("tiers", "memory", "prepare")


# ---- tiers -------------------------------------------------------------------------------------


def tiers(root: Path, out: Path, device: torch.device | None = None) -> dict[str, Turn]:
    """Every way to the same crops."""
    sources = {name: FolderSource("imagefolder", str(root), CROP, tier=name) for name in ("pil", "jpeg")}
    store = StoreSource(out, CROP)
    paths = [str(root / name) for name in map(sources["pil"].train_paths.__getitem__, range(len(store.train)))]
    batches = [np.arange(at, min(at + BATCH, len(paths))) for at in range(0, len(paths), BATCH)]
    buffer = np.empty((BATCH, *store.train.pixels.shape[1:]), dtype=np.uint8)

    def each(make: Callable[[int, Index], object]) -> Callable[[int], object]:
        return lambda epoch: [make(epoch, index) for index in batches]

    def enlarged(epoch: int, index: Index) -> torch.Tensor:  # 8 to 50 % of the area: none is larger than the crop
        boxes = train_boxes(0, epoch, index, store.train.sizes(index), STORED, area=(0.08, 0.5))
        return cropped(store.train.pixels, store.train.rows(index), boxes, CROP)

    def gathered(epoch: int, index: Index) -> CropBoxes:
        store.train.gather(index, buffer[: len(index)])
        return boxes_of(store.train, 0, epoch, index)

    found = _peers(paths) | {
        "pil": Turn(each(lambda epoch, index: sources["pil"].train_batch(0, epoch, index, CROP))),
        JPEG: Turn(each(lambda epoch, index: sources["jpeg"].train_batch(0, epoch, index, CROP))),
        STORE: Turn(each(lambda epoch, index: store.train_batch(0, epoch, index, CROP)), 8),
        ENLARGED: Turn(each(enlarged), 8),
        GATHER: Turn(each(gathered), 32),
    }
    if device is not None:
        for kept in (False, True):
            there = DeviceBatches(store.train, device, resident=kept)
            found[f"({'c' if kept else 'b'}) crops on the GPU"] = Turn(_on_device(there, batches), 8)
    return found


def _peers(paths: list[str]) -> dict[str, Turn]:
    from torchvision import io as files
    from torchvision import transforms as first
    from torchvision.transforms import v2 as second

    warnings.filterwarnings("ignore", message="The image decoding")  # which torchvision will give up
    normalise = (first.ToTensor(), first.Normalize(IMAGENET_MEAN, IMAGENET_STD))
    old = first.Compose([first.RandomResizedCrop(CROP), first.RandomHorizontalFlip(), *normalise])
    new = second.Compose([second.RandomResizedCrop(CROP, antialias=True), second.RandomHorizontalFlip()])
    found = {
        PEER: Turn(lambda epoch: [old(Image.open(path).convert("RGB")) for path in paths]),
        "torchvision v2, uint8": Turn(lambda epoch: [new(files.decode_jpeg(files.read_file(path))) for path in paths]),
    }
    return found | ({"DALI, CPU": turn} if (turn := _dali(paths)) else {})


def _dali(paths: list[str]) -> Turn | None:
    """NVIDIA's loader on one CPU thread, where it is installed; it makes nothing ahead, in the turns of others."""
    try:
        from nvidia.dali import fn, pipeline_def
    except ImportError:
        return None

    @pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=min(BATCH, len(paths)),
        num_threads=1,
        device_id=None,
        exec_async=False,
        exec_pipelined=False,
        prefetch_queue_depth=1,
    )
    def pipeline() -> object:
        content, _ = fn.readers.file(files=paths, prefetch_queue_depth=1)
        images = fn.decoders.image_random_crop(content, random_area=(0.08, 1.0), random_aspect_ratio=(3 / 4, 4 / 3))
        return fn.flip(fn.resize(images, size=(CROP, CROP)), horizontal=fn.random.coin_flip())

    made = pipeline()
    made.build()
    return Turn(lambda epoch: [made.run() for _ in range(0, len(paths), BATCH)])


def _on_device(there: DeviceBatches, batches: list[Index]) -> Callable[[int], object]:
    def make(epoch: int) -> None:
        for index in batches:
            there.train(0, epoch, index, CROP)
        torch.cuda.synchronize()

    return make


def measured(turns: dict[str, Turn], rounds: int, wait: Callable[[], object] = lambda: None) -> dict[str, list[float]]:
    """Seconds an epoch of each turn; all processes begin each together."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):
        for name, turn in turns.items():
            wait()
            began = time.perf_counter()
            for epoch in range(turn.epochs):
                turn.make(number * turn.epochs + epoch)
            if number:  # the first one fills caches
                times[name].append((time.perf_counter() - began) / turn.epochs)
    return times


def work(root: Path, out: Path, rounds: int, barrier: Barrier, send: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    torch.set_num_threads(1)
    send.put(measured(tiers(root, out), rounds, barrier.wait))


def in_processes(root: Path, out: Path, rounds: int, processes: int) -> dict[str, list[float]]:
    """Seconds of each turn, of the slowest process."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.Queue()
    workers = [context.Process(target=work, args=(root, out, rounds, barrier, results)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    found = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    return {name: [max(times) for times in zip(*(one[name] for one in found), strict=True)] for name in found[0]}


def table(times: dict[str, list[float]], images: int, processes: int) -> Iterator[str]:
    """`images` are those of one process."""
    cores = "one core" if processes == 1 else f"{processes} cores, a process each"
    yield f"\n{cores}: medians of {len(times[PEER])} rounds; ratios to the peer in the same round"
    yield f"{'tier':<24}{'img/s':>10}{'a core':>10}{'ratio':>8}{'min':>8}{'max':>8}{'goal':>7}"
    for name, seconds in times.items():
        ratios = [peer / own for peer, own in zip(times[PEER], seconds, strict=True)]
        a_core = images / statistics.median(seconds)
        goal = f"{GOALS[name]:.1f}" if name in GOALS else ""
        spread = "".join(f"{value:8.2f}" for value in (statistics.median(ratios), min(ratios), max(ratios)))
        yield f"{name:<24}{a_core * processes:10.0f}{a_core:10.0f}{spread}{goal:>7}"


def feeding(times: dict[str, list[float]], images: int) -> Iterator[str]:
    """Cores that each consumer needs of each tier that makes its images on the CPU."""
    yield f"\npredicted: cores that feed one H200; in brackets with real photographs, {REAL} times as long to decode"
    yield f"{'tier':<24}" + "".join(f"{f'{name}, {rate:,}/s':>22}" for name, rate, _ in CONSUMERS)
    for name, seconds in times.items():
        if "on the GPU" in name:
            continue
        cores = [rate * statistics.median(seconds) / images for _, rate, _ in CONSUMERS]
        real = REAL if name in DECODING else 1.0
        told = (f"{count:.1f} ({real * count:.1f})" if real > 1 else f"{count:.1f}" for count in cores)
        yield f"{name:<24}" + "".join(f"{cell:>22}" for cell in told)
    yield "; ".join(f"{name} at {rate:,} img/s: {source}" for name, rate, source in CONSUMERS)


def show_tiers(root: Path, out: Path, given: argparse.Namespace, say: Say) -> None:
    device = torch.device("cuda") if torch.cuda.is_available() else None
    alone = measured(tiers(root, out, device), given.rounds)
    for line in (*table(alone, given.images, 1), *feeding(alone, given.images)):
        say(line)
    if given.processes > 1:
        for line in table(in_processes(root, out, given.rounds, given.processes), given.images, given.processes):
            say(line)


# ---- memory ------------------------------------------------------------------------------------


def show_memory(root: Path, out: Path, given: argparse.Namespace, say: Say) -> None:
    """Of this process and all it started, at the end of each epoch, while the workers are still there."""
    say(f"\nmemory in MB after epochs 1, 2 and {EPOCHS}, this process and {given.processes} workers; goal: no growth")
    say(f"{'tier':<12}{'RSS':>24}{'PSS':>24}{'PSS, no files':>24}{'growth':>9}")
    sources: dict[str, Source] = {
        tier: FolderSource("imagefolder", str(root), CROP, tier=tier) for tier in ("pil", "jpeg")
    }
    for name, source in (sources | {"store": StoreSource(out, CROP)}).items():
        data, found = Data(source, 0, min(64, given.images), 64, given.processes), []
        for epoch in range(EPOCHS):
            batches = data.train_batches(epoch)
            for _ in itertools.islice(batches, data.steps_per_epoch):
                pass
            found.append(memory())
            data.close()
        told = ("".join(f"{found[epoch][kind]:8.0f}" for epoch in (0, 1, -1)) for kind in range(3))
        growth = found[-1][1] / found[1][1] - 1
        judged = "" if growth <= GROWTH else "  GROWS"
        say(f"{name:<12}" + "".join(told) + f"{growth:9.1%}{judged}")


def memory(process: int | None = None) -> tuple[float, float, float]:
    """MB of this or another process and its descendants: RSS (shared pages count for each), PSS, PSS without files."""
    total, waiting = np.zeros(3), [process or os.getpid()]
    while waiting:
        told = Path("/proc", str(waiting.pop()))
        try:
            lines = dict(line.split(":", 1) for line in (told / "smaps_rollup").read_text().splitlines()[1:])
            children = [task.read_text() for task in told.glob("task/*/children")]
        except OSError:  # it has ended
            continue
        total += [int(lines[key].split()[0]) / 1e3 for key in ("Rss", "Pss", "Pss_Anon")]
        waiting += [int(child) for child in " ".join(children).split()]
    rss, pss, anonymous = total.tolist()
    return rss, pss, anonymous


# ---- prepare -----------------------------------------------------------------------------------


def show_prepare(folder: Path, given: argparse.Namespace, say: Say) -> None:
    """Of many names of few small files: listing, opening and writing cost what they cost for files of their own."""
    root = folder / "small"
    length = make_small_files(root, given.small, DISTINCT)
    seconds, images = prepare_files(root, folder / "small store", SMALL_STORED, given.processes)
    train, _ = listings("imagefolder", str(root))
    decoding, resizing = (_making_s(root, train.names, make, given.processes) for make in (decode, _resize))
    writing = _writing_s(folder / "bytes", images * SMALL_STORED**2 * 3)
    say(
        f"\nprepare, {given.small:,} files of {length:.0f} kB, {given.processes} processes: "
        f"{images / seconds:,.0f} img/s; decoding alone {len(train.names) / decoding:,.0f} img/s, "
        f"with resizing to {SMALL_STORED} pixels {len(train.names) / resizing:,.0f} img/s; "
        f"writing as many bytes to the disk {images / writing:,.0f} img/s"
    )


def _making_s(root: Path, names: list[str], make: Callable[[Path], object], processes: int) -> float:
    chunks = np.array_split(np.arange(len(names)), -(-len(names) // 64))
    began = time.perf_counter()
    with in_order(partial(_make, root, Paths(names), make), chunks, processes) as done:
        for _ in done:
            pass
    return time.perf_counter() - began


def _make(root: Path, names: Paths, make: Callable[[Path], object], index: Index) -> None:
    for place in index.tolist():
        make(root / names[place])


def _resize(file: Path) -> object:
    return stored_picture(file, SMALL_STORED, 0)


def _writing_s(path: Path, length: int) -> float:
    began = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(0, length, 1 << 20):
            file.write(bytes(1 << 20))
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - began


# ---- command line ------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--images", type=int, default=512, metavar="N")
    parser.add_argument("--small", type=int, default=SMALL, metavar="N", help="files of the part `prepare`")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="turns of each tier")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="one a core")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="for the images, on the disk to be measured")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the tables there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        root, out = Path(folder, "files"), Path(folder, "store")
        length = make_files(root, given.images)
        say(f"torch {torch.__version__}, {os.cpu_count()} cores, {given.images} files of {length:.0f} kB on average")
        prepare_files(root, out, STORED, given.processes)
        if "tiers" in given.parts:
            show_tiers(root, out, given, say)
        if "memory" in given.parts:
            show_memory(root, out, given, say)
        if "prepare" in given.parts:
            show_prepare(Path(folder), given, say)
    if given.out:
        given.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
