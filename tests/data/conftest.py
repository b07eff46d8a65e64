"""Small data sets in their true formats: class folders of image files, and CIFAR archives."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from sqzlab.catalog import DATASETS
from sqzlab.config import DataConfig
from sqzlab.data.image_list import read_lists


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch):
    home = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home


def photo(seed, size):
    """A smooth RGB picture, which JPEG and resizing treat like a photograph. `size` is (width, height)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Two classes; 5 and 6 training images (JPEG, grey, CMYK, upper case, PNG with alpha or palette, WebP), 2 and 3."""
    root = tmp_path_factory.mktemp("folders")
    for split, counts in (("train", (4, 2)), ("val", (2, 3))):
        for label, count in enumerate(counts):
            folder = root / split / f"class {label}"
            folder.mkdir(parents=True)
            for number in range(count):
                photo(100 * label + number, (50, 40) if number % 2 else (30, 60)).save(folder / f"{number}.jpg")
            (folder / "notes.txt").write_text("no image")
    cats, dogs = root / "train" / "class 0", root / "train" / "class 1"
    photo(7, (40, 40)).convert("L").save(cats / "grey.JPEG")
    photo(8, (33, 47)).convert("RGBA").save(dogs / "alpha.png")
    photo(9, (33, 47)).convert("CMYK").save(dogs / "press.Jpg", format="JPEG")
    photo(10, (20, 20)).convert("P").save(dogs / "palette.PNG")
    photo(11, (3, 90)).save(dogs / "thin.webp", lossless=True)
    return root


@pytest.fixture(scope="session")
def lists(folders, tmp_path_factory):
    """Paths of a training and a validation list of all these images, the last one first."""
    paths = []
    for split in ("train", "val"):
        files = sorted(file for file in (folders / split).glob("*/*") if file.name != "notes.txt")
        lines = [f"{file.relative_to(folders)} {file.parent.name[-1]}\n" for file in reversed(files)]
        paths.append(tmp_path_factory.mktemp("lists") / f"{split}.txt")
        paths[-1].write_text("".join(lines))
    return tuple(map(str, paths))


@pytest.fixture(scope="session")
def cifar(tmp_path_factory):
    """Both archives, extracted, with 10 images in each of their files."""
    root = tmp_path_factory.mktemp("cifar")
    patch = pytest.MonkeyPatch()
    for cls, key, meta in (
        (torchvision.datasets.CIFAR10, "labels", "label_names"),
        (torchvision.datasets.CIFAR100, "fine_labels", "fine_label_names"),
    ):
        classes = 10 if key == "labels" else 100
        folder = root / cls.base_folder
        folder.mkdir()
        lists = {}
        for attribute in ("train_list", "test_list"):
            lists[attribute] = []
            for name, _ in getattr(cls, attribute):
                rng = np.random.default_rng(len(name) + len(lists[attribute]))
                content = {
                    "data": rng.integers(0, 256, (10, 3072), dtype=np.uint8),
                    key: rng.integers(0, classes, 10).tolist(),
                }
                lists[attribute].append([name, _written(folder / name, content)])
            patch.setattr(cls, attribute, lists[attribute])  # the published archives' checksums would not fit
        content = {meta: [f"name {i}" for i in range(classes)]}
        patch.setattr(cls, "meta", {**cls.meta, "md5": _written(folder / cls.meta["filename"], content)})
    yield root
    patch.undo()


def _written(file, content):
    file.write_bytes(pickle.dumps(content, protocol=2))
    return hashlib.md5(file.read_bytes()).hexdigest()


@pytest.fixture
def config_of(folders, lists, cifar):
    """`config_of(name, **changes)`: the DataConfig of a small data set of each kind."""

    def config(name, **changes):
        found = {"imagefolder": (2, 11, 5), "imagelist": (2, 11, 5), "imagenet": (2, 9, 5)}
        found |= {"cifar10": (10, 50, 10), "cifar100": (100, 10, 10)}
        classes, train, val = found.get(name) or DATASETS[name].counts
        root = folders if "image" in name else cifar
        values = {
            "name": name,
            "root": str(root) if DATASETS[name].needs_root else None,
            "image_size": 32,
            "workers": 0,
            "classes": classes,
            "train_images": train,
            "val_images": val,
        }
        if name == "imagelist":
            digest = read_lists(*lists).digest
            values |= {"train_list": lists[0], "val_list": lists[1], "lists_digest": digest}
        return DataConfig(**{**values, **changes})

    return config


@pytest.fixture(scope="session")
def same():
    """`same(ours, theirs)` asserts that two sequences of batches are equal, byte for byte."""

    def same_batches(ours, theirs):
        for one, other in zip(ours, theirs, strict=True):
            for field in ("images", "labels", "index"):
                assert torch.equal(getattr(one, field), getattr(other, field))

    return same_batches
