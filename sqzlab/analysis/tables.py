"""The tables of a study: the forms of the two published studies and the full one, as text and as exact data.

All are made of the rows of `sqzlab.compare`. Bold is what is separated from the baseline, and nothing else: of an arm
that is better the metric and the difference, of one that is worse only the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import Any, NamedTuple

from sqzlab.analysis.arm_rows import table_rows
from sqzlab.analysis.arms import Arm, Group
from sqzlab.analysis.blocks import block_of, block_text
from sqzlab.analysis.captions import describe_records, describe_tests, has_differences
from sqzlab.analysis.records import Records

Rows = tuple[Mapping[str, Any], ...]  # of `table_rows`, the arms of all groups


class Entry(NamedTuple):  # there are tens of thousands, and a frozen dataclass is made in thrice the time
    """One cell of a table. `spread` stands behind a plus-minus sign, or `joint`; `marks` point to the table's notes.

    `value` is what the text is rounded from, for sorting; None where the text is all there is.
    """

    text: str
    spread: str | None = None
    marks: str = ""
    bold: bool = False
    value: float | str | None = None
    joint: str = "±"

    def __str__(self) -> str:
        spread = "" if self.spread is None else f" {self.joint} {self.spread}"
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


def squeeze_table(records: Records, groups: Sequence[Group], data: Rows | None = None) -> Table:
    """SsENet's form, for each group: squeeze | Top-1 | Top-5 | improved %p | n. `data`: of `table_rows`, if at hand."""
    sections, data = [], data or table_rows(groups)
    for group, members in _grouped(groups, data):
        lines = []
        for arm, row in members:
            better, separated = _bold(row)
            improved = Entry("") if row["is_baseline"] else points(_times(100, row["difference"]), bold=separated)
            accuracies = _accuracy(arm, row, "top1", bold=better), _accuracy(arm, row, "top5")
            lines.append((Entry(arm.label), *accuracies, improved, _n(arm)))
        sections.append(Section(group.title, tuple(lines)))
    columns = (
        *(Column("squeeze", False), Column("Top-1 %"), Column("Top-5 %")),
        *(Column("improved %p"), Column("n", False)),
    )
    told = describe_tests(groups, worse="only the difference")
    more = " and improvement of the mean Top-1 over the baseline" if has_differences(groups) else ""
    caption = f"Accuracy{more}. {told}{describe_records(records)}"
    return Table("squeeze", caption, columns, tuple(sections), data)


def error_table(records: Records, groups: Sequence[Group], data: Rows | None = None) -> Table:
    """The SP/RG paper's form: model | Top-1 err | Top-5 err | GFLOPs | n."""
    sections, data = [], data or table_rows(groups)
    decimals = _decimals([row["macs"] / 1e9 for row in data if row["macs"]])
    for group, members in _grouped(groups, data):
        lines = []
        for arm, row in members:
            errors = (
                _accuracy(arm, row, "top1", error=True, bold=_bold(row)[0]),
                _accuracy(arm, row, "top5", error=True),
            )
            lines.append((Entry(arm.label), *errors, _count(row["macs"], 1e9, decimals), _n(arm)))
        sections.append(Section(group.title, tuple(lines)))
    columns = (
        *(Column("model", False), Column("Top-1 err %"), Column("Top-5 err %")),
        *(Column("GFLOPs"), Column("n", False)),
    )
    caption = f"Error and cost. GFLOPs are billions of {MACS}. {describe_tests(groups)}{describe_records(records)}"
    return Table("error", caption, columns, tuple(sections), data)


