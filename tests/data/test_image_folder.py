import ast
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2 as transforms
from torchvision.transforms.v2 import functional

import sqzlab.data
from sqzlab.data.crop_boxes import train_boxes
from sqzlab.data.image_folder import FolderSource, Paths, resize, val_crop
from sqzlab.data.open import Data
from sqzlab.errors import UnavailableError

TIERS = ("pil", "jpeg")
SIZES = [(375, 500), (500, 375), (64, 64), (40, 400), (400, 40), (3, 5), (1, 1)]
"""(height, width); the long ones reach the centred part that is left when every try fails."""


def part(seed, epoch, index, height, width):
    return train_boxes(seed, epoch, np.array([index]), np.array([[height, width]])).boxes[0].tolist()


def noise(height, width):
    rng = np.random.default_rng(height * 1000 + width)
    return torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("size", [32, 224])
def test_a_part_is_resized_to_torchvisions_pixels(height, width, size):
    image = noise(height, width)
    top, left, h, w = part(0, 0, 5, height, width)
    ours = resize(image[:, top : top + h, left : left + w], size, size)
    theirs = functional.resized_crop(image, top, left, h, w, [size, size], antialias=True)
    assert (ours.int() - theirs.int()).abs().max() <= 1  # 0 where torchvision resizes uint8 as such


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("size", [32, 160, 224])
def test_the_validation_crop_has_torchvisions_pixels(height, width, size):
    image = noise(height, width)
    crop = transforms.Compose([transforms.Resize(round(size * 256 / 224)), transforms.CenterCrop(size)])
    assert (val_crop(image, size).int() - crop(image).int()).abs().max() <= 1


def test_resizing_differs_from_pillows_only_by_rounding():
    picture = Image.fromarray(noise(300, 200).permute(1, 2, 0).numpy())
    ours = resize(functional.pil_to_tensor(picture), 224, 224)
    theirs = functional.pil_to_tensor(picture.resize((224, 224), Image.Resampling.BILINEAR))
    assert (ours.int() - theirs.int()).abs().max() <= 2


def test_files_and_labels_are_those_of_torchvision(folders):
    source = FolderSource("imagefolder", str(folders), 32)
    for split, paths, labels in (
        ("train", source.train_paths, source.train_labels),
        ("val", source.val_paths, source.val_labels),
    ):
        theirs = ImageFolder(folders / split).samples
        assert [str(folders / paths[i]) for i in range(len(paths))] == [path for path, _ in theirs]
        assert labels.tolist() == [label for _, label in theirs]


@pytest.mark.parametrize("tier", TIERS)
def test_every_file_format_is_decoded_as_torchvision_decodes_it(folders, tier):
    source = FolderSource("imagefolder", str(folders), 32, tier=tier)
    for number, (picture, _) in enumerate(ImageFolder(folders / "train")):
        made = source._decode(source.train_paths[number])
        assert (made.int() - functional.pil_to_tensor(picture).int()).abs().max() <= (2 if tier == "jpeg" else 0)


@pytest.mark.parametrize("tier", TIERS)
def test_training_images_are_resized_parts_of_their_files_flipped_half_of_the_time(folders, tier):
    source = FolderSource("imagefolder", str(folders), 24, tier=tier)
    files = len(source.train_paths)
    images = [source._decode(source.train_paths[index]) for index in range(files)]
    flipped = []
    for epoch in range(20):
        index = np.random.default_rng(epoch).permutation(files)  # more than are decoded at once
        for place, made in zip(index.tolist(), source.train_batch(3, epoch, index, 32), strict=True):
            box = part(3, epoch, place, *images[place].shape[1:])
            expected = functional.resized_crop(images[place], *box, [32, 32], antialias=True)
            same = (made.int() - expected.int()).abs().max() <= 1
            mirrored = (made.int() - expected.flip(2).int()).abs().max() <= 1
            assert same or mirrored
            flipped.append(bool(mirrored and not same))
    assert 80 <= sum(flipped) <= 140  # 4 standard deviations around 110


def test_both_tiers_make_the_same_training_and_validation_images(folders):
    pil, jpeg = (FolderSource("imagefolder", str(folders), 32, tier=tier) for tier in TIERS)
    index = np.arange(11)
    for epoch in range(5):
        ours, theirs = (source.train_batch(0, epoch, index, 28) for source in (jpeg, pil))
        assert (ours.int() - theirs.int()).abs().max() <= 2
        assert ours.is_contiguous(memory_format=torch.channels_last)
    ours, theirs = (source.val_batch(index[:5]) for source in (jpeg, pil))
    assert (ours.int() - theirs.int()).abs().max() <= 2


def test_only_the_module_of_tier_jpeg_imports_torchvision_at_once_and_no_other_module_imports_it():
    """Worker processes import the modules of the data, in each epoch."""
    for file in Path(sqzlab.data.__file__).parent.rglob("*.py"):
        found = set()
        for node in ast.parse(file.read_text()).body:
            found |= {name.name for name in node.names} if isinstance(node, ast.Import) else set()
            found |= {node.module} if isinstance(node, ast.ImportFrom) else set()
        assert ("torchvision" in {name.partition(".")[0] for name in found}) == (file.name == "jpeg.py"), file
        assert "sqzlab.data.jpeg" not in found


def test_processes_make_the_same_batches(folders, same):
    source = FolderSource("imagefolder", str(folders), 32, tier="jpeg")
    alone, together = (Data(source, 0, 4, 4, workers).train_batches(1) for workers in (0, 2))
    same(together, alone)


def test_an_image_that_vanishes_is_named(folders, tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a" / "gone.jpg").touch()
    source = FolderSource("imagefolder", str(tmp_path), 8)
    (tmp_path / "val" / "a" / "gone.jpg").unlink()
    with pytest.raises(UnavailableError, match=r"gone\.jpg' cannot be read \(.*No such file"):
        source.val_batch(np.array([0]))


def test_paths_come_back_as_they_were():
    names = ["train/a/é.jpg", "", "train/b/\udcff.png", "x" * 300]
    paths = Paths(names)
    assert [paths[i] for i in range(len(paths))] == names


def test_a_torchvision_without_its_decoder_is_refused_when_the_data_set_is_opened(folders, monkeypatch):
    monkeypatch.delitem(sys.modules, "sqzlab.data.jpeg", raising=False)
    monkeypatch.setattr(torch.ops, "image", SimpleNamespace())
    with pytest.raises(UnavailableError, match=r"^data\.tier: 'jpeg' needs decode_jpeg, which torchvision .* lacks; v"):
        FolderSource("imagefolder", str(folders), 32, tier="jpeg")
