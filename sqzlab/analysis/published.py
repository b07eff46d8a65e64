"""Published numbers: the tables of the two studies again from published.csv, and its rows as networks in our names.

An improvement is taken only over the same source's own baseline. What speaks against a number stands beside it.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, nan, sqrt
from pathlib import Path
from typing import Any

from sqzlab.analysis.caveats import NOTES, Marks, sentence, texts
from sqzlab.analysis.sources import BACKBONE_NAMES, DEFAULTS, OTHER_BACKBONES, SOURCES, SPRG, SSENET, Source
from sqzlab.analysis.tables import Column, Entry, Section, Table, points
from sqzlab.catalog import BACKBONES, SQUEEZES
from sqzlab.errors import ConfigError

VAL_IMAGES = 50_000  # of ImageNet-1k, on which all of it was evaluated


@dataclass(frozen=True)
class PublishedRow:
    source: str
    table: str
    backbone: str
    variant: str
    top1_err: float  # percent
    top5_err: float | None
    gflops: str  # as printed, like the parameters; '' where there are none
    params_m: str


@dataclass(frozen=True)
class System:
    """A published network that an arm of ours can be, with every row that prints it."""

    source: Source
    rows: tuple[PublishedRow, ...]
    backbone: str  # our name of the one that was built
    settings: Mapping[str, Any]  # dotted keys; what is not known of it is not there
    says: frozenset[str]  # the keys that its variant names
    notes: tuple[str, ...]  # names in NOTES
    baseline: System | None  # of the same source and backbone; None for a baseline too

    @property
    def squeeze(self) -> str:
        return str(self.settings["model.squeeze"])

    @property
    def top1(self) -> float:
        return 100 - self.rows[0].top1_err

    @property
    def top5(self) -> float | None:
        error = self.rows[0].top5_err
        return None if error is None else 100 - error

    @cached_property
    def improved(self) -> float | None:
        """Percentage points over the source's own baseline; None where there is none, or a note forbids it."""
        if self.baseline is None or any(NOTES[name].blank for name in self.notes):
            return None
        return round(self.top1 - self.baseline.top1, 3)

    @cached_property
    def improved_error(self) -> float | None:
        return (
            None if self.improved is None or self.baseline is None else difference_error(self.top1, self.baseline.top1)
        )

    @cached_property
    def label(self) -> str:
        """ "SENet, tables 10 to 16": who published it."""
        told = [self.source.short]
        numbers = [int(row.table[6:]) for row in self.rows if row.table.startswith("Table ")]
        if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
            told.append(f"tables {numbers[0]} to {numbers[-1]}")
        elif numbers:
            told.append(f"table{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}")
        if detail := self.source.labels.get(self.rows[0].variant):
            told.append(detail)
        return ", ".join(told)

    def printed(self, column: str) -> str:
        """`gflops` or `params_m`, of the first row that has it."""
        return next((value for row in self.rows if (value := getattr(row, column))), "")


def read_published(path: Path) -> tuple[PublishedRow, ...]:
    """Every row of published.csv. Raises ConfigError where the file is absent or not in its form."""
    rows: dict[tuple[str, ...], PublishedRow] = {}
    lines: dict[tuple[str, ...], int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if absent := [column for column in COLUMNS if column not in (reader.fieldnames or ())]:
                raise ConfigError(f"{path}:1: no column {absent[0]!r}; {FORM}")
            for values in reader:
                where = f"{path}:{reader.line_num}"
                row = _row(values, where)
                named = row.source, row.table, row.backbone, row.variant
                if named in rows:
                    told = ", ".join(map(repr, named))
                    raise ConfigError(f"{where}: {told} is there twice, first in line {lines[named]}")
                rows[named], lines[named] = row, reader.line_num
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; it comes with the project as results/published.csv") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8; {FORM}") from None
    except csv.Error as error:
        raise ConfigError(f"{path}:{reader.reader.line_num}: {error}; {FORM}") from None
    return tuple(rows.values())


def systems(rows: Sequence[PublishedRow]) -> tuple[System, ...]:
    """Every published network that an arm of ours can be, in the order of SOURCES, each measurement once."""
    alike: dict[tuple[Any, ...], list[PublishedRow]] = {}
    for source in SOURCES:
        for row in _of(rows, source):
            if why_no_arm(row) is None:
                named = source.short, row.backbone, source.labels.get(row.variant), row.top1_err, row.top5_err
                alike.setdefault((*named, tuple(_settings(row).items())), []).append(row)
    made: dict[PublishedRow, System] = {}
    for same in sorted(alike.values(), key=lambda same: own_baseline(same[0], rows) is not None):
        base = own_baseline(same[0], rows)
        made |= dict.fromkeys(same, _system(tuple(same), None if base is None else made[base]))
    return tuple(made[same[0]] for same in alike.values())


