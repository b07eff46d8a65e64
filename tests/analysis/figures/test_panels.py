from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import TextPath

from sqzlab.analysis.figures.panels import (
    WIDTH,
    Heads,
    apart,
    edge_height,
    edge_room,
    inches,
    list_names,
    name_ends,
    panels,
    wrapped,
)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8).map(sorted))
def test_names_at_the_edge_never_touch_and_stay_inside(wanted: list[float]) -> None:
    places = apart(np.array(wanted), 0.1)
    assert len(places) == len(wanted)
    assert all(b - a >= 0.1 - 1e-6 for a, b in itertools.pairwise(places))
    assert places[0] >= -1e-6
    assert places[-1] <= 1 + 1e-6


@given(st.text("abcW_ ,", max_size=60).map(str.strip), st.floats(0.3, 2.0))
def test_lines_of_a_name_are_no_wider_than_asked_and_lose_no_letter(text: str, width: float) -> None:
    lines = wrapped(text, width).split("\n")
    assert all(inches(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("text", ["gapXstd, reduction 16", "a_b", "W" * 30])
def test_the_measured_width_is_that_of_the_outlines(text: str) -> None:
    outline = TextPath((0, 0), text, prop=FontProperties(family="DejaVu Sans", size=7.5))
    assert inches(text) == pytest.approx(outline.get_extents().x1 / 72, abs=0.02)


def test_a_space_that_does_not_break_keeps_a_number_and_its_unit_together() -> None:
    assert "95\u00a0%" in wrapped("a bar of 95\u00a0% here", 0.5)


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("long", [True, False])
def test_names_beside_a_panel_neither_touch_nor_leave_the_page(ends: bool, long: bool) -> None:
    names = [wrapped(f"squeeze {i}" + ", placement identity, width_rule divisible8" * long, 1.7) for i in range(24)]
    figure, axes = panels([edge_height(names)], 1, right=edge_room(names))
    ax = axes[0, 0]
    ax.plot([0, 1], [0, 1])
    if ends:
        name_ends(ax, [(1.0, 0.5, name, ("#222222", "o")) for name in names])
    else:
        list_names(ax, [(name, ("#222222", "o")) for name in names])
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.y0)
    assert len(boxes) == 24
    assert all(below.y1 <= above.y0 + 1 for below, above in itertools.pairwise(boxes))
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert boxes[0].y0 >= 0
    assert boxes[-1].y1 <= figure.bbox.y1


def test_a_head_with_many_notes_stays_on_the_page_and_within_its_panel() -> None:
    heads = Heads([("a title that is long " * 6, ["a note that is long " * 12, "", "another"])], 3.0)
    figure, axes = panels([1.0], 1, right=WIDTH - 3.6, head=heads.room)
    heads.write(axes[0, 0], 0)
    figure.draw_without_rendering()
    title = next(text for text in axes[0, 0].findobj(Text) if text.get_text().startswith("a title"))
    above, below = title.get_window_extent(), axes[0, 0].texts[0].get_window_extent()
    assert above.y1 <= figure.bbox.y1
    assert above.y0 >= below.y1 - 2
    assert max(above.x1, below.x1) - above.x0 <= 3.02 * figure.dpi
