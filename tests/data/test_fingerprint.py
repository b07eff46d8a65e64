import json
import os
import subprocess
import sys

import pytest
from torchvision.datasets import ImageFolder

from sqzlab.catalog import DATASETS
from sqzlab.data.fingerprint import count
from sqzlab.errors import UnavailableError


def tree(root, train, val):
    """Class folders of empty image files: {class: how many}."""
    for split, classes in (("train", train), ("val", val)):
        (root / split).mkdir(parents=True)
        for name, images in classes.items():
            (root / split / name).mkdir()
            for number in range(images):
                (root / split / name / f"{number}.JPEG").touch()
    return root


def settle(root):
    """Dates the class folders an hour back, as those of a data set that is no longer written."""
    for folder in root.glob("*/*"):
        os.utime(folder, (folder.stat().st_mtime - 3600,) * 2)


def refused(name, root):
    with pytest.raises(UnavailableError) as caught:
        count(name, root)
    assert caught.value.exit_code == 3
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("name", [name for name, row in DATASETS.items() if not row.needs_root])
def test_embedded_data_sets_need_no_folder(name):
    assert count(name, None) == DATASETS[name].counts


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_counted_where_its_archive_lies(name, cifar):
    assert count(name, str(cifar)) == DATASETS[name].counts


def test_class_folders_are_counted_as_torchvision_counts_them(folders):
    train, val = ImageFolder(folders / "train"), ImageFolder(folders / "val")
    assert count("imagefolder", str(folders)) == (len(train.classes), len(train), len(val))


def test_a_home_folder_may_be_written_with_a_tilde(folders, monkeypatch):
    monkeypatch.setenv("HOME", str(folders.parent))
    assert count("imagefolder", f"~/{folders.name}") == (2, 11, 5)


def test_imagenet_has_a_thousand_classes(tmp_path):
    classes = {f"n{i:08d}": 1 for i in range(1000)}
    assert count("imagenet", str(tree(tmp_path / "data", classes, classes))) == (1000, 1000, 1000)


def test_imagenet_with_other_classes_is_refused_with_a_way_out(folders):
    message = refused("imagenet", str(folders))
    assert "has 2 classes instead of 1000" in message
    assert "data.name: imagefolder" in message


@pytest.mark.parametrize(
    ("name", "way"), [("imagenet", "set IMAGENET_DIR or data.root"), ("imagefolder", "set data.root")]
)
@pytest.mark.parametrize("root", [None, ""])
def test_a_folder_that_is_not_named_is_asked_for(name, way, root):
    assert refused(name, root).endswith(way)


@pytest.mark.parametrize("name", [name for name, row in DATASETS.items() if row.needs_root])
def test_a_missing_folder_is_named(name, tmp_path):
    assert f"{str(tmp_path / 'none')!r} cannot be read (no such file or directory)" in refused(
        name, str(tmp_path / "none")
    )


def test_a_root_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    assert "cannot be read (not a directory)" in refused("imagenet", str(tmp_path / "file"))


@pytest.mark.parametrize("root", ["bad\0name", "x" * 5000, "~nobody-of-this-name/data"])
def test_a_root_that_cannot_be_a_path_is_refused_in_one_line(root):
    assert "cannot be read" in refused("imagenet", root)


def test_a_folder_of_another_user_is_named(tmp_path):
    root = tree(tmp_path / "data", {"a": 1}, {"a": 1})
    user = os.geteuid()
    root.chmod(0)
    if user == 0:  # to whom every folder is readable
        os.seteuid(65534)
    try:
        message = refused("imagefolder", str(root))
    finally:
        os.seteuid(user)
        root.chmod(0o700)
    assert "cannot be read (permission denied)" in message


