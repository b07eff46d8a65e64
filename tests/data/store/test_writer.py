"""Stores are written whole or not at all: taken up after every kind of end, and strict about bad images."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prepared_stores import class_folders, encoded, opened, picture, plans, prepared

from sqzlab.data.store import writer
from sqzlab.data.store.format import PAGE, packed, unpacked
from sqzlab.data.store.listing import listings
from sqzlab.data.store.pictures import stored_picture
from sqzlab.data.store.plan import Plan
from sqzlab.data.store.reader import Store
from sqzlab.data.store.writer import MOST_BAD, prepare
from sqzlab.errors import ConfigError, UnavailableError

BAD = {
    "train/class 0/1.png": b"",
    "train/class 1/0.png": b"no image",
    "train/class 1/3.png": encoded(picture(0, 40, 40), "JPEG")[:-300],
}


def damaged_folders(root: Path) -> Path:
    class_folders(root)
    for name, content in BAD.items():
        (root / name).write_bytes(content)
    return root


def test_a_store_holds_pixels_labels_names_sizes_and_checksums_of_every_file(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    prepared(root, tmp_path / "out")
    for split, crop in (("train", 0), ("val", 28)):
        store = opened(tmp_path / "out", split)
        files = sorted((root / split).glob("*/*.png"))
        assert [str(root / name) for name in store.names()] == list(map(str, files))
        assert store.class_names() == ("class 0", "class 1")
        assert store.labels.tolist() == [int(file.parent.name[-1]) for file in files]
        for row, file in enumerate(files):
            pixels, shape = stored_picture(file, 32, crop)
            np.testing.assert_array_equal(store.pixels[row], pixels)
            assert tuple(store.tables.sizes[row]) == shape
            assert store.tables.checksums[row] == zlib.crc32(pixels.tobytes())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["train.store", "val.store"]


def test_processes_write_the_same_bytes(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", train=40)
    prepared(root, tmp_path / "alone")
    train, _ = plans(root, tmp_path / "together")
    seen: list[int] = []
    prepare(train, workers=2, done=seen.append)
    files = [tmp_path / name / "train.store" for name in ("alone", "together")]
    assert len({hashlib.sha256(file.read_bytes()).digest() for file in files}) == 1
    assert sum(seen) == 80


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_stop_it_and_are_named(workers: int, tmp_path: Path) -> None:
    train, _ = plans(damaged_folders(tmp_path / "data"), tmp_path / "out")
    with pytest.raises(UnavailableError) as caught:
        prepare(train, workers=workers)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    for line, name in zip(lines, BAD, strict=False):
        assert line.startswith(f"image {str(tmp_path / 'data' / name)!r} cannot be read (")
    assert lines[-1].startswith("train: 3 bad images; valid: 0 (--skip-bad); what is done is kept")
    assert not train.path.exists()


def test_tolerated_bad_images_are_left_out_and_listed(tmp_path: Path) -> None:
    root = damaged_folders(tmp_path / "data")
    train, _ = plans(root, tmp_path / "out")
    with pytest.raises(UnavailableError, match="3 bad images; valid: 2"):
        prepare(train, workers=0, skip_bad=2)
    assert prepare(train, workers=0, skip_bad=3).images == 7
    store = Store(train.path)
    good = sorted(str(file.relative_to(root)) for file in (root / "train").glob("*/*.png"))
    good = [name for name in good if name not in BAD]
    assert (len(store), list(store.names())) == (7, good)
    assert [name for name, _ in store.skipped()] == list(BAD)
    assert store.labels.tolist() == [int(name[12]) for name in good]
    expected = np.stack([stored_picture(root / name, 32, 0)[0] for name in good])
    np.testing.assert_array_equal(store.gather(np.arange(7)), expected)
    with Image.open(root / good[5]) as image:
        assert tuple(store.sizes(np.array([5]))[0]) == (image.height, image.width)


def test_a_store_without_bad_images_is_not_taken_for_a_strict_one(tmp_path: Path) -> None:
    train, _ = plans(damaged_folders(tmp_path / "data"), tmp_path / "out")
    prepare(train, workers=0, skip_bad=3)
    with pytest.raises(ConfigError, match="was prepared without 3 bad images; valid: --skip-bad 3, or remove it"):
        prepare(train, workers=0)
    assert prepare(train, workers=0, skip_bad=5).images == 7


def test_only_what_was_mended_is_made_when_it_is_run_again(tmp_path: Path) -> None:
    root = damaged_folders(tmp_path / "data")
    train, _ = plans(root, tmp_path / "out")
    with pytest.raises(UnavailableError):
        prepare(train, workers=0)
    for file in (root / "train").glob("*/*.png"):
        file.write_bytes(b"") if str(file.relative_to(root)) not in BAD else picture(9, 30, 30).save(file)
    header = prepare(train, workers=0)
    assert (header.images, header.rows) == (10, 10)


def test_where_everything_is_bad_the_rest_is_not_tried(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", train=150)
    for file in (root / "train").glob("*/*.png"):
        file.write_bytes(b"")
    train, _ = plans(root, tmp_path / "out")
    with pytest.raises(UnavailableError, match=r"and \d+ more\ntrain: 128 bad images, and the rest was not tried"):
        prepare(train, workers=0)
    assert MOST_BAD < 128 < 300


def test_a_finished_store_is_not_made_again(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    first = prepared(root, tmp_path / "out")
    before = (tmp_path / "out" / "train.store").stat().st_mtime_ns
    assert prepared(root, tmp_path / "out") == first
    assert (tmp_path / "out" / "train.store").stat().st_mtime_ns == before


def test_a_store_of_other_images_or_sizes_is_not_overwritten(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    prepared(root, tmp_path / "out")
    for train in (plans(root, tmp_path / "out", 48)[0], plans(class_folders(tmp_path / "b", 6), tmp_path / "out")[0]):
        with pytest.raises(ConfigError, match=r"holds other images or sizes \(10 images of imagefolder, train, at 32"):
            prepare(train, workers=0)


def test_an_unfinished_store_of_other_images_is_neither_taken_up_nor_overwritten(tmp_path: Path) -> None:
    root = damaged_folders(tmp_path / "data")
    with pytest.raises(UnavailableError):
        prepared(root, tmp_path / "out")
    with pytest.raises(ConfigError, match="was begun with other images or sizes"):
        prepare(plans(root, tmp_path / "out", 48)[0], workers=0)


def test_digests_tell_images_sizes_and_bad_ones_apart_but_not_folders(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    same = class_folders(tmp_path / "same")
    other = class_folders(tmp_path / "other")
    picture(5, 50, 40).save(other / "train/class 0/0.png")
    first = prepared(root, tmp_path / "1")[0].digest
    assert prepared(same, tmp_path / "2")[0].digest == first
    assert prepared(other, tmp_path / "3")[0].digest != first
    assert prepared(root, tmp_path / "4", size=40)[0].digest != first


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from prepared_stores import plans
from sqzlab.data.store.writer import prepare
root, folder, writes = Path({root!r}), Path({folder!r}), {writes}
real = os.pwrite
for at in range(1, writes + 2):
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        continue
    calls = 0
    def pwrite(file, content, where):
        global calls
        calls += 1
        if calls == at:
            real(file, bytes(content)[: len(content) // 2], where)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(file, content, where)
    os.pwrite = pwrite
    prepare(plans(root, folder / str(at))[0], workers=0)
    os._exit(0)
"""
"""Ends one process after another for good, each in the middle of its next write."""


