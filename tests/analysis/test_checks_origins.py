"""Warnings about where results come from: between the runs of a table, and between the segments of one run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqzlab.analysis.arms import group_arms
from sqzlab.analysis.checks import find_warnings
from sqzlab.analysis.records import read_study

MakeStudy = Callable[..., Path]
A, B = "a" * 40, "b" * 40
ALIKE = {"git_commit": A, "git_dirty": False, "code": "1" * 16, "torch": "2.15.0", "gpu": "NVIDIA H200"}


@pytest.fixture
def study(make_study: MakeStudy) -> Path:
    """16 finished runs on one kind of GPU, each trained in one go."""
    folder = make_study(**{key: value for key, value in ALIKE.items() if key != "code"}, device="cuda")
    for run in folder.glob("resnet18-*"):
        trained(run, {})
    return folder


def trained(run: Path, *segments: dict[str, Any]) -> None:
    """provenance.json and metrics.json of a run whose segments differ from `ALIKE` in these values."""
    whole = [{"first_step": 100 * i, "last_step": 100 * i + 100, **ALIKE, **s} for i, s in enumerate(segments)]
    last = {key: whole[-1].get(key) for key in ALIKE}
    (run / "provenance.json").write_text(json.dumps({**last, "git_diff": None, "segments": whole}))
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {key: last[key] for key in last if key != "code"}))


def runs(folder: Path, start: str) -> list[Path]:
    return sorted(folder.glob(f"{start}*"))


def warnings(folder: Path) -> tuple[str, ...]:
    records = read_study(folder)
    return find_warnings(records, group_arms(records))


def test_runs_of_one_origin_have_no_warning(study: Path) -> None:
    assert warnings(study) == ()


def test_a_run_resumed_alike_has_no_warning(study: Path) -> None:
    trained(runs(study, "resnet18-gap-s0")[0], {}, {}, {})
    assert warnings(study) == ()


@pytest.mark.parametrize(
    ("key", "before", "told"),
    [
        ("gpu", "NVIDIA A100", "mixed GPU types within a run: NVIDIA A100 then NVIDIA H200 (1 run, such as {run})"),
        ("torch", "2.11.0", "mixed versions of torch within a run: 2.11.0 then 2.15.0 (1 run, such as {run})"),
        ("git_commit", B, "mixed commits within a run: bbbbbbbbbb then aaaaaaaaaa (1 run, such as {run})"),
        (
            "code",
            "2" * 16,
            f"mixed code (digests of the package) within a run: {'2' * 16} then {'1' * 16} (1 run, such",
        ),
        ("git_dirty", True, "made with uncommitted changes in the code: 1 run, such as {run}"),
    ],
)
def test_what_changed_within_a_run_is_told(study: Path, key: str, before: object, told: str) -> None:
    run = runs(study, "resnet18-gap-s0")[0]
    trained(run, {key: before}, {})
    (said,) = warnings(study)
    assert said.startswith(told.format(run=run.name))


def test_a_segment_that_was_repeated_as_a_whole_does_not_count(study: Path) -> None:
    """Killed before its first checkpoint on another GPU: nothing of it is in the result."""
    elsewhere = {"gpu": "NVIDIA A100", "first_step": 100}
    trained(runs(study, "resnet18-gap-s0")[0], {}, elsewhere, elsewhere, {"first_step": 100}, {"first_step": 300})
    assert warnings(study) == ()


def test_a_segment_whose_work_was_lost_with_its_checkpoint_does_not_count(study: Path) -> None:
    """The run went back to an older checkpoint than the one which the segment on the other GPU began with."""
    trained(runs(study, "resnet18-gap-s0")[0], {}, {"gpu": "NVIDIA A100"}, {"first_step": 50})
    assert warnings(study) == ()


def test_equal_commits_with_unequal_code_are_told_by_the_code(study: Path) -> None:
    for run in runs(study, "resnet18-gap-"):
        trained(run, {"git_dirty": True, "code": "2" * 16})
    said = warnings(study)
    assert len(said) == 2
    assert said[0].startswith(f"mixed code (digests of the package): {'1' * 16} (14 runs, such as resnet18-baseline-")
    assert f"and {'2' * 16} (2 runs, such as resnet18-gap-s0-" in said[0]
    assert "uncommitted" in said[1]


def test_unknown_commits_with_unequal_code_are_told_by_the_code(study: Path) -> None:
    for number, run in enumerate(runs(study, "resnet18-")):
        trained(run, {"git_commit": None, "git_dirty": None, "code": f"{number % 2:016x}"})
    (said,) = warnings(study)
    assert said.startswith(f"mixed code (digests of the package): {0:016x} (8 runs")


def test_unequal_commits_are_told_once(study: Path) -> None:
    for run in runs(study, "resnet18-gap-"):
        trained(run, {"git_commit": B, "code": "2" * 16})
    (said,) = warnings(study)
    assert said.startswith("mixed commits: aaaaaaaaaa (14 runs")


def test_unequal_commits_with_the_same_code_are_told_to_be_the_same(study: Path) -> None:
    for run in runs(study, "resnet18-gap-"):
        trained(run, {"git_commit": B})
    (said,) = warnings(study)
    assert said.startswith("mixed commits: aaaaaaaaaa (14 runs")
    assert said.endswith("; the package is the same in all of them")


def test_results_older_than_the_digest_are_told_by_their_commits(study: Path) -> None:
    for run in runs(study, "resnet18-gap-"):
        trained(run, {"git_commit": B, "code": None})
    (said,) = warnings(study)
    assert said.startswith("mixed commits")
    assert "the same" not in said


def test_many_values_are_cut_short(study: Path) -> None:
    for number, run in enumerate(runs(study, "resnet18-")):
        trained(run, {"gpu": f"GPU {number:02}"})
    (said,) = warnings(study)
    assert said.startswith("mixed GPU types: GPU 00 (1 run, such as")
    assert said.endswith(" and 8 more")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"segments": 3}', '{"segments": [1, 2]}', '{"segments": [{}, {}]}', "\udcff"]
)
def test_a_damaged_provenance_is_told_and_costs_no_table(study: Path, text: str) -> None:
    run = runs(study, "resnet18-gap-s0")[0]
    (run / "provenance.json").write_bytes(text.encode(errors="surrogateescape"))
    said = warnings(study)
    assert said[-1].startswith(f"provenance.json of 1 run is damaged ({run.name}): ")
    assert "15 of 16" not in "".join(said)


def test_a_run_outside_the_plan_is_not_compared(study: Path) -> None:
    run = runs(study, "resnet18-gap-s0")[0]
    trained(run, {"gpu": "NVIDIA A100"}, {})
    plan = json.loads((study / "plan.json").read_text())
    plan["runs"] = [planned for planned in plan["runs"] if planned["run_id"] != run.name]
    (study / "plan.json").write_text(json.dumps(plan))
    assert not any("GPU" in said for said in warnings(study))
