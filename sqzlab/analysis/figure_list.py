"""Which figures a study has, how they are named and captioned, and why one has none.

Without matplotlib, whose import takes half a second: a report that draws nothing does without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sqzlab.analysis.arms import Group

INK, FAINT, GRID, PAPER = "#222222", "#777777", "#d4d4d4", "#ffffff"  # the report lets them follow light and dark
MOST_ARMS, MOST_GROUPS = 24, 9  # all squeezes of the catalog, and one more
MOST_SEEDS = 20  # so many seeds of an arm are drawn one by one at most, and have their epochs read


def why_not_drawn(groups: Sequence[Group]) -> str | None:
    """Why figures of these groups would not be readable, or None."""
    most = max((len(group.arms) for group in groups), default=0)
    if most > MOST_ARMS or len(groups) > MOST_GROUPS:
        return (
            f"figures are not drawn: {most} arms in {len(groups)} groups cannot be told apart "
            f"(at most {MOST_ARMS} in {MOST_GROUPS}); the tables hold them all"
        )
    if not any(arm.n for group in groups for arm in group.arms):
        return "figures are not drawn: no run has finished"
    return None


def curve_runs(groups: Sequence[Group]) -> list[str]:
    """The runs whose epochs the learning curves need."""
    return [row["run_id"] for group in groups for arm in group.arms for row in arm.done[:MOST_SEEDS]]


def described(files: Iterable[str]) -> tuple[tuple[str, str, str], ...]:
    """(name, title, caption) of every figure among these file names of `draw`, in the order of reading."""
    names = dict.fromkeys(Path(file).stem for file in files)
    found = []
    for known, (title, caption) in FIGURES.items():
        for name in names:
            if name == known:
                found.append((name, title, caption))
            elif known == SWEEP and name.startswith(f"{SWEEP}-"):
                axis = name.removeprefix(f"{SWEEP}-").rpartition(".")[2].replace("_", " ")
                found.append((name, title.format(axis=axis), caption))
    return tuple(found)


def is_figure(file: str) -> bool:
    """Whether this is the name of a file that `draw` may have written, now or in an earlier version."""
    stem, _, kind = file.rpartition(".")
    return kind in FORMATS and (stem in FIGURES or stem in FORMER or stem.startswith(f"{SWEEP}-"))


FORMATS: dict[str, Mapping[str, None]] = {
    "svg": {"Date": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
}
SWEEP = "sweep"
FORMER = ("cost",)
FIGURES = {
    "gain": (
        "Difference from the baseline",
        "Top-1 minus the baseline's mean Top-1, in percentage points. Thick bar: 95 % interval of this difference by "
        "itself, from the variance pooled over the arms of the panel; thin bar: 95 % intervals that hold for all arms "
        f"of the panel at once. Small dots: single seeds, where there are at most {MOST_SEEDS}. Filled markers are "
        "separated from the baseline after the correction for many comparisons, open ones are not. Where no arm has "
        "two seeds, or none varies, there is no interval.",
    ),
    "seeds": (
        "Every seed",
        "Top-1 of the last epoch. Dot: one seed; tick: mean of the arm. Dots that would touch are moved up or down, "
        "which means nothing.",
    ),
    "pareto": (
        "Accuracy against cost",
        "Mean Top-1 of the last epoch against the multiply-accumulates of convolutions and linear layers for one image "
        "(left) and against the images trained in a second, the median over an arm's runs (right; only where device, "
        "GPU and precision are the same in all runs). Line: the Pareto front, arms that no other beats in both; "
        "fainter: the others. It is a front of means, and says nothing about whether they are separated.",
    ),
    "curves": (
        "Learning curves",
        "Training loss and validation error by epoch. Line: mean over the seeds; band: from the least to the greatest "
        f"of them. Only the first {MOST_SEEDS} seeds of an arm are drawn.",
    ),
    SWEEP: (
        "Accuracy by {axis}",
        "Mean Top-1 of the last epoch, a line for each squeeze; numbers stand on a logarithmic scale. Bars and band: "
        "95 % interval of each mean, from the variance pooled over the group. They are intervals of means: two that "
        "overlap may still be separated, and the tables have the tests.",
    ),
    "excitation": (
        "Excitation by stage",
        "Left: variance of the gates between classes as a part of all their variance, of which gates that have nothing "
        "to do with the class reach chance. Right: standard deviation of a gate over the images, root mean square over "
        "the channels. A line for each arm whose gates were recorded, the mean over its runs.",
    ),
}
"""Title and caption of every figure by its name; the sweeps are named sweep-<axis> and share a line."""
