"""How a child process finds this package, also where it is not installed and whatever folder it starts in."""

from __future__ import annotations

import os
from pathlib import Path

import sqzlab


def python_path() -> str:
    """The PYTHONPATH for it."""
    root = str(Path(sqzlab.__file__).resolve().parents[1])
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
