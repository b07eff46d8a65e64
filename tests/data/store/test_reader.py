"""A store is read as it was written, shared, and refused as soon as it is anything else."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import struct
import zlib
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
from prepared_stores import class_folders, opened, prepared

from sqzlab.data.store import reader
from sqzlab.data.store.format import PAGE, VERSION, packed, unpacked
from sqzlab.data.store.reader import Store, read_headers
from sqzlab.data.store.verify import damaged
from sqzlab.errors import UnavailableError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder, only to be read."""
    out = tmp_path_factory.mktemp("made")
    prepared(class_folders(tmp_path_factory.mktemp("data") / "root"), out)
    return out


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """One training store, to be changed."""
    return Path(shutil.copy(made / "train.store", tmp_path))


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def test_gathered_images_are_copies_in_the_order_asked_for(made: Path) -> None:
    store = opened(made)
    index = np.array([7, 0, 7, 3])
    found = store.gather(index)
    np.testing.assert_array_equal(found, store.pixels[index])
    assert not np.shares_memory(found, store.pixels)
    into = np.zeros_like(found)
    store.prefetch(index)
    assert store.gather(index, into) is into
    np.testing.assert_array_equal(into, found)


def test_what_is_read_is_mapped_and_cannot_be_written(made: Path) -> None:
    store = opened(made)
    for array in (store.pixels, store.tables.labels, store.tables.checksums):
        assert not array.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_pickled_it_is_its_path_and_opens_the_same_file(made: Path) -> None:
    store = opened(made)
    sent = ForkingPickler.dumps(store)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).pixels, store.pixels)


def test_another_process_refuses_a_file_that_took_its_place(copy: Path) -> None:
    sent = pickle.dumps(Store(copy))
    os.utime(copy, ns=(0, 0))
    with pytest.raises(UnavailableError, match="changed while it was read; valid: one that nobody writes"):
        pickle.loads(sent)


def test_sizes_are_the_originals_where_all_is_kept_and_the_squares_elsewhere(made: Path) -> None:
    index = np.array([0, 1])
    assert opened(made).sizes(index).tolist() == [[40, 50], [60, 30]]
    assert opened(made, "val").sizes(index).tolist() == [[32, 32], [32, 32]]


@pytest.mark.parametrize("cut", [1, 5000, 20_000])
def test_a_store_cut_short_is_refused(copy: Path, cut: int) -> None:
    whole = copy.stat().st_size
    os.truncate(copy, whole - cut)
    with pytest.raises(UnavailableError) as caught:
        Store(copy)
    told = f"store {str(copy)!r} has {whole - cut:,} bytes instead of {whole:,}: it was cut short; prepare it again"
    assert str(caught.value) == told


@pytest.mark.parametrize("length", [0, 10, PAGE - 1])
def test_less_than_a_header_is_no_store(copy: Path, length: int) -> None:
    os.truncate(copy, length)
    with pytest.raises(UnavailableError, match="is no store; valid: a file that `python -m sqzlab prepare` has made"):
        Store(copy)


def test_a_store_that_grew_is_refused(copy: Path) -> None:
    with copy.open("ab") as file:
        file.write(b"more")
    with pytest.raises(UnavailableError, match="it was added to; prepare it again"):
        Store(copy)


def test_another_version_is_refused(copy: Path) -> None:
    overwrite(copy, 8, struct.pack("<I", 7))
    with pytest.raises(UnavailableError, match=rf"has version 7; valid: {VERSION}; prepare it again$"):
        Store(copy)


def test_another_size_or_split_is_refused(made: Path) -> None:
    with pytest.raises(UnavailableError, match=r"has images of size 32; valid: 256$"):
        Store(made / "train.store", size=256)
    with pytest.raises(UnavailableError, match=r"has the split 'train'; valid: 'val'$"):
        Store(made / "train.store", split="val")


@pytest.mark.parametrize("at", [30, 60])
def test_a_damaged_header_is_refused(copy: Path, at: int) -> None:
    overwrite(copy, at, b"\xff")
    with pytest.raises(UnavailableError, match="has a damaged header; prepare it again"):
        Store(copy)


@pytest.mark.parametrize("table", ["labels", "sizes", "checksums", "good"])
def test_damaged_tables_are_refused(copy: Path, table: str) -> None:
    header = Store(copy).header
    overwrite(copy, header.field_at(table, 3), b"\x07")
    with pytest.raises(UnavailableError, match="has damaged tables; prepare it again"):
        Store(copy)


