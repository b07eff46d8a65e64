"""What a study can resolve: the spread over seeds twice over, the smallest differences, and the seeds still to run.

Makes the tables `images` (see `paired`), `precision` and `more_seeds` (see there), and the warnings that go with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import special

from sqzlab.analysis.arms import Group
from sqzlab.analysis.captions import describe_family, describe_records
from sqzlab.analysis.more_seeds import POWER, compared_sizes, more_seeds_table, test_of
from sqzlab.analysis.outcomes import Fault, Outcomes, read_outcomes, tell
from sqzlab.analysis.paired import images_table, pair_with_baseline
from sqzlab.analysis.records import Records
from sqzlab.analysis.tables import Column, Entry, Section, Table
from sqzlab.statistics.comparison import pool
from sqzlab.statistics.images import Estimate, pooled_seed_sd, sd_disagreement
from sqzlab.statistics.planning import critical_difference, detectable_difference, spread_outlier


@dataclass(frozen=True)
class Resolution:
    """Of one group; fractions, None where a figure does not exist."""

    sd: float | None  # of one run over seeds, pooled over the arms
    df: int
    low: float | None  # chi-square interval of sd; None where all runs of an arm agree
    high: float | None
    arms_with_spread: int
    images_sd: Estimate | None  # the same from the images that runs of one arm disagree on
    p_equal: float | None  # that both estimate the same
    n: int  # runs of the smallest arm that is compared
    n_baseline: int
    family: int  # arms compared with the baseline
    separated_from: float | None  # the smallest observed difference that counts; with Holm it may be smaller
    found_from: float | None  # the smallest true difference that is found with power POWER; likewise


def precision_tables(records: Records, groups: Sequence[Group]) -> tuple[tuple[Table, ...], tuple[str, ...]]:
    """The tables `images` (absent where no outcomes are stored), `precision` and `more_seeds`, and the warnings.

    `more_seeds` is absent where no spread is known or every arm is separated. `correct.npz` is read of at most
    MOST_RUNS runs, of every arm equally many; where that would be less than two, of none.
    """
    arms = sum(len(group.arms) for group in groups)
    quota = MOST_RUNS // max(1, arms)
    most = quota if any(arm.n > quota for group in groups for arm in group.arms) else None
    paired, resolved = [], []
    faults: list[Fault] = []
    for group in groups:
        outcomes, unusable = read_outcomes(records.folder, group.arms if quota > 1 else (), most=most)
        faults += unusable
        paired.append(pair_with_baseline(group, outcomes))
        resolved.append(resolve(group, outcomes))
    tables = (
        images_table(records, groups, paired, most),
        precision_table(records, groups, resolved) if groups else None,
        more_seeds_table(records, groups),
    )
    warnings = tell(faults)
    if quota < 2:
        warnings.append(f"no per-image estimates: {arms:,} arms, and they are made for at most {MOST_RUNS // 2}")
    for group, one in zip(groups, resolved, strict=True):
        warnings += [*_unlike_images(group, one, LEVEL / len(groups)), *_unlike_arms(group, LEVEL / len(groups))]
    return tuple(table for table in tables if table is not None), tuple(warnings)


def resolve(group: Group, outcomes: Mapping[int, Outcomes]) -> Resolution:
    """What the runs of a group can tell apart, and how sure their spread is."""
    sd, df = group.pooled.sd, group.pooled.df
    low, high = _interval_of_sd(sd, df) if sd else (None, None)
    bits = [outcomes[id(arm)].bits() for arm in group.arms if id(arm) in outcomes]
    images_sd = pooled_seed_sd(bits) if bits else None
    p_equal = None if sd is None or images_sd is None else sd_disagreement(sd, df, images_sd)
    compared = compared_sizes(group)
    n = min(compared, default=0)
    n_baseline = 0 if group.baseline is None else group.baseline.n
    separated = found = None
    if sd and n and n_baseline:
        test, sizes = test_of(group), [n] if group.correction == "none" else compared
        separated = critical_difference(sd, n, n_baseline, df, sizes, test=test)
        found = detectable_difference(sd, n, n_baseline, df, sizes, power=POWER, test=test)
    spread = sum(arm.n > 1 for arm in group.arms)
    return Resolution(sd, df, low, high, spread, images_sd, p_equal, n, n_baseline, len(compared), separated, found)


def precision_table(records: Records, groups: Sequence[Group], resolved: Sequence[Resolution]) -> Table:
    """Four rows for each group: both estimates of the spread over seeds, and both smallest differences."""
    sections = [Section(group.title, _lines(group, one)) for group, one in zip(groups, resolved, strict=True)]
    data = []
    for group, one in zip(groups, resolved, strict=True):
        row = {"group": group.title, "correction": group.correction, **asdict(one)}
        images_sd = row.pop("images_sd") or {"value": None, "standard_error": None}
        data.append(row | {"images_sd": images_sd["value"], "images_sd_standard_error": images_sd["standard_error"]})
    columns = Column("what", False), Column("points"), Column("95 % interval"), Column("from", False)
    caption = (
        "What this study can resolve in Top-1, in percentage points. The standard deviation of one run over seeds is "
        "estimated twice: from the runs' accuracies (pooled over the arms, chi-square interval), and from the images "
        "on which runs of one arm disagree (normal interval), which is far more precise but blind to luck that moves "
        "many images together. A difference from the baseline counts as separated from the third row on"
        f"{LATEST * (groups[0].correction == 'holm')}; a true one of the fourth row's size is found by a study like "
        f"this with probability {POWER}, if the sd is as estimated. Both hold for the smallest arm, Student's t, "
        f"{describe_family(groups, in_section=len(groups) > 1)}. {describe_records(records, spread=False)}"
    )
    return Table("precision", caption, columns, tuple(sections), tuple(data))


# ---- one group ---------------------------------------------------------------------------------


def _interval_of_sd(sd: float, df: int) -> tuple[float, float]:
    low, high = sd * np.sqrt(df / special.chdtri(df, [0.025, 0.975]))
    return float(low), float(high)


# ---- text --------------------------------------------------------------------------------------


def _lines(group: Group, one: Resolution) -> tuple[tuple[Entry, ...], ...]:
    by_runs = by_images = Entry("")
    from_runs, from_images = "no arm has two finished runs", "no arm has two runs with usable outcomes"
    if one.sd is not None:
        exact = one.low is None or one.high is None  # nothing is known of a spread of 0
        by_runs = Entry("n/a") if exact else Entry(_points(one.low or 0), _points(one.high or 0), joint="to")
        from_runs = f"{one.arms_with_spread} arm{'s' * (one.arms_with_spread != 1)}, df {one.df}"
    if one.images_sd is not None:
        value, error = one.images_sd.value, one.images_sd.standard_error
        by_images = Entry("n/a")
        if value:
            by_images = Entry(_points(max(0.0, value - Z * error)), _points(value + Z * error), joint="to")
        same = "" if one.p_equal is None else f"; equal to the row above? p = {one.p_equal:.3f}, F test"
        from_images = f"standard error {_points(error)}{same}"
    if one.separated_from is not None:
        behind = f"{one.n} + {one.n_baseline} runs, {one.family} arm{'s' * (one.family != 1)}"
    elif not one.n or not one.n_baseline:
        behind = "no finished run of the baseline, or of another arm"
    else:
        behind = from_runs if one.sd is None else "the runs of every arm are equal"
    images_sd = None if one.images_sd is None else one.images_sd.value
    latest, most = (", at the latest", ", at most") if group.correction == "holm" else ("", "")
    return (
        (Entry("sd over seeds, from the runs' accuracies"), _value(one.sd), by_runs, Entry(from_runs)),
        (Entry("sd over seeds, from images that runs disagree on"), _value(images_sd), by_images, Entry(from_images)),
        (Entry(f"smallest difference that is separated{latest}"), _value(one.separated_from), Entry(""), Entry(behind)),
        (
            Entry(f"smallest true difference found with power {POWER}{most}"),
            _value(one.found_from),
            Entry(""),
            Entry(behind),
        ),
    )


def _value(fraction: float | None) -> Entry:
    return Entry("n/a") if fraction is None else Entry(_points(fraction), value=100 * fraction)


def _points(fraction: float) -> str:
    return f"{100 * fraction:.3f}"


def _unlike_images(group: Group, one: Resolution, level: float) -> list[str]:
    if one.sd is None or one.images_sd is None or one.p_equal is None or one.p_equal >= level:
        return []
    seeds, images = f"{_points(one.sd)} points (df {one.df})", f"{_points(one.images_sd.value)}"
    if one.sd > one.images_sd.value:
        than = f"more over seeds, {seeds}, than the images they disagree on explain, {images}"
        means = (
            "the luck of a seed moves many images together, or the runs are no replicates; "
            "intervals over new images are too short, rely on those over seeds"
        )
    else:
        than = f"less over seeds, {seeds}, than the images they disagree on let expect, {images}"
        means = (
            "runs more alike than independent ones (shared weights, chosen by accuracy), or luck; "
            "intervals over seeds may be too short"
        )
    return [f"{group.title}: runs of one arm differ by {than} (p = {one.p_equal:.2g}): {means}"]


def _unlike_arms(group: Group, level: float) -> list[str]:
    cells = [arm.stored("top1") for arm in group.arms]
    worst = spread_outlier(cells, level)
    if worst is None:
        return []
    arm, others = group.arms[worst], pool([cell for i, cell in enumerate(cells) if i != worst]).sd
    own = f"{_points(float(cells[worst].std(ddof=1)))} points ({arm.n} runs)"
    return [
        f"{group.title}: the spread over seeds of {arm.label} is {own}, of the others {_points(others or 0.0)}: "
        "pooling the variance is doubtful, and so are this group's intervals and p values"
    ]


LEVEL = 0.01  # of a warning, divided by the number of groups
MOST_RUNS = 512  # reading one takes 0.2 ms; what more seeds would tell, the main table tells
Z = 1.959963984540054
LATEST = " at the latest (Bonferroni; Holm's method may separate smaller ones)"
