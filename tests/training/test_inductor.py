"""Where compiled kernels go."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import torch
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from sqzlab.training.inductor import kernels_in, own_cache

NAMES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


def test_torch_keeps_what_it_compiles_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    torch.compiler.reset()
    with kernels_in(tmp_path / "kernels"):
        assert torch.compile(lambda x: x.sin() + 1)(torch.zeros(3)).tolist() == [1, 1, 1]
    torch.compiler.reset()
    assert [path for path in (tmp_path / "kernels").rglob("*.py")]
    assert not set(NAMES) & os.environ.keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_users_own_setting_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other in NAMES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "mine")
    with kernels_in(tmp_path):
        assert {key: os.environ.get(key) for key in NAMES} == {key: "mine" if key == name else None for key in NAMES}
        os.environ.update(dict.fromkeys(NAMES, "torch set them both"))
    assert {key: os.environ.get(key) for key in NAMES} == {key: "mine" if key == name else None for key in NAMES}


def test_what_torch_sets_by_itself_is_no_setting_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = default_cache_dir()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default)
    monkeypatch.setenv("TRITON_CACHE_DIR", f"{default}/triton")
    assert not own_cache()
    with kernels_in(tmp_path):
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == default
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # of a job; its launch had another
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert not own_cache()
    monkeypatch.setenv("TRITON_CACHE_DIR", "/scratch/mine")
    assert own_cache()
