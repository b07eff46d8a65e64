"""The arms of a study: every combination of its matrix with the defaults, resolved to a configuration."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqzlab.catalog import BACKBONES, DATASETS, STORED
from sqzlab.config import HOST_KEYS, SECTIONS, Config, TrainConfig
from sqzlab.recipes import RECIPES
from sqzlab.resolving import resolve, why_not
from sqzlab.run import Value
from sqzlab.study.baseline import counterparts, describe
from sqzlab.study.faults import Faults, Place
from sqzlab.study.layout import Layout
from sqzlab.study.matrix import Combination, expand
from sqzlab.study.slurm import Section, Slurm, Stated, read_slurm, slurm_of
from sqzlab.study.yamlfile import Node

MAX_RUNS = 100_000
MAX_COMPARISONS = 20_000_000  # combinations times the elements of exclude and include
SET = "--set"

Counts = tuple[int, int, int]
"""Classes, training images, validation images."""
DataSource = tuple[Any, ...]
"""The arguments of `fingerprint.count`."""
LISTS = ("data.train_list", "data.val_list")
FILES = (*LISTS, "train.pretrained", "data.store")
"""Keys that name a file or folder whose content is part of a run's identity."""


@dataclass(frozen=True)
class Arm:
    cell: dict[str, Value]
    values: Mapping[str, Any]  # what was given, by dotted key
    config: Config | None  # with the study's first seed; None where it has faults
    slurm: Slurm


