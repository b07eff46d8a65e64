"""The runs behind a cell of the tables, and how its difference, interval and p came about, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqzlab.analysis.arms import Arm, Group, group_arms
from sqzlab.analysis.more_seeds import more_seeds, plan_pair
from sqzlab.analysis.records import read_study
from sqzlab.analysis.tables import Column, Entry, Section, Table
from sqzlab.errors import ConfigError, choices
from sqzlab.statistics.comparison import Comparison

FAMILY = {"dunnett": ("Dunnett's many-to-one test", "Dunnett's"), "holm": ("Holm's method", "Bonferroni's")}
"""By the correction, what adjusts the p values and whose the intervals for all arms at once are."""


def explain_arm(folder: Path, name: str, correction: str = "dunnett") -> tuple[Table, ...]:
    """A table of runs for the arm of this name, or for all arms with this value on an axis; the caption has the sums.

    Raises ConfigError where the folder is no study, or no arm has this name.
    """
    groups = group_arms(read_study(folder), correction)
    members = [(group, arm) for group in groups for arm in group.arms if name in (arm.label, *_values(arm))]
    if not members:
        names = dict.fromkeys(arm.label for group in groups for arm in group.arms)
        raise ConfigError(f"--explain: {folder} has no arm {name!r}; {choices(names, name)}")
    return tuple(_runs(group, arm) for group, arm in members)


def explain_pair(folder: Path, first: str, second: str, correction: str = "dunnett") -> tuple[str, ...]:
    """For each group that has finished runs of both arms, how many more seeds would tell them apart.

    Raises ConfigError where the folder is no study, or no group has both.
    """
    groups = group_arms(read_study(folder), correction)
    names = dict.fromkeys(arm.label for group in groups for arm in group.arms if arm.n)
    for name in (first, second):
        if name not in names:
            raise ConfigError(f"--against: {folder} has no finished arm {name!r}; {choices(names, name)}")
    found = more_seeds(groups, first, second)
    if first == second or not found:
        why = "that is the same arm" if first == second else "no group has both"
        raise ConfigError(f"--against: {first!r} and {second!r}: {why}; valid: two arms that share a baseline")
    return tuple(f"{one.group}: {one.sentence()}" for one in found)


def _values(arm: Arm) -> list[str]:
    return [str(value) for value in arm.cell.values()]


def _runs(group: Group, arm: Arm) -> Table:
    rows = []
    for row in arm.rows:
        done = row["state"] == "done"
        shown = [Entry(f"{100 * row[key]:.2f}" if done else "") for key in ("top1", "top5")]
        state = f"{row['state']}: {row['error']}" if row["error"] else str(row["state"])
        rows.append((Entry(str(row["run_id"])), Entry(str(row["seed"])), *shown, Entry(state)))
    columns = (
        *(Column("folder of the run", False), Column("seed"), Column("Top-1 %"), Column("Top-5 %")),
        Column("state", False),
    )
    section = Section(f"{group.title}: {arm.label}", tuple(rows))
    return Table("explain", "\n".join(_sums(group, arm)), columns, (section,), ())


def _sums(group: Group, arm: Arm) -> Iterator[str]:
    yield from (_mean(arm, arm.label, metric) for metric in ("top1", "top5"))
    if arm is group.baseline:
        yield "this arm is the baseline of its group"
        return
    if group.baseline is None or not group.baseline.n:
        yield "no finished baseline, so no difference"
        return
    yield _mean(group.baseline, f"the baseline ({group.baseline.label})", "top1")
    compared = group.compared(arm)
    if compared is None:
        yield "no finished run, so no difference"
        return
    ours, reference = arm.mean("top1"), group.baseline.mean("top1")
    assert ours is not None
    assert reference is not None
    yield f"difference: {ours:.3f} − {reference:.3f} = {_signed(compared.difference)} points"
    yield from _tests(group, arm, compared)


def _mean(arm: Arm, name: str, metric: str) -> str:
    mean, sd = arm.mean(metric), arm.sd(metric)
    label = {"top1": "Top-1", "top5": "Top-5"}[metric]
    if mean is None:
        return f"{label} of {name}: n = 0 ({arm.note()})"
    return f"{label} of {name}: mean {mean:.3f} %, sd {'n/a' if sd is None else f'{sd:.3f}'}, n = {arm.n}"


def _tests(group: Group, arm: Arm, compared: Comparison) -> Iterator[str]:
    """From the pooled variance to the verdict."""
    assert group.baseline is not None
    present = [one for one in group.arms if one.n]
    sizes = " + ".join(str(one.n - 1) for one in present) if len(present) <= MOST else f"{len(present)} arms"
    sd = group.pooled.sd
    if not compared.df or not sd:
        why = "one seed an arm" if not compared.df else "all seeds of an arm agree exactly"
        yield f"no interval and no p: {why}, so the spread over seeds is not known"
        return
    assert compared.standard_error is not None
    assert compared.low is not None
    assert compared.high is not None
    assert compared.joint_low is not None
    assert compared.joint_high is not None
    error = compared.standard_error
    yield f"pooled sd over the arms of {group.title}: {100 * sd:.3f} points, df = {sizes} = {compared.df}"
    yield f"standard error: {100 * sd:.3f} × √(1/{arm.n} + 1/{group.baseline.n}) = {100 * error:.3f} points"
    t, half = compared.difference / error, (compared.high - compared.low) / 2
    ratio = f"{_signed(compared.difference)} / {100 * error:.3f} = {t:.2f}".replace("-", "−")
    yield f"t = {ratio}, df {compared.df}; p = {compared.p:.4g}"
    yield (
        f"95 % interval of this difference by itself: ± {half / error:.3f} × {100 * error:.3f}, "
        f"{_signed(compared.low)} to {_signed(compared.high)}"
    )
    family = f"a family of {len(present) - 1} arms"
    if len(present) == 2:
        yield "one arm is compared with the baseline: nothing to adjust"
    elif group.correction in FAMILY:
        test, whose = FAMILY[group.correction]
        yield f"{test} in {family}: p = {compared.p_adjusted:.4g}"
        interval = f"{_signed(compared.joint_low)} to {_signed(compared.joint_high)}"
        yield f"95 % interval for all of them at once ({whose}): {interval}"
    else:
        yield f"p is not adjusted for {family}"
    yield f"{'separated' if compared.separated else 'not separated'} from the baseline at p < 0.05"
    if not compared.separated:
        yield plan_pair(group, arm, group.baseline).sentence()


def _signed(fraction: float) -> str:
    return f"{100 * fraction:+.3f}".replace("-", "−")


MOST = 12
