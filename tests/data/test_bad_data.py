"""Bad files in the tiers that decode them and in the store: named in one line, tolerated if asked, never a crash."""

import io
import re
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from prepared_stores import class_folders, encoded, picture, plans

from sqzlab.data.image_folder import FolderSource, ListSource, decoder
from sqzlab.data.store.pictures import stored_picture
from sqzlab.data.store.reader import Store
from sqzlab.data.store.writer import prepare
from sqzlab.errors import ConfigError, UnavailableError

TIERS = ("pil", "jpeg")
PHOTO = picture(0, 40, 30)
JPEG = encoded(PHOTO, "JPEG", quality=95)
GREY = PHOTO.convert("L")
DEEP = np.asarray(GREY).astype(np.uint16) << 8
TURNED = Image.Exif()
TURNED[0x0112] = 6  # held upright


def huge(content):
    """The same file, which says that it has 65,000 x 65,000 pixels."""
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", 65000, 65000) + content[at + 4 :]


def ycck(content):
    """CMYK stored as YCCK, as Photoshop writes it: the Adobe marker's last byte says so."""
    at = content.index(b"Adobe") + 11
    return content[:at] + b"\x02" + content[at + 1 :]


GOOD = {
    "colour.jpg": (JPEG, PHOTO),
    "fine.jpg": (encoded(PHOTO, "JPEG", quality=90, subsampling="4:4:4"), PHOTO),
    "progressive.jpg": (encoded(PHOTO, "JPEG", quality=95, progressive=True), PHOTO),
    "grey.jpg": (encoded(GREY, "JPEG"), GREY),
    "press.jpg": (encoded(PHOTO.convert("CMYK"), "JPEG", quality=95), PHOTO),
    "photoshop.jpg": (ycck(encoded(PHOTO.convert("CMYK"), "JPEG", quality=95)), None),
    "grey.png": (encoded(GREY, "PNG"), GREY),
    "deep.png": (encoded(Image.fromarray(DEEP), "PNG"), GREY),
    "deep.tif": (encoded(Image.fromarray(DEEP), "TIFF"), GREY),
    "turned.jpg": (encoded(PHOTO, "JPEG", quality=95, exif=TURNED), PHOTO),
    "turned.png": (encoded(PHOTO, "PNG", exif=TURNED), PHOTO),
    "png called.jpg": (encoded(PHOTO, "PNG"), PHOTO),
    "jpeg called.png": (JPEG, PHOTO),
    "alpha.png": (encoded(PHOTO.convert("RGBA"), "PNG"), PHOTO),
    "more behind it.jpg": (JPEG + b"\0" * 100, PHOTO),
}
"""Content, and what it shows (None: only that both tiers agree)."""
BAD = {
    "empty.jpg": (b"", "cannot identify image file"),
    "text.jpg": (b"this is no image\n", "cannot identify image file"),
    "page.jpg": (b"<!DOCTYPE html><html></html>", "cannot identify image file"),
    "marker.jpg": (b"\xff\xd8\xff", "cannot identify image file"),
    "header.jpg": (JPEG[:200], ""),
    "truncated.jpg": (JPEG[: len(JPEG) * 3 // 4], "truncated"),
    "truncated press.jpg": (encoded(PHOTO.convert("CMYK"), "JPEG")[:-100], "truncated"),
    "truncated.png": (encoded(PHOTO, "PNG")[:-100], "truncated"),
    "huge.jpg": (huge(JPEG), "exceeds limit of 178956970 pixels"),
    "float.tif": (encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "32 bits a channel"),
}
"""Content, and a part of what is said of it."""


def refusal(act):
    """The one line that it is refused with, or None."""
    try:
        act()
    except UnavailableError as error:
        told = str(error)
    else:
        return None
    assert "\n" not in told
    return told


@pytest.mark.parametrize("name", GOOD)
def test_odd_images_are_decoded_alike_in_each_tier_and_in_the_store(name, tmp_path):
    content, shown = GOOD[name]
    file = tmp_path / name
    file.write_bytes(content)
    pil, jpeg = (decoder(tier)(file) for tier in TIERS)
    assert pil.shape == jpeg.shape == (3, 30, 40)  # of a camera's turned image the pixels as they are stored
    assert (pil.int() - jpeg.int()).abs().max() <= 2
    if shown is not None:
        expected = torch.from_numpy(np.array(shown.convert("RGB"))).permute(2, 0, 1)
        assert (pil.int() - expected.int()).abs().float().mean() < 4
    made, size = stored_picture(file, 30, 0)
    assert (made.shape, size) == ((30, 30, 3), (30, 40))


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_refused_by_name_alike_in_each_tier_and_in_the_store(name, tmp_path):
    content, why = BAD[name]
    file = tmp_path / name
    file.write_bytes(content)
    told = [refusal(lambda tier=tier: decoder(tier)(file)) for tier in TIERS]
    told.append(refusal(lambda: stored_picture(file, 32, 0)))
    assert told[0] is not None
    assert told[0].startswith(f"image {str(file)!r} cannot be read (")
    assert why in told[0]
    assert told == [told[0]] * 3


@pytest.mark.filterwarnings("ignore::Warning:PIL")  # remarks on the metadata that was damaged
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM"])
@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
def test_both_tiers_accept_and_refuse_the_same_damaged_files_and_never_crash(form, damage, tmp_path):
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(buffer, format=form)
    whole, file, told = buffer.getvalue(), tmp_path / "broken.jpg", []
    for trial in range(150):
        content = bytearray(whole)
        if damage == "truncated":
            content = content[: len(whole) * trial // 150]
        else:
            at = int(rng.integers(len(whole) if trial % 2 else 60))
            content[at : at + 4] = rng.bytes(4)
        file.write_bytes(content)
        pil, jpeg = (refusal(lambda tier=tier: decoder(tier)(file)) for tier in TIERS)
        assert pil == jpeg, content.hex()
        told += [pil] if pil else []
    assert all(message.startswith(f"image {str(file)!r} cannot be read (") for message in told)
    assert len(told) >= 140 or damage != "truncated"


# ---- in a data set -----------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    """Two classes, with every bad image among those of training."""
    root = class_folders(tmp_path / "data", train=2, val=1)
    for name, (content, _) in BAD.items():
        (root / "train/class 1" / name).write_bytes(content)
    return root


@pytest.mark.parametrize("tier", TIERS)
def test_a_batch_with_a_bad_image_is_refused_by_its_name(root, tier):
    source = FolderSource("imagefolder", str(root), 16, tier=tier)
    for index in range(len(source.train_paths)):
        bad = source.train_paths[index].rpartition("/")[2] in BAD
        told = refusal(lambda index=index: source.train_batch(0, 0, np.array([0, index]), 16))
        assert (told is not None) == bad
        assert told is None or str(root / source.train_paths[index]) in told


def test_every_bad_image_is_named_by_prepare_and_tolerated_only_up_to_the_number_asked_for(root, tmp_path):
    train, _ = plans(root, tmp_path / "out")
    with pytest.raises(UnavailableError) as caught:
        prepare(train, workers=0, skip_bad=len(BAD) - 1)
    assert str(caught.value).splitlines()[-1].startswith(f"train: {len(BAD)} bad images; valid: {len(BAD) - 1} (")
    assert not train.path.exists()
    assert prepare(train, workers=0, skip_bad=len(BAD)).images == 4
    skipped = Store(train.path).skipped()
    assert {name.rpartition("/")[2] for name, _ in skipped} == set(BAD)
    assert all(str(root / name) in why for name, why in skipped)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda root: [file.unlink() for file in (root / "train/class 0").iterdir()], r"no image in '.*train/class 0'"),
        (lambda root: (root / "val/class 0").rename(root / "val/other"), r"1 only in train/ \('class 0'\) and 1 only"),
        (lambda root: (root / "val/extra").mkdir(), r"classes 1 only in val/ \('extra'\)"),
    ],
    ids=["an empty class", "other classes", "a class more"],
)
def test_class_folders_that_do_not_fit_are_refused(root, change, told, tier):
    change(root)
    with pytest.raises(UnavailableError, match=told):
        FolderSource("imagefolder", str(root), 16, tier=tier)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(
    ("label", "error", "told"),
    [
        ("5", ConfigError, "no training image has label 1, 2, 3, ... (5 of the labels from 0 to 5)"),
        ("-1", ConfigError, "'-1' is no label; valid: a whole number from 0"),
        ("0 gone", ConfigError, "'gone' is no label"),
    ],
)
def test_lists_with_labels_that_are_no_class_are_refused(root, tmp_path, label, error, told, tier):
    train, val = tmp_path / "train.txt", tmp_path / "val.txt"
    train.write_text("train/class 0/0.png 0\n")
    val.write_text(f"val/class 0/0.png {label}\n")
    with pytest.raises(error, match=re.escape(told)):
        ListSource(str(root), str(train), str(val), 16, None, tier=tier)