def test_killed_in_any_write_it_is_taken_up_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", train=2)
    prepared(root, tmp_path / "whole")
    expected = (tmp_path / "whole" / "train.store").read_bytes()
    writes = 2 + 4 * 4 + 2  # labels and header; pixels, size, checksum and mark of 4 images; names and header
    code = KILLED.format(tests=str(Path(__file__).parents[2]), root=str(root), folder=str(tmp_path), writes=writes)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said.stdout.split() == [str(-signal.SIGKILL)] * writes + ["0"], said.stderr
    for at in range(1, writes + 1):
        out = tmp_path / str(at)
        assert not (out / "train.store").exists()
        if at < writes:  # before the last page nothing in it can be read
            with pytest.raises(UnavailableError):
                Store(out / ".train.store.part")
        prepare(plans(root, out)[0], workers=0)
        assert (out / "train.store").read_bytes() == expected


def test_after_a_power_cut_marked_images_whose_bytes_are_lost_are_made_again(tmp_path: Path) -> None:
    root = damaged_folders(tmp_path / "data")
    train, _ = plans(root, tmp_path / "out")
    with pytest.raises(UnavailableError):
        prepare(train, workers=0)
    with train.unfinished.open("r+b") as file:
        header = unpacked(file.read(PAGE), train.unfinished)
        file.seek(header.at(0))
        file.write(bytes(header.image_bytes))  # the first image
        file.seek(header.field_at("sizes", 2))
        file.write(bytes(8))  # the size of the third
        file.seek(0)
        file.write(packed(header.__class__(**{**header.__dict__, "boot": "another boot"})))
    for name in BAD:
        picture(9, 30, 30).save(root / name)
    prepare(train, workers=0)
    store = Store(train.path)
    np.testing.assert_array_equal(store.pixels[0], stored_picture(root / "train/class 0/0.png", 32, 0)[0])
    assert tuple(store.tables.sizes[2]) == (44, 44)
    assert store.bad_rows(np.arange(10)) == []


