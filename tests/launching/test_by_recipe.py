"""What a study would cost under other recipes, against the same study loaded under each of them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sqzlab.config import ModelConfig
from sqzlab.launching.by_recipe import applies, rows, show
from sqzlab.launching.costs import Cost
from sqzlab.launching.estimate import estimate, images, rough_s
from sqzlab.launching.plan import debugged
from sqzlab.launching.status import State, Status
from sqzlab.recipes import RECIPES
from sqzlab.study.study import Study, load_study

STUDY = """
matrix:
  model.squeeze: [baseline, SQUEEZE]
seeds: [0, 1]
baseline: {model.squeeze: baseline}
defaults:
  model: {backbone: resnet18}
  data: {name: imagenet, root: /images, workers: 16}
  train: {recipe: sprg, precision: bf16, device: cuda, compile: true}
slurm: {gpus: 1}
"""


def made(tmp_path: Path, squeeze: str = "gap", *overrides: str) -> Study:
    path = tmp_path / "on_gpu.yaml"
    path.write_text(STUDY.replace("SQUEEZE", squeeze))
    return load_study(path, overrides=overrides)


def costs_of(study: Study) -> Mapping[ModelConfig, Cost]:
    return {run.config.model: Cost(0, 1_814_000_000, 0, {}) for run in study.runs}


def absent(study: Study) -> dict[str, Status]:
    return {run.run_id: Status(State.MISSING) for run in study.runs}


def test_every_recipe_costs_what_the_study_costs_under_it(tmp_path: Path) -> None:
    study = made(tmp_path)
    found = rows(study, costs_of(study), absent(study), 3)
    assert sorted(name for row in found for name in row.recipes) == sorted(set(RECIPES) - {"digits"})
    assert [row.gpu_hours for row in found] == sorted(row.gpu_hours or 0 for row in found)
    for row in found:
        for name in row.recipes:
            other = made(tmp_path, "gap", f"train.recipe={name}")
            wanted = estimate(other, tmp_path, costs_of(other), absent(other), 3)
            assert row.gpu_hours == pytest.approx(wanted.needed_hours)
            assert row.wall_s == pytest.approx(wanted.wall_s)


def test_recipes_that_cost_the_same_share_a_row(tmp_path: Path) -> None:
    found = rows(made(tmp_path), costs_of(made(tmp_path)), absent(made(tmp_path)), None)
    assert {row.recipes for row in found} >= {("fast16",), ("senet2018", "sprg", "cbam", "mmpretrain101", "fcanet")}
    assert len({(row.epochs, row.sizes) for row in found}) == len(found)


def test_what_the_study_says_itself_stays_under_every_recipe(tmp_path: Path) -> None:
    study = made(tmp_path, "gap", "train.epochs=13")
    assert {row.epochs for row in rows(study, costs_of(study), absent(study), 1)} == {(13,)}


def test_a_recipe_whose_sizes_an_arm_cannot_have_has_no_cost(tmp_path: Path) -> None:
    study = made(tmp_path, "dct")
    *others, last = rows(study, costs_of(study), absent(study), 1)
    assert (last.recipes, last.gpu_hours, last.impossible) == (("fast16",), None, ("dct",))
    assert all(row.gpu_hours for row in others)


def test_the_table_fits_80_columns_and_marks_the_recipe_that_the_study_has(tmp_path: Path) -> None:
    study = made(tmp_path)
    console = Console(width=80, record=True, file=io.StringIO())
    show(console, study, costs_of(study), absent(study), 8)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "sprg (as it is)" in text
    assert "160, 192" in text
    assert "taken to be as fast as plain ones" in text
    assert applies(study)
    assert not applies(made(tmp_path, "gap", "train.device=cpu"))


# ---- sizes and tiers in the rough table ----------------------------------------------------------


def test_smaller_crops_count_by_their_area_and_evaluation_as_it_is(tmp_path: Path) -> None:
    config = made(tmp_path, "gap", "train.recipe=fast16").runs[0].config
    trained = 1251 * 1024 * (12 * (160 / 224) ** 2 + 4 * (192 / 224) ** 2)
    assert images(config) == pytest.approx(trained + 16 * 50_000 / 3)


@pytest.mark.parametrize(("tier", "limit"), [("pil", 400), ("jpeg", 650), ("store", 30_000), ("resident", None)])
def test_each_tier_has_its_own_limit_a_core(tmp_path: Path, tier: str, limit: int | None) -> None:
    stored = ["data.store=/none"] * (tier in ("store", "resident"))
    config = made(tmp_path, "gap", f"data.tier={tier}", "data.workers=2", *stored).runs[0].config
    seconds = rough_s(config, 1)
    assert seconds == pytest.approx(images(config) / (2 * limit) if limit else 0, abs=1)


@pytest.mark.parametrize(
    ("sizes", "wanted"), [([160, 192], ([160, 192], [1])), ([96, 128, 160], ([96, 160], [1])), ([160], ([160], []))]
)
def test_a_debug_run_has_the_first_and_the_last_size(
    tmp_path: Path, sizes: list[int], wanted: tuple[list[int], list[int]]
) -> None:
    given: dict[str, Any] = {"train_sizes": sizes, "size_milestones": list(range(1, len(sizes)))}
    run = made(tmp_path, "gap", *(f"train.{key}={value}" for key, value in given.items())).runs[0]
    train = debugged(run, "cpu").config.train
    assert (list(train.train_sizes or ()), list(train.size_milestones or ())) == wanted