def why_no_arm(row: PublishedRow) -> str | None:
    """Why no arm of ours can be this row's network, or None."""
    source = source_of(row)
    if source is None:
        return "its source and table are not known"
    if row.backbone in OTHER_BACKBONES:
        return f"no backbone of ours is {row.backbone}"
    if row.backbone not in BACKBONE_NAMES:
        return "its backbone is not known"
    variant = source.variants.get(row.variant, "its variant is not known")
    return variant if isinstance(variant, str) else None


def source_of(row: PublishedRow) -> Source | None:
    return next((source for source in SOURCES if (row.source, row.table) in source.tables), None)


def own_baseline(row: PublishedRow, rows: Sequence[PublishedRow]) -> PublishedRow | None:
    """The row that this one is an improvement over: of the same source and backbone. None for a baseline."""
    source = source_of(row)
    if source is None or _is_baseline(row, source):
        return None
    return next((r for r in _of(rows, source) if r.backbone == row.backbone and r.variant in source.baseline), None)


def notes_of(row: PublishedRow) -> tuple[str, ...]:
    """Names of the caveats of a row: none on improvements where it is a baseline, none on counts where it has none."""
    source = source_of(row)
    if source is None:
        return ()
    own = (name for b, v, name in source.row_notes if b in (None, row.backbone) and v in (None, row.variant))
    lacks = {"improved"} if _is_baseline(row, source) else set()
    lacks |= set() if row.gflops or row.params_m else {"counts"}
    return tuple(name for name in (*own, *source.notes) if NOTES[name].on not in lacks)


def accuracy_error(percent: float) -> float:
    """Binomial standard error of an accuracy on ImageNet's validation images, in percentage points."""
    share = percent / 100
    return 100 * sqrt(share * (1 - share) / VAL_IMAGES)


def difference_error(first: float, second: float) -> float:
    """The same of a difference of two, as if they saw different images.

    On the same images it is less as far as two networks are right on the same ones, as trained networks mostly are.
    """
    return sqrt(accuracy_error(first) ** 2 + accuracy_error(second) ** 2)


def sampling(accuracies: Sequence[float]) -> str:
    """A sentence for captions: what the choice of the validation images alone does to these accuracies, in percent."""
    errors = [accuracy_error(percent) for percent in accuracies]
    low, high = f"{min(errors):.2f}", f"{max(errors):.2f}"
    return (
        f"From the choice of {VAL_IMAGES:,} images alone, the (binomial) standard error of one accuracy is "
        f"{low if low == high else f'{low} to {high}'} points, of a difference of two about "
        f"{sqrt(2) * max(errors):.2f} or less; the luck of the seed comes on top: a published difference of hundredths "
        "says nothing."
    )


# ---- the two published tables ------------------------------------------------------------------


def ssenet_table(rows: Sequence[PublishedRow]) -> Table:
    """The table of SsENet.PyTorch's README: squeeze | Top-1 | Top-5 | improved."""
    marks, sections, data = Marks(), [], []
    for backbone, members in _sections(rows, SSENET):
        lines = []
        for row in members:
            base, notes = own_baseline(row, rows), notes_of(row)
            top1, top5 = 100 - row.top1_err, None if row.top5_err is None else 100 - row.top5_err
            improved = None if base is None else round(base.top1_err - row.top1_err, 3)
            error = None if base is None else difference_error(top1, 100 - base.top1_err)
            named = Entry(row.variant, marks=marks.of(texts([n for n in notes if n not in SSENET.notes], "level")))
            gained = Entry("") if base is None else points(improved, marks.of(texts(notes, "improved")))
            lines.append((named, _percent(top1), _percent(top5), gained._replace(value=improved)))
            shown = {"top1_percent": _rounded(top1), "top5_percent": _rounded(top5), "improved_points": improved}
            shown |= {"top1_standard_error_points": accuracy_error(top1), "improved_standard_error_points": error}
            data.append({"backbone": backbone, "squeeze": row.variant, **shown, "caveats": "; ".join(notes)})
        sections.append(Section(backbone, tuple(lines)))
    columns = (Column("squeeze", False), Column("Top-1 %"), Column("Top-5 %"), Column("improved %p"))
    caption = f"{SSENET_CAPTION} {sentence('ssenet')}{_sampling(rows, SSENET)}"
    return Table("published-ssenet", caption, columns, tuple(sections), tuple(data), marks.notes)


def sprg_table(rows: Sequence[PublishedRow]) -> Table:
    """The table of the SP/RG repository's README: model | Top-1 err | Top-5 err | GFLOPs."""
    marks, sections, data = Marks(), [], []
    for backbone, members in _sections(rows, SPRG):
        lines = []
        for row in members:
            notes = notes_of(row)
            counted = Entry(row.gflops, marks=marks.of(texts(notes, "counts")))
            lines.append((Entry(row.variant), _percent(row.top1_err), _percent(row.top5_err), counted))
            errors = {"top1_err_percent": row.top1_err, "top5_err_percent": row.top5_err}
            errors["top1_standard_error_points"] = accuracy_error(100 - row.top1_err)
            named = {"backbone": backbone, "model": row.variant}
            data.append({**named, **errors, "gflops": row.gflops, "caveats": "; ".join(notes)})
        sections.append(Section(backbone, tuple(lines)))
    columns = (Column("model", False), Column("Top-1 err %"), Column("Top-5 err %"), Column("GFLOPs"))
    caption = f"{SPRG_CAPTION} {sentence('best_epoch')}{_sampling(rows, SPRG)}"
    return Table("published-sprg", caption, columns, tuple(sections), tuple(data), marks.notes)


