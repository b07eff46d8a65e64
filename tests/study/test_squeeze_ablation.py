"""The study that comes with the project."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqzlab.catalog import BACKBONES, SQUEEZES, stage_sizes
from sqzlab.study.study import load_study, parity_faults

PATH = Path(__file__).parents[2] / "experiments" / "squeeze_ablation.yaml"


@pytest.mark.parametrize(("profile", "backbones", "seeds"), [("imagenet", 2, 3), ("laptop", 1, 2)])
def test_it_runs_every_squeeze_on_every_backbone_with_every_seed(profile: str, backbones: int, seeds: int) -> None:
    study = load_study(PATH, profile)
    assert len(study.runs) == backbones * len(SQUEEZES) * seeds
    assert {run.config.model.squeeze for run in study.runs} == set(SQUEEZES)
    assert parity_faults(study) == []
    assert all(study.baseline_of(run) == {**run.cell, "model.squeeze": "baseline"} for run in study.runs)


def test_the_real_study_has_the_published_recipe() -> None:
    study = load_study(PATH)
    for run in study.runs:
        train = run.config.train
        assert (train.epochs, train.batch_size, train.lr, train.milestones) == (100, 256, 0.1, (30, 60, 90))
        assert (train.precision, train.device, run.config.model.zero_init_gamma) == ("bf16", "cuda", True)
        assert run.config.model.fc_bias is (None if run.config.model.squeeze == "baseline" else False)
    assert (study.profile, study.folder_name, study.slurm.gpus) == ("imagenet", "squeeze_ablation", 1)


def test_on_the_laptop_every_squeeze_is_properly_defined_in_every_stage() -> None:
    study = load_study(PATH, "laptop")
    for run in study.runs:
        sizes = stage_sizes(run.config.data.image_size, run.config.model.stem)
        assert min(sizes) > 1
        assert all(size % 4 == 0 for size in sizes)  # SP's 4x4 cells neither overlap nor repeat pixels
        narrowest = min(BACKBONES[run.config.model.backbone].channels(run.config.model.width))
        assert run.config.model.reduction is None or narrowest >= 2 * run.config.model.reduction
        assert (run.config.train.device, run.config.train.threads) == ("cpu", 1)
    assert (study.folder_name, study.slurm.gpus, study.slurm.cpus) == ("squeeze_ablation-laptop", 0, 1)