def test_an_unfinished_file_is_refused_under_any_name(copy: Path) -> None:
    header = unpacked(copy.read_bytes()[:PAGE], copy)
    overwrite(copy, 0, packed(header.__class__(**{**header.__dict__, "digest": ""})))
    with pytest.raises(UnavailableError, match="was not finished; run `python -m sqzlab prepare` again"):
        Store(copy)


@pytest.mark.parametrize("what", ["absent", "folder"])
def test_what_cannot_be_read_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "train.store"
    if what == "folder":
        path.mkdir()
    with pytest.raises(UnavailableError, match=r"train\.store' cannot be read \((no such file|is a directory)"):
        Store(path)


def test_cut_short_while_it_is_read_it_is_refused_before_the_next_batch(copy: Path) -> None:
    store = Store(copy)
    store.gather(np.arange(10))
    os.truncate(copy, PAGE)
    with pytest.raises(UnavailableError, match="changed while it was read"):
        store.gather(np.arange(10))


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("place", [False, True])
def test_a_file_that_cannot_be_asked_is_told_with_the_stores_name(
    made: Path, place: bool, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, works = opened(made), os.fstat

    def fails(file: int) -> object:
        if file != store._file:
            return works(file)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fstat", fails)
    reason = os.strerror(number).lower()
    with pytest.raises(UnavailableError, match=rf"^store '.*train\.store' cannot be read \({reason}\)$"):
        store.check_unchanged(place=place)


def test_all_of_an_image_is_asked_for_ahead_in_pieces(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, asked = opened(made), []
    monkeypatch.setattr(reader, "READ_AHEAD", 2000)
    monkeypatch.setattr(os, "posix_fadvise", lambda _, at, length, how: asked.append((at, length)))
    store.prefetch(np.array([5]))
    begin = store.header.at(5)
    assert asked == [(begin, 2000), (begin + 2000, 1072)]  # 3072 bytes


def test_a_file_system_that_reads_nothing_ahead_is_left_to_itself(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.EINVAL, "invalid argument")

    monkeypatch.setattr(os, "posix_fadvise", refuses)
    opened(made).prefetch(np.arange(3))


def test_written_to_while_it_is_read_it_is_refused(copy: Path) -> None:
    store = Store(copy)
    overwrite(copy, store.header.at(4), b"x")
    os.utime(copy, ns=(1, 1))  # a write within one tick of the file system's clock leaves the time as it was
    with pytest.raises(UnavailableError, match="changed while it was read"):
        store.check_unchanged()


def test_replaced_or_removed_while_it_is_read_it_is_refused_at_the_next_epoch(copy: Path, made: Path) -> None:
    store = Store(copy)
    shutil.copy(made / "val.store", copy.with_name("new"))
    copy.with_name("new").replace(copy)
    store.gather(np.arange(2))  # the old file is still there for those who have it
    with pytest.raises(UnavailableError, match="changed while it was read"):
        store.check_unchanged(place=True)
    copy.unlink()
    with pytest.raises(UnavailableError, match="is gone while it is read"):
        store.check_unchanged(place=True)


def test_splits_of_different_class_counts_are_refused(made: Path, copy: Path) -> None:
    val = Path(shutil.copy(made / "val.store", copy.parent))
    header = unpacked(val.read_bytes()[:PAGE], val)
    overwrite(val, 0, packed(header.__class__(**{**header.__dict__, "classes": 3})))
    with pytest.raises(UnavailableError, match="have 2 classes in train and 3 in val"):
        read_headers(copy.parent)


def test_splits_of_other_classes_are_refused_by_their_headers(made: Path, copy: Path, tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    for split in ("train", "val"):
        (root / split / "class 0").rename(root / split / "another")
    prepared(root, tmp_path / "other")
    (tmp_path / "other" / "val.store").replace(copy.with_name("val.store"))
    with pytest.raises(UnavailableError, match="have different classes in train and val; prepare both from one data"):
        read_headers(copy.parent)


def test_images_whose_bytes_changed_are_found_by_name(copy: Path) -> None:
    assert damaged(Store(copy), workers=0) == []
    store = Store(copy)
    for row in (2, 9):
        overwrite(copy, store.header.at(row) + 100, bytes([store.pixels[row].flat[100] ^ 1]))
    seen: list[int] = []
    assert damaged(Store(copy), workers=0, done=seen.append) == ["train/class 0/2.png", "train/class 1/4.png"]
    assert seen == [10]


def test_checksums_are_crc_32(made: Path) -> None:
    store = opened(made)
    assert [zlib.crc32(image) for image in store.pixels] == store.tables.checksums.tolist()
