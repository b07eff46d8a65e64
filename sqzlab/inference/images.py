"""Image files as a trained network saw images in its validation.

Decoded and converted to RGB as in training: transparency is dropped, the orientation that a camera noted (EXIF) is not
applied, of an animation the first frame is taken, and 16-bit grey is scaled to 8 bits, not clipped.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from sqzlab.data.cifar import STATISTICS as CIFAR
from sqzlab.data.class_folders import EXTENSIONS
from sqzlab.data.digits import MEAN, STD
from sqzlab.data.image_folder import UNREADABLE, in_colour, resize, val_crop
from sqzlab.data.source import IMAGENET_MEAN, IMAGENET_STD, Statistic
from sqzlab.errors import SqzlabError

ImageLike = str | Path | Image.Image | Tensor
"""A file, an image of Pillow, or uint8 (3, H, W)."""

MOST_PIXELS = 178_956_970
"""Of one image: Pillow's limit for files, and the same after the short side is resized."""

STATISTICS: dict[str, tuple[Statistic, Statistic]] = {
    "digits": ((MEAN, MEAN, MEAN), (STD, STD, STD)),
    **CIFAR,
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "imagefolder": (IMAGENET_MEAN, IMAGENET_STD),
    "imagelist": (IMAGENET_MEAN, IMAGENET_STD),
    "generated": (IMAGENET_MEAN, IMAGENET_STD),
}
"""Mean and standard deviation of every data set's images divided by 255."""


class BadImageError(SqzlabError):
    """An image that cannot be used; the text names it and says why."""


def data_set_of(mean: Statistic, std: Statistic) -> str:
    """The data set with these statistics: how a file of weights says what its images are like. Else `imagenet`."""
    return next((name for name, statistics in STATISTICS.items() if statistics == (mean, std)), "imagenet")


def prepared(pixels: Tensor, data: str, size: int) -> Tensor:
    """uint8 (3, H, W) of any size -> (3, size, size), as a validation image of the data set.

    Images of digits and CIFAR have no margin: their short side becomes `size`, and all of it is kept. Digits are grey
    and bright on dark ground. All others lose the margin that ImageNet's validation crop cuts off.
    """
    if data not in ("digits", *CIFAR):
        _check_resized(pixels, round(size * 256 / 224))
        return val_crop(pixels, size)
    if data == "digits":
        red, green, blue = pixels.int()
        grey = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16  # as Pillow rounds ITU-R 601
        pixels = grey.to(torch.uint8).expand(3, -1, -1).contiguous()
    _check_resized(pixels, size)
    height, width = pixels.shape[1:]
    long = int(size * max(height, width) / min(height, width))
    pixels = resize(pixels, *((size, long) if height <= width else (long, size)))
    top, left = (round((side - size) / 2) for side in pixels.shape[1:])
    return pixels[:, top : top + size, left : left + size]


def _check_resized(pixels: Tensor, short: int) -> None:
    height, width = pixels.shape[1:]
    if short**2 * max(height, width) > MOST_PIXELS * min(height, width):
        if short**2 > MOST_PIXELS:
            raise BadImageError(
                f"to {short:,} pixels a side it cannot be resized; valid: {MOST_PIXELS:,} pixels at most"
            )
        raise BadImageError(f"its sides of {width} and {height} pixels are too unequal to be resized")


# ---- reading -----------------------------------------------------------------------------------


def read_image(path: Path) -> tuple[Tensor, tuple[str, ...]]:
    """uint8 (3, H, W), and remarks on what was left out of it. Raises BadImageError, which says only why."""
    with _faults_told():
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # reading a pipe may wait for ever
            raise BadImageError("is no file")
        if about.st_size == 0:
            raise BadImageError("is empty")
        with Image.open(path) as image:
            return _pixels_of(image), _left_out(image)


@contextmanager
def _faults_told() -> Iterator[None]:
    try:
        yield
    except UnidentifiedImageError:
        raise BadImageError("is no image that Pillow can read") from None
    except Image.DecompressionBombError:
        raise BadImageError(f"is too large; valid: {MOST_PIXELS:,} pixels at most") from None
    except UNREADABLE as error:
        raise BadImageError((getattr(error, "strerror", None) or str(error) or "is damaged").lower()) from None


