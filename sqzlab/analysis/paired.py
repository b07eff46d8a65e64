"""Each arm against its baseline from the images that their runs got right: the table `images`.

Three p values stand side by side because they answer three questions; the table's notes say which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqzlab.analysis.arms import Arm, Group
from sqzlab.analysis.captions import describe_records
from sqzlab.analysis.outcomes import Outcomes
from sqzlab.analysis.records import Records
from sqzlab.analysis.tables import Column, Entry, Section, Table, points, probability
from sqzlab.statistics.comparison import holm
from sqzlab.statistics.images import ImageDifference, McNemar, difference_on_new_images, mcnemar


@dataclass(frozen=True)
class Paired:
    """An arm and its baseline on the same images; p values adjusted for the group's arms."""

    images: int
    runs: int
    baseline_runs: int
    new_images: ImageDifference
    p_new_images: float | None  # None where fewer than FEW images tell the two apart, as in `new_images`
    seed: int  # of the arm's run in the pair of checkpoints
    baseline_seed: int  # the same, unless the two arms have no seed in common
    checkpoints: McNemar
    p_checkpoints: float


def pair_with_baseline(group: Group, outcomes: Mapping[int, Outcomes]) -> Mapping[int, Paired]:
    """By the arm's id(); without the arms of which, or of whose baseline, no run has usable outcomes.

    Adjusted by Holm, whose method asks nothing of how the arms depend on each other; not where the group says "none".
    An arm that gets no p counts in the family all the same.
    """
    reference = outcomes.get(id(group.baseline)) if group.baseline is not None else None
    if reference is None or group.baseline is None:
        return {}
    of_baseline = reference.bits()
    found: dict[int, tuple[Outcomes, ImageDifference, int, int, McNemar]] = {}
    for arm in group.arms:
        if arm is group.baseline or (own := outcomes.get(id(arm))) is None:
            continue
        bits = own.bits()
        common = next((seed for seed in own.seeds if seed in reference.seeds), None)
        ours, theirs = (0, 0) if common is None else (own.seeds.index(common), reference.seeds.index(common))
        over_images = difference_on_new_images(bits, of_baseline)
        found[id(arm)] = own, over_images, ours, theirs, mcnemar(bits[ours], of_baseline[theirs])
    if not found:
        return {}
    known = [over_images.p is not None and over_images.apart >= FEW for _, over_images, *_ in found.values()]
    p_images = [
        over.p if told and over.p is not None else 1.0
        for told, (_, over, *_) in zip(known, found.values(), strict=True)
    ]
    p_pairs = [pair.p for *_, pair in found.values()]
    if group.correction != "none":
        p_images, p_pairs = list(map(float, holm(p_images))), list(map(float, holm(p_pairs)))
    return {
        key: Paired(
            *(own.n, len(own.seeds), len(reference.seeds), over_images, p_image if told else None),
            *(own.seeds[ours], reference.seeds[theirs], pair, p_pair),
        )
        for (key, (own, over_images, ours, theirs, pair)), told, p_image, p_pair in zip(
            found.items(), known, p_images, p_pairs, strict=True
        )
    }


def images_table(
    records: Records, groups: Sequence[Group], paired: Sequence[Mapping[int, Paired]], most: int | None = None
) -> Table | None:
    """One row an arm, with `paired` of each group; None where no arm of any group can be paired.

    `most` is the number of runs an arm beyond which no more were read.
    """
    if not any(paired):
        return None
    sections, data = [], []
    for group, known in zip(groups, paired, strict=True):
        arms = [arm for arm in group.arms if arm is not group.baseline]
        if group.baseline is not None and arms:
            sections.append(Section(group.title, tuple(_entries(group, arm, known.get(id(arm))) for arm in arms)))
            data += [_data(group, arm, known.get(id(arm))) for arm in arms]
    columns = (
        *(Column("arm", False), Column("runs", False), Column("difference %p"), Column("SE %p")),
        *(Column("95 % interval"), Column("seeds : images %"), Column("p other seeds [a]")),
        *(Column("p new images [b]"), Column("seed", False), Column("only one right"), Column("p these two [c]")),
    )
    least = f" Of arms with more than {most:,} runs the first {most:,} are read." if most is not None else ""
    caption = (
        "Top-1 of each arm minus the baseline's from the stored outcomes of single images. Runs: of the arm + of the "
        "baseline. Difference, standard error (SE) and interval (normal, of this difference alone) are for new images "
        "of the same kind; seeds : images are their shares in the squared standard error (n/a with one run). This "
        f"SE is of the two arms alone, that behind [a] pooled; interval and p are n/a where fewer than {FEW} images "
        "tell the arms apart. Only one right: images that only the arm's checkpoint : only the baseline's has right. "
        f"The three p values answer three questions.{least} {describe_records(records, spread=False)}"
    )
    return Table("images", caption, columns, tuple(sections), tuple(data), _notes(groups))


