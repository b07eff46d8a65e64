"""What a launch writes before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sqzlab.launching.plan import prepare
from sqzlab.run import Run
from sqzlab.runs.files import read_json
from sqzlab.runs.lease import Lease
from sqzlab.study.study import load_study


@pytest.fixture
def runs(study: Path) -> tuple[Run, ...]:
    return load_study(study).runs


def test_every_run_gets_its_configuration_and_loses_its_former_failure(runs: tuple[Run, ...], tmp_path: Path) -> None:
    folder = tmp_path / runs[1].run_id
    folder.mkdir()
    (folder / "failure.json").write_text("{}")
    (folder / "metrics.json").write_text("{}")
    prepare(runs, tmp_path)
    assert [read_json(tmp_path / run.run_id / "config.json") for run in runs] == [run.to_json() for run in runs]
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_what_is_unchanged_is_not_written_again(runs: tuple[Run, ...], tmp_path: Path) -> None:
    prepare(runs, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/config.json")}
    damaged = tmp_path / runs[0].run_id / "config.json"
    damaged.write_text(json.dumps(runs[0].to_json())[:100])
    prepare(runs, tmp_path)
    assert read_json(damaged) == runs[0].to_json()
    changed = [path for path, stamp in before.items() if path.stat().st_mtime_ns != stamp]
    assert changed == [damaged]


def test_the_folder_of_a_run_at_work_is_left_alone(runs: tuple[Run, ...], tmp_path: Path) -> None:
    folder = tmp_path / runs[0].run_id
    folder.mkdir()
    lease = Lease.acquire(folder)
    (folder / "failure.json").write_text("{}")
    prepare(runs[:1], tmp_path)
    assert (folder / "failure.json").exists()
    assert not (folder / "config.json").exists()
    lease.release()
    prepare(runs[:1], tmp_path)
    assert not (folder / "failure.json").exists()
    assert (folder / "config.json").exists()


def test_a_folder_that_cannot_be_written_is_told(runs: tuple[Run, ...], tmp_path: Path) -> None:
    (tmp_path / runs[2].run_id).write_text("a file where a folder should be")
    with pytest.raises(FileExistsError):
        prepare(runs, tmp_path)
