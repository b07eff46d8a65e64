import hashlib
import json
import os
import re
import subprocess
import sys
import xml.dom.minidom
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from sqzlab.analysis.cli import analyse
from sqzlab.analysis.published import read_published
from sqzlab.analysis.records import read_study
from sqzlab.analysis.report import make_report, write_report

ROOT = Path(__file__).parents[2]
MakeStudy = Callable[..., Path]
BOTH = {"model.backbone": ["resnet18", "resnet34"], "model.squeeze": ["baseline", "gap", "SP"]}


def report_of(folder: Path) -> Path:
    return analyse(folder, Console(quiet=True))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_a_report_has_tables_figures_and_a_page(make_study: MakeStudy) -> None:
    page = report_of(make_study())
    names = {path.name for path in page.parent.iterdir()}
    forms = ("squeeze", "full", "error", "images", "precision", "more_seeds", "published")
    tables = {f"{name}.{kind}" for name in forms for kind in ("md", "tex", "csv")}
    drawn = {f"{name}.{kind}" for name in ("gain", "seeds", "pareto", "curves") for kind in ("svg", "png", "pdf")}
    assert names == tables | drawn | {"index.html"}


def test_two_processes_write_the_same_bytes(make_study: MakeStudy, begin: Callable[..., Path]) -> None:
    folder = make_study(matrix=BOTH, states={"resnet34-SP": "missing"})
    begin(folder, "resnet34-SP-s0", epoch=3)
    begin(folder, "resnet34-SP-s1", epoch=3, alive=False)
    written = []
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "TZ": f"UTC-{hash_seed}", "PYTHONPATH": str(ROOT)}
        subprocess.run(
            [sys.executable, str(ROOT / "analyze.py"), str(folder)],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        written.append(digests(folder / "report"))
    assert written[0] == written[1]


def test_the_page_needs_nothing_else_and_is_well_formed(make_study: MakeStudy) -> None:
    text = report_of(make_study(matrix=BOTH)).read_text()
    assert not re.search(r'(?:src|href)="(?:https?:)?//|@import|url\((?!#)', text)
    assert "default-src 'none'" in text
    assert len(re.findall("<script", text)) == 2
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) == 4
    ids: list[str] = []
    for drawing in drawings:
        xml.dom.minidom.parseString(drawing)
        ids += re.findall(r'\bid="([^"]+)"', drawing)
        assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', drawing)) <= {
            pair for name in ids for pair in ((name, ""), ("", name))
        }
    assert len(ids) == len(set(ids))


def test_fonts_are_embedded_as_outlines_that_print(make_study: MakeStudy) -> None:
    folder = report_of(make_study()).parent
    for path in folder.glob("*.pdf"):
        content = path.read_bytes()
        assert b"/FontFile2" in content
        assert b"/Type3" not in content
        assert b"CreationDate" not in content


def test_warnings_come_before_the_tables(make_study: MakeStudy) -> None:
    text = report_of(make_study(states={"resnet18-SP": "failed"})).read_text()
    assert text.index("14 of 16 runs are done") < text.index("<table")
    assert "loss is nan at step 12" in text


def test_what_a_file_says_cannot_become_part_of_the_page(make_study: MakeStudy) -> None:
    folder = make_study(states={"resnet18-SP": "failed"})
    for path in folder.glob("resnet18-SP*/failure.json"):
        path.write_text(json.dumps({"error": "<script>alert(1)</script>"}))
    text = report_of(folder).read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_a_study_too_wide_for_figures_says_so_and_keeps_its_tables(make_study: MakeStudy) -> None:
    folder = make_study(matrix={"model.squeeze": ["baseline", "gap"], "model.reduction": range(1, 40)}, seeds=[0])
    page = report_of(folder)
    assert "cannot be told apart" in page.read_text()
    assert not list(page.parent.glob("*.png"))


def test_files_of_an_earlier_report_do_not_outlive_it_and_others_stay(make_study: MakeStudy) -> None:
    folder = make_study()
    page = report_of(folder)
    for path in folder.glob("*/metrics.json"):
        path.unlink()
    for name in ("cost.svg", "images.tex", "more_seeds.md", "notes.txt"):
        (page.parent / name).touch()
    report_of(folder)
    assert not list(page.parent.glob("*.svg"))
    assert not (page.parent / "images.tex").exists()
    assert not (page.parent / "more_seeds.md").exists()
    assert (page.parent / "notes.txt").exists()  # not ours
    assert "no run has finished" in page.read_text()


def test_a_report_that_cannot_be_written_leaves_the_former_one_whole(make_study: MakeStudy) -> None:
    folder = make_study()
    page = report_of(folder)
    before = digests(page.parent)
    report = make_report(make_study("results/other", seeds=[0]), ())
    (page.parent / "squeeze.md").unlink()
    (page.parent / "squeeze.md").mkdir()
    (page.parent / "squeeze.md" / "occupied").touch()
    target = replace(report, records=read_study(folder))
    with pytest.raises(OSError, match="irectory"):
        write_report(target)
    (page.parent / "squeeze.md" / "occupied").unlink()
    (page.parent / "squeeze.md").rmdir()
    after = digests(page.parent)
    assert after == {name: digest for name, digest in before.items() if name != "squeeze.md"}


def test_an_error_of_zero_keeps_the_axis_linear(make_study: MakeStudy) -> None:
    folder = make_study(epochs=3)
    for path in folder.glob("resnet18-gap*/epochs.jsonl"):
        lines = [json.loads(line) | {"top1": 1.0} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = make_report(folder, read_published(ROOT / "results" / "published.csv"))
    assert report.figures["curves.svg"]


def test_a_study_that_runs_is_reported_at_once_and_as_unfinished(
    make_study: MakeStudy, begin: Callable[..., Path]
) -> None:
    folder = make_study(states={"resnet18-SP": "missing", "resnet18-RG": "missing"})
    begin(folder, "resnet18-SP-s0", epoch=2)
    text = report_of(folder).read_text()
    assert "Still running: 12 of 16 runs done, 1 in progress (epoch 3 of 8), 3 not started" in text
    assert "So far, " in text
    assert "<td>in progress, epoch 3 of 8</td>" in text


def test_a_study_of_many_runs_says_how_to_see_those_without_a_page(make_study: MakeStudy) -> None:
    folder = make_study(matrix={"model.squeeze": ["baseline", "gap"]}, seeds=range(260))
    text = report_of(folder).read_text()
    assert "420 runs have no page of their own here" in text
    assert "--explain ARM" in text
    assert text.count('href="#run-') == 100
    assert len(text) < 15e6


def test_the_correction_is_the_one_asked_for(make_study: MakeStudy) -> None:
    report = make_report(make_study(), (), correction="holm")
    assert {group.correction for group in report.groups} == {"holm"}
