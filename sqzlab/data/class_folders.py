"""The layout `train/<class>/<image>` and `val/<class>/<image>`, read without opening an image.

Classes and images come in the order of their names, labels are positions in that order, as in torchvision's
ImageFolder. Differs: folders inside a class folder are not searched.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sqzlab.errors import UnavailableError

SPLITS = ("train", "val")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Those of torchvision's ImageFolder; upper case counts too."""


def data_folder(name: str, root: str | None) -> Path:
    """The data set's folder, absolute, `~` expanded. Raises UnavailableError where none is given or it is none."""
    if not root:
        ways = "IMAGENET_DIR or data.root" if name == "imagenet" else "data.root"
        raise UnavailableError(f"data set {name!r} needs a folder: set {ways}")
    folder = Path(os.path.expanduser(root)).absolute()  # noqa: PTH111 (Path's raises for an unknown user)
    _entries(folder, name)
    return folder


def class_names(name: str, folder: Path) -> list[str]:
    """The classes of the data set `name`, the same in both splits. Raises UnavailableError where they are not."""
    train, val = (_classes_of(folder / split, name) for split in SPLITS)
    strays = [
        f"{len(only)} only in {split}/ ({_some(sorted(only))})"
        for split, only in zip(SPLITS, (train - val, val - train), strict=True)
        if only
    ]
    if strays:
        raise UnavailableError(f"data set {name!r}: {str(folder)!r} has classes {' and '.join(strays)}")
    return sorted(train)


def image_names(name: str, folder: Path) -> list[str]:
    """The images of one class folder, sorted. Raises UnavailableError where there are none."""
    images = sorted(e.name for e in _entries(folder, name) if _is_image(e.name) and not e.is_dir())
    if not images:
        raise UnavailableError(
            f"data set {name!r}: no image in {str(folder)!r}; valid: files that end in {' '.join(EXTENSIONS)}"
        )
    return images


def _classes_of(split: Path, name: str) -> set[str]:
    entries = _entries(split, name)
    classes = {entry.name for entry in entries if entry.is_dir()}
    if not classes:
        loose = sum(_is_image(entry.name) for entry in entries)
        beside = f", only {loose} loose images" if loose else ""
        raise UnavailableError(f"data set {name!r}: {str(split)!r} has no class folders{beside}")
    return classes


def _entries(folder: Path, name: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise UnavailableError(f"data set {name!r}: {str(folder)!r} cannot be read ({reason})") from None


def _is_image(file_name: str) -> bool:
    return file_name.lower().endswith(EXTENSIONS)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
