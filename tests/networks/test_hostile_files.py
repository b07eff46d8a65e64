"""Files that must never be loaded: hostile, damaged, and what is no checkpoint at all."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refused_files import told
from torch import Tensor, nn

from sqzlab.errors import ConfigError
from sqzlab.networks.files import FORMAT, SUFFIXES, read_network, read_weights, save_network
from sqzlab.networks.resnet import build
from sqzlab.resolving import model_config

CONFIG = model_config(backbone="resnet18", squeeze="RG", num_classes=3, image_size=32, stem="small", width=0.25)


@pytest.fixture(params=SUFFIXES)
def saved(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / f"network{request.param}"
    save_network(path, build(CONFIG, seed=4), CONFIG, mean=(0, 0, 0), std=(1, 1, 1), class_names=None)
    return path


# ---- hostile files -----------------------------------------------------------------------------


class Hostile:
    """Unpickled, it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("read", [read_weights, read_network])
def test_a_pickle_that_would_run_code_is_named_and_not_run(
    tmp_path: Path, zipped: bool, read: Callable[[Path], Any]
) -> None:
    path, folder = tmp_path / "a.pt", tmp_path / "made"
    content = {"sqzlab": {"format": FORMAT}, "weights": {"a": torch.ones(1)}, "best": Hostile(folder)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert "holds Python code to be run (posix.mkdir), which is not loaded" in told(path, read)
    assert not folder.exists()
    torch.load(path, weights_only=False)  # that the test would notice
    assert folder.exists()


def test_a_bare_pickle_that_would_run_code_is_not_run(tmp_path: Path) -> None:
    path, folder = tmp_path / "a.safetensors", tmp_path / "made"
    path.write_bytes(pickle.dumps({"a": Hostile(folder)}, protocol=2))
    assert "not loaded" in told(path) or "no file of torch" in told(path)
    assert not folder.exists()


def test_a_whole_module_is_refused_with_the_way_to_save_its_weights(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "a.pt")
    assert "torch.save(model.state_dict(), ...)" in told(tmp_path / "a.pt")


# ---- damaged and other files -------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.9, 0.999])
def test_a_file_cut_off_is_told_in_one_line(saved: Path, kept: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(kept * len(content))])
    assert "valid:" in told(saved)
    assert "valid:" in told(saved, read_network)


def test_a_damaged_zip_is_told_though_torch_would_load_it(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.arange(1000)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    torch.load(path, weights_only=True)
    assert "is damaged" in told(path)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x08\0\0\0\0\0\0\0{"]), rest=st.binary(max_size=80))
def test_any_bytes_are_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, start: bytes, rest: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pt"
    path.write_bytes(start + rest)
    told(path)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(position=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_pickle_with_one_byte_changed_is_loaded_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.pt"
    torch.save({"a": torch.ones(3), "b": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    content = bytearray(path.read_bytes())
    content[position % len(content)] = byte
    path.write_bytes(content)
    said = []
    try:
        read_weights(path)
    except ConfigError as error:
        said = str(error).splitlines()
    assert len(said) < 2


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html>", "it starts with b'<!DOCTYPE html>'"),
        (b"version https://git-lfs.github.com/spec/v1", "it starts with b'version https://"),
    ],
)
def test_what_is_no_checkpoint_is_told_by_how_it_starts(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    assert text in told(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (torch.ones(2), "holds a Tensor, no weights by name"),
        ([1, 2], "holds a list"),
        ({}, "but nothing"),
        ({"epoch": 3, "best": 0.5}, "but 'epoch', 'best'"),
        ({"state_dict": {"a": torch.ones(1), "b": 2}}, "but 'a', 'b'"),
        ({"state_dict": {1: torch.ones(1)}}, "but 1"),
    ],
)
def test_a_checkpoint_without_weights_is_told_by_what_it_has(tmp_path: Path, content: object, text: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert text in told(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "tensor", [torch.ones(2).to_sparse(), torch.ones(2, device="meta"), torch.ones(2, dtype=torch.complex64)]
)
def test_tensors_that_are_no_weights_are_told(tmp_path: Path, tensor: Tensor) -> None:
    torch.save({"a": torch.ones(2), "b": tensor}, tmp_path / "a.pt")
    assert "'b' is no dense tensor of real numbers" in told(tmp_path / "a.pt")


def test_other_zips_and_programs_of_torch_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a.txt", "text")
    assert "valid:" in told(tmp_path / "a.pt")


def test_a_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    assert told(tmp_path).startswith("is a folder")
    assert told(tmp_path / "none.pt").startswith("there is no such file")
