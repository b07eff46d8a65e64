"""The cache of what networks cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sqzlab.config import ModelConfig
from sqzlab.launching.costs import Cost, measure_all
from sqzlab.resolving import model_config

UNUSABLE = ('{"params": 1, "macs": 2, "parameters": {}}', '{"params": 1, "ma', "", "[1]")  # the first: an older form


@pytest.fixture(scope="module")
def models() -> list[ModelConfig]:
    sizes = range(8, 8 + len(UNUSABLE))
    return [model_config(backbone="resnet18", width=0.125, stem="small", image_size=size) for size in sizes]


@pytest.fixture(scope="module")
def found(models: list[ModelConfig], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[ModelConfig, Cost]]:
    """A cache folder, and what was measured into it."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        return folder / "sqzlab" / "costs", measure_all(models)


@pytest.fixture(autouse=True)
def cache(found: tuple[Path, dict[ModelConfig, Cost]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(found[0].parents[1]))


def test_entries_of_another_form_are_measured_anew(
    models: list[ModelConfig], found: tuple[Path, dict[ModelConfig, Cost]]
) -> None:
    folder, costs = found
    entries = {path: path.read_bytes() for path in folder.iterdir()}
    for path, text in zip(entries, UNUSABLE, strict=True):
        path.write_text(text)
    assert measure_all(models) == costs
    assert {path: path.read_bytes() for path in folder.iterdir()} == entries


def test_what_is_cached_is_not_measured_again(
    models: list[ModelConfig], found: tuple[Path, dict[ModelConfig, Cost]]
) -> None:
    for path in found[0].iterdir():
        path.write_text(json.dumps({"params": 1, "macs": 2, "paper_ops": 3, "parameters": {}}))
    assert measure_all(models) == {model: Cost(params=1, macs=2, paper_ops=3, parameters={}) for model in models}