def test_two_processes_do_not_write_one_store(tmp_path: Path) -> None:
    root = damaged_folders(tmp_path / "data")
    train, _ = plans(root, tmp_path / "out")
    with pytest.raises(UnavailableError):
        prepare(train, workers=0)
    with train.unfinished.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UnavailableError, match="is being written by another process"):
            prepare(train, workers=0, skip_bad=3)


def test_what_another_process_has_finished_meanwhile_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders(tmp_path / "data")
    first = prepared(root, tmp_path / "other")[0]
    train, _ = plans(root, tmp_path / "out")
    finish = iter([lambda: shutil.copy2(tmp_path / "other" / "train.store", train.path)])
    monkeypatch.setattr(fcntl, "flock", lambda *_: next(finish)())
    assert prepare(train, workers=0) == first
    assert train.path.stat().st_mtime_ns == (tmp_path / "other" / "train.store").stat().st_mtime_ns
    assert not train.unfinished.exists()


def test_a_store_that_was_renamed_meanwhile_is_not_written_to(tmp_path: Path) -> None:
    train, _ = plans(class_folders(tmp_path / "data"), tmp_path / "out")

    def rename(made: int) -> None:
        if made:
            with train.unfinished.open("ab") as file:
                file.write(b"names")
            train.unfinished.replace(train.path)
            contents.append(train.path.read_bytes())

    contents: list[bytes] = []
    with pytest.raises(UnavailableError, match="was finished or removed by another process"):
        prepare(train, workers=0, done=rename)
    assert train.path.read_bytes() == contents[0]


def test_what_another_process_began_in_its_place_does_not_get_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, _ = plans(class_folders(tmp_path / "data"), tmp_path / "out")

    def replaced(_: int) -> None:
        (tmp_path / "new").write_bytes(b"begun")
        (tmp_path / "new").replace(train.unfinished)

    monkeypatch.setattr(os, "fsync", replaced)
    with pytest.raises(UnavailableError, match="was finished or removed by another process"):
        prepare(train, workers=0)
    assert not train.path.exists()
    assert train.unfinished.read_bytes() == b"begun"


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    train, _ = plans(class_folders(tmp_path / "data"), tmp_path / "out")
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(
        UnavailableError, match=r"cannot be locked \(function not implemented\); valid: --out on a file"
    ):
        prepare(train, workers=0)


