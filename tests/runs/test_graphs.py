"""Which runs share what is compiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_runs import SMALL

from sqzlab.config import HOST_KEYS, SECTIONS, Config, resolve
from sqzlab.run import Run
from sqzlab.runs.graphs import FOLDER, UNSHAPING, graph_of, published, to_compile


def config(seed: int = 0, **values: Any) -> Config:
    given = {**SMALL, "train.compile": True, **{key.replace("__", "."): value for key, value in values.items()}}
    found = resolve(given, seed)
    assert isinstance(found, Config), found
    return found


def run(seed: int = 0, **values: Any) -> Run:
    return Run("study", None, {}, config(seed, **values))


@pytest.mark.parametrize(
    ("seed", "values"),
    [
        (1, {}),
        (0, {"train__epochs": 5}),
        (0, {"train__lr": 0.5}),
        (0, {"train__label_smoothing": 0.1}),
        (0, {"train__schedule": "cosine"}),
        (0, {"train__limit_batches": 3}),
        (0, {"train__checkpoint_steps": 7}),
    ],
)
def test_seeds_and_recipes_share_a_graph(seed: int, values: dict[str, Any]) -> None:
    assert graph_of(config(seed, **values)) == graph_of(config())


@pytest.mark.parametrize(
    "values",
    [
        {"model__squeeze": "gap", "model__reduction": 4},
        {"model__width": 0.25},
        {"data__image_size": 16},
        {"train__batch_size": 16},
        {"train__precision": "bf16"},
        {"train__block_form": "folded"},
        {"train__channels_last": False},
        {"train__deterministic": True},
        {"train__threads": 2},
        {"train__world_size": 2},
        {"train__world_size": 2, "train__sync_batch_norm": True},
    ],
)
def test_what_shapes_the_code_makes_another_graph(values: dict[str, Any]) -> None:
    assert graph_of(config(**values)) != graph_of(config())


def test_what_is_said_to_shape_nothing_are_keys_of_a_run() -> None:
    keys = {f"{section}.{name}" for section, cls in SECTIONS.items() for name in cls.model_fields}
    assert set(UNSHAPING) <= keys
    assert set(HOST_KEYS) <= set(UNSHAPING)


def test_a_graph_is_compiled_beforehand_where_several_runs_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    gap = {"model__squeeze": "gap", "model__reduction": 4}
    plain, squeezed, alone = [run(0), run(1)], [run(0, **gap), run(1, **gap)], [run(0, train__batch_size=16)]
    eager = [run(seed, train__compile=False) for seed in (0, 1)]
    runs = [*plain, *squeezed, *alone, *eager]
    first, second = graph_of(plain[0].config), graph_of(squeezed[0].config)
    assert to_compile(runs, tmp_path) == {first: plain, second: squeezed}

    (tmp_path / FOLDER).mkdir()
    for name in (f"{first}-12345678.zip", f".{second}-12345678.zip.abc.tmp"):
        (tmp_path / FOLDER / name).touch()
    assert published(tmp_path) == {first}
    assert to_compile(runs, tmp_path) == {second: squeezed}

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/somewhere/of/mine")
    assert to_compile(runs, tmp_path) == {}
