"""Files are whole or absent."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sqzlab.runs.files import read_json, write_json, write_whole


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def fails(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise RuntimeError("now")

    with pytest.raises(RuntimeError):
        write_whole(path, fails)
    assert read_json(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("text", ["", "{", '{"a": ', "[1]", "null", "\x00\xff"])
def test_what_is_no_whole_object_reads_as_absent(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert read_json(tmp_path / "a.json") is None


def test_numbers_that_json_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.fixture
def full_disk(tmp_path: Path):
    folder = tmp_path / "full"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mount.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_keeps_the_old_file_whole(full_disk: Path) -> None:
    write_json(full_disk / "a.json", {"a": 1})
    with pytest.raises(OSError, match="No space left"):
        write_json(full_disk / "a.json", {"a": "x" * 100_000})
    assert read_json(full_disk / "a.json") == {"a": 1}
    assert [entry.name for entry in full_disk.iterdir()] == ["a.json"]
