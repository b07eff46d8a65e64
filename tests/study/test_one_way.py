"""A study computes its networks in one way: neither their form nor whether they are compiled differs between runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sqzlab.study.study import load_study

Write = Callable[[str], Path]
Faults = Callable[..., list[str]]

STUDY = """\
matrix:
  model.squeeze: [baseline, gap]
seeds: [0]
baseline: {model.squeeze: baseline}
defaults: {model.backbone: resnet18, model.stem: small, data.name: digits, train.recipe: digits}
"""
VALID = "in other arms; valid: one value for the whole study"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            STUDY.replace("seeds", "  train.block_form: [plain, folded]\nseeds"),
            f"3:29: train.block_form: 'folded' beside 'plain' {VALID}",
        ),
        (
            STUDY.replace("seeds", "  train.compile: [true, false]\nseeds"),
            f"3:25: train.compile: false beside true {VALID}",
        ),
        (
            STUDY + "include: [{model.squeeze: gap, train.block_form: folded}]",
            f"6:50: train.block_form: 'folded' beside 'plain' {VALID}",
        ),
        (
            STUDY + "include: [{model.squeeze: baseline, train.compile: true}]",
            f"6:52: train.compile: true beside false {VALID}",
        ),
        (
            STUDY + "include: [{model.squeeze: SP, model.backbone: resnet34, train.block_form: folded}]",
            f"6:75: train.block_form: 'folded' beside 'plain' {VALID}",
        ),
        (
            STUDY + "profiles: {one: {matrix: {train.block_form: [folded, plain]}}, two: {}}",
            f"6:54: train.block_form: 'plain' beside 'folded' {VALID}",
        ),
        (
            STUDY.replace("recipe: digits", "recipe: digits, train.compile: true")
            + "profiles: {one: {include: [{model.squeeze: gap, train.compile: false}]}, two: {}}",
            f"6:64: train.compile: false beside true {VALID}",
        ),
    ],
)
def test_runs_that_are_computed_in_two_ways_are_refused_where_the_second_stands(
    faults: Faults, text: str, line: str
) -> None:
    for profile in ("one", "two") if "profiles" in text else (None,):
        assert faults(text, profile) == [f"s.yaml:{line}"]


def test_profiles_may_differ_as_their_results_never_share_a_folder(write: Write) -> None:
    path = write(STUDY + "profiles: {one: {defaults: {train: {compile: true, block_form: folded}}}, two: {}}")
    found = [(run.config.train.compile, run.config.train.block_form) for run in load_study(path, "one").runs]
    assert found == [(True, "folded")] * 2
    assert {run.config.train.block_form for run in load_study(path, "two").runs} == {"plain"}
    compiled = load_study(path, "two", overrides=["train.compile=true"])
    assert {run.config.train.compile for run in compiled.runs} == {True}


@pytest.mark.parametrize("values", ["train.block_form: [folded]", "train.compile: [true]"])
def test_an_axis_of_one_value_is_one_way(write: Write, values: str) -> None:
    assert len(load_study(write(STUDY.replace("seeds", f"  {values}\nseeds"))).runs) == 2