@dataclass(frozen=True)
class Expansion:
    """A profile's layout and what is said about it from outside the file."""

    layout: Layout
    faults: Faults
    sound: bool  # false: parts of the file could not be used, so that what seems to be missing is no news
    overrides: Mapping[str, Node] = field(default_factory=dict)
    roots: Mapping[str, str] = field(default_factory=dict)
    counted: Mapping[DataSource, Counts | None] = field(default_factory=dict)
    digests: Mapping[tuple[str | None, ...], Mapping[str, str]] = field(default_factory=dict)

    def arms(self) -> list[Arm]:
        """Every arm in the matrix' order; what is wrong with one is added to the faults."""
        layout, faults = self.layout, self.faults
        section = read_slurm(layout.slurm, faults)
        for key, text in (("matrix", "a mapping of axes"), ("seeds", "a list of whole numbers, such as [0, 1, 2]")):
            if self.sound and not getattr(layout, key):
                faults.add(layout.mark, key, f"is missing; valid: {text}")
        if not layout.matrix or self._is_too_large():
            return []
        combinations = self._combinations()
        told: set[tuple[str, str]] = set()
        arms = [self._arm(combination, section, told) for combination in combinations]
        self._check_distinct(arms, combinations)
        self._check_alike(arms, combinations)
        if self.sound:
            self._check_baseline(arms)
            section.check([arm.cell for arm in arms], layout.matrix, faults)
        return arms

    # ---- combinations --------------------------------------------------------------------------

    def _is_too_large(self) -> bool:
        layout = self.layout
        cells = math.prod(len(_nodes(axis)) for axis in layout.matrix.values())
        runs = (cells + len(layout.include or ())) * len(layout.seeds or (0,))
        listed = layout.slurm["include"].value if "include" in layout.slurm else None
        items = len(layout.exclude or ()) + len(layout.include or ()) + (len(listed) if isinstance(listed, list) else 0)
        place = next(iter(layout.matrix.values())).key_mark
        if runs > MAX_RUNS:
            self.faults.add(place, "matrix", f"makes {runs:,} runs with its seeds; valid: at most {MAX_RUNS:,}")
        elif cells * items > MAX_COMPARISONS:
            text = f"has {cells:,} combinations and {items:,} elements of exclude and include, too many to compare"
            self.faults.add(place, "matrix", f"{text}; valid: a product of at most {MAX_COMPARISONS:,}")
        return runs > MAX_RUNS or cells * items > MAX_COMPARISONS

    def _combinations(self) -> list[Combination]:
        layout, faults = self.layout, self.faults
        exclude = []
        for item in layout.exclude or ():
            foreign = [key for key in item.values if key not in layout.matrix]
            if not foreign:
                exclude.append(item)
            elif self.sound:
                axes = ", ".join(layout.matrix)
                faults.idle(item.mark, "exclude", f"matches nothing: {foreign[0]} is no axis; valid: {axes}")
        matrix = {key: _nodes(axis) for key, axis in layout.matrix.items()}
        combinations, matched = expand(matrix, exclude, layout.include or ())
        for item in exclude:
            if item in matched:
                faults.used(item.mark, "exclude")
            elif self.sound:
                asked = describe({key: node.plain for key, node in item.values.items()})
                faults.idle(
                    item.mark, "exclude", f"matches nothing: no combination has {asked}; valid: values of the matrix"
                )
        if not combinations:
            faults.add(layout.mark, "exclude", "leaves no combination; valid: excludes that leave at least one")
        return combinations

    # ---- one arm -------------------------------------------------------------------------------

    def _arm(self, combination: Combination, section: Section, told: set[tuple[str, str]]) -> Arm:
        """`told` are the faults of this profile that stand at no value of their own."""
        nodes = {**self.layout.defaults, **combination, **self.overrides}
        values = {key: node.plain for key, node in nodes.items()}
        broken = False
        for key, node in nodes.items():
            reason = why_not(key, values)
            if key in combination and key not in self.overrides:
                if reason is not None:
                    broken = True
                    cure = "exclude this combination" if key in self.layout.matrix else "leave it out of this include"
                    self.faults.add(node.mark, key, f"{reason}; {cure}")
            else:
                self._note_default(key, node, reason)
            if reason is not None:
                del values[key]
        for key, node in self.layout.defaults.items():
            if key in combination:
                self.faults.idle(
                    node.mark, key, "applies to no run, as the matrix or every include gives its own; remove it"
                )
            elif key in self.overrides:
                self.faults.used(node.mark, key)
        dataset = DATASETS.get(str(values.get("data.name")))
        if dataset is not None and dataset.needs_root and values["data.name"] in self.roots:
            values.setdefault("data.root", self.roots[values["data.name"]])
        if isinstance(store := values.get("data.store"), str):
            values["data.store"] = os.path.expandvars(store)  # a variable that is not set stays as it is written
        counts = self.counted.get(data_of(values))
        slurm = self._resources(self._stated(section, combination, values, counts), values)
        config = resolve(values, (self.layout.seeds or (0,))[0], counts, self.digests.get(files_of(values)))
        without = not is_stored(values) and not all(values.get(key) for key in LISTS)
        if dataset is DATASETS["imagelist"] and without:
            broken = True
            text = f"'imagelist' needs {' and '.join(LISTS)}; valid: paths of text files, `name label` a line"
            self._report([("data.name", text)], combination, nodes, told)
        if isinstance(config, list):
            self._report(config, combination, nodes, told)
        resolved = config if isinstance(config, Config) and not broken else None
        return Arm(self._cell(combination, values, resolved), values, resolved, slurm)

    def _stated(
        self, section: Section, combination: Combination, values: Mapping[str, Any], counts: Counts | None
    ) -> Stated:
        cell = self._cell(combination, values, None)
        if section.items and not combination.keys() >= cell.keys():
            # What the run has on the other axes; all but the number of processes, which follows from the answer.
            alone = {key: value for key, value in values.items() if key != "train.sync_batch_norm"}
            cell = self._cell(combination, values, resolve(alone, 0, counts))
        return section.of(cell)

    def _resources(self, stated: Stated, values: dict[str, Any]) -> Slurm:
        """What the arm asks for, at least what it needs; gives `values` the world size that follows from its GPUs."""
        slurm, on_gpus = slurm_of(stated), values.get("train.device") == "cuda"
        if on_gpus and slurm.gpus > 1:
            values.setdefault("train.world_size", slurm.gpus)
        world, threads = _count(values, "train.world_size"), _count(values, "train.threads")
        overridden = self.overrides.keys()
        gpus = world if on_gpus else 0
        if "gpus" not in stated or overridden & {"train.device", "train.world_size"}:
            slurm = replace(slurm, gpus=gpus)
        elif on_gpus and slurm.gpus != gpus:
            if slurm.gpus == 0:
                text = f"0 is too few, as train.device is 'cuda'; valid: {gpus}"
            else:
                apart = f"{slurm.gpus} and train.world_size {world} differ, and train.device is 'cuda'"
                text = f"{apart}; valid: the same number for both, or only one of them"
            self.faults.add(stated["gpus"].mark, "slurm.gpus", text)
        runs = slurm.runs_per_job
        if world > 1 and runs > 1:
            why = f"each trains in {world} processes (train.world_size, by default slurm.gpus)"
            text = f"{runs} runs cannot share a job, as {why}; valid: 1"
            self.faults.add(stated["runs_per_job"].mark, "slurm.runs_per_job", text)
        cpus = threads * world * runs
        if "cpus" not in stated or overridden & {"train.device", "train.threads", "train.world_size"}:
            slurm = replace(slurm, cpus=max(cpus, slurm.cpus))
        elif slurm.cpus < cpus:
            times = f" in each of {world} processes" if world > 1 else f" in each of {runs} runs" if runs > 1 else ""
            text = f"{slurm.cpus} is too few, as train.threads is {threads}{times}; valid: {cpus}"
            self.faults.add(stated["cpus"].mark, "slurm.cpus", text)
        return slurm

    def _note_default(self, key: str, node: Node, reason: str | None) -> None:
        place = SET if key in self.overrides else node.mark
        if reason is None:
            self.faults.used(place, key)
        else:
            self.faults.idle(place, key, f"applies to no run: {reason}")

    def _report(
        self,
        found: list[tuple[str, str]],
        combination: Combination,
        nodes: Mapping[str, Node],
        told: set[tuple[str, str]],
    ) -> None:
        for key, text in found:
            if text == "is missing":
                if key not in LEADING.values() or not self.sound:
                    continue  # it comes from the recipe or the data set, which is reported itself
                text = f"is missing; valid: {', '.join(TABLES[key])}"
            if key in nodes:
                self.faults.add(self._place(key, nodes[key]), key, text)
            elif self.sound and (key, text) not in told:
                told.add((key, text))
                leading = LEADING[key.partition(".")[0]]
                partial = len(combination.keys() & self.layout.matrix.keys()) < len(self.layout.matrix)
                own = next(iter(combination.values())).mark if partial else self.layout.mark  # the include's
                self.faults.add(self._place(leading, nodes[leading]) if leading in nodes else own, key, text)

    def _place(self, key: str, node: Node) -> Place:
        return SET if key in self.overrides else node.mark

    def _cell(self, combination: Combination, values: Mapping[str, Any], config: object) -> dict[str, Value]:
        """The matrix' values; on an axis that an include does not name, what the run has."""
        cell: dict[str, Value] = {}
        for axis in self.layout.matrix:
            if axis in combination:
                cell[axis] = combination[axis].plain
            elif isinstance(config, Config):
                cell[axis] = value_of(config, axis)
            else:
                cell[axis] = values.get(axis)
        return cell

    # ---- between arms --------------------------------------------------------------------------

    def _check_distinct(self, arms: list[Arm], combinations: list[Combination]) -> None:
        first: dict[object, int] = {}
        places: set[Place] = set()
        for index, arm in enumerate(arms):
            if arm.config is None:
                continue
            other = first.setdefault(_identity(arm.config), index)
            if other == index:
                continue
            ours, theirs = combinations[index], combinations[other]
            apart = [node for key, node in ours.items() if key not in theirs or theirs[key].token != node.token]
            place = apart[0].mark if apart else self.layout.mark
            if place not in places:
                places.add(place)
                text = f"{describe(arm.cell)} is the same run as {describe(arms[other].cell)}; remove one"
                self.faults.add(place, "matrix", text)

    def _check_alike(self, arms: list[Arm], combinations: list[Combination]) -> None:
        """Sums, and with them results, depend on how a network is computed: a study has one way."""
        for key in ONE_VALUE:
            pairs = zip(arms, combinations, strict=True)
            of = [(value_of(arm.config, key), nodes) for arm, nodes in pairs if arm.config is not None]
            others = [(value, nodes) for value, nodes in of if value != of[0][0]]
            if not others:
                continue
            value, nodes = next(one for one in (*others, *of) if key in one[1])
            beside = others[0][0] if value == of[0][0] else of[0][0]
            text = f"{_written(value)} beside {_written(beside)} in other arms; valid: one value for the whole study"
            self.faults.add(nodes[key].mark, key, text)

    def _check_baseline(self, arms: list[Arm]) -> None:
        layout = self.layout
        baseline = {key: node.plain for key, node in layout.baseline.items()}
        for key, node in layout.baseline.items():
            if key not in layout.matrix:
                self.faults.add(node.key_mark, "baseline", f"{key} is no axis; valid: {', '.join(layout.matrix)}")
        if not baseline or any(key not in layout.matrix for key in baseline):
            return
        found = counterparts(list(layout.matrix), [(arm.cell, arm.values) for arm in arms], baseline)
        missed = [arm for arm, index in zip(arms, found, strict=True) if index is None]
        lacking = [arm.cell for arm in missed if arm.config is not None or len(missed) == len(arms)]
        if lacking:
            others = {key: value for key, value in lacking[0].items() if key not in baseline}
            where = f" beside {describe(others)}" if others and len(lacking) < len(arms) else ""
            text = f"no arm has {describe(baseline)}{where}; valid: values of an arm in the matrix"
            self.faults.add(next(iter(layout.baseline.values())).mark, "baseline", text)


