"""Images of every kind become what validation images are, and what is no image says why."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inference_networks import photo
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import pil_to_tensor

from sqzlab.data.digits import open_digits, validation_part
from sqzlab.inference.images import MOST_PIXELS, BadImageError, image_batches, image_files, prepared, read_image


def written(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def reason(path: Path) -> str:
    with pytest.raises(BadImageError) as caught:
        read_image(path)
    return str(caught.value)


# ---- preparing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(50, 40), (40, 50), (37, 37), (300, 211), (1, 1), (1, 9), (33, 32)])
@pytest.mark.parametrize("size", [32, 56])
def test_an_image_is_prepared_as_torchvision_does_for_validation(width: int, height: int, size: int) -> None:
    pixels = pil_to_tensor(photo(width=width, height=height))
    oracle = v2.Compose([v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size)])
    assert torch.equal(prepared(pixels, "imagenet", size), oracle(pixels))


@pytest.mark.parametrize(("width", "height"), [(50, 40), (40, 50), (8, 8), (1, 1)])
def test_an_image_for_cifar_loses_no_margin(width: int, height: int) -> None:
    pixels = pil_to_tensor(photo(width=width, height=height))
    oracle = v2.Compose([v2.Resize(32, antialias=True), v2.CenterCrop(32)])
    assert torch.equal(prepared(pixels, "cifar10", 32), oracle(pixels))


def test_an_image_for_digits_is_grey_as_pillow_makes_it() -> None:
    image = photo(width=32, height=32)
    assert torch.equal(prepared(pil_to_tensor(image), "digits", 32), pil_to_tensor(image.convert("L").convert("RGB")))


def test_the_digits_themselves_become_their_validation_images() -> None:
    digits = load_digits()
    val = validation_part(digits.target.astype(np.int64))
    source = open_digits(32).val_batch(np.arange(20))
    for given_image, expected in zip(digits.images[val][:20], source, strict=True):
        grey = torch.from_numpy((given_image * 255 / 16).round().astype(np.uint8)).expand(3, -1, -1)
        difference = prepared(grey, "digits", 32).int() - expected.int()
        assert difference.abs().max() <= 1  # 8 bits were rounded before they were enlarged


def test_sides_too_unequal_to_be_resized_are_refused() -> None:
    with pytest.raises(BadImageError, match="its sides of 20000 and 1 pixels are too unequal to be resized"):
        prepared(torch.zeros(3, 1, 20000, dtype=torch.uint8), "imagenet", 224)


# ---- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_kind_of_pixels_is_converted_as_pillow_does(tmp_path: Path, mode: str) -> None:
    suffix = "tif" if mode in ("CMYK", "YCbCr") else "png"
    path = written(tmp_path / f"image.{suffix}", photo().convert(mode))
    with Image.open(path) as image:
        assert image.mode == mode
        assert torch.equal(read_image(path)[0], pil_to_tensor(image.convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_grey_of_16_bits_is_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    pixels, _ = read_image(written(tmp_path / f"image.{suffix}", Image.fromarray(values)))
    assert pixels.shape == (3, 64, 64)
    assert np.abs(pixels[0].numpy() - values / 257).max() < 1


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tif"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("L", (8, 8), 255 * (i % 2)) for i in range(3)]
    path = written(tmp_path / f"image.{kind}", frames[0], save_all=True, append_images=frames[1:])
    pixels, remarks = read_image(path)
    assert int(pixels.max()) == 0
    assert remarks == ("the first of its 3 frames is taken",)


def test_the_orientation_of_a_camera_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = photo()
    pixels, remarks = read_image(written(tmp_path / "image.png", image, exif=exif))
    assert torch.equal(pixels, pil_to_tensor(image))
    assert remarks == ("its EXIF orientation 6 is not applied, as in training",)


def test_transparency_is_dropped_with_a_remark(tmp_path: Path) -> None:
    image = photo().convert("RGBA")
    image.putalpha(0)
    pixels, remarks = read_image(written(tmp_path / "image.png", image))
    assert torch.equal(pixels, pil_to_tensor(photo()))
    assert remarks == ("its transparency is dropped, as in training",)


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image at all")
    whole = written(tmp_path / "whole.jpg", photo()).read_bytes()
    (tmp_path / "short.jpg").write_bytes(whole[: len(whole) // 2])
    os.mkfifo(tmp_path / "pipe.jpg")
    written(tmp_path / "float.tif", Image.new("F", (4, 4), 0.5))
    assert reason(tmp_path / "empty.jpg") == "is empty"
    assert reason(tmp_path / "text.jpg") == "is no image that Pillow can read"
    assert "truncated" in reason(tmp_path / "short.jpg")
    assert reason(tmp_path / "pipe.jpg") == "is no file"
    assert reason(tmp_path / "absent.jpg") == "no such file or directory"
    assert reason(tmp_path) == "is no file"
    assert "32 bits" in reason(tmp_path / "float.tif")


@pytest.mark.parametrize("side", [13_400, 60_000])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    assert reason(tmp_path / "bomb.png") == f"is too large; valid: {MOST_PIXELS:,} pixels at most"


def _bytes(kind: str) -> bytes:
    content = io.BytesIO()
    photo(width=12, height=9).save(content, kind)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_damaged_files_are_read_or_say_why(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    content = bytearray(_bytes(kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind.lower()}"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    bad: list[str] = []
    batches = list(image_batches([path], "imagenet", 8, 1, bad=bad.append))
    assert len(batches) + len(bad) == 1
    assert all(text.startswith(repr(str(path))) and "\n" not in text for text in bad)


# ---- folders and batches -----------------------------------------------------------------------


def test_a_folder_is_searched_to_its_depths_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/10.png", "a/c/1.webp", "z.jpeg", "a.tif", "notes.txt", "b/.cache"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/round").symlink_to(tmp_path)
    bad: list[str] = []
    found = image_files([tmp_path / "z.jpeg", str(tmp_path)], bad.append)
    names = ["z.jpeg", "a/c/1.webp", "a.tif", "b/10.png", "b/2.JPG", "z.jpeg"]
    assert found == [tmp_path / name for name in names]
    assert bad == []


def test_a_folder_without_images_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    bad: list[str] = []
    assert image_files([tmp_path], bad.append) == []
    assert len(bad) == 1
    assert bad[0].startswith(f"{str(tmp_path)!r}: no image in this folder; valid: files that end in .jpg")


def test_bad_images_are_told_in_order_and_the_others_keep_their_places(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    good = written(tmp_path / "good.png", photo())
    given_images = [good, tmp_path / "empty.png", photo(), torch.zeros(3, 4, 4), good, torch.zeros(1, 1), 7]
    bad: list[str] = []
    batches = list(image_batches(given_images, "imagenet", 32, 2, bad=bad.append))  # type: ignore[arg-type]
    assert [batch.index.tolist() for batch in batches] == [[0], [2], [4]]
    assert bad == [
        f"{str(tmp_path / 'empty.png')!r}: is empty",
        "image 3: is a tensor of torch.float32 (3, 4, 4); valid: torch.uint8 (3, height, width)",
        "image 5: is a tensor of torch.float32 (1, 1); valid: torch.uint8 (3, height, width)",
        "image 6: is a int; valid: a path, an image of Pillow or a uint8 tensor",
    ]
