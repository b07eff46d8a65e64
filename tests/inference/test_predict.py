"""Predictions are those of a plain forward over torchvision's transforms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from inference_networks import network, photo, saved, trained
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import pil_to_tensor

import sqzlab
from sqzlab.data.source import IMAGENET_MEAN, IMAGENET_STD
from sqzlab.errors import ConfigError, SqzlabError
from sqzlab.inference.checkpoint import open_network
from sqzlab.inference.predict import Prediction


def test_predictions_are_the_softmax_of_a_plain_forward(tmp_path: Path) -> None:
    net, names = network(), [f"class {i}" for i in range(10)]
    path = saved(tmp_path / "net.safetensors", net, names)
    files = [tmp_path / f"{i}.png" for i in range(4)]
    for seed, file in enumerate(files):
        photo(seed, width=50 + 9 * seed).save(file)
    transform = v2.Compose(
        [
            v2.Resize(37, antialias=True),
            v2.CenterCrop(32),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    x = torch.stack([transform(pil_to_tensor(Image.open(file))) for file in files])
    with torch.no_grad():
        scores, classes = net.model(x).softmax(1).topk(3)
    found = sqzlab.predict(str(path), files, top=3)
    assert [[one.index for one in row] for row in found] == classes.tolist()
    assert [[one.name for one in row] for row in found] == [[names[i] for i in row] for row in classes.tolist()]
    assert np.allclose([[one.score for one in row] for row in found], scores, atol=1e-6, rtol=0)


def test_the_batch_size_changes_nothing() -> None:
    images = [photo(seed) for seed in range(7)]
    for net in (network("gap"), network("random"), open_network(str(trained("random")))):
        one, three = (sqzlab.predict(net, images, batch_size=size) for size in (1, 3))
        for single, of_three in zip(one, three, strict=True):
            assert [a.index for a in single] == [b.index for b in of_three]
            assert np.allclose([a.score for a in single], [b.score for b in of_three], atol=1e-6, rtol=0)


def test_a_file_an_image_and_a_tensor_are_the_same(tmp_path: Path) -> None:
    photo().save(tmp_path / "photo.png")
    kinds = [tmp_path / "photo.png", str(tmp_path / "photo.png"), photo(), pil_to_tensor(photo())]
    first, *others = sqzlab.predict(network(), kinds)
    assert all(other == first for other in others)


def test_one_image_given_many_times_is_read_safely(tmp_path: Path) -> None:
    photo().save(tmp_path / "photo.jpg")
    with Image.open(tmp_path / "photo.jpg") as image:
        found = sqzlab.predict(network(), [image] * 16)
    assert all(row == found[0] for row in found)


def test_scores_of_all_classes_are_given_best_first_and_sum_to_one() -> None:
    (row,) = sqzlab.predict(network(classes=4), [photo()], top=9)
    scores = [one.score for one in row]
    assert sorted(one.index for one in row) == [0, 1, 2, 3]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1)
    assert row[0] == Prediction(str(row[0].index), row[0].index, scores[0])


def test_the_noise_of_random_depends_on_the_place() -> None:
    net = network("random")
    first, again = (sqzlab.predict(net, [photo(), photo()]) for _ in range(2))
    assert first == again
    assert first[0] != first[1]


def test_no_image_makes_no_prediction() -> None:
    assert sqzlab.predict(network(), []) == []


def test_images_that_cannot_be_used_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(ConfigError) as caught:
        sqzlab.predict(network(), [photo(), tmp_path / "empty.png", tmp_path / "absent.png"], batch_size=1)
    assert caught.value.faults == (
        f"{str(tmp_path / 'empty.png')!r}: is empty",
        f"{str(tmp_path / 'absent.png')!r}: no such file or directory",
    )


@pytest.mark.parametrize("image", ["photo.png", Path("photo.png"), photo(), torch.zeros(3, 8, 8, dtype=torch.uint8)])
def test_a_single_image_is_no_sequence(image: object) -> None:
    with pytest.raises(ConfigError, match=r"^images: is a single image; valid: a sequence of them$"):
        sqzlab.predict(network(), image)  # type: ignore[arg-type]


@pytest.mark.parametrize(("given", "name"), [({"top": 0}, "top"), ({"batch_size": 0}, "batch size")])
def test_a_number_out_of_range_is_refused(given: dict[str, int], name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} 0 is out of range; valid: at least 1$"):
        sqzlab.predict(network(), [photo()], **given)


def test_a_network_that_is_not_finite_predicts_nothing() -> None:
    net = network()
    net.model.get_submodule("fc").requires_grad_(False).bias.fill_(float("nan"))  # type: ignore[operator]
    with pytest.raises(SqzlabError, match=r"^tiny: its output is not finite$"):
        sqzlab.predict(net, [photo()])
