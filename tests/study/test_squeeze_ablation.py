"""The study that comes with the project."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from sqzlab.catalog import BACKBONES, stage_sizes
from sqzlab.study.study import load_study, parity_faults

ROOT = Path(__file__).parents[2]
PATH = ROOT / "experiments" / "squeeze_ablation.yaml"
ARMS = {"baseline", "gap", "gmp", "std", "gapXstd", "random", "SP", "RG"}


@pytest.mark.parametrize(("profile", "backbones", "seeds"), [("imagenet", 2, 3), ("laptop", 1, 2)])
def test_it_runs_eight_arms_on_every_backbone_with_every_seed(profile: str, backbones: int, seeds: int) -> None:
    study = load_study(PATH, profile)
    assert len(study.runs) == backbones * len(ARMS) * seeds
    assert {run.config.model.squeeze for run in study.runs} == ARMS
    assert parity_faults(study) == []
    assert all(study.baseline_of(run) == {**run.cell, "model.squeeze": "baseline"} for run in study.runs)


def test_the_real_study_has_the_published_recipe() -> None:
    study = load_study(PATH)
    for run in study.runs:
        train = run.config.train
        assert (train.epochs, train.batch_size, train.lr, train.milestones) == (100, 256, 0.1, (30, 60, 90))
        assert (train.precision, train.device, run.config.model.zero_init_gamma) == ("bf16", "cuda", True)
        assert (train.compile, train.block_form, train.cuda_graphs) == (True, "folded", False)
        assert run.config.model.fc_bias is (None if run.config.model.squeeze == "baseline" else False)
    assert (study.profile, study.folder_name) == ("imagenet", "squeeze_ablation")


def test_on_the_laptop_every_squeeze_is_properly_defined_in_every_stage() -> None:
    study = load_study(PATH, "laptop")
    for run in study.runs:
        sizes = stage_sizes(run.config.data.image_size, run.config.model.stem)
        assert min(sizes) > 1
        assert all(size % 4 == 0 for size in sizes)  # SP's 4x4 cells neither overlap nor repeat pixels
        narrowest = min(BACKBONES[run.config.model.backbone].channels(run.config.model.width))
        assert run.config.model.reduction is None or narrowest >= 2 * run.config.model.reduction
        assert (run.config.train.device, run.config.train.threads) == ("cpu", 1)
        assert (study.resources(run).gpus, study.resources(run).cpus) == (0, 1)
    assert study.folder_name == "squeeze_ablation-laptop"


def test_the_committed_results_are_the_runs_of_the_laptop_study() -> None:
    """Their names hold a hash of the configuration, so this fails where a new key or default would orphan them."""
    committed = {path.parent.name for path in (ROOT / "results" / "squeeze_ablation-laptop").glob("*/metrics.json")}
    assert {run.run_id for run in load_study(PATH, "laptop").runs} == committed


def test_the_deeper_network_gets_more_time_and_nothing_else() -> None:
    study = load_study(PATH)
    asked = {run.config.model.backbone: study.resources(run) for run in study.runs}
    assert len({study.resources(run) for run in study.runs}) == len(asked) == 2
    shallow, deep = asked["resnet18"].time_min, asked["resnet50"].time_min
    assert shallow is not None
    assert deep is not None
    assert deep > shallow
    assert asked["resnet18"] == replace(asked["resnet50"], time_min=shallow)
    assert {run.config.train.world_size for run in study.runs} == {1}


def test_the_budget_is_above_what_its_header_estimates_and_below_what_the_time_limits_allow() -> None:
    study = load_study(PATH)
    estimate = re.search(r"about (\d+) GPU-hours", PATH.read_text())
    assert estimate is not None
    allowed = sum((asked.time_min or 0) * asked.gpus / 60 for asked in map(study.resources, study.runs))
    assert study.budget_gpu_hours is not None
    assert int(estimate[1]) < study.budget_gpu_hours < allowed
    assert load_study(PATH, "laptop").budget_gpu_hours is None
