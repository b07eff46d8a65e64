"""Every study that comes with the project: one question each, what its header says, and one step of all its arms."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from sqzlab.catalog import GATES, PLACEMENTS, SQUEEZES, stage_sizes
from sqzlab.config import Config
from sqzlab.data.open import Data, open_data
from sqzlab.launching.estimate import GPU_HOURS, SPEEDS, hours, rough_s, unit
from sqzlab.networks.weights import last_norms_of
from sqzlab.recipes import RECIPES
from sqzlab.study.study import Study, load_study, parity_faults, profile_names
from sqzlab.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
PATHS = sorted((ROOT / "experiments").glob("*.yaml"))
NAMES = [path.stem for path in PATHS]
CASES = [(path.stem, profile) for path in PATHS for profile in profile_names(path)]
ON_GPUS = [(name, profile) for name, profile in CASES if not profile.startswith("laptop")]
ON_LAPTOPS = [(name, profile) for name, profile in CASES if profile.startswith("laptop")]


@cache
def study(name: str, profile: str) -> Study:
    return load_study(ROOT / "experiments" / f"{name}.yaml", profile)


@cache
def header(name: str) -> str:
    """The comment that a study begins with, paragraphs parted by an empty line, without `#` and line breaks."""
    lines = (ROOT / "experiments" / f"{name}.yaml").read_text().partition("\n\n")[0].splitlines()[1:]
    paragraphs = "\n".join(line.removeprefix("#").strip() for line in lines).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs).strip()


@cache
def published() -> tuple[set[str], set[str]]:
    """Top-1 errors as printed with two decimals, and `top-1/top-5` of one row."""
    with (ROOT / "results" / "published.csv").open(encoding="utf-8", newline="") as file:
        rows = [(float(row["top1_err"]), float(row["top5_err"] or "nan")) for row in csv.DictReader(file)]
    return {f"{top1:.2f}" for top1, _ in rows}, {f"{top1:.2f}/{top5:.2f}" for top1, top5 in rows}


# ---- the files ---------------------------------------------------------------------------------


def test_there_is_a_study_for_every_question_of_the_published_tables() -> None:
    assert [
        *("excitation_gate", "no_squeeze", "placement", "random_controls", "recipes", "reduction_ratio"),
        *("spatial_pooling", "squeeze_ablation", "squeeze_operator", "ssenet_as_published", "stages"),
    ] == NAMES


@pytest.mark.parametrize(("name", "profile"), CASES)
def test_its_arms_are_distinct_on_a_par_and_each_has_a_baseline(name: str, profile: str) -> None:
    found = study(name, profile)
    assert {"imagenet", "laptop"} <= set(found.profiles)
    assert len({run.run_id for run in found.runs}) == len(found.runs)
    assert parity_faults(found) == []
    for run in found.runs:
        baseline = found.baseline_of(run)
        assert baseline is not None
        assert baseline.items() >= found.baseline.items()
    compared = [run for run in found.runs if found.baseline_of(run) == run.cell]
    assert 0 < len(compared) < len(found.runs)


@pytest.mark.parametrize(("name", "profile"), CASES)
def test_networks_are_compiled_and_folded_on_gpus_and_neither_on_laptops(name: str, profile: str) -> None:
    way = (False, "plain") if profile.startswith("laptop") else (True, "folded")
    assert {(run.config.train.compile, run.config.train.block_form) for run in study(name, profile).runs} == {way}


@pytest.mark.parametrize("name", NAMES)
def test_its_header_asks_one_question_and_says_cost_published_numbers_and_what_to_expect(name: str) -> None:
    question, *_ = header(name).split("\n\n")
    assert question.endswith("?")
    for part in ("Cost: ", "What was published", "Expect "):
        assert len(re.findall(rf"(?:^|\n\n|\. |\) |\d ){part}", header(name))) == 1, part


@pytest.mark.parametrize(("name", "profile"), CASES)
def test_its_header_says_how_many_runs_there_are(name: str, profile: str) -> None:
    found = study(name, profile)
    arms, seeds, runs = len(found.cells()), len(found.seeds), len(found.runs)
    made = f"{arms} arms x {seeds} seeds = " if profile == "imagenet" else ""
    cost = next(paragraph for paragraph in header(name).split("\n\n") if paragraph.startswith("Cost: "))
    assert re.search(rf"`{profile}`(?: is)? {made}{runs}\b", cost)


@pytest.mark.parametrize("name", NAMES)
def test_every_error_that_its_header_quotes_is_a_published_one(name: str) -> None:
    top1, pairs = published()
    quoted = re.findall(r"\b\d\d\.\d\d/\d\d?\.\d\d\b", header(name))
    assert set(quoted) <= pairs
    alone = re.findall(r"(?<![\d/.])[23]\d\.\d\d(?![\d/.]| M\b)", header(name))
    assert set(alone) <= top1
    assert quoted or alone


@pytest.mark.parametrize(("name", "profile"), ON_GPUS)
def test_its_budget_is_above_the_estimate_of_its_header_and_below_its_time_limits(name: str, profile: str) -> None:
    found = study(name, profile)
    estimated = sum(hours(run, rough_s(run.config, int(SPEEDS[run.config.model.backbone].macs))) for run in found.runs)
    told = re.search(rf"`{profile}` is (?:(?!GPU-hours).)*about ([\d,]+) GPU-hours", header(name))
    assert told is not None
    assert estimated == pytest.approx(float(told[1].replace(",", "")), rel=0.1)
    allowed = sum((asked.time_min or 0) * asked.gpus / 60 for asked in map(found.resources, found.runs))
    assert found.budget_gpu_hours is not None
    assert estimated < found.budget_gpu_hours < allowed
    assert unit(found.runs) == GPU_HOURS


def test_together_they_have_every_squeeze_gate_placement_and_recipe() -> None:
    models = [run.config.model for name in NAMES for run in study(name, "imagenet").runs]
    assert {model.squeeze for model in models} == set(SQUEEZES)
    assert {model.gate for model in models} - {None} == set(GATES)
    assert {model.placement for model in models} - {None} == set(PLACEMENTS)
    asked = {run.config.train.recipe for run in study("recipes", "imagenet").runs}
    same = {name for name, row in RECIPES.items() if (row.train, row.zero_init_gamma) == SPRG and name != "sprg"}
    assert {run.config.train.recipe for run in study("squeeze_ablation", "imagenet_fast").runs} == {"fast16"}
    assert asked == set(RECIPES) - same - {"digits", "fast16"}


SPRG = (RECIPES["sprg"].train, RECIPES["sprg"].zero_init_gamma)


def test_the_published_table_is_compared_with_the_baseline_that_it_had() -> None:
    labelled, was = study("ssenet_as_published", "imagenet"), study("ssenet_as_published", "as_it_was")
    for run in labelled.runs:
        assert labelled.baseline_of(run) == {**run.cell, "model.squeeze": "baseline"}
    for run in was.runs:
        assert was.baseline_of(run) == {"model.backbone": "resnet50", "model.squeeze": "baseline"}
    arms = {run.cell["model.backbone"] for run in was.runs if run.cell["model.squeeze"] != "baseline"}
    assert arms == {"resnet34"}
    assert {run.run_id for run in was.runs} < {run.run_id for run in labelled.runs}


def test_the_run_ids_of_the_new_axes_read_well() -> None:
    ids = [run.run_id.rpartition("-s")[0] for name in NAMES for run in study(name, "imagenet").runs]
    assert {
        *("resnet50-gap-gatetanh", "resnet50-gap-reduction8", "resnet50-gap-placement3x3"),
        *("resnet50-gap-stagesconv2_conv3_conv4", "resnet50-gap-recipesenet270", "resnext101_32x4d-CBAM"),
    } <= set(ids)


# ---- one step ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "profile"), ON_LAPTOPS)
def test_on_the_laptop_maps_are_large_enough_and_one_core_does(name: str, profile: str) -> None:
    for run in study(name, profile).runs:
        model, train = run.config.model, run.config.train
        assert min(stage_sizes(model.image_size, model.stem)) >= 4
        assert (train.device, train.threads, train.precision) == ("cpu", 1, "fp32")
        assert study(name, profile).resources(run).gpus == 0


@pytest.fixture(params=NAMES)
def small(request: pytest.FixtureRequest) -> Iterator[tuple[list[Config], Data]]:
    """The arms of a study's laptop profile, cut to one small batch, and their data."""
    found = study(request.param, "laptop")
    cut = {"limit_batches": 1, "batch_size": 8, "warmup_epochs": 0}
    configs = [
        run.config.model_copy(update={"train": run.config.train.model_copy(update=cut)})
        for run in found.runs[:: len(found.seeds)]
    ]
    data = open_data(configs[0].data, batch_size=8, seed=0)
    yield configs, data
    data.close()


def test_every_arm_of_the_laptop_profile_trains_a_step_in_all_of_its_blocks_and_evaluates(
    small: tuple[list[Config], Data],
) -> None:
    configs, data = small
    for config in configs:
        trainer = Trainer(config, data, torch.device("cpu"))
        norms = last_norms_of(trainer.model)
        before = [norm.weight.detach().clone() for norm in norms]
        for _ in trainer.train_epoch():
            pass
        loss, _ = trainer.close_epoch()
        assert math.isfinite(loss)
        assert math.isfinite(trainer.evaluate().loss)
        for norm, start in zip(norms, before, strict=True):  # a branch that starts closed would never move
            assert not torch.equal(norm.weight.detach(), start), config.model
