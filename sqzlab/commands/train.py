"""`python -m sqzlab train`: one network without a study file, on this machine, in this process.

Every key of a study is an option here, and the run is the one that a study with these values would have: stopped and
started again it goes on, and once done it is not repeated. Its folder lies in one that `analyze.py` reads.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import socket
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from sqzlab.catalog import BACKBONES
from sqzlab.commands.following import Following
from sqzlab.commands.key_options import add_key_options, key_values, raise_any
from sqzlab.config import HOST_KEYS, KEYS, Config
from sqzlab.data.fingerprint import count, digests
from sqzlab.errors import ConfigError, UnavailableError, choices
from sqzlab.launching.costs import measure_all
from sqzlab.launching.devices import visible_gpus
from sqzlab.launching.display import say
from sqzlab.launching.plan import prepare
from sqzlab.launching.status import State, Status, duration, status_of
from sqzlab.recipes import RECIPES
from sqzlab.resolving import Fault, resolve
from sqzlab.run import CONFIG, FAILURE, PLAN, Run, Value
from sqzlab.runs.files import read_json, write_json
from sqzlab.runs.stop import StopFlag
from sqzlab.study.arms import LISTS, TABLES, data_of, files_of, is_stored

STUDY = "train"
"""What the runs of this command call their study, whatever folder they are in."""
NAMED = ("model.backbone", "model.squeeze")
AXES = (*NAMED, "data.name")
"""Axes of every run in the plan; the others are what some run was given that is not its default."""
STRIDED_CHANNELS = 16
"""In channels_last, oneDNN's backward of 1x1 convolutions of fewer channels with stride 2 writes beyond its memory
on the CPU (uxlfoundation/oneDNN, issue 6035), and the process may crash: such a network has the other
layout by default."""
ONE_PROCESS = ("train.world_size", "train.sync_batch_norm")

_BACKBONES = {name.removeprefix("resnet"): name for name in BACKBONES if name.startswith("resnet")}
_BACKBONES |= {"X50": "resnext50_32x4d", "X101": "resnext101_32x4d"}
ARCHS: dict[str, dict[str, Any]] = {name: {"model.backbone": name, "model.squeeze": "baseline"} for name in BACKBONES}
ARCHS |= {
    f"{lead}{depth}": {"model.backbone": backbone, "model.squeeze": squeeze, "model.fc_bias": True}
    for lead, squeeze in (("SE", "gap"), ("SPSE", "SP"), ("RGSE", "RG"))
    for depth, backbone in _BACKBONES.items()
}
"""Names of torchvision, and by the rule of the released SP/RG code, whose excitations have biases."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "exit codes: 0 done, 1 the run failed or another process has it, 2 what was written is wrong, "
        "3 data, weights or GPU lacking, 130 Ctrl-C (the state is saved, the same command goes on)"
    )
    names = "backbone and squeeze in one word, as in RGSE50, SPSEX50, SE101 or resnet50"
    parser.add_argument("-a", "--arch", metavar="NAME", help=names)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="draws weights and data order; default: 0")
    parser.add_argument("--out", type=Path, default=Path("results/train"), metavar="DIR", help="default: results/train")
    add_key_options(parser, leave_out=ONE_PROCESS)


def run(arguments: argparse.Namespace) -> int:
    """The exit codes of the epilog."""
    console = Console(highlight=False)
    config, cell = _configured(_values(arguments), arguments.seed)
    planned, folder = Run(STUDY, None, cell, config), arguments.out
    path = folder / planned.run_id
    before = status_of(path)
    say(console, f"run {planned.run_id}")
    if before.state is State.DONE:
        say(console, "it is done already")
        _say_result(console, path, before)
        return 0
    if config.train.device == "cuda" and not visible_gpus():
        raise UnavailableError(f"--device 'cuda': {socket.gethostname()} has no GPU that can be used; valid here: cpu")
    _write_plan(folder, planned)
    prepare([planned], folder)
    data, train = config.data, config.train
    images = f"{data.train_images:,} training and {data.val_images:,} validation images of {data.classes:,} classes"
    say(console, f"{data.name}: {images}; {train.epochs} epochs by recipe {train.recipe} on {train.device}")
    if train.device == "cpu" and visible_gpus():
        say(console, "a GPU is there and not asked for; --device cuda uses it")
    if before.state is State.INTERRUPTED:
        say(console, f"going on {before.detail}".rstrip())
    return _train(console, path)


# ---- what is asked for -------------------------------------------------------------------------


def _values(arguments: argparse.Namespace) -> dict[str, Any]:
    """By dotted key, with what follows from `--arch`. Raises ConfigError for what is wrongly written."""
    values, faults = key_values(arguments)
    if arguments.arch in ARCHS:
        values = {**ARCHS[arguments.arch], **values}
    elif arguments.arch is not None:
        faults.append(("--arch", f"unknown name {arguments.arch!r}; {choices(ARCHS, arguments.arch)}"))
    faults += [(key, "does not apply: a single process trains here") for key in ONE_PROCESS if key in values]
    raise_any(faults)
    return values


