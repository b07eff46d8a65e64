"""A study file as runs: `load_study`, what may be asked of a study, and the checks that need all of its arms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sqzlab.config import KEYS, Config
from sqzlab.errors import ConfigError, choices
from sqzlab.resolving import why_not
from sqzlab.run import Run, Value
from sqzlab.study.arms import LISTS, SET, Arm, Counts, DataSource, Expansion, data_of, files_of, value_of
from sqzlab.study.baseline import Cell, counterparts, describe, token
from sqzlab.study.budget import read_budget
from sqzlab.study.faults import FILE, Faults
from sqzlab.study.layout import DEFAULT_PROFILE, LIST_KEYS, Layout, StudyFile, read_study_file, unknown
from sqzlab.study.slurm import Slurm
from sqzlab.study.yamlfile import Node, UnreadableError, parse, parse_scalar


@dataclass(frozen=True)
class Study:
    """A study file with one of its profiles, every run of it validated."""

    name: str
    profile: str | None
    profiles: tuple[str, ...]  # names in the file
    runs: tuple[Run, ...]  # in the matrix' order, seeds innermost
    axes: tuple[str, ...]
    seeds: tuple[int, ...]
    baseline: Mapping[str, Value]
    arm_resources: tuple[Slurm, ...]  # one for each of `cells()`
    budget_gpu_hours: float | None
    path: Path

    @property
    def folder_name(self) -> str:
        """Of the results: the study's name, and the profile's unless it is `imagenet` or absent."""
        return self.name if self.profile in (None, DEFAULT_PROFILE) else f"{self.name}-{self.profile}"

    def cells(self) -> tuple[Cell, ...]:
        """The arms, each the axis values that its runs share, in the matrix' order."""
        return tuple(run.cell for run in self.runs[:: len(self.seeds)])

    def resources(self, run: Run) -> Slurm:
        """What a job with this run of the study asks of Slurm."""
        return self._resources[_resource_key(run)]

    @cached_property
    def _resources(self) -> dict[object, Slurm]:
        return dict(zip(map(_resource_key, self.runs[:: len(self.seeds)]), self.arm_resources, strict=True))

    def baseline_of(self, run: Run) -> Cell | None:
        """The cell that this run's differences are taken against (its own, if it is that arm)."""
        return self._baselines.get(_cell_key(run.cell))

    @cached_property
    def _baselines(self) -> dict[object, Cell]:
        if not self.baseline:
            return {}
        cells = self.cells()
        arms = [(run.cell, given(run.config)) for run in self.runs[:: len(self.seeds)]]
        found = counterparts(self.axes, arms, self.baseline)
        return {_cell_key(cell): cells[i] for cell, i in zip(cells, found, strict=True) if i is not None}


def load_study(
    path: str | Path,
    profile: str | None = None,
    *,
    overrides: Sequence[str] = (),
    counts: Callable[..., Counts | None] | None = None,
    digests: Callable[..., Mapping[str, str]] | None = None,
    roots: Mapping[str, str] | None = None,
) -> Study:
    """The study in `path`. Raises ConfigError with every fault of the file, those of other profiles included.

    Without `profile` it is `imagenet` where the file has that, else the file without a profile. `overrides` are
    `KEY=VALUE`, laid over every arm that they apply to. `counts(name, root)` are the classes, training and
    validation images found in a data set, `counts(name, root, train_list, val_list)` in one with lists,
    `counts(name, None, None, None, store, image_size)` in stores; `digests(train_list, val_list, pretrained, store)`
    are those of the files' content, by their keys. Both are asked of the
    chosen profile only; `roots` are the folders of data sets for which the study names none.
    """
    path = Path(path)
    file, faults = read_study_file(path)
    sound = not faults
    chosen = _chosen(profile, file, faults)
    sets = _overrides(overrides, faults)
    expanded: list[str | None] = [*file.profiles]
    if not file.profiles or (DEFAULT_PROFILE not in file.profiles and _is_complete(file.base)):
        expanded.append(None)
    elif chosen is None:
        text = f"none is named, and without one the study lacks keys; valid: {', '.join(file.profiles)}"
        faults.add(FILE, "profile", text)

    study: tuple[Expansion, list[Arm], float | None] | None = None
    for name in expanded:
        faults.profile = name
        layout = file.base if name is None else file.base.under(file.profiles[name])
        laid_over = _off_the_axes(sets, layout, faults) if name == chosen else {}
        expansion = Expansion(layout, faults, sound, laid_over, roots or {})
        arms = expansion.arms()
        budget = read_budget(layout.budget, faults)
        if name == chosen:
            study = expansion, arms, budget
    faults.raise_any(expanded, file.profile_nodes)
    assert study is not None  # what was chosen has been expanded, or is a fault
    expansion, arms, budget = study
    counted = _count(arms, counts) if counts is not None else {}
    read = {files: digests(*files) for files in _files(arms)} if digests is not None else {}
    if counted or read:
        faults.profile = chosen
        arms = replace(expansion, counted=counted, digests=read).arms()
        faults.raise_any(expanded, file.profile_nodes)
    layout = expansion.layout
    seeds = layout.seeds or ()
    runs = tuple(
        Run(
            file.name,
            chosen,
            arm.cell,
            arm.config if seed == seeds[0] else arm.config.model_copy(update={"seed": seed}),
        )
        for arm in arms
        if arm.config is not None
        for seed in seeds
    )
    baseline = {key: node.plain for key, node in layout.baseline.items()}
    names = tuple(file.profiles)
    axes, resources = tuple(layout.matrix), tuple(arm.slurm for arm in arms if arm.config is not None)
    return Study(file.name, chosen, names, runs, axes, seeds, baseline, resources, budget, path)


