"""`python -m sqzlab cost`: parameters and operations of networks, by themselves or beside the published counts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqzlab import catalog
from sqzlab.catalog import BACKBONES, SQUEEZES
from sqzlab.commands.published_counts import NOTES, SOURCES, SPRG, PublishedCount, notes_of, published_counts
from sqzlab.config import ModelConfig
from sqzlab.errors import ConfigError, choices
from sqzlab.resolving import model_config, why_not

if TYPE_CHECKING:
    from rich.table import Table

    from sqzlab.launching.costs import Cost

DEFAULT_BACKBONES = ("resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x4d")
DEFAULT_SQUEEZES = ("baseline", "gap", "CBAM", "SP", "RG")
"""Those of the SP/RG table."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Without arguments: the networks of the SP/RG table beside their published GFLOPs. Where no backbone or no "
        "squeeze is named, those of that table are counted. Every other option applies to the networks that have it."
    )
    parser.add_argument("--backbone", nargs="+", metavar="NAME", help=", ".join(BACKBONES))
    parser.add_argument("--squeeze", nargs="+", metavar="NAME", help=", ".join(SQUEEZES))
    for name, kind in OPTIONS.items():
        about = ModelConfig.model_fields[name]
        text = about.description or f"{about.default} if absent"
        if isinstance(kind, dict):
            parser.add_argument(_option(name), metavar="NAME", help=f"{text}: {', '.join(kind)}")
        else:
            parser.add_argument(_option(name), type=kind, metavar="VALUE", help=text)
    parser.add_argument(
        "--published", action="store_true", help="networks of published tables, as their counts have them, side by side"
    )
    parser.add_argument("--json", action="store_true", help="write JSON instead of a table")


def run(arguments: argparse.Namespace) -> int:
    given = {name: value for name in OPTIONS if (value := getattr(arguments, name)) is not None}
    backbones = _known("--backbone", arguments.backbone or (), BACKBONES)
    squeezes = _known("--squeeze", arguments.squeeze or (), SQUEEZES)
    if arguments.published or not (backbones or squeezes or given):
        if given:
            options = ", ".join(map(_option, given))
            raise ConfigError(f"--published counts networks as their sources built them; leave out {options}")
        rows = published_counts(SOURCES if arguments.published else (SPRG,), backbones, squeezes)
        notes = notes_of(rows)
        costs = _measured([row.model for row in rows])
        found = [_published_record(row, costs[row.model]) for row in rows]
        tables = _published_tables(rows, costs)
    else:
        models, partly = _models(backbones or DEFAULT_BACKBONES, squeezes or DEFAULT_SQUEEZES, given)
        notes = {"*": partly} if partly else {}
        if "GSoP" in squeezes:
            notes["+"] = "papers' has the products of GSoP's covariance as well"
        costs = _measured(models)
        found = [_record(model, costs[model]) for model in models]
        tables = [_table(models, costs)]
    if arguments.json:
        print(json.dumps({"networks": found, "notes": list(notes.values())}, indent=2))
    else:
        _show(tables, notes)
    return 0


# ---- networks ----------------------------------------------------------------------------------


def _models(
    backbones: Sequence[str], squeezes: Sequence[str], given: Mapping[str, Any]
) -> tuple[list[ModelConfig], str]:
    """Every backbone with every squeeze, and a note on what applies to a part of them only ('': nothing).

    Raises ConfigError, with the options' names, where one applies to no network or a network cannot be built.
    """
    models: list[ModelConfig] = []
    faults: list[str] = []
    applies: dict[str, dict[str, None]] = {name: {} for name in given}
    reasons: dict[str, str] = {}
    for backbone in backbones:
        for squeeze in squeezes:
            around = {"model.backbone": backbone, "model.squeeze": squeeze}
            values = {}
            for name, value in given.items():
                if reason := why_not(f"model.{name}", around):
                    reasons.setdefault(name, reason)
                else:
                    values[name] = value
                    applies[name][backbone if name == "stride" else squeeze] = None
            try:
                models.append(model_config(backbone=backbone, squeeze=squeeze, **values))
            except ConfigError as error:
                faults += error.faults
    faults += [f"{name}: {reasons[name]}" for name, able in applies.items() if not able]
    if faults:
        told = (fault.partition(": ") for fault in dict.fromkeys(faults))
        raise ConfigError(f"{_option(key)}: {text}" for key, _, text in told)
    return models, "; ".join(f"{_option(name)} applies to {', '.join(applies[name])} only" for name in reasons)


def _measured(models: Sequence[ModelConfig]) -> dict[ModelConfig, Cost]:
    from rich.console import Console

    from sqzlab.launching.costs import measure_all

    with Console(stderr=True).status(f"counting {len(set(models))} networks"):
        return measure_all(models)


def _known(option: str, names: Iterable[str], table: Iterable[str]) -> tuple[str, ...]:
    """The names, each once. Raises ConfigError where one is not in the table."""
    valid, chosen = list(table), tuple(dict.fromkeys(names))
    faults = [f"{option}: unknown name {name!r}; {choices(valid, name)}" for name in chosen if name not in valid]
    if faults:
        raise ConfigError(faults)
    return chosen


