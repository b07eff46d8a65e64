from __future__ import annotations

from typing import Any

import pytest
from matplotlib.colors import to_hex

from sqzlab.analysis.figures.looks import LOOKS, OTHER_LOOK
from sqzlab.analysis.figures.throughput import draw, throughput


def row(label: str, median: float | None, **other: Any) -> dict[str, Any]:
    named = {"label": label, "source": "sqzlab", "squeeze": label, "backbone": "resnet50", "form": "plain"}
    speeds = None if median is None else {"median": median, "min": 0.9 * median, "max": 1.2 * median}
    measured = {"mode": "eager", "kind": "training", "images_per_s": speeds, "bound_images_per_s": 100.0}
    return {**named, **measured, **other}


def found(*rows: dict[str, Any]) -> dict[str, Any]:
    settings = {"batch": 4, "size": 64, "precision": "fp32", "rounds": 7}
    return {"settings": settings, "gpu": None, "cpu": "a processor", "threads": 2, "torch": "2.15", "rows": list(rows)}


BOTH = found(
    row("baseline", 50.0),
    row("gap", 40.0),
    row("timm SE", 30.0, source="timm", squeeze="gap"),
    row("baseline", 70.0, kind="inference"),
)


def test_each_kind_has_a_panel_with_its_networks_in_order() -> None:
    axes = throughput(BOTH).axes
    assert [ax.get_title(loc="left") for ax in axes] == ["resnet50, eager, training", "resnet50, eager, inference"]
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["baseline", "gap", "timm SE"]


def test_a_marker_is_a_median_a_bar_reaches_over_the_rounds_and_lines_are_reference_and_bound() -> None:
    lines = throughput(BOTH).axes[0].lines
    bars = [list(line.get_xdata()) for line in lines if line.get_marker() == "None" and line.get_linewidth() > 1]
    assert bars == [pytest.approx([0.9 * speed, 1.2 * speed]) for speed in (50, 40, 30)]
    markers = [
        (float(line.get_xdata()[0]), line.get_marker(), to_hex(line.get_color()).upper()) for line in lines[1:6:2]
    ]
    looks = (LOOKS["baseline"], LOOKS["gap"], OTHER_LOOK)
    assert markers == [(x, marker, colour.upper()) for x, (colour, marker) in zip((50, 40, 30), looks, strict=True)]
    assert [line.get_xdata()[0] for line in lines[6:]] == [50, 100]


def test_equal_measurements_draw_equal_bytes_and_none_draw_nothing() -> None:
    assert draw(BOTH) == draw(BOTH)
    assert set(draw(BOTH)) == {"bench.svg", "bench.png"}
    assert draw(found(row("baseline", None))) == {}