def profile_names(path: str | Path) -> tuple[str, ...]:
    """The profiles of a study file, which need not be valid otherwise. Raises ConfigError if it cannot be read."""
    file, _ = read_study_file(Path(path))
    return tuple(file.profiles)


def select(study: Study, only: Sequence[str]) -> tuple[Run, ...]:
    """The runs that `KEY=V1,V2` leave; a key is an axis, its last part, or `seed`. Raises ConfigError."""
    wanted: dict[str, set[tuple[bool, object]]] = {}
    short = {axis.rpartition(".")[2]: axis for axis in study.axes}
    faults = []
    for text in only:
        key, equals, listed = text.partition("=")
        axis = short.get(key, key)
        if not equals or (axis not in study.axes and axis != "seed"):
            names = [*study.axes, "seed"]
            reason = f"unknown key; {choices(names, axis)}" if equals else "is no selection; valid: KEY=V1,V2"
            faults.append(f"--only {text!r}: {reason}")
            continue
        there = list(dict.fromkeys(study.seeds if axis == "seed" else (cell[axis] for cell in study.cells())))
        for value in listed.split(","):
            found = [known for known in there if value in (str(known), _shown(known)) or _means(value, known)]
            if not found:
                faults.append(f"--only {key}={value}: no such run; {choices(map(_shown, there), value)}")
            wanted.setdefault(axis, set()).update(map(token, found))
    if faults:
        raise ConfigError(faults)
    runs = tuple(
        run for run in study.runs if all(token(_value(run, axis)) in allowed for axis, allowed in wanted.items())
    )
    if not runs:
        raise ConfigError(f"--only {' --only '.join(only)}: no run of the study has all of these values")
    return runs


def parity_faults(study: Study) -> list[str]:
    """Where an arm differs from the arm it is compared with in a key that no axis names; one line for each.

    Compared is with the baseline arm, or without one with the first arm of the same backbone and other axes.
    """
    compared = set(study.baseline) or {"model.squeeze"}
    firsts: dict[object, Run] = {}
    runs = {_cell_key(run.cell): run for run in study.runs[:: len(study.seeds)]}
    faults = []
    for run in runs.values():
        group = tuple(token(run.cell[axis]) for axis in study.axes if axis not in compared)
        cell = study.baseline_of(run)
        other = firsts.setdefault(group, run) if cell is None else runs[_cell_key(cell)]
        for key in _unequal(run.config, other.config, study.axes):
            apart = f"{value_of(run.config, key)!r}, but {value_of(other.config, key)!r} in {describe(other.cell)}"
            cure = "and no axis names it; give both the same value, or put the key into the matrix"
            faults.append(f"{describe(run.cell)}: {key} is {apart}, {cure}")
    return faults


# ---- loading -----------------------------------------------------------------------------------


def _chosen(profile: str | None, file: StudyFile, faults: Faults) -> str | None:
    if profile is None:
        return DEFAULT_PROFILE if DEFAULT_PROFILE in file.profiles else None
    if profile not in file.profiles:
        valid = choices(file.profiles, profile) if file.profiles else "the file has no profiles"
        faults.add(FILE, "profile", f"unknown profile {profile!r}; {valid}")
    return profile


def _is_complete(base: Layout) -> bool:
    """Whether the file without its profiles is meant to be a study."""
    given = {*base.matrix, *base.defaults}
    return base.seeds is not None and given >= {"model.backbone", "data.name", "train.recipe"}


