"""How many more seeds would tell two arms of a group apart: the table `more_seeds`, and the answer for any pair.

An arm and its baseline belong to the family that the group's correction is made for. For two other arms, of which
nobody knew before that they would be compared, the family is all pairs of the group (Tukey-Kramer).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqzlab.analysis.arms import Arm, Group
from sqzlab.analysis.captions import describe_family, describe_records
from sqzlab.analysis.records import Records
from sqzlab.analysis.tables import Column, Entry, Section, Table, points
from sqzlab.statistics.planning import critical_difference, seeds_to_separate


@dataclass(frozen=True)
class MoreSeeds:
    """Two arms of a group, and how many more seeds of each would tell them apart."""

    group: str
    first: str
    second: str
    difference: float  # of the means of Top-1, first minus second, a fraction
    n_first: int
    n_second: int
    separated: bool | None  # by `test`; None where nothing is known of the spread over seeds
    more: int | None  # for a true difference of this size and power POWER; None where there is no such number
    test: str  # in words

    @property
    def shown(self) -> str:
        """The number of seeds as a table has it."""
        if self.separated is None:
            return "n/a"
        if self.separated:
            return "separated"
        if self.more is None:
            return f"> {MOST_SEEDS:,}" if self.difference else "—"
        return f"{self.more:,}"

    def sentence(self) -> str:
        """The same in one line, for a terminal."""
        runs = f"{self.n_first} and {self.n_second} run{'s' * (max(self.n_first, self.n_second) > 1)}"
        who = f"{self.first} and {self.second} differ by {points(100 * self.difference).text} points ({runs})"
        if self.separated is None:
            return f"{who}; their spread over seeds is unknown, so no number of seeds can be given"
        if self.separated:
            return f"{who}: separated ({self.test})"
        if not self.difference:
            return f"{who}: no number of seeds separates equal means"
        many = f"more than {MOST_SEEDS:,}" if self.more is None else f"{self.more:,}"
        found = f"{many} more seeds of each would find such a difference with power {POWER}"
        return f"{who}: not separated ({self.test}); {found}; {FIX}"


def more_seeds(groups: Sequence[Group], first: str, second: str) -> tuple[MoreSeeds, ...]:
    """Two arms by their labels, in every group where both have a finished run."""
    found = []
    for group in groups:
        arms = {arm.label: arm for arm in group.arms if arm.n}
        if first in arms and second in arms:
            found.append(plan_pair(group, arms[first], arms[second]))
    return tuple(found)


def plan_pair(group: Group, first: Arm, second: Arm) -> MoreSeeds:
    """How many more seeds of each of two arms of a group, with a finished run each, would tell them apart."""
    difference = _difference(first, second)
    sd, df = group.pooled.sd, group.pooled.df
    separated = more = None
    test, sizes, words = _family(group, first, second)
    if sd:
        against = {id(first): second, id(second): first}.get(id(group.baseline))
        main = None if against is None else group.compared(against)
        if main is None:
            separated = abs(difference) > critical_difference(sd, first.n, second.n, df, sizes, test=test)
        else:
            separated = main.separated
        if not separated and difference:
            own, other = (second, first) if first is group.baseline else (first, second)
            more = seeds_to_separate(difference, sd, own.n, other.n, df, sizes, POWER, most=MOST_SEEDS, test=test)
    return MoreSeeds(group.title, first.label, second.label, difference, first.n, second.n, separated, more, words)


def compared_sizes(group: Group) -> list[int]:
    """The finished runs of every arm that is compared with the baseline."""
    return [arm.n for arm in group.arms if arm.n and arm is not group.baseline]


def test_of(group: Group) -> str:
    """Which test of `planning` says from where on a difference from the baseline is separated."""
    return "bonferroni" if group.correction == "holm" else "dunnett"


def more_seeds_table(records: Records, groups: Sequence[Group]) -> Table | None:
    """A row for each arm that is not separated from its baseline, and for the best two arms of a group."""
    open_pairs = [(group, *pair) for group in groups if group.pooled.sd for pair in _not_separated(group)]
    if not open_pairs:
        return None
    rows: dict[str, list[tuple[Entry, ...]]] = {}
    data = []
    for group, first, second, why in open_pairs[:MOST_PLANNED]:
        one = plan_pair(group, first, second)
        entries = (
            *(Entry(f"{first.label} − {second.label}{why}"), Entry(f"{one.n_first} + {one.n_second}")),
            *(points(100 * one.difference), Entry(one.shown, value=MOST_SEEDS + 1 if one.more is None else one.more)),
        )
        rows.setdefault(group.title, []).append(entries)
        data.append(asdict(one))
    columns = Column("arms", False), Column("runs", False), Column("difference %p"), Column("more seeds of each")
    left = len(open_pairs) - MOST_PLANNED
    unshown = f" {left:,} more pairs are not shown." if left > 0 else ""
    best = any(why for *_, why in open_pairs)
    pairs = "; the best two by Tukey-Kramer over all pairs" if best and groups[0].correction != "none" else ""
    bonferroni = " (at most: by Bonferroni)" if groups[0].correction == "holm" else ""
    caption = (
        "Arms that are not separated, and how many more seeds of each of the two would separate a true difference as "
        f"large as the observed one with power {POWER} (Student's t, "
        f"{describe_family(groups, in_section=len(groups) > 1)}{bonferroni}{pairs}; — where the means are equal). "
        f"{FIX.capitalize()}. A difference that was picked because it is large is too large on average, so its number "
        f"is too small.{unshown} {describe_records(records, spread=False)}"
    )
    sections = tuple(Section(title, tuple(lines)) for title, lines in rows.items())
    return Table("more_seeds", caption, columns, sections, tuple(data))


def _family(group: Group, first: Arm, second: Arm) -> tuple[str, Sequence[int], str]:
    """For a pair: the test as `planning` calls it, the sizes of its family, and both in words."""
    own = second if first is group.baseline else first
    if group.correction == "none":
        return "dunnett", [own.n], "Student's t, not adjusted"
    sizes = compared_sizes(group)
    if group.baseline in (first, second):
        if len(sizes) == 1:
            return "dunnett", sizes, "Student's t"
        return test_of(group), sizes, f"{'Holm' if group.correction == 'holm' else 'Dunnett'}, {len(sizes)} arms"
    arms = sum(arm.n > 0 for arm in group.arms)
    return "tukey", [own.n] * (arms - 1), f"Tukey-Kramer, all pairs of {arms} arms"


def _not_separated(group: Group) -> list[tuple[Arm, Arm, str]]:
    pairs = []
    if group.baseline is not None:
        for arm in group.arms:
            main = group.compared(arm)
            if main is not None and not main.separated:
                pairs.append((arm, group.baseline, ""))
    best = sorted((arm for arm in group.arms if arm.n), key=lambda arm: -(arm.mean("top1") or 0.0))[:2]
    if len(best) == 2 and group.baseline not in best:
        sd, (first, second) = group.pooled.sd, best
        assert sd
        test, sizes, _ = _family(group, first, second)
        least = critical_difference(sd, first.n, second.n, group.pooled.df, sizes, test=test)
        if _difference(first, second) <= least:
            pairs.append((first, second, " (the best two)"))
    return pairs


def _difference(first: Arm, second: Arm) -> float:
    difference = float(first.stored("top1").mean() - second.stored("top1").mean())
    return 0.0 if abs(difference) < 1e-12 else difference  # equal counts, summed in another order


POWER = 0.8
MOST_SEEDS = 1000
MOST_PLANNED = 64
FIX = (
    "fix the number before running, or test on the new seeds alone: looking again after every seed makes p < 0.05 false"
)