@pytest.mark.parametrize("call", ["fsync", "close"])
def test_after_a_fault_of_the_disk_every_marked_image_is_checked(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders(tmp_path / "data")
    prepared(root, tmp_path / "whole")
    train, _ = plans(root, tmp_path / "out")
    real = getattr(os, call)

    def failing(file: int) -> None:
        monkeypatch.setattr(os, call, real)
        real(file)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(UnavailableError, match=r"cannot be written \(input/output error\); what is done is kept"):
        prepare(train, workers=0)
    with train.unfinished.open("r+b") as file:
        header = unpacked(file.read(PAGE), train.unfinished)
        file.seek(header.at(3))
        file.write(bytes(header.image_bytes))  # lost
    prepare(train, workers=0)
    assert train.path.read_bytes() == (tmp_path / "whole" / "train.store").read_bytes()


def test_a_result_that_is_missing_is_not_taken_for_a_whole_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, _ = plans(class_folders(tmp_path / "data"), tmp_path / "out")
    monkeypatch.setattr(writer._Maker, "__call__", lambda *_: [])
    with pytest.raises(AssertionError, match="neither made nor bad"):
        prepare(train, workers=0)
    assert not train.path.exists()


FULL = """
import shutil, subprocess, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from prepared_stores import plans
from sqzlab.data.store.reader import Store
from sqzlab.data.store.writer import prepare
from sqzlab.errors import UnavailableError
root, disk = Path({root!r}), Path({disk!r})
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", disk], check=True)
train, _ = plans(root, disk / "out")
for workers in (0, 2):
    try:
        prepare(train, workers=workers)
    except UnavailableError as error:
        print(error)
    assert not train.path.exists()
subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
header = prepare(train, workers=0)
shutil.copy(train.path, {kept!r})
print(header.images)
"""


def test_on_a_disk_that_fills_it_ends_in_one_line_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    enter = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--user", "--map-root-user"])]
    disk = tmp_path / "disk"
    disk.mkdir()
    able = subprocess.run([*enter, "mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True)
    if able.returncode:
        pytest.skip(f"no file system can be mounted here: {able.stderr.decode().strip()}")
    root = class_folders(tmp_path / "data", train=10)
    prepared(root, tmp_path / "whole")
    kept = tmp_path / "kept.store"
    code = FULL.format(tests=str(Path(__file__).parents[2]), root=str(root), disk=str(disk), kept=str(kept))
    said = subprocess.run([*enter, sys.executable, "-c", code], capture_output=True, text=True)
    assert said.stderr == ""
    line = (
        f"{str(disk / 'out' / '.train.store.part')!r} cannot be written (no space left on device); "
        "what is done is kept: mend it and run the same command again"
    )
    assert said.stdout.splitlines() == [line, line, "20"]
    assert kept.read_bytes() == (tmp_path / "whole" / "train.store").read_bytes()


# ---- what is listed ----------------------------------------------------------------------------


def test_an_empty_class_is_refused_by_its_folder(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    for file in (root / "val" / "class 1").iterdir():
        file.unlink()
    with pytest.raises(UnavailableError, match=r"no image in '.*val/class 1'; valid: files that end in"):
        listings("imagefolder", str(root))


def test_splits_of_different_classes_are_refused(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    (root / "val" / "class 1").rename(root / "val" / "class 2")
    with pytest.raises(UnavailableError, match=r"1 only in train/ \('class 1'\) and 1 only in val/ \('class 2'\)"):
        listings("imagefolder", str(root))


def test_labels_beyond_the_classes_are_refused_with_the_list(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    for split, label in (("train", 0), ("val", 1)):
        (tmp_path / f"{split}.txt").write_text(f"{split}/class 0/0.png {label}\n")
    with pytest.raises(ConfigError, match="no training image has label 1"):
        listings("imagelist", str(root), str(tmp_path / "train.txt"), str(tmp_path / "val.txt"))


def test_lists_are_prepared_in_the_order_of_their_lines(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    names = ["train/class 1/3.png", "train/class 0/2.png"]
    (tmp_path / "train.txt").write_text("".join(f"{name} {label}\n" for label, name in enumerate(names)))
    (tmp_path / "val.txt").write_text("val/class 0/0.png 1\n")
    train, _ = listings("imagelist", str(root), str(tmp_path / "train.txt"), str(tmp_path / "val.txt"))
    prepare(Plan(train, 32, tmp_path), workers=0)
    store = opened(tmp_path)
    assert (list(store.names()), store.labels.tolist(), store.class_names()) == (names, [0, 1], ("0", "1"))


def test_a_data_set_in_memory_is_not_prepared() -> None:
    with pytest.raises(ConfigError, match="'cifar10' is read into memory whole, there is nothing to prepare; valid:"):
        listings("cifar10", "/nowhere")


def test_what_the_disk_needs_is_what_the_file_takes(tmp_path: Path) -> None:
    train, _ = plans(class_folders(tmp_path / "data"), tmp_path / "out")
    stated = train.bytes_to_write()
    header = prepare(train, workers=0)
    assert header.file_bytes == train.path.stat().st_size
    assert 0 <= stated - header.file_bytes < 2 * PAGE
    assert train.bytes_to_write() == 0
    assert json.loads(train.path.read_bytes()[-header.text_bytes :])["bad"] == []
