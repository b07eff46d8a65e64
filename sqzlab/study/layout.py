"""The sections of a study file, each value with its position; which values they may hold is asked of `config`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqzlab.config import COUNTED, HOST_KEYS, KEYS, SECTIONS
from sqzlab.errors import choices
from sqzlab.study.faults import FILE, Faults
from sqzlab.study.matrix import Item
from sqzlab.study.yamlfile import Mark, Node, read_yaml

LIST_KEYS = ("train.milestones", "train.train_sizes", "train.size_milestones")
"""Keys whose value is a list."""
OVERLAY = ("matrix", "exclude", "include", "seeds", "baseline", "defaults", "slurm", "budget")
TOP = ("name", "description", *OVERLAY, "profiles")
SAFE_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}"
"""Safe as a folder's name, a job's name and a command's argument."""
DEFAULT_PROFILE = "imagenet"
"""The profile of a file that has it where none is named; its results carry the study's name alone."""


@dataclass(frozen=True)
class Layout:
    """The sections of the file or of a profile; None where a list is absent."""

    mark: Mark  # where to point at what is missing
    matrix: Mapping[str, Node]  # axis to its list of values
    baseline: Mapping[str, Node]
    defaults: Mapping[str, Node]
    slurm: Mapping[str, Node]
    budget: Mapping[str, Node]
    exclude: tuple[Item, ...] | None
    include: tuple[Item, ...] | None
    seeds: tuple[int, ...] | None

    def under(self, overlay: Layout) -> Layout:
        """This with a profile laid over it: mappings key by key, lists replaced."""
        return Layout(
            mark=overlay.mark,
            matrix={**self.matrix, **overlay.matrix},
            baseline={**self.baseline, **overlay.baseline},
            defaults={**self.defaults, **overlay.defaults},
            slurm={**self.slurm, **overlay.slurm},
            budget={**self.budget, **overlay.budget},
            exclude=self.exclude if overlay.exclude is None else overlay.exclude,
            include=self.include if overlay.include is None else overlay.include,
            seeds=self.seeds if overlay.seeds is None else overlay.seeds,
        )


@dataclass(frozen=True)
class StudyFile:
    """What a file says before anything is expanded."""

    name: str
    base: Layout
    profiles: Mapping[str, Layout]
    profile_nodes: Mapping[str, Node]


def read_study_file(path: Path) -> tuple[StudyFile, Faults]:
    """Raises ConfigError where the file is no readable mapping; every other fault is collected."""
    document = read_yaml(path)
    faults = Faults(str(path))
    for mark, key, text in document.faults:
        dotted = re.search(r"\b(model|data|train)\.?[^.]*$", key)
        faults.add(mark, dotted[0] if dotted else key, text)
    root = document.root
    if not isinstance(root.value, dict):
        faults.add(root.mark, "", f"is not a study; valid: a mapping with the keys {', '.join(TOP)}")
        faults.raise_any([], {})
    top = mapping(root, "the file", faults)
    _known(top, TOP, "", faults)
    profile_nodes = mapping(top.get("profiles"), "profiles", faults)
    for name, node in profile_nodes.items():
        if not re.fullmatch(SAFE_NAME, name):
            faults.add(node.key_mark, "profiles", f"{name!r} is not safe as a folder's name; valid: {_SAFE}")
    profiles = {name: _profile(name, node, faults) for name, node in profile_nodes.items()}
    base = _layout(top, root.mark, faults)
    return StudyFile(_name(path, top.get("name"), faults), base, profiles, profile_nodes), faults


_SAFE = "letters, digits, '.', '_' and '-', not led by '.' or '-', at most 64"


def _name(path: Path, given: Node | None, faults: Faults) -> str:
    name = path.stem if given is None else given.value
    if isinstance(name, str) and re.fullmatch(SAFE_NAME, name):
        return name
    if given is None:
        faults.add(
            FILE, "name", f"{name!r} is not safe as a folder's name; rename the file or give a name; valid: {_SAFE}"
        )
    else:
        faults.add(given.mark, "name", f"{given.plain!r} is not safe as a folder's name; valid: {_SAFE}")
    return "study"


def _profile(name: str, node: Node, faults: Faults) -> Layout:
    overlay = mapping(node, f"profiles.{name}", faults)
    _known(overlay, OVERLAY, f"profiles.{name}.", faults)
    return _layout(overlay, node.key_mark, faults)


def _layout(given: Mapping[str, Node], mark: Mark, faults: Faults) -> Layout:
    baseline = flat(mapping(given.get("baseline"), "baseline", faults), faults)
    defaults = flat(mapping(given.get("defaults"), "defaults", faults), faults)
    return Layout(
        mark=mark,
        matrix=_matrix(given.get("matrix"), faults),
        baseline={key: node for key, node in baseline.items() if is_value(key, node, faults, lists=())},
        defaults={key: node for key, node in defaults.items() if is_value(key, node, faults)},
        slurm=mapping(given.get("slurm"), "slurm", faults),
        budget=mapping(given.get("budget"), "budget", faults),
        exclude=_items(given.get("exclude"), "exclude", faults, lists=()),
        include=_items(given.get("include"), "include", faults),
        seeds=_seeds(given.get("seeds"), faults),
    )


