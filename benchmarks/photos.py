"""Training images that look like photographs to a decoder, in the folders of ImageNet, and stores made of them."""

from __future__ import annotations

import io
import statistics
import time
from pathlib import Path

import numpy as np
from PIL import Image

from sqzlab.data.store.listing import listings
from sqzlab.data.store.plan import Plan
from sqzlab.data.store.writer import prepare

QUALITY = 92


def photo(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Noise with the spectrum of photographs, 1/f, and a little grain, which makes the file as large as theirs."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    channels = []
    for _ in range(3):
        spectrum = np.fft.rfft2(rng.standard_normal((height, width))) / frequency
        channel = np.fft.irfft2(spectrum, s=(height, width))
        channels.append(channel / channel.std())
    shared = channels[0]
    pixels = np.stack([0.8 * shared + 0.3 * channel for channel in channels], axis=-1)  # colours go together
    pixels = 120 + 50 * pixels + 6 * rng.standard_normal((height, width, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def make_files(root: Path, images: int) -> float:
    """`images` training files and 4 for validation; the mean length in kB."""
    rng, lengths = np.random.default_rng(0), []
    for split, count in (("train", images), ("val", 4)):
        for number in range(count):
            folder = root / split / f"class {number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            buffer = io.BytesIO()
            size = (500, 375) if number % 4 else (375, 500)
            photo(rng, *size).save(buffer, format="JPEG", quality=QUALITY, subsampling="4:2:0")
            (folder / f"{number:06}.jpg").write_bytes(buffer.getvalue())
            lengths.append(len(buffer.getvalue()) / 1e3)
    return statistics.mean(lengths)


def prepare_files(root: Path, out: Path, size: int, workers: int) -> tuple[float, int]:
    """Seconds, and images prepared."""
    out.mkdir(exist_ok=True)
    began, images = time.perf_counter(), 0
    for listing in listings("imagefolder", str(root)):
        images += prepare(Plan(listing, size, out), workers=workers).images
    return time.perf_counter() - began, images


def make_small_files(root: Path, images: int, distinct: int) -> float:
    """`images` training files of 200x150 pixels, with `distinct` contents, and 10 for validation; mean length in kB."""
    rng, contents = np.random.default_rng(1), []
    for _ in range(distinct):
        buffer = io.BytesIO()
        photo(rng, 200, 150).save(buffer, format="JPEG", quality=QUALITY)
        contents.append(buffer.getvalue())
    for split, count in (("train", images), ("val", 10)):
        for label in range(10):
            (root / split / str(label)).mkdir(parents=True)
        for number in range(count):
            (root / split / str(number % 10) / f"{number:06}.jpg").write_bytes(contents[number % distinct])
    return statistics.mean(map(len, contents)) / 1e3
