import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import xml.dom.minidom
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sqzlab.analysis import figures
from sqzlab.analysis.arms import group_arms
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
    tables = {f"{name}.{kind}" for name in ("squeeze", "error", "published") for kind in ("md", "tex", "csv")}
    drawn = {f"{name}.{kind}" for name in ("gain", "curves", "cost") for kind in ("svg", "png", "pdf")}
    assert names == tables | drawn | {"index.html"}


def test_two_processes_write_the_same_bytes(make_study: MakeStudy) -> None:
    folder = make_study(matrix=BOTH, states={"resnet34-SP": "missing"})
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
    assert not re.search(r'(?:src|href)="(?:https?:)?//', text)
    assert "<script" not in text
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) == 3
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
    assert text.index("14 of 16 runs are done") < text.index("<table>")
    assert "loss is nan at step 12" in text


def test_what_a_file_says_cannot_become_part_of_the_page(make_study: MakeStudy) -> None:
    folder = make_study(states={"resnet18-SP": "failed"})
    for path in folder.glob("resnet18-SP*/failure.json"):
        path.write_text(json.dumps({"error": "<script>alert(1)</script>"}))
    text = report_of(folder).read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_arms_without_a_result_are_named_in_the_figures(make_study: MakeStudy) -> None:
    groups = group_arms(read_study(make_study(states={"resnet18-SP": "missing", "resnet18-RG": "failed"})))
    gain = figures.gain_over_baseline(groups).axes[0]
    told = [text.get_text() for text in gain.texts]
    assert told == ["missing", "failed"]
    cost = figures.accuracy_against_cost(groups).axes[0]
    assert any("SP (missing), RG (failed)" in text.get_text() for text in cost.texts)


def test_a_study_too_wide_for_figures_says_so_and_keeps_its_tables(make_study: MakeStudy) -> None:
    folder = make_study(matrix={"model.squeeze": ["baseline", "gap"], "model.reduction": range(1, 40)}, seeds=[0])
    page = report_of(folder)
    assert "cannot be told apart" in page.read_text()
    assert not list(page.parent.glob("*.png"))


def test_figures_of_an_earlier_report_do_not_outlive_it(make_study: MakeStudy) -> None:
    folder = make_study()
    page = report_of(folder)
    for path in folder.glob("*/metrics.json"):
        path.unlink()
    report_of(folder)
    assert not list(page.parent.glob("*.svg"))
    assert "no run has finished" in page.read_text()


def test_a_report_that_cannot_be_written_leaves_the_former_one_whole(make_study: MakeStudy) -> None:
    folder = make_study()
    page = report_of(folder)
    before = digests(page.parent)
    report = make_report(make_study("results/other", seeds=[0]), ())
    (page.parent / "squeeze.md").unlink()
    (page.parent / "squeeze.md").mkdir()
    (page.parent / "squeeze.md" / "occupied").touch()
    target = type(report)(read_study(folder), report.groups, report.tables, (), report.figures, None)
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


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8).map(sorted))
def test_names_at_the_edge_never_touch_and_stay_inside(wanted: list[float]) -> None:
    places = figures._apart(np.array(wanted), 0.1)
    assert len(places) == len(wanted)
    assert all(b - a >= 0.1 - 1e-6 for a, b in itertools.pairwise(places))
    assert places[0] >= -1e-6
    assert places[-1] <= 1 + 1e-6


@pytest.mark.parametrize("name", [name for name in figures.LOOKS])
def test_every_squeeze_has_a_look_of_its_own(name: str) -> None:
    others = [look for other, look in figures.LOOKS.items() if other != name]
    colour, marker = figures.LOOKS[name]
    assert colour not in [look[0] for look in others]
    assert marker not in [look[1] for look in others]
