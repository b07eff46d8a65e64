"""What a run leaves of the error that ended it."""

from __future__ import annotations

import socket
import traceback
from datetime import UTC, datetime
from typing import Any


def failure(error: BaseException) -> dict[str, Any]:
    """The contents of failure.json, to be called where the error is handled."""
    return {
        "error": told(error),
        "traceback": traceback.format_exc(),
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "host": socket.gethostname(),
    }


def told(error: BaseException) -> str:
    """The error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
