"""What this machine can run at the same time."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds a period, or "max"


def cores() -> int:
    """Processors that this process may use: its affinity, or less where a container's quota says so."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = map(int, CPU_QUOTA.read_text().split())
    except (OSError, ValueError):
        return allowed
    return max(1, min(allowed, round(quota / period)))


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
