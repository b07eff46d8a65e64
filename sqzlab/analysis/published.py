"""Published numbers: the tables of the two studies again from published.csv, and the rows that match an arm of ours.

A difference is taken only against the same source's own baseline. What speaks against a number stands beside it.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqzlab.analysis.tables import Column, Entry, Section, Table, points
from sqzlab.errors import ConfigError


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

    @property
    def arm(self) -> str | None:
        """Our name of the variant, or None where we have no such arm."""
        return VARIANTS.get(self.variant)

    @property
    def mislabelled(self) -> bool:
        """SsENet's "ResNet-50" arms: every version of the code builds SE-ResNet-34."""
        return (self.source, self.backbone) == (SSENET.source, "ResNet-50") and self.variant != "baseline"

    @property
    def built(self) -> str:
        """Our name of the backbone that was trained."""
        return "resnet34" if self.mislabelled else BACKBONE_NAMES.get(self.backbone, self.backbone)


@dataclass(frozen=True)
class Source:
    source: str
    table: str
    short: str
    baseline: str  # the variant that differences are taken against


SSENET = Source("SsENet.PyTorch README", "Experimental Results", "SsENet.PyTorch", "baseline")
SPRG = Source("SP/RG README (Jin et al. 2022)", "Key Results", "SP/RG", "base")
SENET = Source("SENet TPAMI arXiv:1709.01507", "Table 2", "SENet, table 2", "base (re-implementation)")
SOURCES = (SSENET, SPRG, SENET)


def read_published(path: Path) -> tuple[PublishedRow, ...]:
    """Every row of published.csv. Raises ConfigError where the file is absent or not in its form."""
    rows = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                try:
                    errors = float(row["top1_err"]), float(row["top5_err"]) if row["top5_err"] else None
                    named = row["source"], row["table"], row["backbone"], row["variant"]
                    rows.append(PublishedRow(*named, *errors, row["gflops"], row["params_m"]))
                except (KeyError, TypeError, ValueError) as error:
                    told = f"no column {error}" if isinstance(error, KeyError) else str(error)
                    raise ConfigError(f"{path}:{number}: {told}; valid: the form of results/published.csv") from None
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; it comes with the project as results/published.csv") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8; valid: the form of results/published.csv") from None
    return tuple(rows)


def ssenet_table(rows: Sequence[PublishedRow]) -> Table:
    """The table of SsENet.PyTorch's README: squeeze | Top-1 | Top-5 | improved."""
    sections, data = [], []
    for backbone, members in _sections(rows, SSENET):
        lines = []
        for row in members:
            improved = _improved(row, rows, SSENET)
            marks = "a" if row.mislabelled else ""
            top1, top5 = 100 - row.top1_err, None if row.top5_err is None else 100 - row.top5_err
            text = Entry("") if improved is None else points(improved, marks)
            lines.append((Entry(row.variant), Entry(f"{top1:.2f}"), Entry(_percent(top5)), text))
            shown = {"top1_percent": round(top1, 3), "top5_percent": None if top5 is None else round(top5, 3)}
            data.append({"backbone": backbone, "squeeze": row.variant, **shown, "improved_points": improved})
        sections.append(Section(backbone, tuple(lines)))
    columns = (Column("squeeze", False), Column("Top-1 %"), Column("Top-5 %"), Column("improved %p"))
    notes = (("a", MISLABELLED),)
    return Table("published-ssenet", SSENET_CAPTION, columns, tuple(sections), tuple(data), notes)


def sprg_table(rows: Sequence[PublishedRow]) -> Table:
    """The table of the SP/RG repository's README: model | Top-1 err | Top-5 err | GFLOPs."""
    sections, data = [], []
    for backbone, members in _sections(rows, SPRG):
        lines = [
            (Entry(row.variant), Entry(f"{row.top1_err:.2f}"), Entry(_percent(row.top5_err)), Entry(row.gflops))
            for row in members
        ]
        for row in members:
            errors = {"top1_err_percent": row.top1_err, "top5_err_percent": row.top5_err}
            data.append({"backbone": backbone, "model": row.variant, **errors, "gflops": row.gflops})
        sections.append(Section(backbone, tuple(lines)))
    columns = (Column("model", False), Column("Top-1 err %"), Column("Top-5 err %"), Column("GFLOPs"))
    return Table("published-sprg", SPRG_CAPTION, columns, tuple(sections), tuple(data))


def matching(rows: Sequence[PublishedRow], backbone: str | None, squeeze: str) -> list[dict[str, Any]]:
    """Published rows of this backbone and squeeze: short source, marks, top1 and improved in percent."""
    found = []
    for source in SOURCES:
        for row in _of(rows, source):
            if row.built == backbone and row.arm == squeeze:
                improved = None if row.mislabelled else _improved(row, rows, source)
                marks = "a" if row.mislabelled else ""
                numbers = {"top1": 100 - row.top1_err, "improved": improved, "is_baseline": row.arm == "baseline"}
                found.append({"source": source.short, "marks": marks, **numbers})
    return found


def _of(rows: Sequence[PublishedRow], source: Source) -> list[PublishedRow]:
    return [row for row in rows if (row.source, row.table) == (source.source, source.table)]


def _sections(rows: Sequence[PublishedRow], source: Source) -> list[tuple[str, list[PublishedRow]]]:
    members = _of(rows, source)
    return [
        (name, [row for row in members if row.backbone == name]) for name in dict.fromkeys(r.backbone for r in members)
    ]


def _improved(row: PublishedRow, rows: Sequence[PublishedRow], source: Source) -> float | None:
    """Percentage points over the same source's own baseline of the same name, or None for the baseline itself."""
    if row.variant == source.baseline:
        return None
    own = [r for r in _of(rows, source) if r.backbone == row.backbone and r.variant == source.baseline]
    return round(own[0].top1_err - row.top1_err, 3) if own else None


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"


BACKBONE_NAMES = {
    **{f"ResNet-{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)},
    **{f"ResNeXt-{depth}": f"resnext{depth}_32x4d" for depth in (50, 101)},
}
VARIANTS = {
    **{name: name for name in ("baseline", "gap", "gmp", "std", "gapXstd", "random", "CBAM")},
    **{"base": "baseline", "base (re-implementation)": "baseline", "SE": "gap", "SPSE": "SP", "RGSE": "RG"},
}
MISLABELLED = (
    "labelled ResNet-50 by its source, but every version of its code builds the SE arms from basic blocks "
    "[3, 4, 6, 3]: SE-ResNet-34, 21.95 M parameters. The baseline was most likely a real ResNet-50 (25.56 M), "
    "so the difference says nothing about squeezes"
)
SSENET_CAPTION = (
    "Published by SsENet.PyTorch (README), ImageNet-1k, one seed; improvement over its own baseline. Learning rate "
    "0.01 for batch 256, a tenth of the usual; the number of epochs, and whether rows are of the best or the last "
    "epoch, are unknown. Before 2021-12-07 its code set the last BatchNorm's gamma to zero in the baseline only, so "
    "the ResNet-18 rows may differ in that too. The binomial standard error of one accuracy on 50,000 images is 0.2 "
    "points."
)
SPRG_CAPTION = (
    "Published with the SP/RG paper (README; doi:10.1016/j.patcog.2021.108159), ImageNet-1k, seeds not stated. The "
    "released script keeps the best Top-1 and the best Top-5 over the epochs, each by itself, on the validation set; "
    "whether the rows are those is not stated. GFLOPs follow a backbone with the stride in the first 1x1 convolution "
    "and count element-wise passes too: not comparable with ours."
)
