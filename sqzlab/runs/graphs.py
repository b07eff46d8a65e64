"""Which runs of a study share a compiled graph, and where what was compiled for it is kept.

    <study>/kernels/<graph>-<machine>.zip

`graph` is all of a run and of the installed code that decides what is compiled; a launch can tell it. `machine` is
known only on the node: its kind of GPU, or of CPU.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path

from sqzlab.config import HOST_KEYS, Config
from sqzlab.run import Run
from sqzlab.runs.code import PACKAGE, contents, digest
from sqzlab.training.inductor import own_cache

FOLDER = "kernels"  # of a study
UNSHAPING = (
    *HOST_KEYS,
    *("model.zero_init_gamma", "data.name", "data.lists_digest", "data.train_images", "data.val_images"),
    *("train.recipe", "train.epochs", "train.lr", "train.momentum", "train.nesterov", "train.weight_decay"),
    *("train.decay_norm_and_bias", "train.schedule", "train.milestones", "train.gamma", "train.warmup_epochs"),
    *("train.label_smoothing", "train.clip_norm", "train.init", "train.pretrained_digest", "train.lrp"),
    "train.limit_batches",
)
"""Keys that change numbers but no code. What is not named here counts: a key too many only compiles once more."""
CODE = ("catalog.py", "networks/", "training/")


@cache
def graph_of(config: Config) -> str:
    """16 hexadecimal digits, the same for all runs that one compilation serves."""
    values = config.model_dump(mode="json", exclude={"seed"})
    for key in UNSHAPING:
        section, name = key.split(".")
        del values[section][name]
    text = json.dumps([values, _installed()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def published(study_folder: Path) -> frozenset[str]:
    """Graphs that have an archive, whatever machine it is for."""
    return frozenset(path.name.partition("-")[0] for path in (study_folder / FOLDER).glob("[!.]*-*.zip"))


def to_compile(runs: Iterable[Run], study_folder: Path, least: int = 2) -> dict[str, list[Run]]:
    """By graph the runs that wait for its compilation, where there are `least` of them and no archive yet."""
    if own_cache():
        return {}
    graphs: dict[str, list[Run]] = {}
    for run in runs:
        if run.config.train.compile:
            graphs.setdefault(graph_of(run.config), []).append(run)
    there = published(study_folder) if graphs else frozenset()
    return {graph: alike for graph, alike in graphs.items() if len(alike) >= least and graph not in there}


@cache
def _installed() -> tuple[str, ...]:
    code = {name: data for name, data in contents(PACKAGE).items() if name.startswith(CODE)}
    return platform.python_version(), version("torch"), digest(code)
