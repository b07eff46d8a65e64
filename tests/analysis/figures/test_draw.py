from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
import xml.dom.minidom
from collections.abc import Callable
from pathlib import Path

import pytest
from drawn_gates import gates_of
from drawn_studies import groups_of, squeezes

from sqzlab.analysis import figure_list, figures
from sqzlab.analysis.arms import group_arms
from sqzlab.analysis.curves import load_curves
from sqzlab.analysis.figures.pareto import accuracy_against_cost
from sqzlab.analysis.gates import blocks_table
from sqzlab.analysis.records import read_study
from sqzlab.analysis.writers import to_csv
from sqzlab.catalog import SQUEEZES

ROOT = Path(__file__).parents[3]
MATRIX = {
    "model.backbone": ["resnet18", "resnet34"],
    "model.squeeze": ["baseline", "gap"],
    "model.reduction": [4, 8],
}
NAMES = ("gain", "seeds", "pareto", "curves", "sweep-reduction", "excitation")
DIGESTS = """
import hashlib, sys
from pathlib import Path
from sqzlab.analysis import figure_list, figures
from sqzlab.analysis.arms import group_arms
from sqzlab.analysis.curves import load_curves
from sqzlab.analysis.records import read_study
folder = Path(sys.argv[1])
groups = group_arms(read_study(folder))
drawn = figures.draw(groups, load_curves(folder, figure_list.curve_runs(groups))[0], folder)
for name in sorted(drawn):
    print(name, hashlib.sha256(drawn[name]).hexdigest())
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, study_writer: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "a-study"
    study_writer(folder, matrix=MATRIX, states={"resnet34-gap": "missing"})
    (folder / "excitation").mkdir()
    (folder / "excitation" / "excitation.csv").write_text(to_csv(blocks_table([gates_of()])))
    return folder


@pytest.fixture(scope="module")
def drawn(study: Path) -> dict[str, bytes]:
    groups = group_arms(read_study(study))
    return figures.draw(groups, load_curves(study, figure_list.curve_runs(groups))[0], study)


def test_every_figure_is_drawn_in_every_format(drawn: dict[str, bytes]) -> None:
    assert set(drawn) == {f"{name}.{kind}" for name in NAMES for kind in ("svg", "png", "pdf")}


def test_two_processes_draw_the_same_bytes(drawn: dict[str, bytes], study: Path, tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("font.size: 20\nsvg.hashsalt: other\nlines.linewidth: 9\n")
    own = {"PYTHONHASHSEED": "7", "TZ": "UTC-5", "PYTHONPATH": str(ROOT), "MATPLOTLIBRC": str(tmp_path)}
    command = [sys.executable, "-c", DIGESTS, str(study)]
    said = subprocess.run(command, env=os.environ | own, check=True, capture_output=True, text=True)
    assert said.stdout.splitlines() == [f"{name} {hashlib.sha256(drawn[name]).hexdigest()}" for name in sorted(drawn)]


def test_fonts_are_embedded_as_outlines_that_print(drawn: dict[str, bytes]) -> None:
    for name in NAMES:
        content = drawn[f"{name}.pdf"]
        assert b"/FontFile2" in content
        assert b"/Type3" not in content
        assert b"CreationDate" not in content


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_well_formed_and_as_wide_as_a_text_column(drawn: dict[str, bytes], name: str) -> None:
    root = xml.dom.minidom.parseString(drawn[f"{name}.svg"]).documentElement
    assert root is not None
    assert root.getAttribute("width") == "504pt"
    assert b"<dc:date>" not in drawn[f"{name}.svg"]


def test_all_that_is_drawn_has_a_title_and_a_caption_in_the_order_of_reading(drawn: dict[str, bytes]) -> None:
    told = figure_list.described(drawn)
    assert tuple(name for name, _, _ in told) == NAMES
    assert all(title and caption.endswith(".") for _, title, caption in told)
    assert dict((name, title) for name, title, _ in told)["sweep-reduction"] == "Accuracy by reduction"


def test_files_of_this_and_of_earlier_versions_are_known() -> None:
    files = ("gain.svg", "cost.pdf", "sweep-width_rule.png", "excitation.png", "gain.csv", "mine.svg", "index.html")
    assert [figure_list.is_figure(file) for file in files] == [True] * 4 + [False] * 3


def test_two_axes_that_end_alike_have_two_figures() -> None:
    cells = [({"model.squeeze": "gap", "data.name": name, "model.name": name}, [0.9]) for name in ("a", "b")]
    curves = load_curves(Path(), [])[0]
    assert {"sweep-data.name.svg", "sweep-model.name.svg"} <= set(figures.draw(groups_of(cells), curves))


def test_damaged_gates_are_named_in_the_place_of_their_figure(tmp_path: Path) -> None:
    (tmp_path / "excitation").mkdir()
    (tmp_path / "excitation" / "excitation.csv").write_text("")
    (ax,) = figures._excitation(tmp_path).axes
    assert ax.texts[0].get_text() == "not drawn: excitation.csv: no table of recorded gates, or damaged"


def test_too_many_arms_and_no_result_at_all_are_reasons_not_to_draw() -> None:
    every = {squeeze: [0.9] for squeeze in SQUEEZES}
    assert figure_list.why_not_drawn(groups_of(squeezes(**every))) is None
    many = [({"model.squeeze": "gap", "model.reduction": i}, [0.9]) for i in range(1, 40)]
    assert "39 arms in 1 groups cannot be told apart" in str(figure_list.why_not_drawn(groups_of(many)))
    nothing = groups_of(squeezes(gap=["missing"]))
    assert figure_list.why_not_drawn(nothing) == "figures are not drawn: no run has finished"


def test_a_frame_of_every_squeeze_is_drawn_without_two_names_that_touch(make_study: Callable[..., Path]) -> None:
    groups = group_arms(read_study(make_study(matrix={"model.squeeze": list(SQUEEZES)}, seeds=[0], epochs=2)))
    figure = accuracy_against_cost(groups)
    figure.draw_without_rendering()
    names = [text for text in figure.axes[1].texts if text.get_text() in SQUEEZES]
    boxes = sorted((name.get_window_extent() for name in names), key=lambda box: box.y0)
    assert len(boxes) == len(SQUEEZES)
    assert all(below.y1 <= above.y0 + 1 for below, above in itertools.pairwise(boxes))