def _overrides(texts: Iterable[str], faults: Faults) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            faults.add(SET, text, "has no value; valid: KEY=VALUE")
        elif key in found:
            faults.add(SET, key, "is given twice")
        elif (reason := unknown(key)) is not None:
            faults.add(SET, key, reason)
        elif (node := _override(key, value, faults)) is not None:
            found[key] = node
    return found


def _off_the_axes(sets: Mapping[str, Node], layout: Layout, faults: Faults) -> dict[str, Node]:
    for key in sets:
        if key in layout.matrix:
            faults.add(SET, key, f"is an axis of the study; valid: keys that are no axis, or --only {key}=...")
    return {key: node for key, node in sets.items() if key not in layout.matrix}


def _override(key: str, text: str, faults: Faults) -> Node | None:
    if not text.strip():
        return Node(None)
    try:
        document = parse(text)
    except UnreadableError as error:
        faults.add(SET, key, f"{text!r}: {error.text}")
        return None
    for *_, fault in document.faults:
        faults.add(SET, key, fault)
    values = document.root.value if isinstance(document.root.value, list) else [document.root]
    is_list = isinstance(document.root.value, list)
    if (
        (is_list and key not in LIST_KEYS)
        or isinstance(values, dict)
        or any(isinstance(n.value, list | dict) for n in values)
    ):
        faults.add(SET, key, f"{text!r}; valid: one value" + (" or a list of values" if key in LIST_KEYS else ""))
        return None
    return None if document.faults else document.root


def _count(arms: Iterable[Arm], counts: Callable[..., Counts | None]) -> dict[DataSource, Counts | None]:
    """What was counted in the data sets of these arms; empty where it is what they have been resolved with."""
    resolved = {}
    for arm in arms:
        if arm.config is not None:
            data = arm.config.data
            resolved[data_of(arm.values)] = (data.classes, data.train_images, data.val_images)
    counted = {source: counts(*source) for source in resolved}
    return counted if any(found not in (None, resolved[source]) for source, found in counted.items()) else {}


def _files(arms: Iterable[Arm]) -> dict[tuple[str | None, ...], None]:
    """What `files_of` these arms tells apart, without those that name no file."""
    return dict.fromkeys(files for arm in arms if arm.config is not None and any(files := files_of(arm.values)))


# ---- arms --------------------------------------------------------------------------------------

_FOLLOWERS: dict[str, set[str]] = {
    "train.recipe": {key for key in KEYS if key.startswith("train.")} | {"model.zero_init_gamma"},
    "train.schedule": {"train.milestones", "train.gamma"},
    "train.epochs": {"train.milestones"},
    "data.name": {"data.image_size", "data.root", "data.tier", "data.store", *LISTS},
    "data.tier": {"data.root", "data.store", *LISTS},
    "model.backbone": {"train.pretrained"},
    "model.squeeze": {"train.pretrained"},
}
"""Keys whose defaults follow another key: they may differ where an axis names that one."""
_NEUTRAL = ("data.workers", "train.checkpoint_s", "train.checkpoint_steps")
"""Keys that change no result. The folder of the data is not among them: other data in one arm is no ablation."""


def given(config: Config) -> dict[str, Any]:
    """The values that decide which keys apply, as `why_not` reads them."""
    leading = ("model.backbone", "model.squeeze", "data.name", "data.tier")
    keys = (*leading, "train.recipe", "train.schedule", "train.pretrained")
    return {key: value_of(config, key) for key in keys}


def _unequal(ours: Config, theirs: Config, axes: Sequence[str]) -> list[str]:
    apart = [key for key in KEYS if key not in _NEUTRAL and value_of(ours, key) != value_of(theirs, key)]
    return [
        key
        for key in apart
        if key not in axes
        and not any(axis in axes and axis in apart and key in keys for axis, keys in _FOLLOWERS.items())
        and why_not(key, given(ours)) is None
        and why_not(key, given(theirs)) is None
    ]


def _cell_key(cell: Cell) -> tuple[object, ...]:
    return tuple(token(value) for value in cell.values())


def _resource_key(run: Run) -> object:
    """Equal for runs that ask for the same: two arms may share their cell where an include gives more than axes."""
    train = run.config.train
    return _cell_key(run.cell), train.device, train.world_size, train.threads


def _value(run: Run, axis: str) -> Value:
    return run.config.seed if axis == "seed" else run.cell[axis]


def _shown(value: Value) -> str:
    return (
        {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def _means(text: str, value: Value) -> bool:
    try:
        return token(parse_scalar(text)) == token(value)
    except ValueError:
        return False