ONE_VALUE = ("train.compile", "train.cuda_graphs", "train.block_form")
"""Keys in which no two runs of a study may differ."""
LEADING = {"model": "model.backbone", "data": "data.name", "train": "train.recipe"}
"""The key of each section that has no default."""
TABLES: dict[str, Iterable[str]] = {"model.backbone": BACKBONES, "data.name": DATASETS, "train.recipe": RECIPES}


def _nodes(axis: Node) -> list[Node]:
    return axis.value if isinstance(axis.value, list) else []


def _written(value: object) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)


def _count(values: Mapping[str, Any], key: str) -> int:
    """A number of `train`, its default where it is absent; 1 where it is wrong, which is reported elsewhere."""
    value = values.get(key, TrainConfig.model_fields[key.removeprefix("train.")].default)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 1


def value_of(config: Config, key: str) -> Any:
    """What the run has at a dotted key."""
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def is_stored(values: Mapping[str, Any]) -> bool:
    """Whether images come from prepared stores, so that nothing else of the data set is needed."""
    return values.get("data.tier") in STORED and bool(values.get("data.store"))


def data_of(values: Mapping[str, Any]) -> DataSource:
    """What its images are counted by: (name, root), with the two lists of a data set that has them, or its stores."""
    name = str(values.get("data.name"))
    if is_stored(values):
        native = DATASETS[name].native_size if name in DATASETS else None
        return (name, None, None, None, values["data.store"], values.get("data.image_size", native))
    lists = [values[key] for key in LISTS] if all(values.get(key) for key in LISTS) else []
    return (name, values.get("data.root"), *lists)


def files_of(values: Mapping[str, Any]) -> tuple[str | None, ...]:
    """The values of FILES."""
    return tuple(values.get(key) for key in FILES)


def _identity(config: Config) -> object:
    """Equal where the runs are the same; without the cost of a digest. A file that was not read stands for itself."""
    data, train = config.data, config.train
    unread = (
        None if data.lists_digest else (data.train_list, data.val_list),
        None if data.store_digest else data.store,
        None if train.pretrained_digest else train.pretrained,
    )
    return unread, tuple(
        value
        for section in SECTIONS
        for name, value in getattr(config, section).__dict__.items()
        if f"{section}.{name}" not in HOST_KEYS
    )
