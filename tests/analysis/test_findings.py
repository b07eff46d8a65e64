"""The result in words says what the statistics say, and nothing more."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from scipy import stats

from sqzlab.analysis.arms import Group, group_arms
from sqzlab.analysis.findings import describe_groups, describe_result
from sqzlab.analysis.records import read_study

MakeStudy = Callable[..., Path]
ARMS = {
    "baseline": [0.900, 0.902, 0.901],
    "gap": [0.920, 0.921, 0.922],
    "gmp": [0.901, 0.903, 0.900],
    "std": [0.880, 0.879, 0.881],
}


@pytest.fixture
def group(make_study: MakeStudy) -> Callable[..., Group]:
    """A group whose runs have these accuracies: `group({"baseline": [0.9, 0.91], ...}, correction="holm")`."""

    number = itertools.count()

    def make(accuracies: Mapping[str, Sequence[float]] = ARMS, correction: str = "dunnett") -> Group:
        most = max(map(len, accuracies.values()))
        matrix = {"model.backbone": ["resnet18"], "model.squeeze": list(accuracies)}
        folder = make_study(f"results/{next(number)}", matrix=matrix, seeds=range(most))
        for squeeze, values in accuracies.items():
            for seed in range(most):
                path = next(folder.glob(f"resnet18-{squeeze}-s{seed}-*/metrics.json"))
                if seed < len(values):
                    path.write_text(json.dumps(json.loads(path.read_text()) | {"top1": values[seed]}))
                else:
                    path.unlink()
        (found,) = group_arms(read_study(folder), correction)
        return found

    return make


def test_arms_that_are_separated_are_told_from_those_that_are_not(group: Callable[..., Group]) -> None:
    text = describe_result(group())
    assert text.startswith("Better than baseline in Top-1: gap by 2.00 points [1.78, 2.22]. Worse than baseline in ")
    assert "Worse than baseline in Top-1: std by 2.10 points [1.88, 2.32]. Not separated from it: gmp (Dunnett" in text


def test_the_intervals_are_students_on_the_pooled_variance(group: Callable[..., Group]) -> None:
    found = group()
    half = stats.t.ppf(0.975, found.pooled.df) * found.pooled.sd * (2 / 3) ** 0.5
    assert f"gap by 2.00 points [{2 - 100 * half:.2f}, {2 + 100 * half:.2f}]" in describe_result(found)


@pytest.mark.parametrize(("correction", "named"), [("dunnett", "Dunnett"), ("holm", "Holm"), ("none", "no correction")])
def test_the_test_is_named(group: Callable[..., Group], correction: str, named: str) -> None:
    assert named in describe_result(group(correction=correction))


def test_what_a_study_can_resolve_is_told_for_its_smallest_arm(group: Callable[..., Group]) -> None:
    assert "With 3 seeds an arm, a true difference of 0." in describe_result(group())
    assert "For an arm of 2 seeds, a true difference of " in describe_result(group({**ARMS, "std": [0.88, 0.879]}))


def test_where_nothing_is_separated_no_arm_is_called_better(group: Callable[..., Group]) -> None:
    text = describe_result(group({"baseline": [0.90, 0.92], "gap": [0.91, 0.93], "gmp": [0.89, 0.92]}))
    assert text.startswith("None of the 2 arms is separated from baseline in Top-1")
    assert "etter" not in text


def test_a_sentence_begins_with_a_word_and_not_with_an_arms_name(group: Callable[..., Group]) -> None:
    text = describe_result(group({"baseline": [0.90, 0.92], "gap": [0.91, 0.93]}))
    assert text.startswith("The arm gap is not separated from baseline in Top-1 (Student's t, 95 % confidence).")


def test_the_family_is_named(group: Callable[..., Group]) -> None:
    assert "(Dunnett's test, 95 % confidence for all arms of resnet18 together" in describe_result(group())


def test_only_a_study_that_still_runs_warns_against_stopping_early(group: Callable[..., Group]) -> None:
    assert "Judge when all runs are done: p < 0.05 is false where" in describe_result(group(), finished=False)
    assert "Judge" not in describe_result(group())


def test_one_seed_claims_nothing(group: Callable[..., Group]) -> None:
    text = describe_result(group({"baseline": [0.90], "gap": [0.95]}))
    assert "luck of a seed" in text
    assert "0.0" not in text


@pytest.mark.parametrize(
    ("accuracies", "said"),
    [
        ({"baseline": [], "gap": [0.9, 0.91]}, "No finished baseline"),
        ({"baseline": [0.9, 0.91], "gap": []}, "Only the baseline has finished runs"),
        ({"baseline": [0.9, 0.9], "gap": [0.91, 0.91]}, "agree exactly"),
    ],
)
def test_what_cannot_be_compared_says_why(
    group: Callable[..., Group], accuracies: Mapping[str, Sequence[float]], said: str
) -> None:
    assert said in describe_result(group(accuracies))


def test_a_study_that_still_runs_speaks_of_so_far(group: Callable[..., Group]) -> None:
    assert describe_result(group(), finished=False).startswith("So far, better than baseline")


def test_many_arms_are_counted_not_listed(make_study: MakeStudy) -> None:
    matrix = {"model.squeeze": ["baseline", "gap"], "model.reduction": range(1, 40)}
    (group,) = group_arms(read_study(make_study(matrix=matrix)))
    assert len(describe_result(group)) < 1000


def test_what_is_compared_is_told_for_each_group(make_study: MakeStudy) -> None:
    matrix = {"model.backbone": ["resnet18", "resnet34"], "model.squeeze": ["baseline", "gap", "SP"]}
    groups = group_arms(read_study(make_study(matrix=matrix)))
    assert describe_groups(groups) == (
        "resnet18: 2 arms compared with baseline, 2 seeds an arm; resnet34: 2 arms compared with baseline, "
        "2 seeds an arm."
    )
    assert describe_groups(()) == "Nothing is planned yet."
