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
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from sqzlab.config import HOST_KEYS, Config
from sqzlab.run import Run
from sqzlab.runs.code import PACKAGE, contents, digest
from sqzlab.runs.lease import now
from sqzlab.training.inductor import own_cache

FOLDER = "kernels"  # of a study
UNUSED_S = 30 * 24 * 3600.0
UNSHAPING = (
    *HOST_KEYS,
    *("model.zero_init_gamma", "data.name", "data.lists_digest", "data.train_images", "data.val_images"),
    *("data.tier", "data.store_digest", "train.size_milestones", "train.trivial_augment", "train.random_erasing"),
    *("train.mixup_alpha", "train.cutmix_alpha"),
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
    text = json.dumps([values, installed()], sort_keys=True)
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


def forget(study_folder: Path, runs: Iterable[Run]) -> None:
    """Removes archives that no run has begun with for `UNUSED_S`, but for those of these runs: older code's."""
    needed = {graph_of(run.config) for run in runs if run.config.train.compile}
    for path in (study_folder / FOLDER).glob("*"):
        with suppress(OSError):  # another launch does so as well
            if path.name.partition("-")[0] not in needed and now(path.parent) - path.stat().st_mtime > UNUSED_S:
                path.unlink()


@cache
def installed() -> tuple[str, ...]:
    """Read from the disk at the first call and then kept, as what is imported is."""
    code = {name: data for name, data in contents(PACKAGE).items() if name.startswith(CODE)}
    return platform.python_version(), version("torch"), digest(code)
