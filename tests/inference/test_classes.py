"""Classes are called what their data set calls them, while it is there."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from inference_networks import class_folders

from sqzlab.catalog import DATASETS
from sqzlab.config import DataConfig
from sqzlab.inference.classes import class_names_of


def names_of(name: str, root: Path, classes: int) -> tuple[str, ...] | None:
    size = DATASETS[name].native_size
    given = {"name": name, "image_size": size, "classes": classes, "train_images": 10, "val_images": 10}
    return class_names_of(DataConfig.model_validate({**given, "root": str(root)}))


def written(file: Path, content: Any) -> str:
    file.write_bytes(pickle.dumps(content, protocol=2))
    return hashlib.md5(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_names_its_classes_in_its_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, classes: int
) -> None:
    archive = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[name]
    folder = tmp_path / archive.base_folder
    folder.mkdir()
    content = {"data": np.zeros((1, 3072), np.uint8), "labels": [0], "fine_labels": [0]}
    for attribute in ("train_list", "test_list"):  # the published archive's checksums would not fit
        files = [[file, written(folder / file, content)] for file, _ in getattr(archive, attribute)]
        monkeypatch.setattr(archive, attribute, files)
    names = [f"name {i}" for i in range(classes)]
    digest = written(folder / archive.meta["filename"], {archive.meta["key"]: names})
    monkeypatch.setattr(archive, "meta", {**archive.meta, "md5": digest})
    assert names_of(name, tmp_path, classes) == tuple(names)
    (folder / archive.meta["filename"]).write_bytes(b"damaged")
    assert names_of(name, tmp_path, classes) is None


@pytest.mark.parametrize("name", ["imagenet", "imagefolder"])
def test_folders_name_their_classes_if_they_are_as_many(tmp_path: Path, name: str) -> None:
    class_folders(tmp_path, ["b", "a"], images=1)
    (tmp_path / "train").symlink_to(tmp_path / "val")
    assert names_of(name, tmp_path, 2) == ("a", "b")
    assert names_of(name, tmp_path, 3) is None


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenet", "imagefolder", "imagelist", "generated"])
def test_where_there_is_nothing_to_read_there_are_no_names(tmp_path: Path, name: str) -> None:
    assert names_of(name, tmp_path / "absent", 10) is None