def _of(rows: Sequence[PublishedRow], source: Source) -> list[PublishedRow]:
    return [row for row in rows if (row.source, row.table) in source.tables]


def _sections(rows: Sequence[PublishedRow], source: Source) -> list[tuple[str, list[PublishedRow]]]:
    members = _of(rows, source)
    return [
        (name, [row for row in members if row.backbone == name]) for name in dict.fromkeys(r.backbone for r in members)
    ]


def _sampling(rows: Sequence[PublishedRow], source: Source) -> str:
    members = _of(rows, source)
    return f" {sampling([100 - row.top1_err for row in members])}" if members else ""


def _percent(value: float | None) -> Entry:
    return Entry("n/a") if value is None else Entry(f"{value:.2f}", value=value)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


# ---- rows and systems --------------------------------------------------------------------------


def _is_baseline(row: PublishedRow, source: Source) -> bool:
    says = source.variants.get(row.variant)
    return not isinstance(says, str | None) and says["squeeze"] == "baseline"


def _settings(row: PublishedRow) -> dict[str, Any]:
    """What is known of a row's network, as far as it applies; its own variant wins."""
    source = source_of(row)
    assert source is not None
    says = source.variants[row.variant]
    assert not isinstance(says, str)
    backbone, arguments = built_backbone(row), SQUEEZES[says["squeeze"]].arguments
    stride = {"stride": source.stride} if source.stride and row.backbone.startswith("ResNet-") else {}
    given = {**DEFAULTS, **source.known, **stride, **says}
    left_out = {name for name in BLOCK_KEYS if name not in arguments}
    left_out |= set() if BACKBONES[backbone].block == "bottleneck" else {"stride"}
    return {dotted(name): value for name, value in given.items() if name not in left_out}


def _system(rows: tuple[PublishedRow, ...], baseline: System | None) -> System:
    source = source_of(rows[0])
    assert source is not None
    says = frozenset(dotted(name) for name in source.variants[rows[0].variant])
    notes = tuple(dict.fromkeys(name for row in rows for name in notes_of(row)))
    return System(source, rows, built_backbone(rows[0]), _settings(rows[0]), says, notes, baseline)


def built_backbone(row: PublishedRow) -> str:
    """Our name of the backbone that was trained, whatever its source calls it."""
    return "resnet34" if "mislabelled" in notes_of(row) else BACKBONE_NAMES[row.backbone]


def dotted(name: str) -> str:
    return name if "." in name else f"model.{name}"


def _row(values: Mapping[str | Any, Any], where: str) -> PublishedRow:
    named = {}
    for column in ("source", "table", "backbone", "variant"):
        if not values.get(column):
            raise ConfigError(f"{where}: {column} is empty; {FORM}")
        named[column] = str(values[column])
    if None in values or None in values.values():
        raise ConfigError(f"{where}: {'more' if None in values else 'fewer'} fields than columns; {FORM}")
    top1 = _number(values, "top1_err", where, most=100)
    if top1 is None:
        raise ConfigError(f"{where}: top1_err is empty; valid: a number from 0 to 100")
    top5 = _number(values, "top5_err", where, most=100)
    for column in ("gflops", "params_m"):
        _number(values, column, where)
    return PublishedRow(**named, top1_err=top1, top5_err=top5, gflops=values["gflops"], params_m=values["params_m"])


def _number(values: Mapping[Any, Any], column: str, where: str, most: float | None = None) -> float | None:
    """The column's number, None where it is empty."""
    text = values[column]
    if text == "":
        return None
    try:
        number = float(text)
    except ValueError:
        number = nan
    if not isfinite(number) or number < 0 or (most is not None and number > most) or (most is None and number == 0):
        valid = f"a number from 0 to {most:g}" if most is not None else "a number above 0"
        raise ConfigError(f"{where}: {column} is {text!r}; valid: {valid}, or nothing")
    return number


BLOCK_KEYS = ("reduction", "fc_bias", "gate", "width_rule", "placement", "stages")
COLUMNS = ("source", "table", "backbone", "variant", "top1_err", "top5_err", "gflops", "params_m")
FORM = "valid: the form of results/published.csv"
SSENET_CAPTION = "Published by SsENet.PyTorch (README), ImageNet-1k; improvement over its own baseline."
SPRG_CAPTION = (
    "Published with the SP/RG paper (README; doi:10.1016/j.patcog.2021.108159), ImageNet-1k, seeds not stated. GFLOPs "
    "of the ResNets are those of a backbone with its stride in the first 1x1 convolution, unlike the released code, "
    "and count element-wise passes too: not comparable with ours."
)
