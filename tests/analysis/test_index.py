"""The cache of finished runs: never wrong, and never needed."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from sqzlab.analysis.index import INDEX, LEAST, Index
from sqzlab.analysis.records import load_records, read_study

MakeStudy = Callable[..., Path]


@pytest.fixture
def study(make_study: MakeStudy) -> Path:
    return make_study(matrix={"model.squeeze": ["baseline", "gap"]}, seeds=range(LEAST // 2 + 2), epochs=1)


def some_metrics(study: Path) -> Path:
    return min(study.glob("*/metrics.json"))


def unseen(path: Path, top1: float) -> None:
    """Another accuracy in a file that is the same by size, time and inode."""
    before, text = path.stat(), path.read_text()
    values = json.loads(text) | {"top1": top1}
    path.write_text(json.dumps(values, indent=1).ljust(len(text)))
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_with_and_without_the_index_the_records_are_equal(study: Path) -> None:
    cold = load_records(study)
    assert (study / INDEX).is_file()
    pd.testing.assert_frame_equal(load_records(study), cold)


def test_a_refresh_reads_only_what_is_new(study: Path) -> None:
    run = some_metrics(study)
    text = run.read_text()
    run.unlink()
    load_records(study)
    other = some_metrics(study)
    unseen(other, 0.0)
    run.write_text(text)
    frame = load_records(study).set_index("run_id")
    assert frame.loc[run.parent.name, "top1"] == json.loads(text)["top1"]
    assert frame.loc[other.parent.name, "top1"] > 0, "read again"
    (study / INDEX).unlink()
    assert load_records(study).set_index("run_id").loc[other.parent.name, "top1"] == 0


@pytest.mark.parametrize("name", ["metrics.json", "provenance.json"])
def test_a_file_that_has_changed_is_read_again(study: Path, name: str) -> None:
    load_records(study)
    path = some_metrics(study).with_name(name)
    if name == "metrics.json":
        path.write_text(json.dumps(json.loads(path.read_text()) | {"top1": 0.125}))
        assert load_records(study).set_index("run_id").loc[path.parent.name, "top1"] == 0.125
    else:
        path.write_text("{")
        assert any("provenance.json of 1 run is damaged" in warning for warning in read_study(study).warnings)


def test_a_run_whose_metrics_are_gone_is_missing(study: Path) -> None:
    load_records(study)
    path = some_metrics(study)
    path.unlink()
    assert load_records(study).set_index("run_id").loc[path.parent.name, "state"] == "missing"


@pytest.mark.parametrize("damage", [b"", b"{}", b"no digest\n{}", None], ids=["empty", "old", "other", "cut"])
def test_a_damaged_index_is_ignored(study: Path, damage: bytes | None) -> None:
    cold = load_records(study)
    index = study / INDEX
    index.write_bytes(index.read_bytes()[:-9] if damage is None else damage)
    pd.testing.assert_frame_equal(load_records(study), cold)


def test_a_copied_study_is_read_from_its_files(study: Path, tmp_path: Path) -> None:
    load_records(study)
    path = some_metrics(study)
    text = path.read_text()
    before = path.stat()
    path.unlink()
    (tmp_path / "keeps the inode").touch()
    path.write_text(text.replace("digits", "cifars"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert load_records(study).set_index("run_id").loc[path.parent.name, "data"] == "cifars"


def test_a_small_study_gets_no_index(make_study: MakeStudy) -> None:
    folder = make_study()
    load_records(folder)
    assert not (folder / INDEX).exists()


@pytest.mark.parametrize(
    "values",
    [[1, True, "1", None, 0, False], [0.0, -0.0, 1.5], ["resnet18"], [None], [[{"first_step": 0}], None], [2**63, -1]],
    ids=["alike", "floats", "one text", "nothing", "segments", "counts"],
)
def test_what_a_run_says_comes_back_as_it_was(tmp_path: Path, values: list[object]) -> None:
    runs = [f"run{i}" for i in range(LEAST + 1)]
    said = {run: (values[i % len(values)], i) for i, run in enumerate(runs)}
    for run in runs:
        (tmp_path / run).mkdir()
        (tmp_path / run / "metrics.json").touch()
    index = Index(tmp_path, ("metrics.json", "absent"), lambda folder: said[folder.name])
    assert all(index.read(run) == said[run] for run in runs)
    index.save()
    again = Index(tmp_path, ("metrics.json", "absent"), lambda folder: None)
    assert repr([again.read(run) for run in runs]) == repr(list(said.values())), "types and signs too"


def test_of_a_run_that_is_gone_nothing_is_kept(study: Path) -> None:
    load_records(study)
    run = some_metrics(study).parent
    assert run.name in (study / INDEX).read_text()
    shutil.rmtree(run)
    load_records(study)
    assert run.name not in (study / INDEX).read_text()
