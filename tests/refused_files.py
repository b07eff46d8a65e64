"""What is said of files of weights that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqzlab.errors import ConfigError
from sqzlab.networks.files import read_weights


def told(path: Path, read: Callable[[Path], Any] = read_weights) -> str:
    """The one line about a file that cannot be read."""
    with pytest.raises(ConfigError) as caught:
        read(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")
