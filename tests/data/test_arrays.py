"""The data sets in memory: digits and CIFAR."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.transforms.v2 import functional

from sqzlab.catalog import DATASETS
from sqzlab.data.cifar import open_cifar
from sqzlab.data.digits import enlarge, open_digits, validation_part
from sqzlab.data.order import image_words
from sqzlab.errors import UnavailableError


def test_the_digits_statistics_are_those_of_the_training_part():
    digits = load_digits()
    train = enlarge(digits.images, 32)[~validation_part(digits.target)] / 255
    source = open_digits(32)
    assert source.mean == pytest.approx([train.mean()] * 3, abs=5e-5)
    assert source.std == pytest.approx([train.std()] * 3, abs=5e-5)


def test_the_digits_split_has_the_stated_counts_and_every_class_in_proportion():
    labels = load_digits().target
    val = validation_part(labels)
    classes, train_images, val_images = DATASETS["digits"].counts
    assert (val.sum(), (~val).sum()) == (val_images, train_images)
    share = np.bincount(labels, minlength=classes) * val_images / len(labels)
    assert (abs(np.bincount(labels[val], minlength=classes) - share) < 1).all()


def test_the_digits_split_is_that_of_earlier_versions():
    assert np.flatnonzero(validation_part(load_digits().target))[:10].tolist() == GOLDEN_SPLIT


def test_the_digits_are_scikit_learns_in_their_order():
    source, theirs = open_digits(8), load_digits()
    val = validation_part(theirs.target)
    images = torch.from_numpy(np.rint(theirs.images * 255 / 16))
    assert torch.equal(source.val_batch(np.arange(450))[:, 0], images[val])
    assert (source._windows[:, 0, source.shift, source.shift] == images[~val].numpy()).all()
    assert source.val_labels.tolist() == theirs.target[val].tolist()
    assert source.train_labels.tolist() == theirs.target[~val].tolist()


@pytest.mark.parametrize("size", [8, 16, 20, 32, 64])
def test_digits_are_enlarged_as_torchvision_resizes(size):
    images = load_digits().images[:20]
    theirs = functional.resize(torch.from_numpy(images)[:, None], [size, size], antialias=False) * 255 / 16
    assert abs(enlarge(images, size) - theirs.numpy()).max() <= 0.5 + 1e-4


@pytest.mark.parametrize(("size", "shift"), [(32, 2), (64, 4), (16, 1), (8, 0)])
def test_digits_are_shifted_in_proportion_to_their_size(size, shift):
    assert open_digits(size).shift == shift


def test_opening_digits_imports_neither_scikit_learn_nor_scipy():
    code = (
        "import sys; from sqzlab.data.digits import open_digits; open_digits(32);"
        "print([m for m in ('sklearn', 'scipy', 'torchvision') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert importlib.util.find_spec("sklearn")


@pytest.mark.parametrize(
    ("name", "shift", "flips"), [("digits", 2, False), ("cifar10", 4, True), ("cifar100", 4, True)]
)
def test_a_training_image_is_a_crop_of_the_padded_one(name, shift, flips, cifar):
    source = open_digits(32) if name == "digits" else open_cifar(name, str(cifar))
    index = np.arange(10)
    originals = torch.from_numpy(np.array(source._windows[index, :, shift, shift])).expand(-1, 3, -1, -1)
    padded = functional.pad(originals, [shift] * 4)
    seen = set()
    for epoch in range(100):
        words = image_words(5, epoch, len(source.train_labels))[index]
        for image, made, (down, right, side, _) in zip(
            padded, source.train_batch(5, epoch, index, 32), words.tolist(), strict=True
        ):
            top, left, mirrored = down % (2 * shift + 1), right % (2 * shift + 1), flips and side % 2 == 1
            expected = functional.crop(image, top, left, 32, 32)
            assert torch.equal(made, expected.flip(2) if mirrored else expected)
            seen.add((top, left, mirrored))
    assert len(seen) == (2 * shift + 1) ** 2 * (1 + flips)


@pytest.mark.parametrize(("name", "theirs"), [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
def test_cifar_validation_images_are_torchvisions(name, theirs, cifar):
    source, dataset = open_cifar(name, str(cifar)), theirs(cifar, train=False)
    for index, (picture, label) in enumerate(dataset):
        assert torch.equal(source.val_batch(np.array([index]))[0], functional.pil_to_tensor(picture))
        assert source.val_labels[index] == label


@pytest.mark.parametrize("content", [None, b"", b"truncated"])
def test_a_damaged_cifar_archive_is_told_in_one_line(content, cifar, tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for file in (cifar / "cifar-10-batches-py").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    if content is None:
        (folder / "data_batch_3").unlink()
    else:
        (folder / "data_batch_3").write_bytes(content)
    with pytest.raises(UnavailableError) as caught:
        open_cifar("cifar10", str(tmp_path))
    assert str(caught.value) == (
        f"data set 'cifar10': {str(folder)!r} is incomplete or corrupted; extract the archive again"
    )


GOLDEN_SPLIT = [9, 11, 15, 17, 23, 24, 28, 30, 34, 35]
