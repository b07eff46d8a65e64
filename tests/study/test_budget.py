"""The GPU-hours that a study may cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sqzlab.study.study import load_study

Write = Callable[[str], Path]
Faults = Callable[..., list[str]]

STUDY = """\
matrix: {model.squeeze: [baseline, gap]}
seeds: [0]
defaults: {model.backbone: resnet18, model.stem: small, data.name: digits, train.recipe: digits}
"""


def test_a_profile_lays_its_budget_over_the_files(write: Write) -> None:
    path = write(STUDY + "budget: {gpu_hours: 40}\nprofiles: {a: {budget: {gpu_hours: 1.5}}, b: {budget: {}}, c: }")
    assert [load_study(path, name).budget_gpu_hours for name in (None, "a", "b", "c")] == [40.0, 1.5, 40.0, 40.0]


@pytest.mark.parametrize("text", ["", "budget:", "budget: {}"])
def test_without_a_budget_there_is_no_limit(write: Write, text: str) -> None:
    assert load_study(write(STUDY + text)).budget_gpu_hours is None


@pytest.mark.parametrize(
    ("budget", "line"),
    [
        ("{gpu_hours: 0}", "4:21: budget.gpu_hours: 0; valid: a number above 0, such as 500"),
        ("{gpu_hours: -2.5}", "4:21: budget.gpu_hours: -2.5; valid: a number above 0"),
        ("{gpu_hours: true}", "4:21: budget.gpu_hours: True; valid: a number above 0"),
        ("{gpu_hours: 5h}", "4:21: budget.gpu_hours: '5h'; valid: a number above 0"),
        ("{gpu_hours: }", "4:21: budget.gpu_hours: None; valid: a number above 0"),
        ("{gpu_hours: [5]}", "4:21: budget.gpu_hours: [5]; valid: a number above 0"),
        ("{hours: 5}", "4:10: budget.hours: unknown key; did you mean 'gpu_hours'? valid: gpu_hours"),
        ("500", "4:9: budget: 500 is not a mapping"),
    ],
)
def test_anything_but_a_number_above_0_is_a_fault(faults: Faults, budget: str, line: str) -> None:
    (told,) = faults(f"{STUDY}budget: {budget}\n")
    assert told.startswith(f"s.yaml:{line}")


def test_a_faulty_budget_hides_no_other_fault(faults: Faults) -> None:
    told = faults(STUDY + "budget: {gpu_hours: 0}\nexclude: [{model.squeeze: SP}]\nslurm: {gpus: 99}\n")
    assert [line.split(": ")[0] for line in told] == ["s.yaml:4:21", "s.yaml:5:11", "s.yaml:6:15"]
