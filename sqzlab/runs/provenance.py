"""Where a result comes from: code, versions, machine, and every segment in which the run was trained."""

from __future__ import annotations

import os
import platform
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import distributed

from sqzlab.run import PROGRESS, PROVENANCE
from sqzlab.runs.code import origin
from sqzlab.runs.files import read_json
from sqzlab.runs.lease import Lease


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
            **_slurm(),
            "world_size": _world_size(),
            "token": lease.token,
        }
        self.values = {**origin(), **machine(), "segments": [*earlier, self.segment]}
        self.segment |= {key: self.values[key] for key in OF_SEGMENT}
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


def _slurm() -> dict[str, Any]:
    """This process's place in Slurm, all None outside. A requeued job keeps its id and counts its restarts."""
    env = os.environ
    if (job := env.get("SLURM_JOB_ID")) is None:
        return {"slurm_job": None, "restart": None, "node": None}
    if (array := env.get("SLURM_ARRAY_JOB_ID")) is not None and (index := env.get("SLURM_ARRAY_TASK_ID")) is not None:
        job = f"{array}_{index}"
    restart = env.get("SLURM_RESTART_COUNT", "0")
    return {"slurm_job": job, "restart": int(restart), "node": env.get("SLURMD_NODENAME")}


def _world_size() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


OF_SEGMENT = ("git_commit", "git_dirty", "code", "python", "torch", "gpu")  # what may change between segments