def _pixels_of(image: Image.Image) -> Tensor:
    """uint8 (3, H, W)."""
    return torch.from_numpy(np.array(in_colour(image))).permute(2, 0, 1)


def _left_out(image: Image.Image) -> tuple[str, ...]:
    remarks = []
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        remarks.append("its transparency is dropped, as in training")
    with suppress(*UNREADABLE):
        if (orientation := image.getexif().get(0x0112, 1)) != 1:
            remarks.append(f"its EXIF orientation {orientation} is not applied, as in training")
    with suppress(*UNREADABLE):  # counting them may decode them all, and others than the first may be damaged
        if (frames := getattr(image, "n_frames", 1)) > 1:
            remarks.append(f"the first of its {frames} frames is taken")
    return tuple(remarks)


def image_files(names: Sequence[str | Path], bad: Callable[[str], object]) -> list[Path]:
    """The files, with a folder's images in their place: of all depths, sorted by path.

    A file that is named itself may end in anything. `bad` is told of every folder that has no image or cannot be read.
    """
    files: list[Path] = []
    for name in map(Path, names):
        if name.is_dir():
            inside = _inside(name, bad)
            if not inside:
                bad(f"{str(name)!r}: no image in this folder; valid: files that end in {' '.join(EXTENSIONS)}")
            files += inside
        else:
            files.append(name)
    return files


def _inside(folder: Path, bad: Callable[[str], object]) -> list[Path]:
    found: list[Path] = []

    def unreadable(error: OSError) -> None:
        bad(f"{error.filename!r}: {(error.strerror or str(error)).lower()}")

    seen: set[str] = set()  # links may lead in circles
    for parent, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        found += [Path(parent, name) for name in names if name.lower().endswith(EXTENSIONS)]
    return sorted(found)


# ---- batches -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageBatch:
    """Images uint8 (N, 3, size, size) and their places among all that were given, int64 (N,)."""

    images: Tensor
    index: Tensor


def image_batches(
    given: Sequence[ImageLike],
    data: str,
    size: int,
    batch_size: int,
    *,
    bad: Callable[[str], object],
    remark: Callable[[str], object] = lambda text: None,
) -> Iterator[ImageBatch]:
    """All images that can be used, prepared; `bad` is told of every other, `remark` of what was left out."""

    def one(place: int) -> tuple[Tensor | None, tuple[str, ...]]:
        try:
            pixels, remarks = _pixels(given[place])
            return prepared(pixels, data, size), remarks
        except BadImageError as error:
            return None, (str(error),)

    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(given), batch_size):
            places = range(start, min(start + batch_size, len(given)))
            with warnings.catch_warnings():  # Pillow's, on odd metadata and on sizes that are checked here
                warnings.simplefilter("ignore")
                made = list(pool.map(one, places))
            good = []
            for place, (image, texts) in zip(places, made, strict=True):
                for text in texts:
                    (bad if image is None else remark)(f"{name_of(given[place], place)}: {text}")
                if image is not None:
                    good.append((place, image))
            if good:
                yield ImageBatch(torch.stack([image for _, image in good]), torch.tensor([place for place, _ in good]))


THREADS = 4
"""That decode images."""

_ONE_AT_A_TIME = Lock()  # the same image of Pillow may be given twice, and two threads must not load it


def name_of(image: ImageLike, place: int) -> str:
    """What a message calls it."""
    return repr(str(image)) if isinstance(image, str | Path) else f"image {place}"


def _pixels(image: ImageLike) -> tuple[Tensor, tuple[str, ...]]:
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        with _ONE_AT_A_TIME, _faults_told():
            return _pixels_of(image), ()
    if not isinstance(image, Tensor):
        raise BadImageError(f"is a {type(image).__name__}; valid: a path, an image of Pillow or a uint8 tensor")
    if image.dtype != torch.uint8 or image.ndim != 3 or len(image) != 3 or not image.numel():
        shape = tuple(image.shape)
        raise BadImageError(f"is a tensor of {image.dtype} {shape}; valid: torch.uint8 (3, height, width)")
    return image.cpu(), ()