def _matrix(node: Node | None, faults: Faults) -> dict[str, Node]:
    axes = {}
    for key, values in flat(mapping(node, "matrix", faults), faults).items():
        if not isinstance(values.value, list) or not values.value:
            faults.add(values.mark, key, f"{values.plain!r} is no axis; valid: a list of one or more values")
            continue
        if key in HOST_KEYS:
            faults.add(values.key_mark, key, "changes no result and so is no axis; valid: a key of defaults")
            continue
        first: dict[object, Node] = {}
        for value in values.value:
            if not is_value(key, value, faults, lists=()):
                continue
            if value.token in first:
                faults.add(value.mark, key, f"{value.plain!r} repeats a value of this axis")
            first.setdefault(value.token, value)
        axes[key] = Node(list(first.values()), values.mark, values.end, values.key_mark)
    return axes


def _items(
    node: Node | None, section: str, faults: Faults, lists: Iterable[str] = LIST_KEYS
) -> tuple[Item, ...] | None:
    if node is None or node.value is None:
        return None
    if not isinstance(node.value, list):
        faults.add(node.mark, section, "is not a list; valid: a list of mappings, such as - {model.squeeze: gap}")
        return None
    items = []
    for child in node.value:
        values = flat(mapping(child, section, faults), faults)
        if child.size == 1 and (child.value is None or isinstance(child.value, dict)):
            faults.add(child.mark, section, "is empty; valid: a mapping, such as {model.squeeze: gap}")
        kept = {key: value for key, value in values.items() if is_value(key, value, faults, lists)}
        if kept:
            items.append(Item(child.mark, kept))
    return tuple(items)


def _seeds(node: Node | None, faults: Faults) -> tuple[int, ...] | None:
    if node is None:
        return None
    if not isinstance(node.value, list) or not node.value:
        faults.add(node.mark, "seeds", f"{node.plain!r}; valid: a list of whole numbers, such as [0, 1, 2]")
        return None
    seeds: dict[int, None] = {}
    for child in node.value:
        value = child.value
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
            faults.add(child.mark, "seeds", f"{child.plain!r} is no seed; valid: whole numbers from 0 to 2147483647")
        elif value in seeds:
            faults.add(child.mark, "seeds", f"{value!r} repeats; valid: distinct whole numbers")
        else:
            seeds[value] = None
    return tuple(seeds) or None


# ---- mappings and keys -------------------------------------------------------------------------


def mapping(node: Node | None, key: str, faults: Faults) -> dict[str, Node]:
    """The node's entries; nothing where it is absent or left empty."""
    if node is None or node.value is None:
        return {}
    if not isinstance(node.value, dict):
        faults.add(node.mark, key, f"{node.plain!r} is not a mapping; valid: keys with values")
        return {}
    return node.value


def flat(
    given: Mapping[str, Node], faults: Faults, why_unknown: Callable[[str], str | None] | None = None
) -> dict[str, Node]:
    """`{model: {squeeze: gap}}` and `{model.squeeze: gap}` as `{"model.squeeze": ...}`, known keys only."""
    found: dict[str, Node] = {}
    for key, value in given.items():
        if key in SECTIONS and isinstance(value.value, dict):
            inner = {f"{key}.{name}": child for name, child in value.value.items()}
        else:
            inner = {key: value}
        for dotted, child in inner.items():
            if (reason := (why_unknown or unknown)(dotted)) is not None:
                faults.add(child.key_mark, dotted, reason)
            elif dotted in found:
                first = found[dotted].key_mark[0]
                faults.add(child.key_mark, dotted, f"repeated key; it stands on line {first} already, dotted or nested")
            else:
                found[dotted] = child
    return found


def unknown(key: str) -> str | None:
    """Why a study may not set `key`, or None."""
    if key in KEYS:
        return None
    if key in COUNTED:
        return "comes from the data set and cannot be set" + ("; set data.image_size" if "image_size" in key else "")
    if key in ("seed", "seeds"):
        return "does not stand here; valid: the key seeds beside the matrix, such as seeds: [0, 1, 2]"
    section = key.partition(".")[0]
    if key in SECTIONS:
        return f"is a section; write its keys below it; valid: {', '.join(_of(key))}"
    hint = choices(KEYS, key).partition("valid: ")[0]
    if not hint and (same := [known for known in KEYS if known.endswith(f".{key}")]):
        hint = f"did you mean {same[0]!r}? "
    return f"unknown key; {hint}valid: {', '.join(_of(section)) or 'keys of ' + ', '.join(SECTIONS)}"


def _of(section: str) -> list[str]:
    return [key for key in KEYS if key.startswith(f"{section}.")]


def _known(given: Mapping[str, Node], valid: tuple[str, ...], prefix: str, faults: Faults) -> None:
    for key, node in given.items():
        if key not in valid:
            faults.add(node.key_mark, f"{prefix}{key}", f"unknown key; {choices(valid, key)}")


def is_value(key: str, node: Node, faults: Faults, lists: Iterable[str] = LIST_KEYS) -> bool:
    """Whether the node is of a shape that this key takes here: one value, or a list where that is a value."""
    if isinstance(node.value, dict):
        faults.add(node.mark, key, "is a mapping; valid: one value")
    elif isinstance(node.value, list) and key not in lists:
        text = f"{node.plain!r} is a list; valid: one value"
        faults.add(node.mark, key, text + ("; lists stand in defaults or include" if key in LIST_KEYS else ""))
    elif isinstance(node.value, list) and any(isinstance(child.value, list | dict) for child in node.value):
        faults.add(node.mark, key, "is a list of lists or mappings; valid: a list of values")
    else:
        return True
    return False
