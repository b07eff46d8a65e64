"""Params, MACs and initialisation rules of the networks of a plan, without importing torch here.

A child process measures what the cache does not hold. The cache lies in the user's cache folder, keyed by the
network's configuration, the code that builds it and torchvision's version; it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import sqzlab
from sqzlab.config import ModelConfig
from sqzlab.errors import UnavailableError
from sqzlab.launching.children import python_path
from sqzlab.runs.files import read_json, write_json


@dataclass(frozen=True)
class Cost:
    params: int
    macs: int  # of convolutions and linear layers, one image
    paper_ops: int  # the same with additions and a block's passes, as papers count GFLOPs
    parameters: dict[str, Any]  # name: [shape, rule that draws it]


def measure_all(models: Iterable[ModelConfig]) -> dict[ModelConfig, Cost]:
    """The cost of each distinct network. Raises UnavailableError where torch cannot build them."""
    wanted = dict.fromkeys(models)
    found = {model: known for model in wanted if (known := _cached(model)) is not None}
    missing = [model for model in wanted if model not in found]
    if missing:
        for model, values in zip(missing, _measured_in_child(missing), strict=True):
            found[model] = Cost(**values)
            with suppress(OSError):  # a read-only home only costs time
                path = _path(model)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, values, durable=False)
    return found


def _measured_in_child(models: list[ModelConfig]) -> list[dict[str, Any]]:
    asked = json.dumps([model.model_dump(mode="json") for model in models])
    command = [sys.executable, "-m", "sqzlab.networks.cost"]
    environment = {**os.environ, "PYTHONPATH": python_path()}
    child = subprocess.run(command, input=asked, capture_output=True, text=True, env=environment)
    if child.returncode != 0:
        lines = child.stderr.strip().splitlines() or [f"exit code {child.returncode}"]
        raise UnavailableError(f"the networks cannot be built: {lines[-1]}")
    measured: list[dict[str, Any]] = json.loads(child.stdout)
    return measured


def _cached(model: ModelConfig) -> Cost | None:
    try:
        values = read_json(_path(model))
        return Cost(**values) if values else None
    except (OSError, TypeError):  # TypeError: of another form, such as an older one
        return None


def _path(model: ModelConfig) -> Path:
    text = json.dumps([model.model_dump(mode="json"), _code_digest()], sort_keys=True)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "sqzlab" / "costs" / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


@cache
def _code_digest() -> str:
    """Of everything that decides a network's cost: our code for it and torchvision's version."""
    digest = hashlib.sha256()
    package = Path(sqzlab.__file__).parent
    for path in [package / "catalog.py", *sorted((package / "networks").glob("*.py"))]:
        digest.update(path.read_bytes())
    with suppress(PackageNotFoundError):
        digest.update(version("torchvision").encode())
    return digest.hexdigest()
