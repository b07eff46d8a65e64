"""Pixels of parts against torchvision's antialiased resized_crop and NumPy in float64."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from sqzlab.data.crop_boxes import CropBoxes, train_boxes
from sqzlab.data.crop_pixels import cropped, cropped_on_device

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
BOXES = [
    (0, 0, 64, 64),
    (3, 5, 40, 31),
    (0, 0, 64, 17),
    (50, 2, 9, 60),
    (10, 20, 32, 32),
    (63, 63, 1, 1),
    (7, 0, 1, 64),
]
SIDES = [8, 32, 50]


def noise(n, side=64):
    images = np.random.default_rng(side).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    images.flags.writeable = False  # as a mapped file
    return images


def tensor(images):
    return torch.from_numpy(images.copy())


def table(flips):
    return CropBoxes(np.array(BOXES), np.full(len(BOXES), flips))


def torchvisions(image, box, size, flip, dtype=torch.uint8):
    picture = tensor(image).permute(2, 0, 1).to(dtype)
    made = functional.resized_crop(picture, *box, [size, size], antialias=True)
    return functional.horizontal_flip(made) if flip else made


def far(ours, theirs):
    return (ours.cpu().float() - theirs.float()).abs().max().item()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", SIDES)
def test_on_the_cpu_a_part_has_torchvisions_pixels(size, flip):
    images = noise(len(BOXES))
    made = cropped(images, np.arange(len(BOXES)), table(flip), size)
    for image, box, ours in zip(images, BOXES, made, strict=True):
        assert far(ours, torchvisions(image, box, size, flip)) <= 1


def test_on_the_cpu_enlarged_parts_are_a_tenth_of_a_level_darker():
    images = noise(20)
    rng = np.random.default_rng(0)
    boxes = CropBoxes(np.column_stack([rng.integers(0, 24, (20, 2)), rng.integers(8, 40, (20, 2))]), np.zeros(20, bool))
    made = cropped(images, np.arange(20), boxes, 64)
    exact = [torchvisions(image, box, 64, False, torch.float64) for image, box in zip(images, boxes.boxes, strict=True)]
    assert -0.2 < (made - torch.stack(exact)).mean() < 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", SIDES)
def test_on_a_device_a_part_has_torchvisions_pixels(size, flip, device):
    images = noise(len(BOXES))
    made = cropped_on_device(tensor(images).to(device), table(flip), size)
    for image, box, ours in zip(images, BOXES, made, strict=True):
        assert far(ours, torchvisions(image, box, size, flip)) <= 1
        assert device == "cpu" or far(ours, torchvisions(image, box, size, flip, torch.float64)) <= 0.501


@pytest.mark.parametrize("device", DEVICES)
def test_a_training_batch_is_the_same_both_ways_but_for_rounding(device):
    images = noise(50, 96)
    rows = np.random.default_rng(0).permutation(50)[:40]
    boxes = train_boxes(0, 3, rows, np.full((40, 2), [375, 500]), 96)
    on_cpu = cropped(images, rows, boxes, 80)
    there = tensor(images).to(device)
    on_device = cropped_on_device(there, boxes, 80, torch.from_numpy(rows).to(device))
    assert far(on_device, on_cpu) <= 1
    assert on_cpu.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("way", ["mapped", *DEVICES])
def test_an_image_is_the_same_in_every_batch(way):
    images = noise(30)
    index = np.arange(30)

    def made(rows):
        boxes = train_boxes(7, 1, rows, np.full((len(rows), 2), 64))
        if way == "mapped":
            return cropped(images, rows, boxes, 48)
        return cropped_on_device(tensor(images).to(way), boxes, 48, torch.from_numpy(rows).to(way))

    whole = made(index)
    order = np.random.default_rng(1).permutation(30)
    for size in (1, 7, 30):
        for start in range(0, 30, size):
            part = order[start : start + size]
            assert torch.equal(made(part), whole[part])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_host_does_not_wait_for_the_gpu():
    boxes = train_boxes(0, 0, np.arange(40), np.full((40, 2), 16))
    images = tensor(noise(40, 16)).cuda()
    cropped_on_device(images, boxes, 8)
    torch.cuda.synchronize()
    torch.cuda._sleep(1_000_000_000)  # half a second
    cropped_on_device(images, boxes, 8)
    assert not torch.cuda.current_stream().query()


def test_the_whole_of_an_image_of_the_right_size_is_unchanged():
    images = noise(2, 32)
    boxes = CropBoxes(np.array([[0, 0, 32, 32]] * 2), np.array([False, True]))
    expected = torch.from_numpy(np.stack([images[0], images[1][:, ::-1]])).permute(0, 3, 1, 2)
    assert torch.equal(cropped(images, np.arange(2), boxes, 32), expected)
    assert torch.equal(cropped_on_device(tensor(images), boxes, 32), expected)


def test_no_image_makes_no_pixels():
    empty = CropBoxes(np.empty((0, 4), dtype=np.int64), np.empty(0, dtype=bool))
    assert cropped(noise(1), np.arange(0), empty, 8).shape == (0, 3, 8, 8)
    assert cropped_on_device(tensor(noise(1)), empty, 8).shape == (0, 3, 8, 8)