# ---- output ------------------------------------------------------------------------------------


def _record(model: ModelConfig, cost: Cost) -> dict[str, Any]:
    counts = {"params": cost.params, "macs": cost.macs, "paper_ops": cost.paper_ops}
    return {"model": model.model_dump(mode="json", exclude_none=True), **counts}


def _published_record(row: PublishedCount, cost: Cost) -> dict[str, Any]:
    source = row.source
    printed = {
        **{"source": source.source, "table": source.table, "backbone": row.backbone, "variant": row.variant},
        **{key: float(text) if text else None for key, text in (("gflops", row.gflops), ("params_m", row.params_m))},
        **{"unit": source.unit, "compared_with": source.count},
        **{"difference": row.difference(getattr(cost, source.count)), "notes": [NOTES[mark] for mark in row.marks]},
    }
    return {**_record(row.model, cost), "published": printed}


def _table(models: Sequence[ModelConfig], costs: Mapping[ModelConfig, Cost]) -> Table:
    grid = _grid("", "params", "conv+fc", "papers'")
    sections: dict[str, list[ModelConfig]] = {}
    for model in models:
        stride = f", stride {model.stride}" if model.stride else ""
        sections.setdefault(f"{model.backbone}, {model.image_size}x{model.image_size}{stride}", []).append(model)
    for title, members in sections.items():
        grid.add_row()
        grid.add_row(f"[bold]{title}[/]")
        for model in members:
            cost = costs[model]
            grid.add_row(model.squeeze, f"{cost.params:,}", _operations(cost.macs), _operations(cost.paper_ops))
    return grid


def _published_tables(rows: Sequence[PublishedCount], costs: Mapping[ModelConfig, Cost]) -> list[Table]:
    """One for each published table."""
    sections: dict[str, dict[str, list[PublishedCount]]] = {}
    for row in rows:
        backbone = "".join((row.backbone, *(f" [{mark}]" for mark in row.marks)))
        origin = f"{row.source.source}, {row.source.table}"
        sections.setdefault(origin, {}).setdefault(backbone, []).append(row)
    return [_published_table(origin, members, costs) for origin, members in sections.items()]


def _published_table(
    origin: str, sections: Mapping[str, Sequence[PublishedCount]], costs: Mapping[ModelConfig, Cost]
) -> Table:
    from rich.markup import escape

    with_params = any(row.params_m for rows in sections.values() for row in rows)
    grid = _grid(
        origin, "params", "conv+fc\nG", "papers'\nG", "printed\nG", "differ\nby", *["printed\nM"] * with_params
    )
    for title, rows in sections.items():
        grid.add_row()
        grid.add_row(f"[bold]{escape(title)}[/]")
        for row in rows:
            cost = costs[row.model]
            difference = row.difference(getattr(cost, row.source.count))
            ours = f"{cost.params:,}", f"{cost.macs / 1e9:.3f}", f"{cost.paper_ops / 1e9:.3f}"
            theirs = row.gflops, "" if difference is None else f"{difference:+z.3f}"
            grid.add_row(escape(row.variant), *ours, *theirs, *[row.params_m] * with_params)
    return grid


def _grid(title: str, *columns: str) -> Table:
    from rich.table import Table

    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    grid.add_column("", overflow="fold", min_width=24)
    for column in columns:
        grid.add_column(column, justify="right", no_wrap=True)
    return grid


def _show(tables: Sequence[Table], notes: Mapping[str, str]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for table in tables:
        console.print(table)
        console.print()
    for text in (CAPTION, *(f"[{mark}] {note}" for mark, note in notes.items())):
        console.print(text, style="dim", markup=False)


def _operations(count: int) -> str:
    return f"{count / 1e9:.4f} G" if count >= 1e8 else f"{count / 1e6:.4f} M"


CAPTION = (
    "For one image. conv+fc: multiply-accumulates of convolutions and linear layers. papers': the same, plus one "
    "operation an element for each residual addition and each pass of a block that pools or scales its maps."
)


# ---- options -----------------------------------------------------------------------------------


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _number(text: str) -> int | float | str:
    """What is no number stays text: the configuration's own check says what is valid."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _truth(text: str) -> bool | str:
    return {"true": True, "false": False}.get(text, text)


OPTIONS: dict[str, Callable[[str], Any] | dict[str, Any]] = {
    "image_size": _number,
    "num_classes": _number,
    "width": _number,
    "stem": catalog.STEMS,
    "stride": catalog.STRIDES,
    "reduction": _number,
    "width_rule": catalog.WIDTH_RULES,
    "fc_bias": _truth,
    "gate": catalog.GATES,
    "placement": catalog.PLACEMENTS,
    "stages": catalog.STAGES,
}
"""Fields of a network's configuration, each with how its value is read or the table of its names."""
