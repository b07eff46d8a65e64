import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.datasets import ImageFolder
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import v2 as transforms
from torchvision.transforms.v2 import functional

from sqzlab.data.image_folder import FolderSource, Paths, random_part, resize, val_crop
from sqzlab.data.order import image_rng
from sqzlab.errors import UnavailableError

SIZES = [(375, 500), (500, 375), (64, 64), (40, 400), (400, 40), (3, 5), (1, 1)]
"""(height, width); the long ones reach the centred part that is left when every try fails."""


def noise(height, width):
    rng = np.random.default_rng(height * 1000 + width)
    return torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_random_parts_are_distributed_as_torchvisions(height, width):
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(2000)]
    ours = [random_part(image_rng(0, 0, index), height, width) for index in range(2000)]
    for name, ours_of, theirs_of in zip(
        ("top", "left", "height", "width"), np.transpose(ours), np.transpose(theirs), strict=True
    ):
        assert ks_2samp(ours_of, theirs_of).pvalue > 1e-3, name
    ratio = ks_2samp([h / w for _, _, h, w in ours], [h / w for _, _, h, w in theirs])
    assert ratio.pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_random_parts_lie_inside_the_image(height, width):
    for index in range(500):
        top, left, h, w = random_part(image_rng(1, 2, index), height, width)
        assert 0 <= top <= height - h
        assert 0 <= left <= width - w
        assert min(h, w) >= 1


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("size", [32, 224])
def test_a_part_is_resized_to_torchvisions_pixels(height, width, size):
    image = noise(height, width)
    top, left, h, w = random_part(image_rng(0, 0, 5), height, width)
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


def test_every_file_format_is_decoded_as_torchvision_decodes_it(folders):
    source = FolderSource("imagefolder", str(folders), 32)
    for number, (picture, _) in enumerate(ImageFolder(folders / "train")):
        assert torch.equal(source._decode(source.train_paths[number]), functional.pil_to_tensor(picture))


def test_a_training_image_is_a_resized_part_of_its_file_flipped_half_of_the_time(folders):
    source = FolderSource("imagefolder", str(folders), 32)
    flipped = []
    for epoch in range(200):
        index = epoch % len(source.train_paths)
        (made,) = source.train_batch(3, epoch, np.array([index]))
        image = source._decode(source.train_paths[index])
        top, left, h, w = random_part(image_rng(3, epoch, index), *image.shape[1:])
        expected = functional.resized_crop(image, top, left, h, w, [32, 32], antialias=True)
        same = (made.int() - expected.int()).abs().max() <= 1
        mirrored = (made.int() - expected.flip(2).int()).abs().max() <= 1
        assert same or mirrored
        flipped.append(bool(mirrored and not same))
    assert 70 <= sum(flipped) <= 130  # 4 standard deviations around 100


@pytest.mark.filterwarnings("ignore::Warning:PIL")  # remarks on the metadata that was damaged
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM"])
@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
def test_a_broken_image_is_named_or_decoded_but_never_crashes(format_, damage, tmp_path):
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(buffer, format=format_)
    whole = buffer.getvalue()
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a" / "broken.jpg").write_bytes(whole)
    source = FolderSource("imagefolder", str(tmp_path), 8)
    told = []
    for trial in range(150):
        content = bytearray(whole)
        if damage == "truncated":
            content = content[: len(whole) * trial // 150]
        else:
            at = int(rng.integers(len(whole) if trial % 2 else 60))
            content[at : at + 4] = rng.bytes(4)
        (tmp_path / "val" / "a" / "broken.jpg").write_bytes(content)
        try:
            source.val_batch(np.array([0]))
        except UnavailableError as error:
            told.append(str(error))
    start = f"image {str(tmp_path / 'val' / 'a' / 'broken.jpg')!r} cannot be read ("
    assert all(message.startswith(start) and len(message.splitlines()) == 1 for message in told)
    assert len(told) >= 140 or damage != "truncated"


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
