from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqzlab.catalog import SQUEEZES
from sqzlab.config import Config
from sqzlab.errors import ConfigError
from sqzlab.resolving import resolve
from sqzlab.run import Run
from sqzlab.study.study import load_study, profile_names

Write = Callable[[str], Path]

SMALL = """
matrix:
  model.squeeze: [baseline, gap, SP]
  train.lr: [0.1, 1e-2]
seeds: [3, 1]
baseline: {model.squeeze: baseline}
defaults:
  model: {backbone: resnet18, width: 0.125, stem: small, reduction: 4, fc_bias: true}
  data.name: digits
  train.recipe: digits
"""


def test_runs_are_in_the_order_of_the_matrix_with_seeds_innermost(write: Write) -> None:
    study = load_study(write(SMALL))
    assert [(run.cell["model.squeeze"], run.cell["train.lr"], run.config.seed) for run in study.runs] == [
        (squeeze, lr, seed) for squeeze in ("baseline", "gap", "SP") for lr in (0.1, 0.01) for seed in (3, 1)
    ]
    assert (study.axes, study.seeds, study.name) == (("model.squeeze", "train.lr"), (3, 1), "s")
    assert len({run.run_id for run in study.runs}) == 12
    assert study.cells() == tuple(run.cell for run in study.runs[::2])


def test_defaults_apply_where_they_can_and_are_left_out_elsewhere(write: Write) -> None:
    configs = {run.cell["model.squeeze"]: run.config for run in load_study(write(SMALL)).runs}
    assert (configs["gap"].model.reduction, configs["gap"].model.fc_bias) == (4, True)
    assert (configs["baseline"].model.reduction, configs["baseline"].model.fc_bias) == (None, None)


def test_dotted_and_nested_keys_say_the_same(write: Write) -> None:
    nested = SMALL.replace("  model.squeeze: [", "  model:\n    squeeze: [").replace(
        "data.name: digits", "data: {name: digits}"
    )
    assert load_study(write(nested)).runs == load_study(write(SMALL)).runs


def test_runs_survive_json(write: Write) -> None:
    for run in load_study(write(SMALL)).runs:
        assert Run.from_json(json.loads(json.dumps(run.to_json()))) == run


PROFILES = (
    SMALL
    + """
exclude: [{model.squeeze: SP, train.lr: 0.1}]
slurm: {gpus: 0, memory: 512MB}
profiles:
  one:
    matrix: {train.lr: [0.5]}
    seeds: [7]
    defaults: {train.epochs: 3}
    slurm: {memory: 2GB, time: 1-02:00:01}
  two: {exclude: []}
"""
)


def test_a_profile_is_merged_key_by_key_and_replaces_lists(write: Write) -> None:
    path = write(PROFILES)
    base, one, two = (load_study(path, name) for name in (None, "one", "two"))
    assert [len(study.runs) for study in (base, one, two)] == [10, 3, 12]
    assert {run.config.train.epochs for run in one.runs} == {3}
    assert {run.config.train.epochs for run in two.runs} == {10}
    asked = one.resources(one.runs[0])
    assert (asked.memory_gb, asked.time_min, asked.cpus) == (2.0, 1561, 1)
    assert base.resources(base.runs[0]).memory_gb == 0.5
    assert [study.folder_name for study in (base, one, two)] == ["s", "s-one", "s-two"]
    assert base.profiles == profile_names(path) == ("one", "two")


def test_the_profile_imagenet_is_the_default_and_keeps_the_name(write: Write) -> None:
    study = load_study(write(PROFILES.replace("  one:", "  imagenet:").replace("exclude: [{", "#")))
    assert (study.profile, study.folder_name, study.seeds) == ("imagenet", "s", (7,))


def test_a_file_that_is_complete_only_with_a_profile_asks_for_one(write: Write) -> None:
    path = write(SMALL.replace("seeds: [3, 1]", "") + "profiles: {one: {seeds: [1]}}")
    assert len(load_study(path, "one").runs) == 6
    with pytest.raises(ConfigError, match="profile: none is named, and without one the study lacks keys; valid: one"):
        load_study(path)


def test_a_name_in_the_file_wins_over_the_files_own(write: Write) -> None:
    assert load_study(write(SMALL + "name: other.1")).folder_name == "other.1"


