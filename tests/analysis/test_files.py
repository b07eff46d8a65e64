from pathlib import Path

import pytest

from sqzlab.analysis.files import write_files

FILES = {"table.md": b"| 1 |", "index.html": b"<p>1</p>"}


def inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


def test_files_that_are_there_already_are_left_alone(tmp_path: Path) -> None:
    write_files(tmp_path, FILES)
    before = inodes(tmp_path)
    write_files(tmp_path, FILES | {"index.html": b"<p>2</p>"})
    after = inodes(tmp_path)
    assert after.keys() == before.keys()
    assert {name for name in FILES if after[name] != before[name]} == {"index.html"}


@pytest.mark.parametrize("harm", ["edited", "deleted", "private", "link"])
def test_a_file_that_was_harmed_is_written_again(tmp_path: Path, harm: str) -> None:
    target, path = tmp_path / "report", tmp_path / "report" / "table.md"
    write_files(target, FILES)
    if harm == "edited":
        path.write_bytes(b"| 2 |")
    elif harm == "private":
        path.chmod(0o600)
    else:
        path.unlink()
    if harm == "link":
        (tmp_path / "elsewhere").write_bytes(FILES["table.md"])
        path.symlink_to(tmp_path / "elsewhere")
    write_files(target, FILES)
    assert path.read_bytes() == FILES["table.md"]
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o644
