"""The combinations of a matrix, after `exclude` and then `include`, by the rules of GitHub Actions.

docs.github.com, "Workflow syntax", `jobs.<job_id>.strategy.matrix`: an exclude removes every combination that it
matches in part; an include is added to every combination whose original values it would not overwrite, and
becomes a combination of its own where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from sqzlab.study.yamlfile import Mark, Node

Combination = dict[str, Node]


@dataclass(frozen=True)
class Item:
    """An element of `exclude` or `include`."""

    mark: Mark
    values: Mapping[str, Node]


def expand(
    matrix: Mapping[str, Sequence[Node]], exclude: Sequence[Item], include: Sequence[Item]
) -> tuple[list[Combination], list[Item]]:
    """The combinations in order, the first axis outermost, and the excludes that matched."""
    originals: list[Combination] = []
    matched: dict[int, Item] = {}
    for nodes in product(*matrix.values()):
        combination = dict(zip(matrix, nodes, strict=True))
        hits = [index for index, item in enumerate(exclude) if _holds(combination, item)]
        matched.update((index, exclude[index]) for index in hits)
        if not hits:
            originals.append(combination)
    combinations, added = [dict(original) for original in originals], []
    for item in include:
        homes = [index for index, original in enumerate(originals) if not _overwrites(original, item)]
        for index in homes:
            combinations[index].update((k, v) for k, v in item.values.items() if k not in originals[index])
        if not homes:
            added.append(dict(item.values))
    return combinations + added, list(matched.values())


def _holds(combination: Combination, item: Item) -> bool:
    return all(key in combination and combination[key].token == node.token for key, node in item.values.items())


def _overwrites(original: Combination, item: Item) -> bool:
    return any(key in original and original[key].token != node.token for key, node in item.values.items())
