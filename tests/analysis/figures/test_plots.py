from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from drawn_gates import gates_of
from drawn_studies import frame_of, groups_of, squeezes, texts
from matplotlib.figure import Figure

from sqzlab.analysis import figures
from sqzlab.analysis.curves import load_curves
from sqzlab.analysis.gates import blocks_table
from sqzlab.analysis.records import load_records
from sqzlab.analysis.writers import to_csv
from sqzlab.errors import ConfigError

FRAME = frame_of(squeezes(baseline=[0.90, 0.91], gap=[0.95, 0.96], SP=[0.93, 0.94]))
NO_CURVES = load_curves(Path(), [])[0]
SWEPT = frame_of([({"model.squeeze": "gap", "model.reduction": r}, [0.9, 0.91]) for r in (2, 4)])
PLOTS: dict[str, Callable[..., Figure]] = {
    "differences": figures.plot_differences,
    "seeds": figures.plot_seeds,
    "pareto": figures.plot_pareto,
}


@pytest.mark.parametrize("name", PLOTS)
def test_a_frame_becomes_a_figure_in_the_projects_style_whatever_a_notebook_has_set(name: str) -> None:
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "black"}):
        figure = PLOTS[name](FRAME)
    assert isinstance(figure, Figure)
    assert figure.get_figwidth() == 7
    ax = figure.axes[0]
    assert ax.get_facecolor() == (1, 1, 1, 1)
    assert {label.get_fontsize() for label in ax.get_xticklabels()} == {7.5}


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_a_saved_figure_is_that_of_the_report_byte_for_byte(tmp_path: Path, kind: str) -> None:
    groups = groups_of(squeezes(baseline=[0.90, 0.91], gap=[0.95, 0.96], SP=[0.93, 0.94]))
    with matplotlib.rc_context({"svg.hashsalt": "other", "savefig.dpi": 50, "pdf.fonttype": 3}):
        figures.plot_seeds(FRAME).savefig(tmp_path / f"seeds.{kind}")
    assert (tmp_path / f"seeds.{kind}").read_bytes() == figures.draw(groups, NO_CURVES)[f"seeds.{kind}"]


def test_a_notebook_shows_a_figure_at_its_own_size() -> None:
    png, size = figures.plot_seeds(FRAME)._repr_png_()  # type: ignore[attr-defined]
    assert png.startswith(b"\x89PNG")
    assert size["width"] == 7 * 96


def test_no_figure_needs_pyplot() -> None:
    code = "import sys; from sqzlab.analysis import figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


@pytest.mark.parametrize("baseline", ["gap", {"model.squeeze": "gap"}])
def test_another_baseline_can_be_named(baseline: object) -> None:
    figure = figures.plot_differences(FRAME, baseline)  # type: ignore[arg-type]
    assert figure.axes[0].get_yticklabels()[0].get_text() == "gap"


def test_confidence_and_correction_are_those_of_compare() -> None:
    told = texts(figures.plot_differences(FRAME, confidence=0.9, correction="holm"))
    assert "p < 0.1 (Holm" in told


def test_the_cost_is_macs_or_throughput() -> None:
    assert "MACs" in figures.plot_pareto(FRAME).axes[0].get_xlabel()
    assert "images/s" in figures.plot_pareto(FRAME, cost="images_per_s").axes[0].get_xlabel()


def test_a_sweep_is_drawn_over_the_named_axis() -> None:
    assert figures.plot_sweep(SWEPT, "model.reduction").axes[0].get_xlabel() == "reduction"


def test_curves_come_from_the_folder_of_the_frame_or_from_a_named_one(make_study: Callable[..., Path]) -> None:
    folder = make_study(matrix={"model.squeeze": ["baseline", "gap"]}, epochs=3)
    frame = load_records(folder)
    from_frame = figures.plot_curves(frame)
    named = figures.plot_curves(frame.assign(folder="moved since"), folder=folder)
    for figure in (from_frame, named):
        assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [3, 3]


def test_curves_of_two_studies_come_each_from_its_own_folder(make_study: Callable[..., Path]) -> None:
    squeezes = (("one", ["baseline", "gap"], 3), ("two", ["SP"], 5))
    frames = [load_records(make_study(name, matrix={"model.squeeze": own}, epochs=e)) for name, own, e in squeezes]
    figure = figures.plot_curves(pd.concat(frames))
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [3, 3, 5]


def test_gates_by_stage_come_from_a_study_or_from_their_own_folder(tmp_path: Path) -> None:
    (tmp_path / "excitation").mkdir()
    (tmp_path / "excitation" / "excitation.csv").write_text(to_csv(blocks_table([gates_of()])))
    for folder in (tmp_path, str(tmp_path / "excitation")):
        assert len(figures.plot_excitation(folder).axes) == 2


MANY = frame_of([({"model.squeeze": "gap", "model.reduction": i}, [0.9]) for i in range(1, 40)])
ABSENT = frame_of(squeezes(gap=["missing"]))
SAME_IDS = frame_of(squeezes(baseline=[0.90], gap=[0.91])).assign(run_id="a-s0", folder=["one", "two"])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: figures.plot_differences(FRAME, "gaps"), "baseline: model.squeeze is never 'gaps'"),
        (lambda: figures.plot_differences(FRAME, correction="tukey"), "correction: 'tukey'"),
        (lambda: figures.plot_seeds(pd.DataFrame({"a": [1]})), "frame: without run_id"),
        (lambda: figures.plot_seeds(MANY), "frame: figures are not drawn: 39 arms"),
        (lambda: figures.plot_seeds(ABSENT), "frame: figures are not drawn: no run has finished"),
        (lambda: figures.plot_pareto(FRAME, cost="mac"), "cost: 'mac'; did you mean 'macs'"),
        (lambda: figures.plot_sweep(SWEPT, "reduction"), "axis: 'reduction'; did you mean 'model.reduction'"),
        (lambda: figures.plot_sweep(FRAME, "model.gate"), "axis: 'model.gate'; no axis of this frame has two values"),
        (lambda: figures.plot_curves(FRAME), "folder: 'nowhere' is not there"),
        (lambda: figures.plot_curves(FRAME, folder="other"), "folder: 'other' is not there"),
        (lambda: figures.plot_curves(SAME_IDS), "frame: a-s0 is in 'one' and in 'two'; valid"),
        (lambda: figures.plot_excitation("nowhere"), "nowhere: no recorded gates"),
    ],
)
def test_an_argument_that_is_not_valid_is_told_in_one_line(call: Callable[[], Figure], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        call()
    assert said in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
