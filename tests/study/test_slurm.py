"""What the runs of a study ask of Slurm, and the faults of its `slurm` section."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqzlab.run import Run
from sqzlab.study.slurm import Slurm
from sqzlab.study.study import Study, load_study

Write = Callable[[str], Path]
Faults = Callable[..., list[str]]

STUDY = """\
matrix:
  model.backbone: [resnet18, resnet50]
  model.squeeze: [baseline, gap]
seeds: [0, 1]
baseline: {model.squeeze: baseline}
defaults: {data.name: digits, train.recipe: digits, model.stem: small}
"""


def asked(study: Study) -> dict[tuple[Any, ...], Slurm]:
    return {tuple(run.cell.values()): study.resources(run) for run in study.runs}


# ---- by arm ------------------------------------------------------------------------------------


def test_an_item_changes_what_its_arms_get_and_later_items_win(write: Write) -> None:
    text = """\
    slurm:
      memory: 8GB
      time: 1:00:00
      include:
        - {model.backbone: resnet50, time: 1-12:00:00, cpus: 3}
        - model: {backbone: resnet50, squeeze: gap}
          time: 2-00:00:00
          runs_per_job: 2
        - {model.squeeze: gap, memory: 9GB}
    """
    study = load_study(write(STUDY + "\n".join(line[4:] for line in text.splitlines())))
    assert asked(study) == {
        ("resnet18", "baseline"): Slurm(memory_gb=8.0, time_min=60),
        ("resnet18", "gap"): Slurm(memory_gb=9.0, time_min=60),
        ("resnet50", "baseline"): Slurm(memory_gb=8.0, time_min=36 * 60, cpus=3),
        ("resnet50", "gap"): Slurm(memory_gb=9.0, time_min=48 * 60, cpus=3, runs_per_job=2),
    }


def test_all_seeds_of_an_arm_ask_for_the_same_and_a_run_read_from_a_file_for_the_same_again(write: Write) -> None:
    text = STUDY.replace("[0, 1]", str(list(range(2500)))) + "slurm: {include: [{model.squeeze: gap, cpus: 4}]}"
    study = load_study(write(text))
    assert len(study.runs) == 10_000
    assert {(run.cell["model.squeeze"], study.resources(run).cpus) for run in study.runs} == {
        ("baseline", 1),
        ("gap", 4),
    }
    assert len({study.resources(run) for run in study.runs}) == 2
    again = Run.from_json(json.loads(json.dumps(study.runs[-1].to_json())))
    assert study.resources(again).cpus == 4


def test_a_profile_replaces_the_list_and_keeps_the_other_resources(write: Write) -> None:
    text = "slurm: {memory: 8GB, include: [{model.squeeze: gap, cpus: 4}]}\n"
    text += "profiles: {a: {slurm: {memory: 2GB}}, b: {slurm: {include: [{model.squeeze: gap, time: 1:00:00}]}}}"
    path = write(STUDY + text)
    gap = [asked(load_study(path, name))["resnet18", "gap"] for name in (None, "a", "b")]
    assert gap == [Slurm(cpus=4, memory_gb=8.0), Slurm(cpus=4, memory_gb=2.0), Slurm(memory_gb=8.0, time_min=60)]


def test_an_item_that_only_another_profile_needs_is_no_fault(faults: Faults) -> None:
    text = STUDY + "slurm:\n  include:\n  - model.backbone: resnet50\n    model.squeeze: gap\n    cpus: 2\n"
    text += "  - {train.lr: 0.5, cpus: 2}\nprofiles:\n  narrow: {matrix: {model.backbone: [resnet18]}}\n"
    text += "  plain: {exclude: [{model.squeeze: gap, model.backbone: resnet50}]}\n"
    wide = "  wide: {matrix: {train.lr: [0.1, 0.5]}}\n"
    for profile in (None, "narrow", "plain", "wide"):
        assert faults(text + wide, profile) == []
    assert faults(text, "narrow") == ["s.yaml:12:6: train.lr: is no axis; valid: model.backbone, model.squeeze"]


def test_an_arm_that_an_include_of_the_matrix_made_is_selected_by_what_its_run_has(write: Write) -> None:
    text = STUDY.replace("baseline: {", "#").replace("seeds", "  train.epochs: [3, 4]\nseeds")
    text += "include: [{model.backbone: resnet34, model.squeeze: SP}]\n"
    ten = load_study(write(text + "slurm: {include: [{train.epochs: 10, cpus: 2}, {train.epochs: 3, cpus: 3}]}"))
    assert ten.runs[-1].config.train.epochs == 10
    assert {(run.cell["train.epochs"], ten.resources(run).cpus) for run in ten.runs} == {(10, 2), (3, 3), (4, 1)}


def test_arms_of_one_cell_each_get_what_they_need(write: Write) -> None:
    text = STUDY.replace("baseline: {", "#") + "include:\n  - {model.backbone: resnet34, model.squeeze: gap}\n"
    text += "  - {model.backbone: resnet34, model.squeeze: gap, train.threads: 3}\n"
    study = load_study(write(text))
    assert [study.resources(run).cpus for run in study.runs[-4:]] == [1, 1, 3, 3]


VALUES = {"model.backbone": ["resnet18", "resnet34"], "model.squeeze": ["gap", "gmp"], "train.nesterov": [True, False]}
ARMS = st.fixed_dictionaries({}, optional={axis: st.sampled_from(values) for axis, values in VALUES.items()})
RESOURCES = st.dictionaries(st.sampled_from(["cpus", "gpus"]), st.integers(1, 16), min_size=1)


@given(st.lists(st.tuples(ARMS.filter(bool), RESOURCES), max_size=5))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_items_are_laid_over_the_section_in_their_order(
    tmp_path: Path, items: list[tuple[dict[str, Any], dict[str, int]]]
) -> None:
    path = tmp_path / "generated.yaml"
    slurm = {"cpus": 7, "include": [arms | resources for arms, resources in items]}
    defaults = {"data.name": "digits", "train.recipe": "digits", "model.stem": "small"}
    path.write_text(json.dumps({"matrix": VALUES, "seeds": [0], "defaults": defaults, "slurm": slurm}))
    expected = {}
    for cell in product(*VALUES.values()):
        expected[cell] = {"cpus": 7}
        for arms, resources in items:
            if arms.items() <= dict(zip(VALUES, cell, strict=True)).items():
                expected[cell] |= resources
    assert asked(load_study(path)) == {cell: Slurm(**resources) for cell, resources in expected.items()}


# ---- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slurm", "line"),
    [
        ("{gpus: 17}", "7:15: slurm.gpus: 17; valid: a whole number from 0 to 16"),
        ("{gpus: true}", "7:15: slurm.gpus: True; valid: a whole number from 0 to 16"),
        ("{cpus: 0}", "7:15: slurm.cpus: 0; valid: a whole number from 1"),
        ("{runs_per_job: 0}", "7:23: slurm.runs_per_job: 0; valid: a whole number from 1 to 64"),
        ("{runs_per_job: 65}", "7:23: slurm.runs_per_job: 65; valid: a whole number from 1 to 64"),
        ("{runs_per_job: 2, cpus: 1}", "7:32: slurm.cpus: 1 is too few, as train.threads is 1 in each of 2 runs; val"),
        ("{time: 8:00}", "7:15: slurm.time: '8:00'; valid: hours:minutes:seconds"),
        ("{time: 0:00:00}", "7:15: slurm.time: '0:00:00'; valid: hours:minutes:seconds"),
        ("{memory: 32}", "7:17: slurm.memory: 32; valid: a number and MB, GB or TB, such as 32GB"),
        (
            "{account: a}",
            "7:9: slurm.account: unknown key; valid: gpus, cpus, memory, time, runs_per_job, include; partition,",
        ),
        ("{run_per_job: 2}", "7:9: slurm.run_per_job: unknown key; did you mean 'runs_per_job'?"),
        ("{include: {model.squeeze: gap, cpus: 2}}", "7:18: slurm.include: is not a list; valid: a list of mappings"),
        ("{include: [3]}", "7:19: slurm.include: 3 is not a mapping"),
        ("{include: [~]}", "7:19: slurm.include: names no axis and no resource; valid: axes"),
        ("{include: [{}]}", "7:19: slurm.include: names no axis and no resource; valid: axes"),
        ("{include: [{cpus: 2}]}", "7:19: slurm.include: names no axis; valid: axes with values and resources, such"),
        ("{include: [{model.squeeze: gap}]}", "7:19: slurm.include: names no resource; valid: axes with"),
        (
            "{include: [{train.lr: 0.1, cpus: 2}]}",
            "7:20: train.lr: is no axis; valid: model.backbone, model.squeeze",
        ),
        ("{include: [{model: {stem: small}, cpus: 2}]}", "7:28: model.stem: is no axis; valid: model.backbone, mod"),
        (
            "{include: [{seed: 1, cpus: 2}]}",
            "7:20: seed: unknown key; valid: axes of the matrix, gpus, cpus, memory, time",
        ),
        ("{include: [{model.squeeze: gap, cpu: 2, time: 1:00:00}]}", "7:40: cpu: unknown key; did you mean 'cpus'?"),
        (
            "{include: [{model.squeze: gap, cpus: 2}]}",
            "7:20: model.squeze: unknown key; did you mean 'model.squeeze'? valid: axes of the matrix, gpus",
        ),
        ("{include: [{model: gap, cpus: 2}]}", "7:20: model: is a section; write its keys below it"),
        ("{include: [{model.squeeze: [gap], cpus: 2}]}", "7:35: model.squeeze: ['gap'] is a list; valid: one value"),
        (
            "{include: [{model.squeeze: gapp, cpus: 2}]}",
            "7:35: model.squeeze: 'gapp' is no value of this axis; did you mean 'gap'? valid: baseline, gap",
        ),
        ("{include: [{model.squeeze: SP, cpus: 2}]}", "7:35: model.squeeze: 'SP' is no value of this axis; valid: b"),
        ("{include: [{model.squeeze: gap, cpus: x}]}", "7:46: slurm.cpus: 'x'; valid: a whole number from 1 to 1024"),
        ("{include: [{model.squeeze: gap, time: 8h}]}", "7:46: slurm.time: '8h'; valid: hours:minutes:seconds"),
        (
            "{include: [{model.squeeze: gap, cpus: 2, include: []}]}",
            "7:49: include: does not stand inside slurm.include; valid: axes of the matrix, gpus",
        ),
        (
            "{include: [{model.squeeze: gap, model: {squeeze: gap}, cpus: 2}]}",
            "7:48: model.squeeze: repeated key; it stands on line 7 already",
        ),
    ],
)
def test_one_fault_gives_one_line(faults: Faults, slurm: str, line: str) -> None:
    (told,) = faults(f"{STUDY}slurm: {slurm}\n")
    assert told.startswith(f"s.yaml:{line}")


def test_an_item_whose_values_never_meet_in_an_arm_is_a_fault(faults: Faults) -> None:
    text = STUDY + "exclude: [{model.backbone: resnet50, model.squeeze: gap}]\n"
    text += "slurm:\n  include:\n  - model.backbone: resnet50\n    model.squeeze: gap\n    cpus: 2\n"
    assert faults(text) == [
        "s.yaml:10:5: slurm.include: matches nothing: no arm has model.backbone=resnet50, model.squeeze=gap; "
        "valid: values of one arm"
    ]


def test_all_faults_of_the_section_are_told_at_once(faults: Faults) -> None:
    told = faults(
        STUDY
        + """\
slurm:
  gpus: x
  partition: gpu
  include:
    - {model.squeeze: SP, gpus: 99, memory: 1}
    - {train.lr: 0.1, model.stemm: small, time: 1}
    - {model.backbone: resnet5, cpus: 2}
    - {model.squeeze: SP, cpus: 2}
"""
    )
    assert [line.split(": ")[:2] for line in told] == [
        ["s.yaml:8:9", "slurm.gpus"],
        ["s.yaml:9:3", "slurm.partition"],
        ["s.yaml:11:23", "model.squeeze"],
        ["s.yaml:11:33", "slurm.gpus"],
        ["s.yaml:11:45", "slurm.memory"],
        ["s.yaml:12:8", "train.lr"],
        ["s.yaml:12:23", "model.stemm"],
        ["s.yaml:12:49", "slurm.time"],
        ["s.yaml:13:24", "model.backbone"],
        ["s.yaml:14:23", "model.squeeze"],
    ]
