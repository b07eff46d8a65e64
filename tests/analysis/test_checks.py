import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqzlab.analysis.arms import group_arms
from sqzlab.analysis.checks import find_warnings
from sqzlab.analysis.records import read_study

MakeStudy = Callable[..., Path]


def warnings(folder: Path) -> tuple[str, ...]:
    records = read_study(folder)
    return find_warnings(records, group_arms(records))


def change(folder: Path, start: str, **values: Any) -> None:
    for path in folder.glob(f"{start}*/metrics.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_complete_and_uniform_study_has_no_warning(make_study: MakeStudy) -> None:
    assert warnings(make_study()) == ()


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("git_commit", "f" * 40, "mixed commits: 0123456789 (14 runs, such as resnet18-baseline-s0-e5f45caa) and ffff"),
        ("git_commit", "f" * 40, "and ffffffffff (2 runs, such as resnet18-gap-s0-38dd04b1)"),
        ("git_commit", None, "and unknown (2 runs, such as resnet18-gap-s0-38dd04b1)"),
        ("torch", "2.11.0", "mixed versions of torch"),
        ("epochs", 9, "mixed numbers of epochs"),
        ("device", "cuda", "mixed devices"),
        ("gpu", "H200", "mixed GPU types"),
        ("precision", "bf16", "mixed precisions"),
        ("val_images", 500, "mixed numbers of validation images"),
        ("git_dirty", True, "uncommitted changes"),
        ("initial_weights", "0", "resnet18: shared initial weights differ"),
        ("data_order", "0", "resnet18: data order differ"),
    ],
)
def test_what_is_not_alike_is_told(make_study: MakeStudy, key: str, value: object, told: str) -> None:
    folder = make_study()
    change(folder, "resnet18-gap-", **{key: value})
    assert any(told in warning for warning in warnings(folder)), warnings(folder)


def test_what_an_axis_names_may_differ(make_study: MakeStudy) -> None:
    matrix = {"model.squeeze": ["baseline", "gap"], "train.epochs": [4, 8]}
    folder = make_study(matrix=matrix)
    change(folder, "resnet18-gap-epochs4", epochs=4)
    assert not any("epochs" in warning for warning in warnings(folder))


def test_seeds_start_from_weights_of_their_own(make_study: MakeStudy) -> None:
    assert not any("weights" in warning for warning in warnings(make_study(seeds=range(5))))


def test_absent_damaged_and_unplanned_runs_are_named(make_study: MakeStudy) -> None:
    folder = make_study(states={"resnet18-SP": "missing", "resnet18-RG-s0": "failed"})
    next(folder.glob("resnet18-std-s0*/metrics.json")).write_text("{")
    plan = json.loads((folder / "plan.json").read_text())
    plan["runs"] = [run for run in plan["runs"] if run["cell"]["model.squeeze"] != "gmp"]
    (folder / "plan.json").write_text(json.dumps(plan))
    told = "\n".join(warnings(folder))
    assert "10 of 14 runs are done" in told
    assert "resnet18 SP (missing), resnet18 RG (1 of 2 failed)" in told
    assert "resnet18-std-s0" in told
    assert "not whole JSON" in told
    assert "2 runs are not in the plan" in told


def test_one_seed_is_a_warning(make_study: MakeStudy) -> None:
    assert any("one seed" in warning for warning in warnings(make_study(seeds=[0])))


def test_a_missing_baseline_is_a_warning(make_study: MakeStudy) -> None:
    assert any(
        "no finished baseline" in warning for warning in warnings(make_study(states={"resnet18-baseline": "failed"}))
    )
