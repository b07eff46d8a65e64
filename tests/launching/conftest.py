from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

STUDY = """
matrix:
  model.squeeze: [baseline, gap]
seeds: [0, 1]
baseline: {model.squeeze: baseline}
defaults:
  model: {backbone: resnet18, stem: small, width: 0.125, reduction: 4}
  data: {name: digits}
  train: {recipe: digits, epochs: 2, limit_batches: 2}
"""

Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study file of four runs of a second each."""
    path = tmp_path / "small.yaml"
    path.write_text(STUDY)
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "launch.py"), *map(str, arguments)]


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """Runs launch.py as a user does, at 80 columns, with results in the test's folder."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command("--results", tmp_path / "results", *arguments),
            capture_output=True,
            text=True,
            timeout=600,
            env={**os.environ, "COLUMNS": "80", **environment},
        )

    return run


def run_folders(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/config.json"))


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
