"""Values given with `--set`, which lie over those of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sqzlab.study.study import load_study

Write = Callable[[str], Path]
Faults = Callable[..., list[str]]

STUDY = """
matrix:
  model.squeeze: [baseline, gap, SP]
seeds: [3, 1]
defaults:
  model: {backbone: resnet18, width: 0.125, stem: small, reduction: 4, fc_bias: true}
  data.name: digits
  train.recipe: digits
"""


def test_overrides_apply_to_every_arm_that_they_can_apply_to(write: Write) -> None:
    study = load_study(write(STUDY), overrides=["model.fc_bias=false", "train.epochs=2", "train.clip_norm=1e-1"])
    assert {run.config.train.epochs for run in study.runs} == {2}
    assert {run.config.train.clip_norm for run in study.runs} == {0.1}
    assert {run.config.model.fc_bias for run in study.runs} == {None, False}
    steps = load_study(
        write(STUDY), overrides=["train.schedule=step", "train.milestones=[2, 4]", "train.gamma=.5", "train.epochs=6"]
    )
    assert {run.config.train.milestones for run in steps.runs} == {(2, 4)}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("train.lrr=1", "train.lrr: unknown key; did you mean 'train.lr'? valid: train.recipe"),
        ("lr=1", "lr: unknown key; did you mean 'train.lr'?"),
        ("train.lr", "train.lr: has no value; valid: KEY=VALUE"),
        ("train.lr=fast", "train.lr: 'fast' is text; valid: a number"),
        ("train.lr=[1]", "train.lr: '[1]'; valid: one value"),
        ("train.lr={a: 1}", "train.lr: '{a: 1}'; valid: one value"),
        ("train.lr=[", "train.lr: '[': not YAML: did not find expected node content"),
        ("train.lr=016", "train.lr: '016' is octal in YAML 1.1"),
        ("train.milestones=[[1]]", "train.milestones: '[[1]]'; valid: one value or a list of values"),
        ("train.gamma=0.1", "train.gamma: applies to no run: does not apply to the schedule 'cosine'"),
        ("model.squeeze=gap", "model.squeeze: is an axis of the study; valid: keys that are no axis, or --only"),
        ("train.epochs=", "train.epochs: is empty; valid: a whole number"),
    ],
)
def test_a_faulty_override_is_told_by_its_key(faults: Faults, given: str, line: str) -> None:
    (told,) = faults(STUDY, overrides=[given])
    assert told.startswith(f"--set {line}")


def test_an_override_given_twice_is_refused(faults: Faults) -> None:
    assert faults(STUDY, overrides=["train.lr=1", "train.lr=2"]) == ["--set train.lr: is given twice"]
