from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sqzlab.errors import ConfigError
from sqzlab.study.study import Study, load_study, parity_faults, select

STUDY = """
matrix:
  model.backbone: [resnet18, resnet34]
  model.squeeze: [baseline, gap, gmp]
  train.clip_norm: [null, 1.5]
seeds: [0, 1, 2]
baseline: {model.squeeze: baseline}
defaults: {model.stem: small, data.name: digits, train.recipe: digits}
"""
Write = Callable[[str], Path]


@pytest.fixture
def study(write: Write) -> Study:
    return load_study(write(STUDY))


@pytest.mark.parametrize(
    ("only", "runs"),
    [
        ([], 36),
        (["seed=0"], 12),
        (["squeeze=gap,gmp"], 24),
        (["model.squeeze=gap", "squeeze=gmp"], 24),
        (["squeeze=gap", "backbone=resnet34", "seed=0,2"], 4),
        (["clip_norm=null"], 18),
        (["clip_norm=1.50", "seed=1"], 6),
    ],
)
def test_only_leaves_the_runs_with_these_values(study: Study, only: list[str], runs: int) -> None:
    assert len(select(study, only)) == runs


@pytest.mark.parametrize(
    ("only", "line"),
    [
        ("squeze=gap", "--only 'squeze=gap': unknown key; "),
        ("lr=1", "--only 'lr=1': unknown key; valid: model.backbone, model.squeeze, train.clip_norm, seed"),
        ("squeeze=gapp", "--only squeeze=gapp: no such run; did you mean 'gap'? valid: baseline, gap, gmp"),
        ("seed=7", "--only seed=7: no such run; valid: 0, 1, 2"),
        ("squeeze", "--only 'squeeze': is no selection; valid: KEY=V1,V2"),
    ],
)
def test_an_unknown_selection_names_the_valid_ones(study: Study, only: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        select(study, [only])
    assert caught.value.faults[0].startswith(line)


def test_a_selection_that_leaves_nothing_is_refused(write: Write) -> None:
    study = load_study(write(STUDY + "exclude: [{model.backbone: resnet34, model.squeeze: gap}]"))
    with pytest.raises(ConfigError, match="no run of the study has all of these values"):
        select(study, ["backbone=resnet34", "squeeze=gap"])


def test_arms_that_differ_in_their_axes_alone_are_on_a_par(study: Study) -> None:
    assert parity_faults(study) == []


@pytest.mark.parametrize(
    ("include", "key"),
    [
        ("{model.squeeze: gap, train.lr: 0.05}", "train.lr"),
        ("{model.squeeze: gmp, model.zero_init_gamma: false}", "model.zero_init_gamma"),
        ("{model.squeeze: baseline, train.warmup_epochs: 0}", "train.warmup_epochs"),
    ],
)
def test_a_value_smuggled_into_one_arm_is_told_with_both_values(write: Write, include: str, key: str) -> None:
    told = parity_faults(load_study(write(STUDY + f"include: [{include}]")))
    assert told
    assert all(f": {key} is " in line and "no axis names it" in line for line in told)


def test_the_faults_name_arm_key_and_both_values(write: Write) -> None:
    study = load_study(write(STUDY + "include: [{model.squeeze: gap, train.clip_norm: 1.5, train.lr: 0.05}]"))
    assert [line.partition(", and no")[0] for line in parity_faults(study)] == [
        f"model.backbone={backbone}, model.squeeze=gap, train.clip_norm=1.5: train.lr is 0.05, "
        f"but 0.1 in model.backbone={backbone}, model.squeeze=baseline, train.clip_norm=1.5"
        for backbone in ("resnet18", "resnet34")
    ]


def test_without_a_baseline_arms_are_compared_with_the_first_of_their_other_axes(write: Write) -> None:
    text = STUDY.replace("baseline: {", "#") + "include: [{model.squeeze: gmp, train.lr: 0.05}]"
    told = parity_faults(load_study(write(text)))
    assert len(told) == 4
    assert all("but 0.1 in" in line and "model.squeeze=baseline" in line for line in told)


def test_the_same_value_for_every_squeeze_of_a_backbone_is_no_fault(write: Write) -> None:
    assert parity_faults(load_study(write(STUDY + "include: [{model.backbone: resnet34, train.lr: 0.05}]"))) == []


def test_what_does_not_apply_to_an_arm_and_what_follows_from_an_axis_are_no_faults(write: Write) -> None:
    text = STUDY.replace("train.clip_norm: [null, 1.5]", "train.recipe: [digits, sprg]").replace(
        "train.recipe: digits", "train.batch_size: 32"
    )
    text = text.replace("{model.squeeze: baseline}", "{model.squeeze: baseline, train.recipe: digits}")
    study = load_study(
        write(text + "include: [{model.squeeze: gap, model.reduction: 8}, {model.squeeze: gmp, model.reduction: 8}]")
    )
    assert parity_faults(study) == []
