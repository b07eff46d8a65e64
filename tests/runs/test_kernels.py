"""Archives of what was compiled: whole, copied and unpacked once, whoever is killed or comes at the same time."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path

import pytest
import torch
from small_runs import MakeRun
from torch._dynamo.utils import counters

from sqzlab.networks.folded import folded
from sqzlab.networks.se_block import Excitation, SEBlock
from sqzlab.networks.squeezes import SQUEEZES
from sqzlab.run import CONFIG, Run
from sqzlab.runs.kernels import COMPLETE, UNUSED_S, Kernels, graphs_in, kernels_of, node_folder, sweep
from sqzlab.training.meeting import LeftError
from sqzlab.training.world import World

FILES = {"ab/kernel.so": os.urandom(200_000), "ab/kernel.py": b"x = 1\n" * 1000, "fxgraph/cd/graph": b"graph"}
LEFT_OUT = {"locks/kernel.lock": b"", "ab/half.tmp": b"half", "triton/ab/__grp__kernel.json": b"absolute paths"}

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
    fill(there.local, {**FILES, **LEFT_OUT})
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


@pytest.mark.parametrize("archived", [True, False])
def test_nothing_is_taken_from_a_folder_where_a_run_was_killed_while_it_compiled(
    kernels: Kernels, archived: bool
) -> None:
    if not archived:
        kernels.archive.unlink()
    fill(kernels.local, {"ab/kernel.py": FILES["ab/kernel.py"][:7], "fxgraph/half": b""})
    assert kernels.fetch() == archived
    assert found(kernels.local) == (FILES if archived else {})


def test_nothing_is_taken_from_before_the_nodes_last_boot(
    tmp_path: Path, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path))
    config = Run.from_json(json.loads((make_run() / CONFIG).read_text())).config
    before = Kernels.of(config, tmp_path, torch.device("cpu"))
    fill(before.local, FILES)
    before.publish()
    assert Kernels.of(config, tmp_path, torch.device("cpu")) == before
    (tmp_path / "boot_id").write_text("another")
    monkeypatch.setattr("sqzlab.runs.kernels.BOOT", tmp_path / "boot_id")
    after = Kernels.of(config, tmp_path, torch.device("cpu"))
    assert after.archive == before.archive
    assert not after.local.exists()


def test_what_torch_keeps_nothing_of_is_complete_but_not_published(tmp_path: Path) -> None:
    kernels = Kernels(tmp_path / "kernels" / "graph.zip", tmp_path / "local")
    fill(kernels.local, {"ab/kernel.so": b"not to be found again"})
    assert kernels.publish()
    assert not kernels.archive.exists()
    with kernels.locked():
        assert kernels.fetch()
    assert found(kernels.local) == {"ab/kernel.so": b"not to be found again"}


def test_an_encrypted_archive_is_a_damaged_one(kernels: Kernels, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(kernels.archive.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := data.find(mark, at + 1)) >= 0:
            data[at + flags] |= 1
    kernels.archive.write_bytes(data)
    assert not kernels.fetch()
    assert "is damaged and is made anew" in capsys.readouterr().out
    assert not kernels.archive.exists()


def test_an_archive_that_is_used_stays_young(kernels: Kernels) -> None:
    os.utime(kernels.archive, times=(0, 0))
    assert kernels.fetch()
    assert kernels.archive.stat().st_mtime > time.time() - 600


def test_a_disk_that_takes_no_archive_stops_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    kernels = Kernels(tmp_path / "file" / "graph.zip", tmp_path / "local")
    fill(kernels.local, FILES)
    kernels.publish()
    assert "is not written" in capsys.readouterr().out


def test_processes_that_come_at_once_all_find_the_whole(kernels: Kernels) -> None:
    with _pool(6) as pool:
        asked = [pool.apply_async(_fetched, (kernels.archive, kernels.local)) for _ in range(12)]
        for one in asked:
            assert one.get(60) == FILES
    assert {path.name for path in kernels.local.parent.iterdir()} == {kernels.local.name, f"{kernels.local.name}.lock"}


def test_processes_that_publish_at_once_leave_one_whole_archive(tmp_path: Path) -> None:
    archive, local = tmp_path / "kernels" / "graph.zip", tmp_path / "local"
    fill(local, FILES)
    with _pool(4) as pool:
        for one in [pool.apply_async(_published, (archive, local)) for _ in range(8)]:
            one.get(60)
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]
    assert Kernels(archive, tmp_path / "copy").fetch()
    assert found(tmp_path / "copy") == FILES


@contextmanager
def _pool(processes: int) -> Iterator[Pool]:
    """Ended by their own end: a fork server that a loader has started leaves its children deaf to SIGTERM."""
    with _context.Pool(processes) as pool:
        yield pool
        pool.close()
        pool.join()


def _fetched(archive: Path, local: Path) -> dict[str, bytes]:
    kernels = Kernels(archive, local)
    with kernels.locked():
        assert kernels.fetch()
    return found(local)


def _published(archive: Path, local: Path) -> None:
    Kernels(archive, local).publish()


def test_what_no_run_has_begun_with_for_long_is_removed(tmp_path: Path) -> None:
    for name, age_s in (("old", UNUSED_S + 60), ("young", UNUSED_S - 60)):
        fill(tmp_path / name, FILES)
        (tmp_path / f"{name}.lock").touch()
        for path in (tmp_path / name, tmp_path / f"{name}.lock"):
            os.utime(path, times=(time.time() - age_s,) * 2)
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"young", "young.lock"}


def test_kernels_lie_in_a_folder_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path))
    folder = node_folder()
    assert folder.parent == tmp_path
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert node_folder() == folder
    folder.chmod(0o777)  # as another user may have made it beforehand, to be executed by this one
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    other = node_folder()
    assert other.parent == tmp_path / "temporary"
    assert stat.S_IMODE(other.stat().st_mode) == 0o700
    other.chmod(0o777)
    last = node_folder()
    assert last.parent == tmp_path / "temporary"
    assert last != other


def test_where_slurms_folder_cannot_be_used_kernels_lie_in_the_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for given in (tmp_path / "file", tmp_path / "gone", Path("relative")):
        monkeypatch.setenv("SLURM_TMPDIR", str(given))
        assert node_folder().parent == tmp_path


def test_a_run_whose_nodes_disk_takes_nothing_goes_on_and_says_so(
    tmp_path: Path, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(train__compile=True)
    config = Run.from_json(json.loads((folder / CONFIG).read_text())).config
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path))
    kernels = Kernels.of(config, folder.parent, torch.device("cpu"))
    kernels.local.write_text("no folder, as on a disk that is broken")
    with kernels_of(config, folder.parent, torch.device("cpu"), World(), lambda: False):
        assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    assert "cannot be used" in capsys.readouterr().out


def test_of_runs_on_a_node_one_compiles_while_the_others_wait_until_they_are_stopped(kernels: Kernels) -> None:
    asked: list[float] = []

    def stopped() -> bool:
        asked.append(time.monotonic())
        return len(asked) == 3

    with kernels.locked(), pytest.raises(LeftError), kernels.locked(stopped):
        pass
    assert len(asked) == 3
    with kernels.locked(stopped):
        assert len(asked) == 3


def test_a_graph_with_a_backward_of_its_own_is_found_again_with_the_same_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    torch.manual_seed(0)
    block = SEBlock(SQUEEZES["gap"](6, 5, 5), Excitation(6, 3, bias=True, gate="sigmoid"))
    norm, y = torch.nn.BatchNorm2d(6), torch.randn(4, 6, 5, 5)
    gradients = []
    with graphs_in(tmp_path):
        for _ in ("compiled", "found again"):
            torch.compiler.reset()
            counters.clear()
            compiled = torch.compile(partial(folded, norm=norm, se=block), dynamic=False)
            given = y.clone().requires_grad_()
            compiled(given).square().sum().backward()
            gradients.append([given.grad, *(parameter.grad for parameter in (*norm.parameters(), *block.parameters()))])
            norm.zero_grad()
            block.zero_grad()
    torch.compiler.reset()
    assert counters["aot_autograd"]["autograd_cache_hit"] == 1
    assert not counters["aot_autograd"]["autograd_cache_bypass"]
    assert all(torch.equal(cold, warm) for cold, warm in zip(*gradients, strict=True))