def full_table(records: Records, groups: Sequence[Group], data: Rows | None = None) -> Table:
    """arm | width rule | bias | placement | params | MACs | images/s | Top-1 | Top-5 | difference | interval | p | n"""
    blocks = [block_of(records, arm) for group in groups for arm in group.arms]
    data = tuple({**row, **block} for row, block in zip(data or table_rows(groups), blocks, strict=True))
    scales = {key: _scale([row[key] for row in data if row[key]]) for key in ("params", "macs")}
    sections = []
    for group, members in _grouped(groups, data):
        lines = []
        for arm, row in members:
            better, separated = _bold(row)
            counts = [_count(row[key], divisor, decimals) for key, (divisor, _, decimals) in scales.items()]
            cells = (
                *(Entry(arm.label), *map(Entry, block_text(row)), *counts, _speed(row["images_per_s"])),
                *(_accuracy(arm, row, "top1", bold=better), _accuracy(arm, row, "top5")),
            )
            tested = [Entry("")] * 3 if row["is_baseline"] else _tested(row, bold=separated)
            lines.append((*cells, *tested, _n(arm)))
        sections.append(Section(group.title, tuple(lines)))
    columns = (
        *(Column("arm", False), Column("width rule", False), Column("bias", False), Column("placement", False)),
        *(Column(f"params ({scales['params'][1]})"), Column(f"MACs ({scales['macs'][1]})"), Column("images/s")),
        *(Column("Top-1 %"), Column("Top-5 %"), Column("diff. %p"), Column("95 % interval"), Column("p")),
        Column("n", False),
    )
    difference = ", and difference of the mean Top-1 from the baseline" if has_differences(groups) else ""
    caption = (
        "Every arm: its blocks (hidden width of the excitation for C channels, biases of its layers, place in the "
        f"residual block), cost, accuracy{difference}. MACs are {MACS}; "
        "images/s is the training throughput, the median over the runs. "
        f"{describe_tests(groups, worse='only the difference', interval=True)}{describe_records(records)}"
    )
    return Table("full", caption, columns, tuple(sections), data)


def points(value: float | None, marks: str = "", bold: bool = False) -> Entry:
    """A difference in percentage points, with its sign."""
    return Entry("n/a" if value is None else _signed(value), marks=marks, bold=bold, value=value)


def probability(p: float | None) -> Entry:
    """A p value, never shown as 0 or 1, nor as the level LEVEL that it lies just beside."""
    if p is None:
        return Entry("n/a")
    digits = next((d for d in range(3, 9) if round(p, d) != LEVEL or p == LEVEL), 9)
    return Entry("<0.001" if p < 0.001 else ">0.999" if p > 0.999 else f"{p:.{digits}f}", value=p)


# ---- cells -------------------------------------------------------------------------------------


def _grouped(
    groups: Sequence[Group], data: Sequence[Mapping[str, Any]]
) -> list[tuple[Group, list[tuple[Arm, Mapping[str, Any]]]]]:
    """Each arm with its row of the data."""
    rows = iter(data)
    return [(group, [(arm, next(rows)) for arm in group.arms]) for group in groups]


def _bold(row: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether the arm is separated and better, and whether it is separated at all."""
    return bool(row["separated"]) and row["difference"] > 0, bool(row["separated"])


def _accuracy(arm: Arm, row: Mapping[str, Any], metric: str, *, error: bool = False, bold: bool = False) -> Entry:
    mean, sd = row[f"{metric}_mean"], row[f"{metric}_sd"]
    if mean is None:
        return Entry(arm.note())
    shown = 100 * (1 - mean if error else mean)
    return Entry(f"{shown:.2f}", "n/a" if sd is None else f"{100 * sd:.2f}", bold=bold, value=shown)


def _tested(row: Mapping[str, Any], *, bold: bool) -> list[Entry]:
    """Difference, interval and adjusted p."""
    low, high = row["low"], row["high"]
    interval = Entry("n/a")
    if low is not None:
        interval = Entry(_signed(100 * low), _signed(100 * high), value=100 * low, joint="to")
    return [points(_times(100, row["difference"]), bold=bold), interval, probability(row["p_adjusted"])]


def _signed(value: float) -> str:
    """With a typographic minus sign; what rounds to zero has no sign."""
    text = f"{value:+.2f}".replace("-", "−")
    return text[1:] if not text.strip("+−0.") else text


def _times(factor: float, value: float | None) -> float | None:
    return None if value is None else factor * value


def _count(value: int | None, divisor: float, decimals: int) -> Entry:
    return Entry("n/a") if value is None else Entry(f"{value / divisor:.{decimals}f}", value=value)


def _speed(value: float | None) -> Entry:
    if value is None:
        return Entry("n/a")
    return Entry(f"{value:,.0f}" if value >= 100 else f"{value:.1f}", value=value)


def _n(arm: Arm) -> Entry:
    note = arm.note()
    return Entry(f"{arm.n} ({note})" if note and arm.n else str(arm.n), value=arm.n)


def _scale(counts: Sequence[int]) -> tuple[float, str, int]:
    """Divisor, its letter and decimals that tell counts of this size apart."""
    divisor, letter = next(((d, name) for d, name in SCALES if counts and min(counts) >= d / 10), SCALES[-1])
    return divisor, letter, _decimals([count / divisor for count in counts])


def _decimals(values: Sequence[float]) -> int:
    return max(2, 3 - floor(log10(min(values)))) if values else 2


LEVEL = 0.05
SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
MACS = "multiply-accumulates of convolutions and linear layers for one image"
