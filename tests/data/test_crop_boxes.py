"""The parts of a batch: NumPy's own streams, torchvision's law, and nothing that depends on the batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, ks_2samp
from torchvision.transforms import RandomResizedCrop

from sqzlab.data.crop_boxes import AREA, ASPECT, CropBoxes, squeezed, train_boxes
from sqzlab.data.order import augment_key, image_rng
from sqzlab.data.philox import image_draws, philox

SIZES = [(375, 500), (500, 375), (64, 64), (40, 400), (400, 40), (3, 5), (1, 1)]
"""(height, width); the long ones reach the centred part that is left when every try fails."""

KEYS = st.integers(0, 2**64 - 1)


def random_part(rng, height, width):
    """The law image by image, as the runs before the prepared store had it: their parts must stay the same."""
    area, aspect = rng.random((2, 10))
    area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * area)
    aspect = np.exp(np.log(ASPECT[0]) + np.log(ASPECT[1] / ASPECT[0]) * aspect)
    widths, heights = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    down, right = rng.random(2)
    if fits.any():
        first = int(fits.argmax())
        h, w = int(heights[first]), int(widths[first])
        return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w
    h, w = min(height, round(width / ASPECT[0])), min(width, round(height * ASPECT[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def same_size(height, width, n):
    return np.tile(np.array([[height, width]]), (n, 1))


@given(KEYS, KEYS, KEYS, st.integers(0, 2**64 - 10))
@settings(max_examples=200, deadline=None)
def test_words_are_those_of_numpys_philox(key0, key1, second, first):
    key = np.array([key0, key1], dtype=np.uint64)
    counter = np.array([first, second, 0, 0], dtype=np.uint64)  # of a list with large numbers NumPy makes floats
    numpys = np.random.Philox(key=key, counter=counter).random_raw(8).reshape(2, 4)
    ours = philox(key, np.array([first + 1, first + 2], dtype=np.uint64), np.array([second], dtype=np.uint64))
    np.testing.assert_array_equal(ours, numpys)


@pytest.mark.parametrize("draws", [1, 4, 23])
def test_an_images_draws_are_those_of_its_own_generator(draws):
    index = np.array([0, 1, 77, 1_281_166, 2**40])
    ours = image_draws(3, 88, index, draws)
    for row, place in zip(ours, index, strict=True):
        np.testing.assert_array_equal(row, image_rng(3, 88, int(place)).random(draws))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_batch_has_the_parts_and_flips_that_each_image_has_alone(height, width):
    index = np.arange(300)
    made = train_boxes(5, 2, index, same_size(height, width, 300))
    for place in index:
        rng = image_rng(5, 2, int(place))
        assert tuple(made.boxes[place]) == random_part(rng, height, width)
        assert made.flips[place] == (rng.random() < 0.5)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_parts_lie_inside_the_image(height, width):
    boxes = train_boxes(1, 2, np.arange(500), same_size(height, width, 500)).boxes
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] >= 1).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= [height, width]).all()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_parts_are_distributed_as_torchvisions(height, width):
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, list(AREA), list(ASPECT)) for _ in range(2000)])
    ours = train_boxes(0, 0, np.arange(4000), same_size(height, width, 4000)).boxes
    for name, our, their in zip(("top", "left", "height", "width"), ours.T, theirs.T, strict=True):
        assert ks_2samp(our, their).pvalue > 1e-3, name
    for made in (np.prod, lambda side, axis: side[:, 0] / side[:, 1]):
        assert ks_2samp(made(ours[:, 2:], axis=1), made(theirs[:, 2:], axis=1)).pvalue > 1e-3


def test_another_scale_and_ratio_are_torchvisions_too():
    torch.manual_seed(1)
    image = torch.empty(3, 300, 400)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.35, 0.5], [0.5, 0.9]) for _ in range(2000)])
    ours = train_boxes(0, 0, np.arange(4000), same_size(300, 400, 4000), area=(0.35, 0.5), aspect=(0.5, 0.9)).boxes
    for our, their in zip(ours.T, theirs.T, strict=True):
        assert ks_2samp(our, their).pvalue > 1e-3


def test_parts_of_squeezed_images_are_torchvisions_on_the_originals_within_half_a_stored_pixel():
    torch.manual_seed(2)
    image = torch.empty(3, 375, 500)
    theirs = np.array([RandomResizedCrop.get_params(image, list(AREA), list(ASPECT)) for _ in range(2000)])
    ours = train_boxes(0, 0, np.arange(4000), same_size(375, 500, 4000), 256).boxes
    to_original = np.array([375, 500, 375, 500]) / 256
    for name, our, their in zip(("top", "left", "height", "width"), (ours * to_original).T, theirs.T, strict=True):
        grid = 500 / 256  # coarser than either grid, so that the two differ by no more than their law
        assert ks_2samp(np.floor(our / grid / 2), np.floor(their / grid / 2)).pvalue > 1e-4, name


def test_half_of_the_images_are_flipped():
    flips = train_boxes(0, 0, np.arange(10_000), same_size(64, 64, 10_000)).flips
    assert binomtest(int(flips.sum()), 10_000).pvalue > 1e-3


@given(st.integers(0, 2**31 - 1), st.integers(0, 1000), st.data())
@settings(max_examples=30, deadline=None)
def test_a_part_depends_on_seed_epoch_and_index_but_not_on_its_batch(seed, epoch, data):
    order = np.array(data.draw(st.permutations(range(40))))
    cut = data.draw(st.integers(1, 39))
    sizes = np.random.default_rng(0).integers(1, 600, (40, 2))
    whole = train_boxes(seed, epoch, np.arange(40), sizes, 256)
    split = [train_boxes(seed, epoch, part, sizes[part], 256) for part in (order[:cut], order[cut:])]
    np.testing.assert_array_equal(np.concatenate([part.boxes for part in split]), whole.boxes[order])
    np.testing.assert_array_equal(np.concatenate([part.flips for part in split]), whole.flips[order])


def test_other_seeds_and_epochs_have_other_parts():
    sizes = same_size(375, 500, 50)
    made = [train_boxes(*key, np.arange(50), sizes).boxes.tobytes() for key in ((0, 0), (0, 1), (1, 0))]
    assert len(set(made)) == 3


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 300), st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_a_squeezed_part_lies_in_the_square_and_has_the_parts_edges(height, width, side, index):
    sizes = np.array([[height, width]])
    (box,) = train_boxes(1, 1, np.array([index]), sizes).boxes
    (stored,) = squeezed(box[None], sizes, side)
    scale = side / sizes[0]
    assert (stored[:2] >= 0).all()
    assert (stored[2:] >= 1).all()
    assert (stored[:2] + stored[2:] <= side).all()
    wide = box[2:] * scale >= 1  # thinner ones are widened to a pixel
    assert (np.abs(stored[:2] - box[:2] * scale)[wide] <= 0.5 + 1e-9).all()
    assert (np.abs((stored[:2] + stored[2:]) - (box[:2] + box[2:]) * scale)[wide] <= 0.5 + 1e-9).all()


def test_an_empty_batch_has_no_parts():
    made = train_boxes(0, 0, np.arange(0), np.empty((0, 2), dtype=np.int32), 256)
    assert isinstance(made, CropBoxes)
    assert made.boxes.shape == (0, 4)
    assert len(made) == 0


def test_the_key_is_that_of_the_generator():
    state = image_rng(4, 9, 0).bit_generator.state["state"]
    np.testing.assert_array_equal(augment_key(4, 9), state["key"])
