"""Class folders and lists of image files with the standard crops of ImageNet training.

Training: a random part of 8 to 100 % of the area with an aspect of 3/4 to 4/3, resized, flipped half of the time.
Validation: the short side resized to 256/224 of the crop's, then the centre. Both bilinear with antialiasing on
uint8. Files are decoded by Pillow and converted to RGB, as torchvision's default loader does: what a file holds
decides, not its name, and pixels stay as they are stored where a camera noted that it was turned (EXIF). Tier `jpeg`
decodes JPEG files by torchvision and all others by Pillow.
Differs: 16 bits a channel become 8 by their upper half, where Pillow's conversion makes 255 of all above it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from sqzlab.data.class_folders import class_names, data_folder, image_names
from sqzlab.data.crop_boxes import drawn_boxes, train_draws
from sqzlab.data.crop_pixels import blank, crop
from sqzlab.data.image_list import ImageList, check_files, read_lists
from sqzlab.data.source import IMAGENET_MEAN, IMAGENET_STD, Source
from sqzlab.errors import UnavailableError

AT_ONCE = 8
"""Images that are decoded before their parts are drawn: one at a time takes longer, many do not stay in the cache."""

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error)
"""What Pillow's decoders raise on broken files."""


class Paths:
    """Many path names in one tensor, which worker processes share: a list of 1.3 million would be copied into each."""

    def __init__(self, names: list[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._text = torch.from_numpy(np.frombuffer(b"".join(encoded), dtype=np.uint8).copy())
        self._ends = torch.tensor([0, *map(len, encoded)]).cumsum(0)

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(self._text[self._ends[index] : self._ends[index + 1]].numpy().tobytes())

    def __len__(self) -> int:
        return len(self._ends) - 1


class FileSource(Source):
    """Images in files below one folder, by paths relative to it."""

    mean, std = IMAGENET_MEAN, IMAGENET_STD
    in_processes = True
    train_paths: Paths
    val_paths: Paths

    def __init__(self, folder: Path, image_size: int, tier: str) -> None:
        self.folder, self.image_size = folder, image_size
        self._decoder = decoder(tier)

    def train_batch(self, seed: int, epoch: int, index: NDArray[np.int64], size: int) -> Tensor:
        draws, made = train_draws(seed, epoch, index), blank(len(index), size)
        for start in range(0, len(index), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            images = [self._decode(self.train_paths[i]) for i in index[some].tolist()]
            boxes = drawn_boxes(draws[some], np.array([image.shape[1:] for image in images]))
            crop(images, boxes, made[some])
        return made

    def val_batch(self, index: NDArray[np.int64]) -> Tensor:
        made = blank(len(index), self.image_size)
        for place, i in enumerate(index.tolist()):
            made[place] = val_crop(self._decode(self.val_paths[i]), self.image_size)
        return made

    def val_names(self) -> list[str]:
        return [self.val_paths[index] for index in range(len(self.val_paths))]

    def _decode(self, path: str) -> Tensor:
        return self._decoder(self.folder / path)


class FolderSource(FileSource):
    """`root/train/<class>/<image>` and `root/val/<class>/<image>`."""

    def __init__(self, name: str, root: str | None, image_size: int, *, tier: str = "pil") -> None:
        super().__init__(data_folder(name, root), image_size, tier)
        classes = class_names(name, self.folder)
        self.classes = len(classes)
        self.train_paths, self.train_labels = _listed(name, self.folder, "train", classes)
        self.val_paths, self.val_labels = _listed(name, self.folder, "val", classes)


class ListSource(FileSource):
    """The images that two text files name, in the order of their lines.

    Raises UnavailableError where images are missing or the lists are not those with `digest`.
    """

    def __init__(
        self,
        root: str | None,
        train_list: str | None,
        val_list: str | None,
        image_size: int,
        digest: str | None,
        *,
        tier: str = "pil",
    ) -> None:
        super().__init__(data_folder("imagelist", root), image_size, tier)
        lists = read_lists(train_list, val_list)
        if lists.digest != digest:
            raise UnavailableError(
                f"data set 'imagelist': {train_list!r} and {val_list!r} have the digest {lists.digest}, but the run "
                f"was planned with {digest}"
            )
        check_files(self.folder, lists)
        self.classes = lists.classes
        self.train_paths, self.train_labels = _of_list(lists.train)
        self.val_paths, self.val_labels = _of_list(lists.val)


def decoder(tier: str) -> Callable[[Path], Tensor]:
    """What makes uint8 (3, H, W), channels last in memory, of a file; it raises UnavailableError, naming the file."""
    if tier == "jpeg":
        from sqzlab.data.jpeg import decode_jpeg_file

        return decode_jpeg_file
    return decode


def decode(file: Path) -> Tensor:
    """uint8 (3, H, W); of an animation its first picture. Raises UnavailableError, which names the file."""
    try:
        with Image.open(file) as image:
            pixels = np.array(in_colour(image))  # (H, W, 3)
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        raise UnavailableError(f"image {str(file)!r} cannot be read ({error})") from None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def in_colour(image: Image.Image) -> Image.Image:
    """In RGB. Raises ValueError where its values have no common scale."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("32 bits a channel have no common scale; valid: 8 or 16")
    if isinstance(image.info.get("transparency"), bytes):  # else Pillow warns; the colours come out the same
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


_SIXTEEN = ("PNG", "PPM")
"""Formats whose 16-bit grey images Pillow opens, or once opened, with 32 bits."""


def val_crop(image: Tensor, size: int) -> Tensor:
    """The centre of (3, H, W) after its short side is resized to round(size * 256 / 224)."""
    height, width = image.shape[1:]
    short = round(size * 256 / 224)
    long = int(short * max(height, width) / min(height, width))
    image = resize(image, *((short, long) if height <= width else (long, short)))
    top, left = (round((side - size) / 2) for side in image.shape[1:])
    return image[:, top : top + size, left : left + size]


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """uint8 (3, H, W) to (3, height, width)."""
    if image.shape[1:] == (height, width):
        return image
    return F.interpolate(image[None], size=(height, width), mode="bilinear", antialias=True)[0]


def _listed(name: str, folder: Path, split: str, classes: list[str]) -> tuple[Paths, Tensor]:
    """Paths relative to the folder, and labels."""
    images = [image_names(name, folder / split / c) for c in classes]
    paths = Paths([f"{split}/{c}/{image}" for c, found in zip(classes, images, strict=True) for image in found])
    return paths, torch.arange(len(classes)).repeat_interleave(torch.tensor([len(found) for found in images]))


def _of_list(listed: ImageList) -> tuple[Paths, Tensor]:
    return Paths(listed.names), torch.from_numpy(np.array(listed.labels, dtype=np.int64))
