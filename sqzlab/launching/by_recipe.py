"""What a whole study would cost under each published recipe, beside the one that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sqzlab.catalog import DATASETS
from sqzlab.config import Config, ModelConfig
from sqzlab.launching.costs import Cost
from sqzlab.launching.estimate import GPU_HOURS, Speeds, figure, hours, jobs_of, makespan
from sqzlab.launching.status import State, Status, duration
from sqzlab.recipes import RECIPES
from sqzlab.resolving import wrong_sizes
from sqzlab.study.study import Study

FOLLOWED = ("epochs", "batch_size", "train_sizes", "size_milestones")
"""What a recipe sets of a run's cost."""


@dataclass(frozen=True)
class Row:
    """Of the recipes that cost the same; `hours` and `wall_s` are None where an arm cannot be trained so."""

    recipes: tuple[str, ...]
    epochs: tuple[int, ...]
    sizes: tuple[int, ...]  # sides of the training crops in pixels
    gpu_hours: float | None
    wall_s: float | None
    impossible: tuple[str, ...]  # squeezes whose grids the sizes do not fit


def applies(study: Study) -> bool:
    """Whether the study trains on images from files on GPUs, under one recipe: what published recipes are for."""
    configs = [run.config for run in study.runs]
    one = len({config.train.recipe for config in configs}) == 1
    return one and all(c.train.device == "cuda" and DATASETS[c.data.name].tiers for c in configs)


def rows(
    study: Study,
    costs: Mapping[ModelConfig, Cost],
    found: Mapping[str, Status],
    jobs: int | None,
    *,
    packed: bool = True,
) -> list[Row]:
    """All runs of the study from their beginnings, the cheapest recipe first; `jobs` jobs at a time (None: all)."""
    speeds = Speeds(study.runs, found, costs)
    seeds = len(study.seeds)
    arms = study.runs[::seeds]
    asked = [study.resources(run) if packed else None for run in arms]
    each = [arm for arm in range(len(arms)) for _ in range(seeds)]  # a run's arm
    alike: dict[Row, list[str]] = {}
    for name in RECIPES:
        if name == "digits":  # of ours, for seconds on a laptop
            continue
        configs = [under(run.config, name) for run in arms]
        seconds = [speeds.seconds(config)[0] for config in configs]
        spent = sum(seeds * hours(run, took, of) for run, took, of in zip(arms, seconds, asked, strict=True))
        wall_s = makespan(jobs_of([seconds[arm] for arm in each], [asked[arm] for arm in each]), jobs)
        bad = dict.fromkeys(c.model.squeeze for c in configs if wrong_sizes(c.model, c.train))
        epochs = tuple(sorted({config.train.epochs for config in configs}))
        sizes = dict.fromkeys(size for c in configs for size in c.train.train_sizes or (c.data.image_size,))
        told = (None, None) if bad else (round(spent, 6), round(wall_s, 6))
        row = Row((), epochs, tuple(sizes), told[0], told[1], tuple(bad))
        alike.setdefault(row, []).append(name)
    merged = [
        Row(tuple(names), row.epochs, row.sizes, row.gpu_hours, row.wall_s, row.impossible)
        for row, names in alike.items()
    ]
    return sorted(merged, key=lambda row: (row.gpu_hours is None, row.gpu_hours))


def under(config: Config, recipe: str) -> Config:
    """The run with another recipe's epochs, batch and sizes, where its own has not been told others."""
    if recipe == config.train.recipe:
        return config
    ours, theirs = RECIPES[config.train.recipe].train, RECIPES[recipe].train
    given = {key: getattr(config.train, key) for key in FOLLOWED}
    values = {key: theirs.get(key) if value == ours.get(key) else value for key, value in given.items()}
    if values["train_sizes"] is not None:
        begin = tuple(m for m in values["size_milestones"] or () if m < values["epochs"])
        values |= {"size_milestones": begin, "train_sizes": values["train_sizes"][: len(begin) + 1]}
    return config.model_copy(update={"train": config.train.model_copy(update=values)})


def show(
    console: Console,
    study: Study,
    costs: Mapping[ModelConfig, Cost],
    found: Mapping[str, Status],
    jobs: int | None,
    *,
    packed: bool = True,
) -> None:
    """A table of at most 80 columns, and what its figures leave out."""
    current = study.runs[0].config.train.recipe
    at_once = f"{jobs} at a time" if jobs else "all at once"
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column(f"{len(study.runs)} runs under")
    for title in ("epochs", "crops", GPU_HOURS, at_once):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows(study, costs, found, jobs, packed=packed):
        cost = ("-", "-") if row.gpu_hours is None else (figure(row.gpu_hours), duration(row.wall_s or 0))
        table.add_row(_names(row, current), _listed(row.epochs), _listed(row.sizes), *cost)
    console.print()
    console.print(table)
    console.print(f"another recipe: --set train.recipe=NAME instead of {current}")
    trains = [run.config.train for run in study.runs]
    finished = any(status.state is State.DONE for status in found.values())
    if not finished and any(train.compile or train.block_form == "folded" for train in trains):
        console.print("compiled and folded networks are taken to be as fast as plain ones")


def _names(row: Row, current: str) -> Text:
    told = Text(", ").join(
        Text(f"{name} (as it is)", "bold") if name == current else Text(name) for name in row.recipes
    )
    return told.append(f", not for {', '.join(row.impossible)}") if row.impossible else told


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
