"""Small folders of pictures and the stores made of them, here without worker processes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from sqzlab.data.store.format import Header
from sqzlab.data.store.listing import listings
from sqzlab.data.store.plan import Plan
from sqzlab.data.store.reader import Store
from sqzlab.data.store.writer import prepare


def picture(seed: int, width: int, height: int) -> Image.Image:
    """Smooth and in colour, which JPEG and resizing treat like a photograph."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def class_folders(root: Path, train: int = 5, val: int = 3) -> Path:
    """Two classes with so many PNG files each, wide, high and square."""
    shapes = ((50, 40), (30, 60), (44, 44), (90, 31))
    for split, count in (("train", train), ("val", val)):
        for label in range(2):
            folder = root / split / f"class {label}"
            folder.mkdir(parents=True)
            for number in range(count):
                picture(100 * label + number, *shapes[number % 4]).save(folder / f"{number}.png")
    return root


def encoded(image: Image.Image, form: str, **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **how)
    return buffer.getvalue()


def plans(root: Path, out: Path, size: int = 32, val_size: int | None = None) -> tuple[Plan, Plan]:
    out.mkdir(exist_ok=True)
    train, val = listings("imagefolder", str(root))
    return Plan(train, size, out), Plan(val, val_size or size, out)


def prepared(root: Path, out: Path, size: int = 32, skip_bad: int = 0) -> tuple[Header, Header]:
    train, val = plans(root, out, size)
    return prepare(train, workers=0, skip_bad=skip_bad), prepare(val, workers=0, skip_bad=skip_bad)


def opened(out: Path, split: str = "train") -> Store:
    return Store(out / f"{split}.store", split=split)