def _configured(given: Mapping[str, Any], seed: int) -> tuple[Config, dict[str, Value]]:
    """The run's configuration, with what its files hold, and its cell. Raises ConfigError with every fault."""
    values = _completed(given)
    found = resolve(values, seed)
    faults: list[Fault] = []
    for key, text in found if isinstance(found, list) else ():
        if text != "is missing":
            faults.append((key, text))
        elif key in TABLES:  # else it comes from a recipe or data set that is told itself
            faults.append((key, f"{text}; valid: {', '.join(TABLES[key])}"))
    if values.get("data.name") == "imagelist" and not is_stored(values):
        faults += [(key, "is missing; valid: a text file, `name label` a line") for key in LISTS if not values.get(key)]
    raise_any(("--seed" if key == "seed" else key, text) for key, text in faults)
    counts, read = count(*data_of(values)), digests(*files_of(values))
    config = resolve(values, seed, counts, read)
    if isinstance(config, list):
        raise_any(config)
        raise AssertionError("resolve returned no fault and no configuration")
    cell = {key: _field(config, key) for key in NAMED}
    for key in [key for key in KEYS if key in values and key not in AXES and key not in HOST_KEYS]:  # in one order
        without = resolve(_completed({k: v for k, v in given.items() if k != key}), seed, counts, read)
        value = _field(config, key)
        if not isinstance(value, tuple) and not (isinstance(without, Config) and _field(without, key) == value):
            cell[key] = value
    return config, cell


def _completed(given: Mapping[str, Any]) -> dict[str, Any]:
    """With the defaults that are this command's own."""
    values = dict(given)
    values.setdefault("train.recipe", "digits" if values.get("data.name") == "digits" else "sprg")
    if values.get("data.name") == "imagenet" and (root := os.environ.get("IMAGENET_DIR")):
        values.setdefault("data.root", root)
    backbone, width = BACKBONES.get(values.get("model.backbone", "")), values.get("model.width", 1.0)
    narrow = backbone is not None and isinstance(width, float) and backbone.channels(width)[0] < STRIDED_CHANNELS
    if narrow and values.get("train.device", "cpu") == "cpu":
        values.setdefault("train.channels_last", False)
    every = values.get("train.schedule", "")
    if isinstance(every, str) and every.isdecimal() and int(every) > 0:  # the papers' scripts: a step each N epochs
        recipe = RECIPES.get(values["train.recipe"])
        epochs = values.get("train.epochs", recipe.train["epochs"] if recipe else 0)
        drops = range(int(every), epochs, int(every)) if isinstance(epochs, int) else ()
        values |= {"train.schedule": "step", "train.milestones": list(drops)}
        values.setdefault("train.gamma", 0.1)
    return values


def _field(config: Config, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


# ---- training ----------------------------------------------------------------------------------


def _train(console: Console, path: Path) -> int:
    from sqzlab.runs.execute import execute

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        say(console, f"warning: {message}")

    stop = StopFlag()
    try:
        with (
            warnings.catch_warnings(),
            stop.on_signals(signal.SIGINT, signal.SIGTERM),
            Following(console, path, stop),
        ):
            warnings.showwarning = show  # what the pretrained file did not have, without lines of our code
            outcome = execute(path, stop)
    except (ArithmeticError, RuntimeError) as error:  # a loss that is not finite, memory: recorded in failure.json
        say(console, f"failed: {' '.join(str(error).split())}; its traceback: {path / FAILURE}")
        return 1
    if outcome == "interrupted":
        say(console, f"stopped by {stop.why}, its state is saved; the same command goes on")
        return 130
    if outcome != "done":
        say(console, "another process trains this run; the same command again tells how it ended")
        return 1
    _say_result(console, path, status_of(path))
    return 0


def _say_result(console: Console, path: Path, status: Status) -> None:
    metrics = status.values
    accuracy = f"top-1 {metrics['top1']:.2%}, top-5 {metrics['top5']:.2%}, loss {metrics['val_loss']:.4f}"
    say(console, f"{accuracy} on the validation images, in {duration(status.used_s)}")
    folder, study = shlex.quote(str(path)), shlex.quote(str(path.parent))
    for what, command in (
        ("classes of images", f"python -m sqzlab predict {folder} IMAGE ..."),
        ("accuracy by class", f"python -m sqzlab evaluate {folder}"),
        ("tables, figures", f"python analyze.py {study}"),
    ):
        say(console, f"{what}: {command}")


# ---- the plan ----------------------------------------------------------------------------------


def _write_plan(folder: Path, planned: Run) -> None:
    """plan.json with this run and those that the folder holds, each with a value on every axis.

    Raises ConfigError where the folder is a study's.
    """
    before = read_json(folder / PLAN) or {"study": STUDY}
    if before.get("study") != STUDY:
        text = f"{str(folder)!r} holds the study {before.get('study')!r}; valid: a folder for the runs of this command"
        raise ConfigError(f"--out: {text}")
    runs = {planned.run_id: planned, **_runs_in(folder)}
    axes = list(dict.fromkeys([*AXES, *(key for run in runs.values() for key in run.cell)]))
    costs = measure_all(run.config.model for run in runs.values())
    plan: dict[str, Any] = {
        "study": STUDY,
        "profile": None,
        "folder": folder.name,
        "axes": axes,
        "baseline": {},
        "seeds": sorted({run.config.seed for run in runs.values()}),
        "runs": [
            {
                "run_id": run_id,
                "cell": {axis: run.cell.get(axis, _field(run.config, axis)) for axis in axes},
                "seed": run.config.seed,
                "params": costs[run.config.model].params,
                "macs": costs[run.config.model].macs,
            }
            for run_id, run in sorted(runs.items())
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    if before != plan:
        write_json(folder / PLAN, plan)


def _runs_in(folder: Path) -> dict[str, Run]:
    """The runs of this command whose configuration can be read."""
    found = {}
    for path in sorted(folder.glob(f"*/{CONFIG}")):
        try:
            run = Run.from_json(read_json(path) or {})
        except (LookupError, ValueError):
            continue
        if run.study == STUDY:
            found[run.run_id] = run
    return found
