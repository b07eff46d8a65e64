"""Where a result comes from: code, versions, machine, and every segment in which the run was trained."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torchvision

import sqzlab
from sqzlab.run import PROGRESS, PROVENANCE
from sqzlab.runs.files import read_json
from sqzlab.runs.lease import Lease

LONGEST_DIFF = 200_000  # characters; a longer one is cut and says so


class Provenance:
    """`provenance.json` of one run. Each process that trains it adds a segment."""

    def __init__(self, lease: Lease, first_step: int) -> None:
        self.lease = lease
        earlier = (read_json(lease.folder / PROVENANCE) or {}).get("segments", [])
        if earlier and earlier[-1]["end"] is None:  # it had no chance to say so itself
            reached = read_json(lease.folder / PROGRESS) or {}
            earlier[-1] |= {
                "last_step": max(earlier[-1]["last_step"], reached.get("step", 0)),
                "end": reached.get("updated"),
                "why": "killed",
            }
        self.segment: dict[str, Any] = {
            "first_step": first_step,
            "last_step": first_step,
            "start": timestamp(),
            "end": None,
            "why": None,
            "host": socket.gethostname(),
            "slurm_job": os.environ.get("SLURM_JOB_ID"),
            "token": lease.token,
        }
        self.values = {**code(), **machine(), "segments": [*earlier, self.segment]}
        self.segment |= {key: self.values[key] for key in ("git_commit", "git_dirty", "torch", "gpu")}
        self._write()

    def reached(self, step: int) -> None:
        self.segment["last_step"] = step
        self._write()

    def ended(self, step: int, why: str) -> None:
        self.segment |= {"last_step": step, "end": timestamp(), "why": why}
        self._write()

    def _write(self) -> None:
        self.lease.write_json(PROVENANCE, self.values)


def timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@cache
def code() -> dict[str, Any]:
    """Commit of this package's checkout and what was changed since; None where it is installed without one."""
    diff = _git("diff", "HEAD", "--", ".", ":!results")
    if diff is not None and len(diff) > LONGEST_DIFF:
        diff = f"{diff[:LONGEST_DIFF]}\n[cut: {len(diff)} characters]"
    return {
        "sqzlab": sqzlab.__version__,
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(diff),
        "git_diff": diff or None,
    }


def machine() -> dict[str, Any]:
    cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "host": socket.gethostname(),
        "cpu": _cpu(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "command": " ".join(sys.argv),
    }


def _git(*arguments: str) -> str | None:
    root = Path(sqzlab.__file__).parents[1]
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
