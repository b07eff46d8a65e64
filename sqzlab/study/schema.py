"""The JSON Schema of a study file, for completion in editors: `experiments/study.schema.json` is its output.

It is built from the sections' own models, so a new key or variant appears in it by existing. It says what may stand
where; what applies to which arm is told by `load_study` alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from sqzlab.config import HOST_KEYS, KEYS, SECTIONS
from sqzlab.study.budget import BUDGET
from sqzlab.study.layout import LIST_KEYS, OVERLAY, SAFE_NAME
from sqzlab.study.slurm import LIMITS, MEMORY, RESOURCES, TIME

Schema = dict[str, Any]


def schema_text() -> str:
    """What `experiments/study.schema.json` holds."""
    return json.dumps(study_schema(), indent=1) + "\n"


def study_schema() -> Schema:
    """JSON Schema 2020-12 of a study file."""
    overlay = {name: {"$ref": f"#/$defs/{name}"} for name in OVERLAY}
    name = {"description": "of the results' folder; the file's name if absent", "type": "string", "pattern": _SAFE}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "study of sqzlab",
        "type": "object",
        "properties": {
            "name": name,
            "description": {"type": "string"},
            **overlay,
            "profiles": {
                "type": ["object", "null"],
                "patternProperties": {_SAFE: {"$ref": "#/$defs/profile"}},
                "additionalProperties": False,
            },
        },
        "additionalProperties": False,
        "anyOf": [{"required": ["matrix"]}, {"required": ["profiles"]}],
        "$defs": {
            **_sections(),
            "profile": {
                "description": "laid over the rest of the file: mappings key by key, lists replaced",
                "type": ["object", "null"],
                "properties": overlay,
                "additionalProperties": False,
            },
            **{key: _value(key) for key in KEYS},
        },
    }


_SAFE = f"^{SAFE_NAME}$"


def _sections() -> Schema:
    axes = [key for key in KEYS if key not in HOST_KEYS and key not in LIST_KEYS]
    return {
        "matrix": {
            **_keyed(axes, lambda value: {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}),
            "description": "axes, each with the list of its values; every combination is an arm",
        },
        "exclude": {
            "description": "combinations that are left out; a part of the axes is enough",
            "type": ["array", "null"],
            "items": {"$ref": "#/$defs/baseline"},
        },
        "include": {
            "description": "keys added to every combination that they agree with, or a combination of their own",
            "type": ["array", "null"],
            "items": {"$ref": "#/$defs/defaults"},
        },
        "seeds": {
            "description": "every arm is run once with each",
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31},
            "minItems": 1,
            "uniqueItems": True,
        },
        "baseline": {
            **_keyed(axes),
            "description": "axis values; as baseline, the arm that differences are taken against",
        },
        "defaults": {**_keyed(KEYS), "description": "values; as defaults, of every arm that they apply to"},
        "slurm": _slurm(axes),
        "budget": {
            "description": "a launch that would need more is refused",
            "type": ["object", "null"],
            "properties": {
                name: {"description": text, "type": "number", "exclusiveMinimum": 0} for name, text in BUDGET.items()
            },
            "additionalProperties": False,
        },
    }


def _keyed(keys: Sequence[str], wrap: Callable[[Schema], Schema] = lambda value: value) -> Schema:
    """A mapping with these keys, dotted or nested."""
    properties: Schema = {key: wrap({"$ref": f"#/$defs/{key}"}) for key in keys}
    for section, cls in SECTIONS.items():
        inner = {key.removeprefix(f"{section}."): properties[key] for key in keys if key.startswith(f"{section}.")}
        properties[section] = {
            "description": cls.__doc__,
            "type": "object",
            "properties": inner,
            "additionalProperties": False,
        }
    return {"type": ["object", "null"], "properties": properties, "additionalProperties": False}


def _value(key: str) -> Schema:
    """One key's own schema, without the default, which may come from the recipe or the data set."""
    section, _, name = key.partition(".")
    schema = SECTIONS[section].model_json_schema()["properties"][name]
    return {name: value for name, value in schema.items() if name not in ("title", "default")}


def _slurm(axes: Sequence[str]) -> Schema:
    kinds: dict[str, Schema] = {
        name: {"type": "integer", "minimum": low, "maximum": high} for name, (low, high) in LIMITS.items()
    }
    kinds["memory"] = {"type": "string", "pattern": f"^{MEMORY}$"}
    kinds["time"] = {"type": "string", "pattern": f"^{TIME}$"}
    resources = {name: {"description": text, **kinds[name]} for name, text in RESOURCES.items()}
    item = {
        "type": "object",
        "properties": {**resources, **_keyed(axes)["properties"]},
        "additionalProperties": False,
        "anyOf": [{"required": [name]} for name in RESOURCES],
        "not": {"propertyNames": {"enum": list(RESOURCES)}},  # names an axis too
    }
    include = {
        "description": "what the arms with these axis values get instead; later ones win",
        "type": ["array", "null"],
        "items": item,
    }
    return {
        "description": "what one job asks of Slurm; partition, account and the like come from --slurm",
        "type": ["object", "null"],
        "properties": {**resources, "include": include},
        "additionalProperties": False,
    }


if __name__ == "__main__":
    print(schema_text(), end="")
