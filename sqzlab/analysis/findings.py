"""What a study says so far, a sentence or two for each group of arms, and only what its statistics carry."""

from __future__ import annotations

from collections.abc import Sequence

from sqzlab.analysis.arms import Arm, Group
from sqzlab.analysis.more_seeds import POWER
from sqzlab.analysis.precision import resolve
from sqzlab.statistics.comparison import Comparison

MOST_NAMED = 8
LOOKS = "Judge when all runs are done: p < 0.05 is false where one stops at the first look that shows it."
TESTS = {
    "dunnett": "Dunnett's test, 95 % confidence for {arms} together",
    "holm": "Holm's correction, 95 % confidence for {arms} together",
    "none": "no correction for the number of arms, 95 % confidence for each arm",
}


def describe_groups(groups: Sequence[Group]) -> str:
    """What is compared: "7 arms with the baseline on resnet18, 5 seeds each"."""
    if not groups:
        return "Nothing is planned yet."
    parts = []
    for group in groups[:MOST_NAMED]:
        others = len(group.arms) - (group.baseline is not None)
        seeds = sorted({len(arm.rows) for arm in group.arms})
        each = f"{seeds[0]} seed{'s' * (seeds[0] != 1)}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
        against = f"compared with {group.baseline.label}" if group.baseline is not None else "without a baseline"
        parts.append(f"{group.title}: {others} arm{'s' * (others != 1)} {against}, {each} an arm")
    more = [f"{len(groups) - MOST_NAMED:,} more groups"] if len(groups) > MOST_NAMED else []
    return "; ".join([*parts, *more]) + "."


def describe_result(group: Group, finished: bool = True) -> str:
    """Which arms are separated from the group's baseline in Top-1, which are not, and what the group can resolve."""
    baseline = group.baseline
    if baseline is None or baseline.n == 0:
        return "No finished baseline, so nothing is compared."
    compared = [(arm, found) for arm in group.arms if (found := group.compared(arm)) is not None]
    if not compared:
        return "Only the baseline has finished runs, so nothing is compared."
    if compared[0][1].separated is None:
        return _untested(group, baseline)
    better = [_told(arm, found) for arm, found in compared if found.separated and found.difference > 0]
    worse = [_told(arm, found) for arm, found in compared if found.separated and found.difference < 0]
    others = [arm.label for arm, found in compared if not found.separated]
    told = [
        f"{how} than {baseline.label} in Top-1: {_some(arms)}"
        for arms, how in ((better, "better"), (worse, "worse"))
        if arms
    ]
    if not told:
        which = f"none of the {len(compared)} arms is" if len(compared) > 1 else f"the arm {others[0]} is not"
        told = [f"{which} separated from {baseline.label} in Top-1"]
    elif others:
        told.append(f"not separated from it: {_some(others)}")
    if not finished:
        told[0] = f"so far, {told[0]}"
    brackets = "; in brackets the 95 % interval of each difference alone" if better or worse else ""
    arms = "all arms" if group.title == "all arms" else f"all arms of {group.title}"
    test = TESTS[group.correction].format(arms=arms) if len(compared) > 1 else "Student's t, 95 % confidence"
    told[-1] += f" ({test}{brackets})"
    looks = [] if finished else [LOOKS]
    return " ".join([*(f"{_capital(part)}." for part in told), *looks, *_resolution(group)])


def _untested(group: Group, baseline: Arm) -> str:
    """Why no difference of the group has a p value."""
    if all(arm.n < 2 for arm in group.arms):
        return (
            f"One finished seed an arm: no difference from {baseline.label} can be told from the luck of a seed. "
            "A second seed of any arm gives a first estimate of that luck."
        )
    return f"The seeds of each arm agree exactly, so that nothing is known of the noise that {baseline.label} has."


def _resolution(group: Group) -> list[str]:
    one = resolve(group, {})
    if one.found_from is None:
        return []
    seeds = f"{one.n} seed{'s' * (one.n != 1)}"
    with_so_many = f"With {seeds} an arm" if all(arm.n == one.n for arm in group.arms) else f"For an arm of {seeds}"
    return [
        f"{with_so_many}, a true difference of {100 * one.found_from:.2f} points would be found in "
        f"{round(10 * POWER)} of 10 such studies; much smaller ones would mostly go unseen."
    ]


def _told(arm: Arm, found: Comparison) -> str:
    """ "gap by 0.52 points [0.21, 0.83]"; how much worse is a positive number too."""
    assert found.low is not None
    assert found.high is not None
    low, high = (found.low, found.high) if found.difference > 0 else (-found.high, -found.low)
    return f"{arm.label} by {100 * abs(found.difference):.2f} points [{100 * low:.2f}, {100 * high:.2f}]"


def _some(names: Sequence[str]) -> str:
    shown = list(names[:MOST_NAMED])
    if len(names) > MOST_NAMED:
        return f"{', '.join(shown)} and {len(names) - MOST_NAMED:,} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
