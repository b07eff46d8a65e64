"""How a table is set in LaTeX so that it fits a page: in one column of it or both, in which size, broken where.

Widths are estimates for Computer Modern, on the safe side; the page is that of `\\documentclass[twocolumn]{article}`,
whose columns are narrower than those of IEEE or ACM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqzlab.analysis.tables import Entry, Table


@dataclass(frozen=True)
class Layout:
    """`letter` and `line` are what 10 pt letters and 12 pt lines become in this size; `gap` is \\tabcolsep, in pt."""

    wide: bool  # over both columns of the page
    size: str  # "" for that of the text
    letter: float
    line: float
    gap: float
    broken: bool  # whether a head that is wider than its cells stands in two lines
    parts: Mapping[int, float] = field(default_factory=dict)  # column to its part of the line, where its text is broken
    apart: bool = False  # whether all but the caption's first sentence stands after the float, to make it less tall

    @property
    def room(self) -> float:
        return PAGE_WIDTH if self.wide else COLUMN_WIDTH


def lay_out(table: Table) -> Layout:
    """The first of LAYOUTS in which the table fits; where it is too wide for all, its texts are broken too.

    Where it is too tall for all, caption and notes stand after the float; rows of more than a page stay one float.
    """
    cells = [cells_width(_column(table, i)) for i in range(len(table.columns))]
    fitting = [layout for layout in LAYOUTS if _width(table, cells, layout) <= layout.room]
    fitting = fitting or [_with_broken_texts(table, cells)]
    fitting += [replace(layout, apart=True) for layout in fitting]
    return next((layout for layout in fitting if _height(table, layout) <= PAGE_HEIGHT), fitting[-1])


def head_lines(title: str, broken: bool, cells: float = 0.0) -> tuple[str, ...]:
    """The head in one line, or in the two that are narrowest, where it is wider than its cells."""
    words = title.split()
    if not broken or len(words) < 2 or text_width(title) <= cells:
        return (title,)
    halves = [(" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words))]
    return min(halves, key=lambda lines: max(map(text_width, lines)))


def cells_width(entries: Sequence[Entry]) -> float:
    """Of the widest cell of a column, in pt at 10 pt; means and spreads are aligned each for itself."""
    split = [entry for entry in entries if entry.spread is not None]
    whole = max((_entry_width(entry) for entry in entries if entry.spread is None), default=0.0)
    if not split:
        return whole
    first = max(text_width(entry.text, entry.bold) for entry in split)
    second = max(text_width(entry.spread or "", entry.bold) + _marks_width(entry) for entry in split)
    return max(whole, first + text_width(f" {split[0].joint} ") + second)


@lru_cache(32_768)  # most texts of a table stand in others too
def text_width(text: str, bold: bool = False) -> float:
    """In pt at 10 pt."""
    return sum(map(_sign_width, text)) * (BOLD if bold else 1)


def _entry_width(entry: Entry) -> float:
    return text_width(entry.text, entry.bold) + _marks_width(entry)


def _marks_width(entry: Entry) -> float:
    return RAISED * text_width(entry.marks) if entry.marks else 0.0


@cache
def _sign_width(sign: str) -> float:
    return next((width for signs, width in WIDTHS.items() if sign in signs), 7.4 if sign.isupper() else 5.5)


def _column(table: Table, index: int) -> list[Entry]:
    return [row[index] for section in table.sections for row in section.rows]


def _width(table: Table, cells: Sequence[float], layout: Layout) -> float:
    """In pt, as the table is set; `cells` are the columns' `cells_width`."""
    total = sum(_column_width(table, i, cells[i], layout) for i in range(len(cells)))
    titles = max((text_width(section.title) for section in table.sections), default=0.0) * layout.letter
    return max(total, titles) + 2 * layout.gap * len(table.columns)


def _column_width(table: Table, index: int, cells: float, layout: Layout) -> float:
    if index in layout.parts:
        return layout.parts[index] * layout.room
    head = max(map(text_width, head_lines(table.columns[index].title, layout.broken, cells)))
    return max(cells, head) * layout.letter


def _height(table: Table, layout: Layout) -> float:
    """In pt, with what stands in the float of caption and notes."""
    lines = 3 + sum(1.6 + sum(_lines(row, layout) for row in section.rows) for section in table.sections)
    if layout.apart:
        return lines * layout.line + 24
    caption = 12 * (2 + text_width(table.caption) // layout.room)
    notes = sum(9.5 * (1 + 0.87 * text_width(text) // layout.room) for _, text in table.notes)
    return lines * layout.line + caption + notes


def _lines(row: Sequence[Entry], layout: Layout) -> int:
    """Of a row: a third of a broken text's line may stay empty."""
    if not layout.parts:
        return 1
    widths = [(1.4 * text_width(row[i].text) * layout.letter, part * layout.room) for i, part in layout.parts.items()]
    return max((1 + int(text / room) for text, room in widths), default=1)


def _with_broken_texts(table: Table, cells: Sequence[float]) -> Layout:
    """The widest texts share what the numbers leave of the line; the smaller size only where that is too little."""
    texts = [
        i
        for i, column in enumerate(table.columns)
        if not column.number and all(entry.spread is None for entry in _column(table, i))
    ]
    for layout in BROKEN:
        natural = {i: _column_width(table, i, cells[i], layout) for i in texts}
        numbers = sum(_column_width(table, i, cells[i], layout) for i in range(len(cells)) if i not in natural)
        left = layout.room - numbers - 2 * layout.gap * len(cells)
        shares: dict[int, float] = {}
        for i in sorted(texts, key=natural.__getitem__):
            shares[i] = min(natural[i], max(0.0, left) / (len(texts) - len(shares)))
            left -= shares[i]
        parts = {i: max(LEAST, int(100 * shares[i] / layout.room) / 100) for i in texts if shares[i] < natural[i]}
        found = replace(layout, parts=parts)
        if _width(table, cells, found) <= layout.room:
            break
    return found


COLUMN_WIDTH, PAGE_WIDTH, PAGE_HEIGHT = 229.0, 468.0, 550.0  # pt
SMALL, TINY = ("footnotesize", 0.85, 9.5), ("scriptsize", 0.8, 8.0)  # small letters are wider than their size says
LAYOUTS = (
    Layout(False, "", 1.0, 12.0, 6.0, broken=False),
    *(Layout(False, *SMALL, gap, broken) for gap, broken in ((4.0, False), (4.0, True), (3.0, True))),
    *(Layout(True, *SMALL, gap, broken) for gap, broken in ((6.0, False), (4.0, True), (3.0, True))),
    Layout(True, *TINY, 2.0, broken=True),
)
BROKEN = LAYOUTS[-2:]
LEAST = 0.08  # of the line: some ten letters
BOLD, RAISED = 1.16, 0.75
WIDTHS = {
    **{"ijl.,:;!|'[]I": 2.8, "f- ": 3.4, "rst()": 3.95, "cez": 4.5, "0123456789/_aog": 5.0},
    **{"m%#": 8.4, "w": 7.3, "+−<>±×=@&→≈": 7.8, "MW–—": 10.0},
}
