"""What a study's folder and Slurm's queue hold, for tests."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqzlab.runs.files import read_json

OF_THE_PLACE = {"train_images_per_s", "time_s", "git_commit", "git_dirty"}


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """Every finished run's metrics without what two places or two moments may differ in."""
    found = {path.parent.name: read_json(path) or {} for path in folder.glob("*/metrics.json")}
    return {name: {k: v for k, v in values.items() if k not in OF_THE_PLACE} for name, values in found.items()}


def batches(folder: Path) -> dict[str, dict[str, Any]]:
    """The intents by array id."""
    return {path.with_name("job_id").read_text(): read_json(path) or {} for path in folder.glob("slurm/*/batch.json")}


def squeue(env: Mapping[str, str], *arguments: str) -> list[str]:
    """Lines of `array_index state` of all jobs."""
    command = ["squeue", "--noheader", "--array", "--format", "%i %T", *arguments]
    said = subprocess.run(command, env={"PATH": "/usr/bin:/bin", **env}, capture_output=True, text=True, check=True)
    return said.stdout.splitlines()


def wait_until(condition: Callable[[], bool], seconds: float, poll_s: float = 0.5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(poll_s)
