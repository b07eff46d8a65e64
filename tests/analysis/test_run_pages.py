"""What the page of a single run is made of; its folder may hold anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqzlab.analysis.arms import group_arms
from sqzlab.analysis.page import embedded
from sqzlab.analysis.progress import read_progress
from sqzlab.analysis.records import read_study
from sqzlab.analysis.run_pages import run_pages

MakeStudy = Callable[..., Path]
Begin = Callable[..., Path]


def pages(folder: Path, **most: int) -> dict[str, Any]:
    records = read_study(folder)
    found = run_pages(records, group_arms(records), read_progress(records), **most)
    whole: dict[str, Any] = json.loads(embedded(found))
    return whole


def a_run(folder: Path, start: str = "resnet18-gap-s0") -> Path:
    return next(run for run in folder.iterdir() if run.name.startswith(start))


def test_every_run_that_has_begun_has_a_page_in_the_order_of_the_plan(make_study: MakeStudy, begin: Begin) -> None:
    folder = make_study(states={"resnet18-SP": "missing", "resnet18-RG": "failed"})
    begun = begin(folder, "resnet18-SP-s1", epoch=2)
    planned = [run["run_id"] for run in json.loads((folder / "plan.json").read_text())["runs"]]
    found = pages(folder)
    assert list(found) == [run_id for run_id in planned if "SP-s0" not in run_id]
    assert found[begun.name]["state"] == "in progress, epoch 3 of 8"


def test_a_page_has_config_origin_curve_files_and_a_way_back(make_study: MakeStudy) -> None:
    folder = make_study(epochs=5)
    run = a_run(folder)
    segment = {"first_step": 0, "last_step": 300, "why": "done", "host": "node3", "slurm_job": "12_3"}
    told = {"git_commit": "a" * 40, "git_dirty": True, "git_diff": "+a\n-b\n", "python": "3.11.7", "host": "node3"}
    (run / "provenance.json").write_text(json.dumps({**told, "gpu": "H200", "segments": [segment]}))
    page = pages(folder)[run.name]
    assert page["arm"] == ["arm-0-1", "resnet18", "gap"]
    assert page["facts"][0][0] == "Top-1"
    assert ["backbone", "resnet18"] in dict(page["config"])["model"]
    origin = dict(page["origin"])
    assert origin["commit"] == "a" * 40
    assert origin["uncommitted changes"] == "yes"
    assert origin["its changes"].startswith("2 lines")
    assert origin["GPU"] == "H200"
    assert page["segments"]["columns"] == ["first step", "last step", "why it ended", "host", "job"]
    assert page["segments"]["rows"] == [["0", "300", "done", "node3", "12_3"]]
    assert page["epochs"]["epoch"] == [1, 2, 3, 4, 5]
    assert {name for name, _ in page["files"]} >= {"metrics.json", "epochs.jsonl", "provenance.json"}


def test_a_failed_run_shows_its_traceback(make_study: MakeStudy) -> None:
    folder = make_study(states={"resnet18-SP-s0": "failed"})
    page = pages(folder)[a_run(folder, "resnet18-SP-s0").name]
    assert page["failure"]["error"] == "FloatingPointError: loss is nan at step 12"
    assert page["failure"]["traceback"] == "Traceback ..."


def test_a_damaged_run_says_what_is_wrong(make_study: MakeStudy) -> None:
    folder = make_study()
    (a_run(folder) / "metrics.json").write_text("{")
    assert "not whole JSON" in pages(folder)[a_run(folder).name]["failure"]["error"]


def test_the_end_of_the_log_is_its_last_forty_lines_without_control_characters(make_study: MakeStudy) -> None:
    folder = make_study()
    lines = [f"line {i}" for i in range(100)] + ["10 %\r50 %\r100 %", "\x1b[31mred\x1b[0m\x07", "x" * 10_000, "", ""]
    (a_run(folder) / "log.txt").write_bytes("\n".join(lines).encode() + b"\xff\n")
    log = pages(folder)[a_run(folder).name]["log"]["lines"]
    assert log[0] == f"line {100 + 3 + 2 - 40}"
    assert log[-5:] == ["100 %", "red", "x" * 400, "", "\ufffd"]
    assert len(log) == 40


def test_a_run_of_slurm_without_a_log_of_its_own_shows_its_jobs(make_study: MakeStudy) -> None:
    folder = make_study()
    run = a_run(folder)
    (folder / "slurm" / "b1").mkdir(parents=True)
    (folder / "slurm" / "b1" / "12_3_0_log.out").write_text("from the job\n")
    (run / "provenance.json").write_text(json.dumps({"segments": [{"first_step": 0, "slurm_job": "12_3"}]}))
    assert pages(folder)[run.name]["log"] == {"name": "slurm/b1/12_3_0_log.out", "lines": ["from the job"]}


def test_a_study_of_many_runs_keeps_the_page_small_and_what_failed(make_study: MakeStudy) -> None:
    folder = make_study(seeds=range(6), states={"resnet18-RG-s5": "failed"})
    some = pages(folder, most=9)
    assert len(some) == 9
    assert sum("-s0-" in run_id for run_id in some) == 8
    assert any("RG-s5" in run_id for run_id in some)
    assert len(embedded(pages(folder, most_bytes=20_000))) < 20_000


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", "<!--<script>", "\u2028\u2029", "&lt;", "\ud800"]
)
def test_embedded_text_ends_no_script_and_comes_back_as_it_was(text: str) -> None:
    written = embedded({"a": text})
    assert not set(written) & set("<>&\u2028\u2029")
    assert json.loads(written) == {"a": text}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
FILES = ["config.json", "provenance.json", "epochs.jsonl", "failure.json"]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), data=st.data())
def test_whatever_stands_in_its_files_a_run_has_a_page(
    make_study: MakeStudy, begin: Begin, tmp_path: Path, name: str, data: st.DataObject
) -> None:
    folder = tmp_path / "results" / "one"
    if not folder.exists():
        make_study("results/one", seeds=[0], epochs=2, states={"resnet18-SP": "missing", "resnet18-RG": "failed"})
        begin(folder, "resnet18-SP-s0", epoch=1)
    run = a_run(folder, "resnet18-RG" if name == "failure.json" else "resnet18-SP")
    before = (run / name).read_bytes()
    values = json.loads(before.splitlines()[0])
    key = data.draw(st.sampled_from(sorted(values)))
    changed = data.draw(st.sampled_from([values | {key: data.draw(JSON)}, data.draw(JSON)]))
    (run / name).write_text(json.dumps(changed))
    assert run.name in pages(folder)
    (run / name).write_bytes(before)
