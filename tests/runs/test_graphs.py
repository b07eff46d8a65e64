"""Which runs share what is compiled."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from small_runs import SMALL

from sqzlab.config import HOST_KEYS, SECTIONS, Config
from sqzlab.resolving import resolve
from sqzlab.run import Run
from sqzlab.runs.graphs import FOLDER, UNSHAPING, UNUSED_S, forget, graph_of, published, to_compile


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


SIZED = {"data__name": "generated", "train__train_sizes": (16, 24), "train__size_milestones": (1,)}


@pytest.mark.parametrize(
    ("values", "same"),
    [
        ({"train__size_milestones": (2,)}, True),
        ({"train__trivial_augment": True, "train__random_erasing": 0.1, "train__mixup_alpha": 0.2}, True),
        ({"train__cutmix_alpha": 1.0}, True),
        ({"train__train_sizes": (16, 32)}, False),
    ],
)
def test_sizes_of_crops_make_another_graph_and_neither_their_epochs_nor_what_is_done_to_images(
    values: dict[str, Any], same: bool
) -> None:
    assert (graph_of(config(**SIZED | values)) == graph_of(config(**SIZED))) == same


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


def test_archives_that_no_run_has_begun_with_for_long_go_unless_this_code_would_use_them(tmp_path: Path) -> None:
    forget(tmp_path, [run()])  # nothing is there yet
    (tmp_path / FOLDER).mkdir()
    now = time.time()
    ages_s = {f"{graph_of(config())}-1.zip": 2.0, "old-1.zip": 1.1, "young-1.zip": 0.9, ".old-1.zip.a.tmp": 1.1}
    for name, age in ages_s.items():
        (tmp_path / FOLDER / name).touch()
        os.utime(tmp_path / FOLDER / name, times=(now - age * UNUSED_S,) * 2)
    forget(tmp_path, [run(), run(train__compile=False)])
    assert {path.name for path in (tmp_path / FOLDER).iterdir()} == {f"{graph_of(config())}-1.zip", "young-1.zip"}
