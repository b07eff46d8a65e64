"""The tables of the two published studies, made from our records: as text to show, and as data in full precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import Any

import numpy as np

from sqzlab.analysis.arms import Arm, Group
from sqzlab.analysis.records import Records


@dataclass(frozen=True)
class Entry:
    """One cell of a table. `spread` stands behind a plus-minus sign; `marks` point to the table's notes."""

    text: str
    spread: str | None = None
    marks: str = ""

    def __str__(self) -> str:
        spread = "" if self.spread is None else f" ± {self.spread}"
        return f"{self.text}{spread}" + (f" [{self.marks}]" if self.marks else "")


@dataclass(frozen=True)
class Column:
    title: str
    number: bool = True


@dataclass(frozen=True)
class Section:
    title: str
    rows: tuple[tuple[Entry, ...], ...]


@dataclass(frozen=True)
class Table:
    """What is shown (`columns`, `sections`, `caption`, `notes`) and what csv holds (`data`, one mapping a row)."""

    name: str  # file name without its ending
    caption: str
    columns: tuple[Column, ...]
    sections: tuple[Section, ...]
    data: tuple[Mapping[str, Any], ...]
    notes: tuple[tuple[str, str], ...] = ()  # (mark, text)


def squeeze_table(records: Records, groups: Sequence[Group]) -> Table:
    """SsENet's form, for each group: squeeze | Top-1 | Top-5 | improved %p | n."""
    sections = []
    for group in groups:
        rows = []
        for arm in group.arms:
            improved = Entry("") if arm is group.baseline else points(group.improved(arm))
            rows.append((Entry(arm.label), _accuracy(arm, "top1"), _accuracy(arm, "top5"), improved, _n(arm)))
        sections.append(Section(group.title, tuple(rows)))
    columns = (
        Column("squeeze", False),
        Column("Top-1 %"),
        Column("Top-5 %"),
        Column("improved %p"),
        Column("n", False),
    )
    caption = f"Accuracy and improvement of the mean Top-1 over the baseline. {describe_records(records)}"
    return Table("squeeze", caption, columns, tuple(sections), arm_data(groups))


def error_table(records: Records, groups: Sequence[Group]) -> Table:
    """The SP/RG paper's form: model | Top-1 err | Top-5 err | GFLOPs | n."""
    counts = [macs / 1e9 for group in groups for arm in group.arms if (macs := arm.count("macs"))]
    decimals = max(2, 3 - floor(log10(min(counts)))) if counts else 2
    sections = []
    for group in groups:
        rows = []
        for arm in group.arms:
            macs = arm.count("macs")
            gflops = Entry("n/a" if macs is None else f"{macs / 1e9:.{decimals}f}")
            rows.append((Entry(arm.label), _accuracy(arm, "top1_err"), _accuracy(arm, "top5_err"), gflops, _n(arm)))
        sections.append(Section(group.title, tuple(rows)))
    columns = (
        *(Column("model", False), Column("Top-1 err %"), Column("Top-5 err %")),
        *(Column("GFLOPs"), Column("n", False)),
    )
    caption = (
        "Error and cost. GFLOPs are 10^9 multiply-accumulates of convolutions and linear layers for one image. "
        + describe_records(records)
    )
    return Table("error", caption, columns, tuple(sections), arm_data(groups))


def arm_data(groups: Sequence[Group]) -> tuple[Mapping[str, Any], ...]:
    """Everything known of every arm: fractions and counts in full precision, None where a figure does not exist."""
    rows = []
    for group in groups:
        for arm in group.arms:
            row: dict[str, Any] = {"group": group.title, "arm": arm.label, "is_baseline": arm is group.baseline}
            for metric in ("top1", "top5"):
                values = np.array([run[metric] for run in arm.done])  # as stored: fractions
                row[f"{metric}_mean"] = float(values.mean()) if arm.n else None
                row[f"{metric}_sd"] = float(values.std(ddof=1)) if arm.n > 1 else None
            improved = group.improved(arm)
            row["top1_improved"] = None if improved is None else improved / 100
            row |= {"n": arm.n, "planned": len(arm.rows)}
            row |= {state: arm.states[state] for state in ("failed", "damaged", "missing")}
            rows.append(row | {"params": arm.count("params"), "macs": arm.count("macs")})
    return tuple(rows)


def points(value: float | None, marks: str = "") -> Entry:
    """A difference in percentage points, with its sign."""
    return Entry("n/a" if value is None else f"{value:+.2f}".replace("-", "−"), marks=marks)


def describe_records(records: Records) -> str:
    """What a caption must say: which epoch, how many seeds, which spread, data, device, commit."""
    done = records.counted[records.counted["state"] == "done"]
    if done.empty:
        return "No run has finished."
    keys = ("epochs", "data", "classes", "train_images", "val_images", "device", "gpu", "precision", "torch")
    told = {key: _distinct(done, key) for key in keys}
    device = told["device"] if told["gpu"] == "unknown" else told["gpu"]
    commits = sorted({str(commit)[:10] for commit in done["git_commit"].dropna()})
    dirty = " with uncommitted changes" if done["git_dirty"].eq(True).any() else ""
    return (
        f"Metrics of the last epoch ({told['epochs']} epochs), evaluated on {told['val_images']} images; "
        f"± is the sample standard deviation over n seeds (n/a for one seed). "
        f"Data: {told['data']} ({told['classes']} classes, {told['train_images']} training images). "
        f"Device: {device}, {told['precision']}, torch {told['torch']}. "
        f"Commit: {', '.join(commits) or 'unknown'}{dirty}."
    )


def _distinct(frame: Any, key: str) -> str:
    """The column's values, each once: "8" or "8 and 10"."""
    values = sorted({f"{value:,}" if isinstance(value, int) else str(value) for value in frame[key].dropna().tolist()})
    return " and ".join(values) or "unknown"


def _accuracy(arm: Arm, metric: str) -> Entry:
    mean, sd = arm.mean(metric), arm.sd(metric)
    if mean is None:
        return Entry(arm.note())
    return Entry(f"{mean:.2f}", "n/a" if sd is None else f"{sd:.2f}")


def _n(arm: Arm) -> Entry:
    note = arm.note()
    return Entry(f"{arm.n} ({note})" if note and arm.n else str(arm.n))
