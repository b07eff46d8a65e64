"""What is stored of a file, against the training tier's own crops and torchvision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from prepared_stores import encoded, picture
from torchvision.transforms import v2 as transforms

from sqzlab.data.image_folder import decode, val_crop
from sqzlab.data.store.pictures import crop_of, margin_of, stored_picture
from sqzlab.errors import ConfigError, UnavailableError

SIZES = [(500, 375), (375, 500), (64, 64), (301, 97), (20, 33), (257, 256), (333, 500)]
"""(width, height)"""


@pytest.mark.parametrize("crop", [224, 160, 128, 97])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_middle_of_a_centre_square_is_the_validation_crop_of_the_file(
    width: int, height: int, crop: int, tmp_path: Path
) -> None:
    file = tmp_path / "a.png"
    picture(1, width, height).save(file)
    size = round(crop * 256 / 224)
    assert crop_of(size) == crop
    made, shape = stored_picture(file, size, crop)
    assert (made.shape, shape) == ((size, size, 3), (height, width))
    begin = margin_of(size, crop)
    middle = torch.from_numpy(made).permute(2, 0, 1)[:, begin : begin + crop, begin : begin + crop]
    assert torch.equal(middle, val_crop(decode(file), crop))
    torchvisions = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(crop)])(decode(file))
    assert (middle.int() - torchvisions.int()).abs().max() <= 1


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_whole_picture_is_squeezed_as_torchvision_resizes_it(width: int, height: int, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    picture(2, width, height).save(file)
    made, shape = stored_picture(file, 96, 0)
    resize = transforms.Resize((96, 96), interpolation=transforms.InterpolationMode.BICUBIC)
    theirs = resize(decode(file)).permute(1, 2, 0).numpy()
    assert shape == (height, width)
    assert np.abs(made.astype(int) - theirs).max() <= 1


def test_pictures_of_every_kind_are_stored_as_pillow_converts_them(tmp_path: Path) -> None:
    base = picture(3, 40, 40)
    sixteen = Image.fromarray((np.asarray(base.convert("L")).astype(np.uint16) << 8) + 77)
    rotated = Image.Exif()
    rotated[0x0112] = 6  # a camera's note that it was held upright; training does not turn pictures either
    for name, content, expected in (
        ("grey.jpg", encoded(base.convert("L"), "JPEG"), None),
        ("press.jpg", encoded(base.convert("CMYK"), "JPEG"), None),
        ("alpha.png", encoded(base.convert("RGBA"), "PNG"), base),
        ("palette.png", encoded(base.convert("P"), "PNG"), None),
        ("deep.png", encoded(sixteen, "PNG"), base.convert("L").convert("RGB")),
        ("turned.jpg", encoded(base, "JPEG", exif=rotated), None),
        ("called.jpg", encoded(base, "PNG"), base),  # the content says what it is, as of one image of ImageNet
    ):
        file = tmp_path / name
        file.write_bytes(content)
        made, _ = stored_picture(file, 40, 0)
        with Image.open(file) as image:
            np.testing.assert_array_equal(made, np.asarray(expected or image.convert("RGB")), err_msg=name)


@pytest.mark.parametrize("content", [b"", b"no image", encoded(picture(4, 40, 40), "JPEG")[:-300]])
def test_a_file_that_is_no_whole_image_is_named(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "bad.jpg"
    file.write_bytes(content)
    with pytest.raises(UnavailableError, match=r"^image '.*bad\.jpg' cannot be read \(.*\)$"):
        stored_picture(file, 32, 0)


def test_a_picture_too_long_for_its_short_side_to_be_resized_is_named(tmp_path: Path) -> None:
    file = tmp_path / "line.png"
    Image.new("RGB", (3000, 1)).save(file)
    with pytest.raises(UnavailableError, match="cannot be resized: its sides of 3000 and 1 are too unequal"):
        stored_picture(file, 256, 224)
    assert stored_picture(file, 256, 0)[1] == (1, 3000)


def test_every_crop_has_a_size_and_other_sizes_are_refused_with_those_nearby() -> None:
    sizes = {round(crop * 256 / 224): crop for crop in range(1, 600)}
    for size in range(1, 600):
        if size in sizes:
            assert crop_of(size) == sizes[size]
            continue
        with pytest.raises(ConfigError, match=f"^{size} pixels are the short side of no validation crop; valid: "):
            crop_of(size)
    assert crop_of(256) == 224
