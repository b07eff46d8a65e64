"""A study file from a text, and the lines that a faulty one is answered with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from sqzlab.errors import ConfigError
from sqzlab.study.study import load_study

Write = Callable[[str], Path]
Faults = Callable[..., list[str]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "s.yaml"
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return write


@pytest.fixture
def faults(write: Write) -> Faults:
    """The fault lines of a study file's text, the folder cut off; none if it is valid."""

    def faults(text: str, profile: str | None = None, **given: Any) -> list[str]:
        path = write(text)
        try:
            load_study(path, profile, **given)
        except ConfigError as error:
            return [line.replace(str(path), "s.yaml") for line in error.faults]
        return []

    return faults
