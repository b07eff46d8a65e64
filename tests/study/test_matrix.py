from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sqzlab.study.matrix import Item, expand
from sqzlab.study.yamlfile import Node

Plain = dict[str, Any]


def expanded(
    matrix: dict[str, list[Any]], exclude: list[Plain], include: list[Plain]
) -> tuple[list[Plain], list[Plain]]:
    """`expand` on plain values: the combinations and the excludes that matched."""
    combinations, matched = expand(
        {key: [Node(value) for value in values] for key, values in matrix.items()}, *map(items, (exclude, include))
    )
    return [plain(c) for c in combinations], [plain(item.values) for item in matched]


def items(given: list[Plain]) -> list[Item]:
    return [Item((1, 1), {key: Node(value) for key, value in values.items()}) for values in given]


def plain(values: Any) -> Plain:
    return {key: node.plain for key, node in values.items()}


def test_the_example_in_the_documentation_of_github_actions() -> None:
    """docs.github.com, "Expanding or adding matrix configurations"."""
    combinations, _ = expanded(
        {"fruit": ["apple", "pear"], "animal": ["cat", "dog"]},
        [],
        [
            {"color": "green"},
            {"color": "pink", "animal": "cat"},
            {"fruit": "apple", "shape": "circle"},
            {"fruit": "banana"},
            {"fruit": "banana", "animal": "cat"},
        ],
    )
    assert combinations == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]


def test_true_is_not_one() -> None:
    combinations, matched = expanded({"a": [True, 1, 0, False]}, [{"a": 1}, {"a": False}], [])
    assert combinations == [{"a": True}, {"a": 0}]
    assert combinations[0]["a"] is True
    assert matched == [{"a": 1}, {"a": False}]


def by_the_documentation(matrix: dict[str, list[Any]], exclude: list[Plain], include: list[Plain]) -> list[Plain]:
    """Every sentence of the rules in turn, with no thought of speed."""
    originals: list[Plain] = [{}]
    for axis in matrix:  # "a job runs for each possible combination of the variables"
        originals = [original | {axis: value} for original in originals for value in matrix[axis]]
    for partial in exclude:  # "an excluded configuration only has to be a partial match"
        originals = [original for original in originals if original | partial != original]
    result, extra = [dict(original) for original in originals], []
    for entry in include:
        found = False
        for original, job in zip(originals, result, strict=True):
            # "added to each combination if none of the pairs overwrite any of the original matrix values"
            if entry | original == original | entry:
                job.update(entry)  # "added matrix values can be overwritten"
                found = True
        if not found:  # "a new matrix combination will be created instead"
            extra.append(dict(entry))
    return result + extra


VALUES = st.sampled_from(["u", "v", "w"])
PART = st.dictionaries(st.sampled_from("abcde"), VALUES, min_size=1, max_size=3)


@given(
    st.dictionaries(st.sampled_from("abc"), st.lists(VALUES, min_size=1, max_size=3, unique=True), min_size=1),
    st.lists(PART, max_size=4),
    st.lists(PART, max_size=5),
)
def test_expansion_follows_the_rules_of_github_actions(
    matrix: dict[str, list[Any]], exclude: list[Plain], include: list[Plain]
) -> None:
    combinations, matched = expanded(matrix, exclude, include)
    assert combinations == by_the_documentation(matrix, exclude, include)
    everything = by_the_documentation(matrix, [], [])
    hit = [partial for partial in exclude if len(by_the_documentation(matrix, [partial], [])) < len(everything)]
    assert [partial for partial in exclude if partial in matched] == hit
