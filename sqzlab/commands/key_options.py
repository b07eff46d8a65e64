"""A study's keys as command-line options: `train.batch_size` is `--batch-size`, `data.name` is `--data`.

They are made from the configuration's own fields, so a new key is an option by existing.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any

from sqzlab.config import KEYS, SECTIONS
from sqzlab.errors import ConfigError, choices
from sqzlab.resolving import Fault
from sqzlab.study.yamlfile import parse_scalar

SHORT = {
    "train.batch_size": ("-b",),
    "train.weight_decay": ("--wd",),
    "data.workers": ("-j",),
}
"""Further names, those of the papers' scripts."""
TITLES = {"model": "network", "data": "data", "train": "training (what is absent here, the recipe sets)"}


def option_of(key: str) -> str:
    """What a user writes for a key."""
    return "--data" if key == "data.name" else "--" + key.rpartition(".")[2].replace("_", "-")


def add_key_options(parser: argparse.ArgumentParser, leave_out: Collection[str] = ()) -> None:
    """An option for every key but some, and `--set KEY=VALUE`."""
    for section, title in TITLES.items():
        group = parser.add_argument_group(title)
        for key in KEYS:
            if key.startswith(f"{section}.") and key not in leave_out:
                _add(group, key)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a study's key, as in train.lr=0.1; repeatable"
    )


def key_values(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Fault]]:
    """What was given, by dotted key, and what is wrong with how it is written."""
    given = [(key, text) for key, text in vars(arguments).items() if key in KEYS]
    faults: list[Fault] = []
    for text in arguments.set:
        key, equals, value = text.partition("=")
        if not equals:
            faults.append((f"--set {text!r}", "has no value; valid: KEY=VALUE"))
        elif key not in KEYS:
            faults.append((f"--set {text!r}", f"unknown key; {choices(KEYS, key)}"))
        else:
            given.append((key, value))
    values: dict[str, Any] = {}
    for key, text in given:
        if key in values:
            faults.append((key, "is given twice"))
            continue
        try:
            values[key] = _parsed(key, text)
        except ValueError as error:
            faults.append((key, str(error)))
    return values, faults


def raise_any(faults: Iterable[Fault]) -> None:
    """Raises ConfigError with a line for each fault, its key as the option that it is."""
    lines = [f"{option_of(key) if key in KEYS else key}: {text}" for key, text in faults]
    if lines:
        raise ConfigError(lines)


def _add(group: argparse._ArgumentGroup, key: str) -> None:
    schema, kinds = _schema(key), _kinds(key)
    names = next((part["enum"] for part in (schema, *schema.get("anyOf", ())) if "enum" in part), None)
    told = [schema.get("description", ""), f"valid: {', '.join(names)}" if names else ""]
    metavar = next(text for kind, text in METAVARS.items() if kind in kinds)
    flag: dict[str, Any] = {"nargs": "?", "const": "true"} if "boolean" in kinds else {}
    group.add_argument(
        *SHORT.get(key, ()),
        option_of(key),
        dest=key,
        default=argparse.SUPPRESS,
        metavar="NAME" if names else metavar,
        help="; ".join(filter(None, told)).replace("%", "%%"),
        **flag,
    )


METAVARS = {"boolean": "true|false", "array": "N,N,...", "integer": "N", "number": "X", "string": "PATH"}


def _parsed(key: str, text: str) -> Any:
    """The value that the text means. Raises ValueError."""
    kinds = _kinds(key)
    if "string" in kinds:
        return text
    if "array" in kinds and text.strip() != "null":
        return [parse_scalar(part.strip()) for part in text.strip(" []").split(",")]
    return parse_scalar(text.strip())


def _kinds(key: str) -> set[str]:
    schema = _schema(key)
    return {part["type"] for part in schema.get("anyOf", (schema,))}


def _schema(key: str) -> Mapping[str, Any]:
    section, _, name = key.partition(".")
    properties: Mapping[str, Any] = _section_schema(section)
    found: Mapping[str, Any] = properties[name]
    return found


@cache
def _section_schema(section: str) -> dict[str, Any]:
    properties: dict[str, Any] = SECTIONS[section].model_json_schema()["properties"]
    return properties
