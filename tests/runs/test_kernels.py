"""Archives of what was compiled: whole, copied and unpacked once, whoever is killed or comes at the same time."""

from __future__ import annotations

import multiprocessing
import os
import stat
import time
from pathlib import Path

import pytest

from sqzlab.runs.kernels import COMPLETE, UNUSED_S, Kernels, node_folder, sweep

FILES = {"ab/kernel.so": os.urandom(200_000), "ab/kernel.py": b"x = 1\n" * 1000, "fxgraph/cd/graph": b"graph"}
PASSING = {"locks/kernel.lock": b"", "ab/half.tmp": b"half"}

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["sqzlab.runs.kernels"])


def fill(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def found(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != COMPLETE]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """What a run on another node has published."""
    there = Kernels(tmp_path / "kernels" / "graph-machine.zip", tmp_path / "there" / "graph-machine")
    fill(there.local, {**FILES, **PASSING})
    there.publish()
    return there.archive


@pytest.fixture
def kernels(archive: Path, tmp_path: Path) -> Kernels:
    """The same graph on this node."""
    (tmp_path / "here").mkdir()
    return Kernels(archive, tmp_path / "here" / "graph-machine")


def test_what_one_node_published_another_has(kernels: Kernels) -> None:
    assert kernels.fetch()
    assert found(kernels.local) == FILES
    assert [path.name for path in kernels.archive.parent.iterdir()] == [kernels.archive.name]
    assert [path.name for path in kernels.local.parent.iterdir()] == [kernels.local.name]


def test_without_an_archive_there_is_an_empty_folder(tmp_path: Path) -> None:
    kernels = Kernels(tmp_path / "kernels" / "none.zip", tmp_path / "none")
    assert not kernels.fetch()
    assert found(kernels.local) == {}


def test_a_folder_that_is_complete_is_not_unpacked_again(kernels: Kernels) -> None:
    assert kernels.fetch()
    kernels.archive.write_bytes(b"never looked at")
    assert kernels.fetch()
    assert found(kernels.local) == FILES


def test_who_publishes_first_wins(kernels: Kernels) -> None:
    before = kernels.archive.read_bytes()
    fill(kernels.local, {"other": b"kernel"})
    kernels.publish()
    assert kernels.archive.read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "one byte", "empty", "no archive"])
def test_a_damaged_archive_is_told_and_made_anew(
    kernels: Kernels, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = kernels.archive.read_bytes()
    middle = len(data) // 2
    damaged = {
        "cut": data[:middle],
        "one byte": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "empty": b"",
        "no archive": b"x" * 1000,
    }
    kernels.archive.write_bytes(damaged[damage])
    assert not kernels.fetch()
    (told,) = capsys.readouterr().out.splitlines()
    assert "is damaged and is made anew" in told
    assert found(kernels.local) == {}
    fill(kernels.local, FILES)
    kernels.publish()
    assert Kernels(kernels.archive, kernels.local.with_name("another")).fetch()
    assert found(kernels.local.with_name("another")) == FILES


def test_a_folder_where_a_run_was_killed_while_it_compiled_gets_what_it_lacks(kernels: Kernels) -> None:
    fill(kernels.local, {"ab/kernel.py": FILES["ab/kernel.py"], "mine": b"compiled here"})
    assert kernels.fetch()
    assert found(kernels.local) == {**FILES, "mine": b"compiled here"}


def test_a_disk_that_takes_no_archive_stops_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    kernels = Kernels(tmp_path / "file" / "graph.zip", tmp_path / "local")
    fill(kernels.local, FILES)
    kernels.publish()
    assert "is not written" in capsys.readouterr().out


def test_processes_that_come_at_once_all_find_the_whole(kernels: Kernels) -> None:
    with _context.Pool(6) as pool:
        asked = [pool.apply_async(_fetched, (kernels.archive, kernels.local)) for _ in range(12)]
        for one in asked:
            assert one.get(60) == FILES
    assert [path.name for path in kernels.local.parent.iterdir()] == [kernels.local.name]


def test_processes_that_publish_at_once_leave_one_whole_archive(tmp_path: Path) -> None:
    archive, local = tmp_path / "kernels" / "graph.zip", tmp_path / "local"
    fill(local, FILES)
    with _context.Pool(4) as pool:
        for one in [pool.apply_async(_published, (archive, local)) for _ in range(8)]:
            one.get(60)
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]
    assert Kernels(archive, tmp_path / "copy").fetch()
    assert found(tmp_path / "copy") == FILES


def _fetched(archive: Path, local: Path) -> dict[str, bytes]:
    assert Kernels(archive, local).fetch()
    return found(local)


def _published(archive: Path, local: Path) -> None:
    Kernels(archive, local).publish()


def test_what_no_run_has_begun_with_for_long_is_removed(tmp_path: Path) -> None:
    for name, age_s in (("old", UNUSED_S + 60), ("young", UNUSED_S - 60)):
        fill(tmp_path / name, FILES)
        os.utime(tmp_path / name, times=(time.time() - age_s,) * 2)
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["young"]


def test_kernels_lie_in_a_folder_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path))
    folder = node_folder()
    assert folder.parent == tmp_path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert node_folder() == folder
    folder.chmod(0o777)  # as another user may have made it beforehand, to be executed by this one
    other = node_folder()
    assert other != folder
    assert stat.S_IMODE(other.stat().st_mode) == 0o700
