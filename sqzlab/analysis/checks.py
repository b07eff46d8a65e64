"""What a reader must know before trusting the tables: one line for each thing, in order of weight."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from sqzlab.analysis.arms import Group
from sqzlab.analysis.records import Records


def find_warnings(records: Records, groups: Sequence[Group]) -> tuple[str, ...]:
    """Absent cells, damaged files, runs outside the plan, mixed origins, arms that did not start alike."""
    counted = records.counted
    done = counted[counted["state"] == "done"]
    found = []
    if len(done) < len(counted):
        absent = [f"{g.title} {arm.label} ({arm.note()})" for g in groups for arm in g.arms if arm.note()]
        found.append(f"{len(done):,} of {len(counted):,} runs are done; not complete: {_some(absent)}")
    unusable = records.frame[records.frame["state"].isin(["failed", "damaged"])]
    unfit = [f"{run_id} {state}: {why}" for run_id, state, why in unusable[["run_id", "state", "error"]].to_numpy()]
    found += unfit[:MOST]
    if len(unfit) > MOST:
        found.append(f"{len(unfit) - MOST:,} more runs failed or are damaged")
    others = records.frame[~records.frame["planned"]]
    if records.plan is not None and len(others):
        found.append(f"{len(others):,} runs are not in the plan and not counted: {_some(list(others['run_id']))}")
    found += [f"mixed {name}: {told}" for key, name in ALIKE.items() if (told := _mixed(records, done, key))]
    if done["git_dirty"].eq(True).any():
        found.append(f"{int(done['git_dirty'].eq(True).sum()):,} runs were made with uncommitted changes in the code")
    found += _unequal_starts(groups)
    if not done.empty and all(arm.n < 2 for group in groups for arm in group.arms):
        found.append("one seed an arm: there is no spread, and no difference can be told from the luck of a seed")
    if len(done) and any(group.baseline is None or group.baseline.n == 0 for group in groups):
        without = [group.title for group in groups if group.baseline is None or group.baseline.n == 0]
        found.append(f"no finished baseline, so no improvement is given: {_some(without)}")
    return (*found, *records.warnings)


def _mixed(records: Records, done: pd.DataFrame, key: str) -> str | None:
    """ "abc (12 runs) and def (4 runs)" where finished runs differ in what no axis names, or None."""
    if any(axis.rpartition(".")[2] in (key, *AXES_BEHIND.get(key, ())) for axis in records.axes):
        return None
    counts = done[key].map(
        lambda value: "unknown" if pd.isna(value) else str(value)[: 10 if key == "git_commit" else 80]
    )
    parts = [f"{value} ({runs:,} runs)" for value, runs in sorted(counts.value_counts().items())]
    return " and ".join(parts) if len(parts) > 1 else None


def _unequal_starts(groups: Sequence[Group]) -> list[str]:
    """Arms of one group that, with one seed, did not share initial weights or data order."""
    found = []
    for key, name in (("initial_weights", "shared initial weights"), ("data_order", "data order")):
        for group in groups:
            seen: dict[int, set[str]] = {}
            for row in (row for arm in group.arms for row in arm.done if not pd.isna(row[key])):
                seen.setdefault(int(row["seed"]), set()).add(str(row[key]))
            seeds = [str(seed) for seed, values in sorted(seen.items()) if len(values) > 1]
            if seeds:
                found.append(f"{group.title}: {name} differ between arms with the same seed (seeds {', '.join(seeds)})")
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST:,} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more


MOST = 8
ALIKE = {
    "git_commit": "commits",
    "torch": "versions of torch",
    "device": "devices",
    "gpu": "GPU types",
    "epochs": "numbers of epochs",
    "recipe": "recipes",
    "precision": "precisions",
    "data": "data sets",
    "classes": "numbers of classes",
    "train_images": "numbers of training images",
    "val_images": "numbers of validation images",
}
AXES_BEHIND = {
    "data": ("name",),
    "classes": ("name",),
    "train_images": ("name",),
    "val_images": ("name",),
    "epochs": ("recipe",),
}