@pytest.mark.parametrize(
    ("train", "val", "told"),
    [
        ({}, {"a": 1}, "train' has no class folders"),
        ({"a": 1}, {}, "val' has no class folders"),
        ({"a": 1}, {"a": 1, "b": 1}, "classes 1 only in val/ ('b')"),
        ({"a": 1, "b": 1}, {"b": 1}, "classes 1 only in train/ ('a')"),
        ({"a": 1, "b": 1}, {"b": 1, "c": 1}, "1 only in train/ ('a') and 1 only in val/ ('c')"),
        ({"a": 1}, {c: 1 for c in "abcdefg"}, "6 only in val/ ('b', 'c', 'd', ...)"),
        ({"a": 1, "b": 0}, {"a": 1, "b": 1}, "train/b'; valid: files that end in .jpg"),
        ({"a": 1}, {"a": 0}, "val/a'; valid: files that end in .jpg"),
        ({"a\nb": 1}, {"a": 1}, "'a\\nb'"),
    ],
)
def test_folders_that_do_not_fit_are_told_in_one_line(train, val, told, tmp_path):
    assert told in refused("imagefolder", str(tree(tmp_path / "data", train, val)))


def test_an_empty_folder_lacks_its_train_part(tmp_path):
    (tmp_path / "data").mkdir()
    assert f"{str(tmp_path / 'data' / 'train')!r} cannot be read (no such" in refused(
        "imagenet", str(tmp_path / "data")
    )


def test_validation_images_that_were_never_sorted_into_classes_are_recognised(tmp_path):
    root = tree(tmp_path / "data", {"a": 1}, {})
    for number in range(3):
        (root / "val" / f"{number}.JPEG").touch()
    assert "val' has no class folders, only 3 loose images" in refused("imagefolder", str(root))


@pytest.mark.parametrize(("name", "archive"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_a_missing_cifar_archive_is_told_with_its_place(name, archive, tmp_path):
    message = refused(name, str(tmp_path))
    assert f"no folder {str(tmp_path / archive)!r}" in message
    assert "nothing is downloaded" in message


# ---- cache -------------------------------------------------------------------------------------


@pytest.fixture
def counted(tmp_path):
    root = tree(tmp_path / "data", {"a": 2, "b": 1}, {"a": 1, "b": 1})
    settle(root)
    assert count("imagefolder", str(root)) == (2, 3, 2)
    return root


def kept(cache_home):
    (file,) = (cache_home / "sqzlab").iterdir()
    return file


def test_counts_are_kept(counted, cache_home):
    file = kept(cache_home)
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "counts": [2, 33, 22]}))
    assert count("imagefolder", str(counted)) == (2, 33, 22)


@pytest.mark.parametrize("split", ["train", "val"])
def test_kept_counts_are_not_used_once_a_class_folder_changes(split, counted):
    (counted / split / "a" / "new.png").touch()
    assert count("imagefolder", str(counted)) == (2, 3 + (split == "train"), 2 + (split == "val"))


def test_kept_counts_hide_no_fault(counted):
    (counted / "val" / "c").mkdir()
    assert "1 only in val/ ('c')" in refused("imagefolder", str(counted))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"{}", b"null", b'{"stamp": 1, "counts": 3}'])
def test_a_cache_that_cannot_be_understood_is_not_used(content, counted, cache_home):
    kept(cache_home).write_bytes(content)
    assert count("imagefolder", str(counted)) == (2, 3, 2)


def test_wrong_counts_under_the_right_stamp_are_not_used(counted, cache_home):
    file = kept(cache_home)
    values = json.loads(file.read_text())
    for wrong in (None, [1, 2], ["x", 1, 2], {}):
        file.write_text(json.dumps({**values, "counts": wrong}))
        assert count("imagefolder", str(counted)) == (2, 3, 2)


def test_a_cache_folder_that_cannot_be_made_does_not_matter(tmp_path, monkeypatch):
    root = tree(tmp_path / "data", {"a": 1}, {"a": 1})
    settle(root)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert count("imagefolder", str(root)) == (1, 1, 1)


def test_counts_of_folders_that_may_still_be_written_are_not_kept(tmp_path, cache_home):
    root = tree(tmp_path / "data", {"a": 1}, {"a": 1})
    assert count("imagefolder", str(root)) == (1, 1, 1)
    assert not cache_home.exists()


def test_counting_imports_neither_torch_nor_torchvision_nor_sklearn():
    code = (
        "import sys; from sqzlab.data.fingerprint import count; count('digits', None);"
        "print(sorted({'torch', 'torchvision', 'sklearn', 'PIL'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