def _notes(groups: Sequence[Group]) -> tuple[tuple[str, str], ...]:
    correction = groups[0].correction if groups else "dunnett"
    main = {"dunnett": "adjusted by Dunnett", "holm": "adjusted by Holm", "none": "not adjusted"}[correction]
    own = "not adjusted" if correction == "none" else "adjusted by Holm"
    return (
        (
            "a",
            "Would other seeds of these arms differ on these images? Student's t on the variance pooled over the "
            f"group's arms, {main}: that of the main table, from all finished runs",
        ),
        (
            "b",
            "Would they differ on new images of the same kind, with other seeds? Paired over the images, normal, "
            f"{own}. Holds for other seeds as far as the luck of a seed falls "
            "on every image by itself: with one run an arm nothing here can test that, with two the table of what the "
            "study can resolve does",
        ),
        (
            "c",
            "Do these two checkpoints differ on images like these? McNemar's exact test of the arm's and the "
            f"baseline's run of the first seed that both have (where they have none, the first run of each: both seeds "
            f"are given, the arm's first), {own}. Says nothing about other seeds",
        ),
    )


def _entries(group: Group, arm: Arm, found: Paired | None) -> tuple[Entry, ...]:
    main = group.compared(arm)
    other_seeds = probability(main.p_adjusted if main is not None else None)
    if found is None:
        return (Entry(arm.label), Entry("n/a"), *[Entry("n/a")] * 4, other_seeds, *[Entry("n/a")] * 4)
    over, pair = found.new_images, found.checkpoints
    low, high = points(100 * over.low).text, points(100 * over.high).text
    interval = Entry(low, high, value=100 * over.low, joint="to") if over.apart >= FEW else Entry("n/a")
    return (
        *(Entry(arm.label), Entry(f"{found.runs} + {found.baseline_runs}")),
        points(100 * over.difference),
        Entry(f"{100 * over.standard_error:.2f}", value=100 * over.standard_error),
        *(interval, _shares(over)),
        *(other_seeds, probability(found.p_new_images)),
        Entry(f"{found.seed}" if found.seed == found.baseline_seed else f"{found.seed}, {found.baseline_seed}"),
        Entry(f"{pair.only_first} : {pair.only_second}", value=float(pair.only_first - pair.only_second)),
        probability(found.p_checkpoints),
    )


def _shares(over: ImageDifference) -> Entry:
    if over.seed_part is None or over.image_part is None or not over.standard_error:
        return Entry("n/a")
    seeds = round(100 * over.seed_part / over.standard_error**2)
    clipped = "≈ " * (not over.image_part)  # its estimate is no more than 0
    return Entry(f"{clipped}{seeds} : {100 - seeds}", value=float(seeds))


def _data(group: Group, arm: Arm, found: Paired | None) -> Mapping[str, Any]:
    """Fractions in full precision, None where a figure does not exist."""
    main = group.compared(arm)
    row: dict[str, Any] = {"group": group.title, "arm": arm.label}
    row |= dict.fromkeys(FIGURES)
    row |= {
        "p_other_seeds": None if main is None else main.p,
        "p_other_seeds_adjusted": None if main is None else main.p_adjusted,
    }
    if found is not None:
        over, pair = found.new_images, found.checkpoints
        row |= {"images": found.images, "runs": found.runs, "baseline_runs": found.baseline_runs}
        row |= {"difference": over.difference, "standard_error": over.standard_error, "low": over.low}
        row |= {"high": over.high, "seed_part": over.seed_part, "image_part": over.image_part}
        row |= {"p_new_images": over.p, "p_new_images_adjusted": found.p_new_images}
        row |= {"seed": found.seed, "baseline_seed": found.baseline_seed, "only_arm": pair.only_first}
        row |= {"only_baseline": pair.only_second, "p_checkpoints": pair.p}
        row |= {"p_checkpoints_adjusted": found.p_checkpoints}
    return row


FEW = 10  # images: for fewer the normal approximation is no more than a guess
FIGURES = (
    *("images", "runs", "baseline_runs", "difference", "standard_error", "low", "high", "seed_part", "image_part"),
    *("p_other_seeds", "p_other_seeds_adjusted", "p_new_images", "p_new_images_adjusted", "seed", "baseline_seed"),
    *("only_arm", "only_baseline", "p_checkpoints", "p_checkpoints_adjusted"),
)
