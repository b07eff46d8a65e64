import json
import shutil
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
        (
            "block_form",
            "folded",
            "not all computed alike, so differences may come from that: in folded blocks (2 runs, such as resnet18-",
        ),
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


def test_compiled_runs_beside_others_are_told_but_not_beside_what_does_not_say(make_study: MakeStudy) -> None:
    folder = make_study()
    change(folder, "resnet18-gap-", compile=True)
    assert not any("computed alike" in warning for warning in warnings(folder))
    change(folder, "resnet18-std-", compile=False)
    told = "come from that: compiled (2 runs, such as resnet18-gap-s0-38dd04b1) and not compiled (2 runs"
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


def test_a_seed_that_is_there_twice_is_told_and_counts_once(make_study: MakeStudy) -> None:
    folder = make_study()
    (folder / "plan.json").unlink()
    (own,) = folder.glob("resnet18-gap-s0-*")
    twin = folder / "resnet18-gap-s0-zz"
    shutil.copytree(own, twin)
    change(folder, twin.name, run_id=twin.name)
    told = f"resnet18: seed 0 of gap is there twice ({own.name} and {twin.name}): only {own.name} counts"
    assert told in warnings(folder)
    groups = group_arms(read_study(folder))
    assert {arm.n for arm in groups[0].arms} == {2}


@pytest.mark.parametrize(("top1", "separated"), [(0.99, True), (0.91, False)])
def test_an_arm_that_is_separated_with_failed_runs_is_a_warning(
    make_study: MakeStudy, top1: float, separated: bool
) -> None:
    matrix = {"model.squeeze": ["baseline", "gap"]}
    folder = make_study(matrix=matrix, seeds=range(4), states={"resnet18-gap-s3": "failed"})
    for seed in range(4):
        change(folder, f"resnet18-baseline-s{seed}", top1=0.91 + 0.001 * seed, top5=1.0)
        change(folder, f"resnet18-gap-s{seed}", top1=top1 + 0.001 * seed, top5=1.0)
    told = (
        "resnet18: separated with failed runs left out (leaving out runs that diverged favours unstable arms): "
        "gap (1 of 4 failed)"
    )
    assert (told in warnings(folder)) == separated


def test_one_seed_is_a_warning(make_study: MakeStudy) -> None:
    assert any("one seed" in warning for warning in warnings(make_study(seeds=[0])))


def test_a_missing_baseline_is_a_warning(make_study: MakeStudy) -> None:
    assert any(
        "no finished baseline" in warning for warning in warnings(make_study(states={"resnet18-baseline": "failed"}))
    )


def test_warnings_come_in_the_order_of_weight(make_study: MakeStudy) -> None:
    folder = make_study(seeds=[0], states={"resnet18-SP": "failed"})
    change(folder, "resnet18-gap-", initial_weights="0", epochs=9, git_commit="f" * 40, git_dirty=True)
    plan = json.loads((folder / "plan.json").read_text())
    plan["runs"] = [run for run in plan["runs"] if run["cell"]["model.squeeze"] != "gmp"]
    (folder / "plan.json").write_text(json.dumps(plan))
    told = warnings(folder)
    order = (
        "one seed",
        "runs are done",
        "failed:",
        "weights differ",
        "epochs",
        "commits",
        "uncommitted",
        "in the plan",
    )
    assert [next(i for i, text in enumerate(told) if part in text) for part in order] == list(range(len(order)))
