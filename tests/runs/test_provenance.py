from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sqzlab.runs.code import PACKAGE, contents, digest
from sqzlab.runs.files import read_json
from sqzlab.runs.lease import Lease
from sqzlab.runs.provenance import Provenance

SLURM = [name for name in os.environ if name.startswith(("SLURM_", "SLURMD_"))]


@pytest.fixture(autouse=True)
def outside_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SLURM:
        monkeypatch.delenv(name)


def recorded(folder: Path, first_step: int = 0) -> dict[str, Any]:
    lease = Lease.acquire(folder)
    Provenance(lease, first_step)
    lease.release()
    values = read_json(folder / "provenance.json")
    assert values is not None
    return values


def test_a_run_records_its_code_and_every_segment_does(tmp_path: Path) -> None:
    values = recorded(tmp_path)
    (segment,) = values["segments"]
    told = {"code": digest(contents(PACKAGE)), "torch": torch.__version__, "python": platform.python_version()}
    assert told.items() <= values.items()
    assert told.items() <= segment.items()
    assert {key: segment[key] for key in ("git_commit", "git_dirty", "gpu")} == {
        key: values[key] for key in ("git_commit", "git_dirty", "gpu")
    }


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, {"slurm_job": None, "restart": None, "node": None}),
        ({"SLURM_JOB_ID": "12"}, {"slurm_job": "12", "restart": 0, "node": None}),
        (
            {"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3", "SLURMD_NODENAME": "n2"},
            {"slurm_job": "12_3", "restart": 0, "node": "n2"},
        ),
        ({"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "4"}, {"slurm_job": "12", "restart": 4, "node": None}),
    ],
)
def test_a_segment_names_its_job_as_slurm_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], told: dict[str, Any]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert {**told, "world_size": 1}.items() <= recorded(tmp_path)["segments"][0].items()


def test_a_segment_knows_how_many_processes_share_the_run(tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    joined = "d.init_process_group('gloo', sys.argv[1], rank=1, world_size=2); d.barrier(); d.destroy_process_group()"
    code = f"import sys; from torch import distributed as d; {joined}"
    with subprocess.Popen([sys.executable, "-c", code, store]) as other:
        torch.distributed.init_process_group("gloo", store, rank=0, world_size=2)
        try:
            assert recorded(tmp_path)["segments"][0]["world_size"] == 2
            torch.distributed.barrier()
        finally:
            torch.distributed.destroy_process_group()
    assert other.returncode == 0


def test_a_resumed_run_keeps_what_its_earlier_segments_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    recorded(tmp_path)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    first, second = recorded(tmp_path, first_step=7)["segments"]
    assert (first["restart"], second["restart"]) == (0, 1)
    assert (first["why"], second["first_step"]) == ("killed", 7)
