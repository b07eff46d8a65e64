"""`python -m sqzlab prepare`: what it says, and one line for what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from prepared_stores import class_folders, picture

from sqzlab.commands.cli import main
from sqzlab.data.store.format import read_header

Captured = pytest.CaptureFixture[str]


def run(root: Path, out: Path, *words: str) -> int:
    given = ["--data", "imagefolder", "--root", str(root), "--out", str(out), "--workers", "0"]
    return main(["prepare", *given, "--size", "32", "--val-size", "32", *words])


def test_it_states_the_disk_it_needs_then_makes_both_stores(capsys: Captured, tmp_path: Path) -> None:
    root, out = class_folders(tmp_path / "data"), tmp_path / "a" / "out"
    assert run(root, out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("train: 10 images of 2 classes at 32 pixels, ")
    assert lines[0].endswith("kB, to be made")
    assert lines[2].startswith("disk: ")
    for line, split, images in zip(lines[3:], ("train", "val"), (10, 6), strict=True):
        path = out / f"{split}.store"
        assert line.startswith(f"{path}: {images} images, ")
        assert line.endswith(f"digest {read_header(path).digest}")
    assert run(root, out) == 0
    assert "there already" in capsys.readouterr().out


def test_bad_images_are_named_and_tolerated_only_when_asked(capsys: Captured, tmp_path: Path) -> None:
    root, out = class_folders(tmp_path / "data"), tmp_path / "out"
    bad = root / "train" / "class 1" / "2.png"
    bad.write_bytes(b"")
    assert run(root, out) == 3
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"image {str(bad)!r} cannot be read (")
    assert said[1].startswith("train: 1 bad images; valid: 0 (--skip-bad)")
    assert run(root, out, "--skip-bad", "1") == 0
    said = capsys.readouterr()
    assert said.err.startswith(f"left out: image {str(bad)!r} cannot be read (")
    assert "9 images without 1 bad ones" in said.out


def test_a_verified_store_names_damaged_images(capsys: Captured, tmp_path: Path) -> None:
    root, out = class_folders(tmp_path / "data"), tmp_path / "out"
    run(root, out)
    verify = ["prepare", "--verify", "--out", str(out), "--workers", "0"]
    assert main(verify) == 0
    with (out / "val.store").open("r+b") as file:
        file.seek(read_header(out / "val.store").at(1))
        file.write(b"other")
    capsys.readouterr()
    assert main(verify) == 3
    said = capsys.readouterr()
    assert f"{out / 'val.store'}: 5 of 6 images are as written" in said.out
    assert said.err.splitlines() == [
        f"{out / 'val.store'}: image 'val/class 0/1.png' is damaged",
        "1 damaged images; remove the store that has them and prepare it again",
    ]


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = class_folders(tmp_path / "data"), tmp_path / "out"
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    assert run(root, out) == 3
    assert capsys.readouterr().err.startswith(f"--out {str(out)!r}: has 1.0 kB free; valid: ")
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["--data", "digits"], 2, "data set 'digits' is read into memory whole, there is nothing to prepare"),
        (["--data", "imagefolder"], 3, "data set 'imagefolder' needs a folder: set data.root"),
        (["--train-list", "a.txt"], 2, "--train-list, --val-list: do not apply to data set 'imagenet'"),
        (["--size", "0"], 2, "argument --size: '0' is out of range; valid: whole numbers from 1"),
        (["--skip-bad", "-1"], 2, "argument --skip-bad: "),
        (["--verify"], 3, "cannot be read (no such file or directory)"),
    ],
)
def test_what_is_wrong_is_one_line(capsys: Captured, tmp_path: Path, words: list[str], code: int, line: str) -> None:
    given = ["prepare", "--out", str(tmp_path / "out"), *words]
    if line.startswith("argument"):
        with pytest.raises(SystemExit) as caught:
            main(given)
        assert caught.value.code == code
    else:
        assert main(given) == code
    said = capsys.readouterr().err
    assert line in said
    assert len(said.splitlines()) == 1


def test_a_size_of_no_validation_crop_is_refused(capsys: Captured, tmp_path: Path) -> None:
    assert run(class_folders(tmp_path / "data"), tmp_path / "out", "--val-size", "36") == 2
    assert capsys.readouterr().err.startswith("36 pixels are the short side of no validation crop; valid: ")


def test_validation_images_are_for_crops_of_224_whatever_the_size_of_training_images(tmp_path: Path) -> None:
    root, out = class_folders(tmp_path / "data", val=1), tmp_path / "out"
    given = ["--data", "imagefolder", "--root", str(root), "--out", str(out), "--workers", "0"]
    assert main(["prepare", *given, "--size", "40"]) == 0
    train, val = (read_header(out / f"{split}.store") for split in ("train", "val"))
    assert (train.size, val.size, val.crop) == (40, 256, 224)


def test_folders_of_more_than_files_are_prepared_too(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    (root / "train" / "class 0" / "notes.txt").write_text("no image")
    picture(8, 30, 30).save(root / "train" / "class 0" / "UPPER.PNG")
    assert run(root, tmp_path / "out") == 0
    assert read_header(tmp_path / "out" / "train.store").images == 11
