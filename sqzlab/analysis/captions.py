"""What the caption of a table must say, made from the records: metric, epoch, n, test, correction, hardware, commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from sqzlab.analysis.arms import Group
from sqzlab.analysis.records import Records

ADJUSTED = {
    "dunnett": "adjusted for {arms} by Dunnett's many-to-one test",
    "holm": "adjusted for {arms} by Holm's method",
    "none": "not adjusted for {arms}",
}
"""By the correction, what was done about comparing many arms with one baseline."""
ALIKE = (
    "Runs of one seed share initial weights and data order but are tested as independent, which is conservative as far "
    "as it makes them alike. "
)


def describe_records(records: Records, spread: bool = True) -> str:
    """Which epoch, how many seeds, which spread (of a table that has one), data, device, commit."""
    if not (done := records.done):
        return "No run has finished."
    told = records.distinct
    devices = {row["device"] if row["gpu"] is None else row["gpu"] for row in done} - {None}  # on a CPU there is no GPU
    commits = sorted({str(commit)[:10] for commit in {row["git_commit"] for row in done} - {None}})
    dirty = " with uncommitted changes" if any(row["git_dirty"] is True for row in done) else ""
    return (
        f"Metrics of the last epoch ({told['epochs']} epoch{'s' * (told['epochs'] != '1')}), evaluated on "
        f"{told['val_images']} images{OWN_SD * spread}. "
        f"Data: {told['data']} ({told['classes']} classes, {told['train_images']} training images). "
        f"Device: {' and '.join(sorted(map(str, devices))) or 'unknown'}, {told['precision']}, torch {told['torch']}. "
        f"Commit: {', '.join(commits) or 'unknown'}{dirty}."
    )


def describe_tests(
    groups: Sequence[Group], *, worse: str | None = None, interval: bool = False, confidence: float = 0.95
) -> str:
    """n, and what stands behind the differences; ends in a space, or is empty where no run has finished.

    `worse` is what is bold of an arm that is separated and worse than the baseline, None for nothing.
    """
    arms = [arm for group in groups for arm in group.arms]
    if not any(arm.n for arm in arms):
        return ""
    counts = Counter(row["state"] for arm in arms for row in arm.rows)
    absent, planned = counts.total() - counts["done"], counts.total()
    over = f", over finished runs ({absent:,} of {planned:,} failed or missing)" if absent else ""
    most = max(arm.n for arm in arms)
    n = f"n = {_range(arm.n for arm in arms)} seed{'s' * (most > 1)} an arm{over}. "
    families = _families(groups)
    rest = _untested([group for group, _ in families if not group.pooled.sd]) + _without_baseline(groups)
    tested = [(group, others) for group, others in families if group.pooled.sd]
    if not tested:
        return n + rest
    p = describe_family([group for group, _ in tested], in_section=len(groups) > 1)
    df = _range(group.pooled.df for group, _ in tested)
    sds = sorted({f"{100 * (group.pooled.sd or 0):.2f}" for group, _ in tested}, key=float)
    student = (
        f"Student's t on the variance pooled over the arms{' of a section' * (len(groups) > 1)}"
        f", sd {sds[0] if len(sds) == 1 else f'{sds[0]} to {sds[-1]}'} points, df {df}"
    )
    found = any((one := group.compared(arm)) and one.separated for group, _ in tested for arm in group.arms)
    how = "" if interval else f" ({student}; {p})"
    bold = f"Bold: separated from the baseline in Top-1 at two-sided p < {1 - confidence:.2g}{how}; "
    bold += f"where the arm is worse, {worse or 'nothing'}. " + ("" if found else "No arm is separated. ")
    alone = f"Interval: {100 * confidence:g} %, of each difference by itself ({student}). p: two-sided, {p}. {ALIKE}"
    return n + (alone if interval else "") + bold + rest


def describe_family(groups: Sequence[Group], *, in_section: bool) -> str:
    """What was done about the number of arms that are compared with their baseline."""
    counts = sorted(count for _, count in _families(groups))
    if not counts or counts[-1] == 1:
        return "one arm, nothing to adjust"
    arms = f"{_range(counts)} arms"
    correction = groups[0].correction
    if in_section:
        arms = f"the {arms} of a section" + ", not across sections," * (correction != "none")
    return ADJUSTED[correction].format(arms=arms)


def has_differences(groups: Sequence[Group]) -> bool:
    """Whether any arm has a difference from a baseline."""
    return bool(_families(groups))


def _families(groups: Sequence[Group]) -> list[tuple[Group, int]]:
    """The groups with a finished baseline and other arms, and how many of these have finished runs."""
    counted = [(group, sum(arm.n > 0 for arm in group.arms) - 1) for group in groups]
    return [(group, others) for group, others in counted if group.baseline is not None and group.baseline.n and others]


def _without_baseline(groups: Sequence[Group]) -> str:
    titles = [group.title for group in groups if group.baseline is None or not group.baseline.n]
    more = f" and {len(titles) - MOST:,} more" if len(titles) > MOST else ""
    return f"No finished baseline in {', '.join(titles[:MOST])}{more}: no difference. " if titles else ""


def _untested(groups: Sequence[Group]) -> str:
    """What can be claimed where no variance can be estimated."""
    told = ""
    if single := [group.title for group in groups if not group.pooled.df]:
        told += (
            f"One checkpoint each ({', '.join(single[:MOST])}): a difference is one between these checkpoints and says "
            "nothing about other seeds, so there is no interval and no p. "
        )
    if same := [group.title for group in groups if group.pooled.df]:
        told += (
            f"All seeds of an arm agree exactly ({', '.join(same[:MOST])}): there is no spread to test against, so "
            "there is no interval and no p. "
        )
    return told


def _range(values: Iterable[int]) -> str:
    """ "5" or "0 to 5"."""
    found = sorted(values)
    return str(found[0]) if found[0] == found[-1] else f"{found[0]} to {found[-1]}"


MOST = 3
OWN_SD = "; ± is the arm's own sample standard deviation over n seeds (n/a for one seed)"
