"""Lists of image files: what a line may say, what is told where it is wrong, and how each kind of image is read."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from sqzlab.data.fingerprint import count, digests
from sqzlab.data.image_folder import ListSource, decode, val_crop
from sqzlab.data.image_list import read_lists
from sqzlab.data.open import open_data
from sqzlab.errors import ConfigError, UnavailableError


@pytest.fixture
def written(tmp_path):
    """`written(train, val)`: the paths of two lists with these bytes."""

    def write(train, val=b"v.png 0\n"):
        paths = []
        for name, content in (("train.txt", train), ("val.txt", val)):
            (tmp_path / name).write_bytes(content)
            paths.append(str(tmp_path / name))
        return paths

    return write


NO_TEXT = "train.txt: is no text (it holds NUL bytes); valid: UTF-8 with `name label` a line"


def told(paths):
    with pytest.raises(ConfigError) as caught:
        read_lists(*paths)
    return [line.replace(f"{Path(paths[0]).parent}/", "") for line in caught.value.faults]


# ---- lines -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"a.png 0", "a.png"),
        (b"n01440764/a b  c.JPEG\t0", "n01440764/a b  c.JPEG"),
        (b"deep/er/still.png   0  ", "deep/er/still.png"),
        (b"   indented.png 0", "indented.png"),
        (b"#1.png 0", "#1.png"),
        (b"7 0", "7"),
        (b"a.png 000", "a.png"),
        ("бак/ü 犬\u2028.png 0".encode(), "бак/ü 犬\u2028.png"),
        ("a\u00a0.png 0".encode(), "a\u00a0.png"),
        (b"latin-\xe9.png 0", "latin-\udce9.png"),
        (b"\xef\xbb\xbfa.png 0", "a.png"),
        (b"a.png 0\r", "a.png"),
        (b"\n\n  \r\na.png 0\n\n", "a.png"),
    ],
)
def test_the_label_is_the_last_word_and_the_name_all_before_it(line, name, written):
    lists = read_lists(*written(line + b"\nb.png 1", b"v.png 1"))
    assert lists.train.names == [name, "b.png"]
    assert lists.train.labels.tolist() == [0, 1]
    assert lists.classes == 2


def test_images_keep_the_order_of_their_lines_and_may_repeat(written):
    lists = read_lists(*written(b"c.png 2\na.png 0\n\nb.png 1\na.png 0\n"))
    assert lists.train.names == ["c.png", "a.png", "b.png", "a.png"]
    assert lists.train.labels.tolist() == [2, 0, 1, 0]
    assert lists.train.lines.tolist() == [1, 2, 4, 5]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"a.png 0\nb.png\n", "train.txt:2: 'b.png' has no label; valid: `name label`"),
        (b"a.png 0\nb.png cat\n", "train.txt:2: 'cat' is no label; valid: a whole number from 0"),
        (b"a.png -1\n", "train.txt:1: '-1' is no label; valid: a whole number from 0"),
        (b"a.png 1.0\n", "train.txt:1: '1.0' is no label; valid: a whole number from 0"),
        (b"a.png 0_0\n", "train.txt:1: '0_0' is no label; valid: a whole number from 0"),
        ("a.png ٣\n".encode(), "train.txt:1: '٣' is no label; valid: a whole number from 0"),
        (b"a.png \xff\n", "train.txt:1: '\\udcff' is no label; valid: a whole number from 0"),
        (b"a.png 9999999999\n", "train.txt:1: '9999999999' is out of range; valid: a whole number from 0 to 999999999"),
        (b"/a.png 0\n", "train.txt:1: '/a.png' is absolute; valid: a name relative to data.root"),
        (b"", "train.txt: names no image; valid: `name label` a line"),
        (b" \r\n\n", "train.txt: names no image; valid: `name label` a line"),
        (b"a\0.png 0\n", "train.txt: is no text (it holds NUL bytes); valid: UTF-8 with `name label` a line"),
        (
            "a.png 0\n".encode("utf-16"),
            "train.txt: is no text (it holds NUL bytes); valid: UTF-8 with `name label` a line",
        ),
    ],
)
def test_a_line_at_fault_is_named(content, fault, written):
    assert told(written(content)) == [fault]


def test_the_first_lines_at_fault_of_both_lists_are_told_at_once_with_their_number(written):
    faults = told(written(b"x\n" * 7 + b"a.png 0\n", b"v.png 0\nw.png no\n"))
    assert [line.partition(" ")[0] for line in faults[:5]] == [f"train.txt:{n}:" for n in range(1, 6)]
    assert faults[5:] == [
        "train.txt: 7 lines are at fault",
        "val.txt:2: 'no' is no label; valid: a whole number from 0",
    ]


@pytest.mark.parametrize(
    ("train", "val", "fault"),
    [
        (b"a 1\nb 2\n", b"v 1\n", "label 0 (1 of the labels from 0 to 2)"),
        (b"a 0\n", b"v 0\nw 1\n", "label 1 (1 of the labels from 0 to 1)"),
        (b"a 999999999\n", b"v 0\n", "label 0, 1, 2, ... (999999999 of the labels from 0 to 999999999)"),
    ],
)
def test_a_label_without_a_training_image_is_told(train, val, fault, written):
    valid = "valid: every label from 0 to the highest of both lists"
    assert told(written(train, val)) == [f"train.txt: no training image has {fault}; {valid}"]


@pytest.mark.parametrize("path", ["none.txt", ".", "nul\0", "~nobody-of-this-name/list"])
def test_a_list_that_cannot_be_read_is_named(path, written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnavailableError) as caught:
        count("imagelist", str(tmp_path), written(b"a 0")[0], path)
    assert str(caught.value).startswith(f"data.val_list: {path!r} cannot be read (")
    assert len(str(caught.value).splitlines()) == 1


def test_lists_that_are_not_named_are_asked_for(tmp_path):
    with pytest.raises(ConfigError) as caught:
        count("imagelist", str(tmp_path))
    assert [fault.partition(";")[0] for fault in caught.value.faults] == [
        "data.train_list: is missing",
        "data.val_list: is missing",
    ]


# ---- counting ----------------------------------------------------------------------------------


def test_lists_of_class_folders_are_counted_and_read_as_torchvision_does(config_of, folders, lists):
    theirs = [ImageFolder(folders / split).samples[::-1] for split in ("train", "val")]
    assert count("imagelist", str(folders), *lists) == (2, len(theirs[0]), len(theirs[1]))
    source = open_data(config_of("imagelist"), batch_size=2, seed=0)._source
    assert isinstance(source, ListSource)
    for samples, paths, labels in zip(
        theirs, (source.train_paths, source.val_paths), (source.train_labels, source.val_labels), strict=True
    ):
        assert [(str(folders / paths[i]), int(labels[i])) for i in range(len(paths))] == samples


def test_the_digest_knows_names_labels_and_order_and_nothing_else(written, tmp_path):
    def digest(*content):
        return digests(*written(*content), None)["data.lists_digest"]

    known = digest(b"a b.png 0\nc.png 1\n")
    assert digest(b"\xef\xbb\xbfa b.png\t00\r\n\r\nc.png  1") == known
    others = [
        b"a b.png 1\nc.png 0\n",
        b"c.png 1\na b.png 0\n",
        b"a  b.png 0\nc.png 1\n",
        b"a b.png 0\nc.png 1\nc.png 1\n",
    ]
    found = [known, *map(digest, others), digest(b"a b.png 0\nc.png 1\n", b"v.png 1\n")]
    assert len(set(found)) == len(found)


def test_counts_and_digest_of_lists_at_rest_are_kept_and_forgotten_once_a_list_changes(written, tmp_path, cache_home):
    paths = written(b"a.png 0\n")
    (tmp_path / "a.png").touch()
    (tmp_path / "v.png").touch()
    for path in paths:
        os.utime(path, (Path(path).stat().st_mtime - 3600,) * 2)
    first = count("imagelist", str(tmp_path), *paths), digests(*paths, None)
    assert len(list((cache_home / "sqzlab").iterdir())) == 2
    (tmp_path / "a.png").unlink()  # known lists are not compared with the files again until a run opens them
    assert (count("imagelist", str(tmp_path), *paths), digests(*paths, None)) == first
    written(b"v.png 0\nv.png 1\n")
    assert count("imagelist", str(tmp_path), *paths) == (2, 2, 1)
    assert digests(*paths, None) != first[1]


def test_other_lists_than_planned_are_told(config_of):
    with pytest.raises(UnavailableError, match="but the run was planned with 0123456789abcdef"):
        open_data(config_of("imagelist", lists_digest="0123456789abcdef"), batch_size=2, seed=0)


# ---- files -------------------------------------------------------------------------------------


def test_missing_images_are_named_with_their_lines(written, tmp_path):
    (tmp_path / "v.png").touch()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a b.png").touch()
    (tmp_path / "here" / "folder.png").mkdir()
    names = ["here/a b.png", "here/none.png", "here/folder.png", "gone/a.png", *(f"{n}.png" for n in range(4))]
    paths = written("".join(f"{name} 0\n" for name in names).encode())
    with pytest.raises(UnavailableError) as caught:
        count("imagelist", str(tmp_path), *paths)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{paths[0]}:2: no image {str(tmp_path / 'here/none.png')!r}"
    assert [line.split(":")[1] for line in lines[:5]] == ["2", "3", "4", "5", "6"]
    assert lines[5:] == [f"{paths[0]}: 7 of 8 images are missing"]


def test_a_name_may_leave_its_folder_and_come_back(written, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "v.png").touch()
    assert count("imagelist", str(tmp_path), *written(b"sub/../v.png 0\n./v.png 0\n")) == (1, 2, 1)


def photo(mode, size=(40, 30)):
    """A picture of all brightnesses, saved losslessly in this mode of Pillow."""
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        *(("L", "grey.png"), ("1", "bits.png"), ("LA", "alpha.png"), ("RGBA", "alpha.png")),
        *(("P", "palette.gif"), ("CMYK", "press.tif"), ("RGB", "one.bmp")),
    ],
)
@pytest.mark.parametrize("size", [(40, 30), (1, 1)])
def test_every_mode_becomes_pillows_rgb(mode, name, size, tmp_path):
    photo(mode, size).save(tmp_path / name)
    found = decode(tmp_path / name)
    assert found.shape == (3, size[1], size[0])
    with Image.open(tmp_path / name) as image:
        assert np.array_equal(found.permute(1, 2, 0).numpy(), np.array(image.convert("RGB")))
    assert val_crop(found, 8).shape == (3, 8, 8)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_sixteen_bits_are_scaled_not_clipped(name, tmp_path):
    values = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / name)
    found = decode(tmp_path / name)
    assert torch.equal(found, torch.from_numpy((values // 256).astype(np.uint8)).expand(3, -1, -1))


def test_the_colours_under_a_palettes_transparency_count(tmp_path):
    image = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4)).convert("P")
    image.putpalette([value for index in range(256) for value in (index, 2 * index % 256, 255 - index)])
    image.save(tmp_path / "clear.png", transparency=bytes(range(16)))
    expected = np.array(image.convert("RGB"))
    assert np.array_equal(decode(tmp_path / "clear.png").permute(1, 2, 0).numpy(), expected)


def test_of_an_animation_the_first_picture_counts(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert decode(tmp_path / "moving.gif")[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_thirty_two_bits_have_no_scale_and_are_refused(mode, tmp_path):
    Image.new(mode, (4, 4)).save(tmp_path / "wide.tif")
    with pytest.raises(UnavailableError, match=r"wide\.tif' cannot be read \(32 bits a channel have no common scale"):
        decode(tmp_path / "wide.tif")


def test_a_truncated_image_is_named(tmp_path):
    photo("RGB").save(tmp_path / "cut.jpg")
    whole = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnavailableError, match=r"cut\.jpg' cannot be read \(.*truncated"):
        decode(tmp_path / "cut.jpg")
