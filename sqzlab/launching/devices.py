"""What this machine can run at the same time."""

from __future__ import annotations

import os
import shutil
import subprocess


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> tuple[str, ...]:
    """Names for CUDA_VISIBLE_DEVICES, as the driver lists them; empty where there is no usable GPU."""
    if shutil.which("nvidia-smi") is None:
        return ()
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    present = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")] if listed.returncode == 0 else []
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return tuple(str(index) for index in range(len(present)))
    return tuple(name.strip() for name in allowed.split(",") if name.strip() not in ("", "-1"))[: len(present)]
