"""How gates depend on the class of the image, and how much they move, by block and stage of a network."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from sqzlab.analysis.figure_list import FAINT, GRID, PAPER
from sqzlab.analysis.figures.looks import Look, looks_of
from sqzlab.analysis.figures.panels import NAME, NOTE, WIDTH, subplots, widest
from sqzlab.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOLDER, TABLE = "excitation", "excitation.csv"  # of a study, where `python -m sqzlab excitation --out` belongs
MOST_NETWORKS = 12
MOST_TICKS = 20  # block names below an axis


@dataclass(frozen=True)
class Network:
    """What a network's blocks are drawn from: for each block, numbers by name; None where one does not exist."""

    label: str
    squeeze: str
    blocks: Mapping[str, Mapping[str, float | None]]  # "layer1.0" to between_share, std, ...
    chance: float


def over_depth(networks: Sequence[Network], shown: Mapping[str, str]) -> Figure:
    """A panel for each number in `shown` (to its title), two beside each other, and a line for each network."""
    columns = min(2, len(shown))
    figure, axes = subplots(-(-len(shown) // columns), columns, height=1.9)
    looks = looks_of(network.squeeze for network in networks)
    names = sorted({name for network in networks for name in network.blocks}, key=place)
    for network, (colour, marker) in zip(networks, looks, strict=True):
        at = [names.index(name) for name in network.blocks]
        for ax, key in zip(axes.flat, shown, strict=True):
            values = [np.nan if block[key] is None else block[key] for block in network.blocks.values()]
            every = max(1, len(names) // 16)
            ax.plot(at, values, color=colour, marker=marker, markevery=every, ms=4, mec=PAPER, mew=0.4, lw=1)
    chances = {network.chance for network in networks}
    if len(chances) == 1:
        (chance,) = chances
        axes[0, 0].axhline(chance, color=FAINT, lw=0.8, ls=":")
        axes[0, 0].annotate(
            "chance", (1, chance), (0, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
            ha="right", fontsize=NOTE, color=FAINT,
        )  # fmt: skip
    for ax, (key, title) in zip(axes.flat, shown.items(), strict=True):
        ax.set_title(title)
        ax.set_ylim(0, None if key == "std" else 1)
        _stages(ax, names)
    for ax in axes[:-1].flat:
        ax.tick_params(labelbottom=False)
    legend(figure, axes[0, 0], [(network.label, look) for network, look in zip(networks, looks, strict=True)])
    return figure


def has_excitation(folder: Path) -> bool:
    """Whether gates of this study were recorded."""
    return any((folder / FOLDER).rglob(TABLE))


def excitation_by_stage(folder: Path) -> Figure:
    """Share of variance between classes and spread over the images, from a study's `excitation/excitation.csv`.

    A line for each arm, the mean over its recorded runs. Raises ConfigError where there is no such file, where one is
    damaged, or where there are too many arms.
    """
    paths = sorted((folder / FOLDER).rglob(TABLE)) or sorted(folder.glob(TABLE))
    if not paths:
        raise ConfigError(f"{folder}: no recorded gates; valid: a study after `python -m sqzlab excitation`")
    networks = _mean_networks([row for path in paths for row in _rows(path)])
    if len(networks) > MOST_NETWORKS:
        raise ConfigError(f"{folder}: {len(networks)} arms cannot be told apart; valid: at most {MOST_NETWORKS}")
    return over_depth(networks, BY_STAGE)


def place(name: str) -> tuple[int, int]:
    """(stage from 1, index from 0) of "layer1.2"."""
    stage, _, index = name.removeprefix("layer").partition(".")
    return int(stage), int(index)


def legend(figure: Figure, ax: Axes, looks: Sequence[tuple[str, Look]]) -> None:
    """Names below the figure, as many beside each other as there is room for."""
    drawn = (ax.plot([], [], color=colour, marker=marker, ms=4, lw=1, label=name) for name, (colour, marker) in looks)
    handles = [line for (line,) in drawn]
    columns = max(1, min(len(looks), int(WIDTH / (0.5 + widest([name for name, _ in looks])))))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=NAME)


def _mean_networks(rows: Sequence[Mapping[str, Any]]) -> list[Network]:
    """One network an arm, the mean over its runs; named by the squeeze where it tells the arms apart."""
    arms: dict[str, dict[str, dict[str, Mapping[str, Any]]]] = {}
    for row in rows:
        arm = re.sub(r"-s\d+-[0-9a-f]{8}$", "", row["run"])
        arms.setdefault(arm, {}).setdefault(row["block"], {})[row["run"]] = row
    squeezes = {
        arm: next(row["squeeze"] for runs in blocks.values() for row in runs.values()) for arm, blocks in arms.items()
    }
    networks = []
    for arm, blocks in arms.items():
        told = squeezes[arm] if list(squeezes.values()).count(squeezes[arm]) == 1 else arm
        runs = {run for block in blocks.values() for run in block}
        means = {name: {key: _mean(block.values(), key) for key in BY_STAGE} for name, block in blocks.items()}
        chance = next(row["chance_share"] for block in blocks.values() for row in block.values())
        networks.append(Network(told + (f" (n = {len(runs)})" if len(runs) > 1 else ""), squeezes[arm], means, chance))
    return networks


def _mean(rows: Any, key: str) -> float | None:
    values = [row[key] for row in rows if row[key] is not None]
    return sum(values) / len(values) if values else None


def _rows(path: Path) -> list[dict[str, Any]]:
    """Lines of an excitation.csv that are drawn; the spread over all images from that within and between classes."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = []
            for line in csv.DictReader(file):
                place(line["block"])
                rows.append(
                    {
                        **{key: line[key] for key in ("run", "squeeze", "block")},
                        "between_share": float(line["between_share"]) if line["between_share"] else None,
                        "std": math.hypot(float(line["std_within"]), float(line["std_between"])),
                        "chance_share": float(line["chance_share"]),
                    }
                )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, csv.Error) as error:
        reason = (getattr(error, "strerror", None) or "no table of recorded gates, or damaged").lower()
        raise ConfigError(f"{path}: {reason}") from None
    if not rows:
        raise ConfigError(f"{path}: no table of recorded gates, or damaged")
    return rows


def _stages(ax: Axes, names: Sequence[str]) -> None:
    """Blocks by name where there is room, else stages; a line before each stage but the first."""
    places = [place(name) for name in names]
    first = [i for i, (stage, _) in enumerate(places) if i == 0 or stage != places[i - 1][0]]
    for start in first[1:]:
        ax.axvline(start - 0.5, color=GRID, lw=0.8)
    if len(names) <= MOST_TICKS:
        ax.set_xticks(range(len(names)), [f"conv{stage + 1}_{index + 1}" for stage, index in places], rotation=90)
    else:
        ax.set_xticks(first, [f"conv{places[i][0] + 1}_1" for i in first], rotation=90)
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.xaxis.grid(False)


BY_STAGE = {"between_share": "between-class share of variance", "std": "std of a gate over the images"}
"""Panels of `excitation_by_stage`."""