def test_counts_of_the_data_set_are_in_the_runs_and_are_asked_once_for_each_set(write: Write) -> None:
    path = write(SMALL.replace("digits", "imagefolder", 1))
    asked: list[tuple[str, str | None]] = []

    def counts(name: str, root: str | None) -> tuple[int, int, int]:
        asked.append((name, root))
        return (5, 400, 60)

    study = load_study(path, counts=counts, roots={"imagefolder": "/there", "digits": "/nowhere"})
    assert asked == [("imagefolder", "/there")]
    assert {
        (run.config.data.classes, run.config.data.train_images, run.config.data.val_images) for run in study.runs
    } == {(5, 400, 60)}
    assert {(run.config.data.root, run.config.model.num_classes) for run in study.runs} == {("/there", 5)}
    assert {run.config.data.root for run in load_study(path).runs} == {None}
    with pytest.raises(ConfigError, match=r"train.batch_size: 32 is more than the 8 training images"):
        load_study(path, counts=lambda name, root: (5, 8, 60))


def test_the_root_of_the_data_is_no_part_of_a_run_and_the_studys_own_is_kept(write: Write) -> None:
    path = write(SMALL.replace("data.name: digits", "data: {name: imagefolder, root: /mine}"))
    here, there = load_study(path), load_study(path, overrides=["data.root=/other"])
    assert {run.config.data.root for run in load_study(path, roots={"imagefolder": "/env"}).runs} == {"/mine"}
    assert [run.run_id for run in here.runs] == [run.run_id for run in there.runs]


def test_an_include_of_its_own_takes_what_it_does_not_name_from_the_defaults(write: Write) -> None:
    text = SMALL.replace("reduction: 4, ", "").replace("train.lr: [0.1, 1e-2]", "model.reduction: [2, 4]")
    text += "exclude: [{model.squeeze: baseline}]\ninclude: [{model.squeeze: baseline}]"
    study = load_study(write(text))
    assert [tuple(run.cell.values()) for run in study.runs[::2]] == [
        ("gap", 2),
        ("gap", 4),
        ("SP", 2),
        ("SP", 4),
        ("baseline", None),
    ]
    assert {study.baseline_of(run)["model.squeeze"] for run in study.runs} == {"baseline"}  # type: ignore[index]


def test_the_baseline_of_a_run_agrees_with_it_on_every_other_axis(write: Write) -> None:
    study = load_study(write(SMALL))
    for run in study.runs:
        assert study.baseline_of(run) == {"model.squeeze": "baseline", "train.lr": run.cell["train.lr"]}
    without = load_study(write(SMALL.replace("baseline: {", "#")))
    assert without.baseline_of(without.runs[0]) is None


AXES: dict[str, list[Any]] = {
    "model.backbone": ["resnet18", "resnet34", "resnet50"],
    "model.squeeze": list(SQUEEZES),
    "model.width": [0.125, 0.25, 1, 2.0],
    "train.lr": [1e-3, 0.05, 1],
    "train.batch_size": [2, 32, 1347],
    "train.nesterov": [True, False],
    "train.clip_norm": [None, 1e-05, 2],
}


@st.composite
def studies(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(list(AXES)), min_size=1, max_size=3, unique=True))
    matrix = {name: draw(st.lists(st.sampled_from(AXES[name]), min_size=1, max_size=3, unique=True)) for name in names}
    rest = [name for name in AXES if name not in names and name != "model.squeeze"]
    defaults = {"model.backbone": "resnet18", "data.name": "digits", "train.recipe": "digits", "model.stem": "small"}
    defaults |= {name: draw(st.sampled_from(AXES[name])) for name in draw(st.sets(st.sampled_from(rest)))}
    defaults = {key: value for key, value in defaults.items() if key not in matrix}
    seeds = draw(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=3, unique=True))
    return {"matrix": matrix, "seeds": seeds, "defaults": defaults}


@given(studies())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_generated_study_has_the_runs_that_its_values_resolve_to(tmp_path: Path, study: dict[str, Any]) -> None:
    path = tmp_path / "generated.yaml"
    path.write_text(json.dumps(study))
    cells: list[dict[str, Any]] = [{}]
    for axis, values in study["matrix"].items():
        cells = [cell | {axis: value} for cell in cells for value in values]
    expected = [resolve(study["defaults"] | cell, seed) for cell in cells for seed in study["seeds"]]
    if all(isinstance(config, Config) for config in expected):
        loaded = load_study(path)
        assert [run.config for run in loaded.runs] == expected
        assert list(loaded.cells()) == cells
    else:
        with pytest.raises(ConfigError):
            load_study(path)


def test_loading_a_study_imports_no_torch() -> None:
    code = "import sys, sqzlab.study.study, sqzlab.study.schema; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_each_arm_is_validated_once_whatever_the_number_of_seeds(write: Write) -> None:
    text = SMALL.replace("[3, 1]", str(list(range(5000)))).replace("[0.1, 1e-2]", "[0.1]")
    runs = load_study(write(text)).runs
    assert len(runs) == 15_000
    assert len({id(run.config.train) for run in runs}) == 3
    assert [run.config.seed for run in runs[:5000]] == list(range(5000))
