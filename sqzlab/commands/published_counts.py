"""Published parameters and GFLOPs, each with the network of ours that it belongs to and the convention it follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqzlab.catalog import BACKBONES
from sqzlab.config import ModelConfig
from sqzlab.errors import ConfigError
from sqzlab.resolving import model_config, why_not

PUBLISHED = Path(__file__).parents[2] / "results" / "published.csv"
RESNETS = tuple(name for name in BACKBONES if name.startswith("resnet"))
RESNEXTS = tuple(name for name in BACKBONES if name.startswith("resnext"))


@dataclass(frozen=True)
class Source:
    """A table of published.csv: what its networks share, as far as it applies, and what each variant has of its own."""

    source: str
    table: str
    shared: Mapping[str, Any]
    variants: Mapping[str, Mapping[str, Any]]
    backbones: tuple[str, ...] = tuple(BACKBONES)
    count: str = "paper_ops"  # the field of Cost that its GFLOPs are compared with
    unit: int = 10**9
    mark: str = ""  # of its note

    def model(self, backbone: str, variant: str) -> ModelConfig:
        own = {"squeeze": "baseline", **self.variants[variant]}
        around = {"model.backbone": backbone, "model.squeeze": own["squeeze"]}
        shared = {name: value for name, value in self.shared.items() if why_not(f"model.{name}", around) is None}
        return model_config(backbone=backbone, **shared, **own)


@dataclass(frozen=True)
class PublishedCount:
    source: Source
    backbone: str  # as printed, like the variant
    variant: str
    gflops: str  # as printed too; '' where there is none
    params_m: str
    model: ModelConfig
    marks: tuple[str, ...]

    def difference(self, count: int) -> float | None:
        """Our count less the printed GFLOPs, in the source's unit, or None where it has none."""
        return count / self.source.unit - float(self.gflops) if self.gflops else None


def published_counts(
    sources: Sequence[Source], backbones: Sequence[str] = (), squeezes: Sequence[str] = ()
) -> list[PublishedCount]:
    """The rows of these sources that have a count, of these backbones and squeezes (none named: of all).

    Raises ConfigError where one that is named has none, or published.csv is absent or not in its form.
    """
    found = [row for source in sources for row in _rows(source)]
    by_backbone = [row for row in found if not backbones or row.model.backbone in backbones]
    chosen = [row for row in by_backbone if not squeezes or row.model.squeeze in squeezes]
    _check("--squeeze", squeezes, dict.fromkeys(row.model.squeeze for row in by_backbone))
    _check("--backbone", backbones, dict.fromkeys(row.model.backbone for row in chosen))
    return chosen


def notes_of(rows: Sequence[PublishedCount]) -> dict[str, str]:
    """The notes that belong to the rows, by their marks."""
    marks = {mark for row in rows for mark in row.marks}
    return {mark: note for mark, note in NOTES.items() if mark in marks}


def _check(option: str, names: Sequence[str], able: Mapping[str, None]) -> None:
    if lacking := [name for name in names if name not in able]:
        valid = ", ".join(able)
        raise ConfigError(f"{option}: no count of {name!r} with these is published; valid: {valid}" for name in lacking)


def _rows(source: Source) -> list[PublishedCount]:
    from sqzlab.analysis.published import read_published
    from sqzlab.analysis.sources import BACKBONE_NAMES

    rows = []
    for row in read_published(PUBLISHED):
        backbone = BACKBONE_NAMES.get(row.backbone)
        printed = row.backbone, row.variant, row.gflops, row.params_m
        if (row.source, row.table) != (source.source, source.table) or not any(printed[2:]):
            continue
        if backbone not in source.backbones or row.variant not in source.variants:
            continue
        unexplained = source is SPRG and backbone in RESNEXTS
        marks = tuple(mark for mark in ("a" if unexplained else "", source.mark) if mark)
        rows.append(PublishedCount(source, *printed, source.model(backbone, row.variant), marks))
    return rows


# ---- tables ------------------------------------------------------------------------------------

_V1_BIAS, _V1_FREE = {"stride": "v1", "fc_bias": True}, {"stride": "v1", "fc_bias": False}
_GAP, _CBAM, _SRM, _ECA = ({"squeeze": name} for name in ("gap", "CBAM", "SRM", "ECA"))
_SENET = "SENet TPAMI arXiv:1709.01507"
_TABLE_2: dict[str, dict[str, Any]] = {"base (re-implementation)": {}, "SE": _GAP}

SPRG = Source(
    "SP/RG README (Jin et al. 2022)",
    "Key Results",
    _V1_BIAS,
    {"base": {}, "SE": _GAP, "CBAM": _CBAM, "SPSE": {"squeeze": "SP"}, "RGSE": {"squeeze": "RG"}},
)
SOURCES = (
    SPRG,
    Source(_SENET, "Table 2", _V1_BIAS, _TABLE_2, RESNETS),
    Source(_SENET, "Table 2", {"fc_bias": True}, _TABLE_2, RESNEXTS, mark="b"),
    Source(
        _SENET,
        "Table 10",
        _V1_FREE,
        {"base (original)": {}, **{f"SE r={r}": {**_GAP, "reduction": r} for r in (2, 4, 8, 16, 32)}},
    ),
    Source(
        _SENET,
        "Table 13",
        _V1_FREE,
        {"base": {}, "SE All": _GAP, **{f"SE Stage {n}": {**_GAP, "stages": f"conv{n}"} for n in (2, 3, 4)}},
    ),
    Source(_SENET, "Table 15", _V1_FREE, {"SE": _GAP, "SE 3x3": {**_GAP, "placement": "3x3"}}),
    Source(_SENET, "Table 16", _V1_FREE, {"base": {}, "SE": _GAP, "NoSqueeze": {"squeeze": "no_squeeze"}}),
    Source("CBAM ECCV 2018", "Table 4", _V1_BIAS, {"CBAM": _CBAM}, count="macs", mark="c"),
    Source(
        "SRM README figures/imagenet.png", "ImageNet table", _V1_BIAS, {"base": {}, "SE": _GAP, "SRM (mean+std)": _SRM}
    ),
    Source(
        "ECA-Net arXiv:1910.03151",
        "Table 3",
        {"fc_bias": False},
        {"base": {}, "SE": _GAP, "CBAM": _CBAM, "ECA": _ECA},
        count="macs",
        unit=2**30,
        mark="d",
    ),
    Source("BangguWu/ECANet README", "ImageNet", {}, {"ECA": _ECA}, count="macs", unit=2**30, mark="d"),
)
"""Stride and biases are those that the printed counts belong to, which need not be those of the released code."""

NOTES = {
    "a": "no rule that we know of reproduces the 3.89 and 7.63 G of these ResNeXt baselines: with the stride in the "
    "first 1x1 convolution, as here, they have 3.77 and 7.52 G, with the stride in the 3x3 convolution 4.24 and "
    "7.98 G; what the blocks add to them agrees",
    "b": "ResNeXt with its stride in the 3x3 convolution, unlike the ResNets of the same table",
    "c": "counts convolutions and linear layers only, so compared with conv+fc",
    "d": "printed in units of 2^30 operations and 2^20 parameters, with the stride in the 3x3 convolution: its 3.86 is "
    "not the 3.86 of the other papers; compared in its units with conv+fc, to which its counter, thop, adds other "
    "layers",
}
