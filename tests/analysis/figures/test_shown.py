from __future__ import annotations

import hashlib
import io
import struct
from pathlib import Path

import matplotlib as mpl
import pytest

from sqzlab import load_records, plot_seeds
from sqzlab.analysis.figures.shown import ShownFigure

STUDY = Path(__file__).parents[3] / "results/squeeze_ablation-laptop"


@pytest.fixture
def figure() -> ShownFigure:
    drawn = plot_seeds(load_records(STUDY))
    assert isinstance(drawn, ShownFigure)
    return drawn


def test_a_notebook_gets_an_image_of_twice_the_pixels_that_it_takes_on_the_screen(figure: ShownFigure) -> None:
    image, shown = figure._repr_png_()
    width, height = struct.unpack(">II", image[16:24])
    assert (width, height) == pytest.approx((2 * shown["width"], 2 * shown["height"]), abs=2)
    assert 600 <= shown["width"] <= 720


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_what_is_saved_does_not_depend_on_the_settings_of_matplotlib(figure: ShownFigure, kind: str) -> None:
    digests = set()
    for setting in ({}, {"font.family": "serif", "savefig.dpi": 30, "savefig.facecolor": "red", "svg.hashsalt": "x"}):
        file = io.BytesIO()
        with mpl.rc_context(setting):
            figure.savefig(file, format=kind, metadata={"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind))
        digests.add(hashlib.sha256(file.getvalue()).hexdigest())
    assert len(digests) == 1
