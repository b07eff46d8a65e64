import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqzlab.analysis.latex_layout import head_lines, lay_out, text_width
from sqzlab.analysis.tables import Column, Entry, Section, Table
from sqzlab.analysis.writers import to_latex


def of_texts(*widths: int, numbers: int = 0) -> Table:
    """One row with texts of so many letters, then numbers."""
    row = (*(Entry("n" * width) for width in widths), *[Entry("98.56")] * numbers)
    columns = (*[Column("text", False)] * len(widths), *[Column("Top-1 %")] * numbers)
    return Table("widths", "Told.", columns, (Section("all", (row,)),), ())


@pytest.mark.parametrize(
    ("table", "begins", "holds"),
    [
        (of_texts(10), r"\begin{table}", r"\begin{tabular}{l}"),
        (of_texts(10, numbers=5), r"\begin{table}", r"\footnotesize"),
        (of_texts(5, numbers=6), r"\begin{table}", r"{\shortstack{Top-1\\\%}}"),
        (of_texts(10, numbers=9), r"\begin{table*}", r"\footnotesize"),
        (of_texts(60), r"\begin{table*}", r"\begin{tabular}{l}"),
        (of_texts(10, 200), r"\begin{table*}", r"\begin{tabular}{lP{0.8"),
        (of_texts(200, 200, 10), r"\begin{table*}", r"\begin{tabular}{P{0.4"),
    ],
)
def test_a_table_is_as_small_and_broken_as_its_width_asks(table: Table, begins: str, holds: str) -> None:
    text = to_latex(table)
    assert begins in text
    assert holds in text


@given(st.lists(st.integers(1, 120), min_size=1, max_size=6), st.integers(0, 8))
def test_whatever_its_texts_are_a_table_is_laid_out_no_wider_than_the_line(widths: list[int], numbers: int) -> None:
    layout = lay_out(of_texts(*widths, numbers=numbers))
    room = 468 if layout.wide else 229
    texts = [text_width("n" * width) * layout.letter for width in widths]
    texts = [layout.parts[i] * room if i in layout.parts else text for i, text in enumerate(texts)]
    assert sum(texts) + numbers * text_width("98.56") * layout.letter + 2 * layout.gap * (len(texts) + numbers) <= room


@pytest.mark.parametrize(
    ("title", "broken", "cells", "lines"),
    [
        ("p other seeds [a]", True, 0.0, ("p other", "seeds [a]")),
        ("p other seeds [a]", False, 0.0, ("p other seeds [a]",)),
        ("p other seeds [a]", True, 500.0, ("p other seeds [a]",)),
        ("images/s", True, 0.0, ("images/s",)),
    ],
)
def test_a_head_is_broken_only_where_it_is_wider_than_its_cells(
    title: str, broken: bool, cells: float, lines: tuple[str, ...]
) -> None:
    assert head_lines(title, broken, cells) == lines


def test_rows_beyond_a_page_are_no_reason_to_fail() -> None:
    (row,) = of_texts(10, numbers=3).sections[0].rows
    table = Table("tall", "Told.", of_texts(10, numbers=3).columns, (Section("all", (row,) * 500),), ())
    assert lay_out(table).apart
    assert to_latex(table).count("98.56") == 1500
