"""Writes a table as Markdown, LaTeX (booktabs), csv in full precision, or an HTML fragment."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence

from sqzlab.analysis.tables import Entry, Table


def to_markdown(table: Table) -> str:
    """One Markdown table for each section, aligned in the raw text too."""
    parts = []
    for section in table.sections:
        rows = [[_markdown(str(entry)) for entry in row] for row in section.rows]
        titles = [column.title for column in table.columns]
        widths = [max(3, *map(len, cells)) for cells in zip(titles, *rows, strict=True)]
        rule = ["-" * (w - 1) + ":" if c.number else "-" * w for c, w in zip(table.columns, widths, strict=True)]
        lines = [_aligned(table, titles, widths), f"| {' | '.join(rule)} |"]
        lines += [_aligned(table, row, widths) for row in rows]
        parts.append("\n".join([f"**{_markdown(section.title)}**", "", *lines]))
    notes = [f"[{mark}] {_markdown(text)}  " for mark, text in table.notes]
    return "\n\n".join([*parts, _markdown(table.caption), *(["\n".join(notes)] if notes else [])]) + "\n"


def to_latex(table: Table) -> str:
    """A booktabs table; mean and spread are two columns that meet at the plus-minus sign."""
    split = [
        any(row[i].spread is not None for s in table.sections for row in s.rows) for i in range(len(table.columns))
    ]
    kinds = zip(table.columns, split, strict=True)
    spec = "".join(r"r@{ $\pm$ }l" if two else "r" if column.number else "l" for column, two in kinds)
    kinds = zip(table.columns, split, strict=True)
    titles = [rf"\multicolumn{{2}}{{c}}{{{_latex(c.title)}}}" if two else _latex(c.title) for c, two in kinds]
    span = len(table.columns) + sum(split)
    body = [r"\toprule", " & ".join(titles) + r" \\"]
    for section in table.sections:
        body += [r"\midrule", rf"\multicolumn{{{span}}}{{l}}{{\emph{{{_latex(section.title)}}}}} \\"]
        body += [" & ".join(map(_latex_entry, row, split)) + r" \\" for row in section.rows]
    notes = "".join(rf" \textsuperscript{{{mark}}} {_latex(text)}." for mark, text in table.notes)
    lines = [
        *(r"\begin{table}", r"\centering", rf"\caption{{{_latex(table.caption)}{notes}}}"),
        *(rf"\label{{tab:{table.name}}}", rf"\begin{{tabular}}{{{spec}}}"),
        *(*body, r"\bottomrule", r"\end{tabular}", r"\end{table}"),
    ]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """One line for each row of the table's data; an empty field where a figure does not exist."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table.data[0]) if table.data else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: repr(v) if isinstance(v, float) else v for key, v in row.items()} for row in table.data)
    return text.getvalue()


def to_html(table: Table) -> str:
    """A `<table>` with one body for each section, then caption and notes."""
    kinds = [' class="number"' if column.number else "" for column in table.columns]
    head = "".join(f'<th scope="col"{k}>{html.escape(c.title)}</th>' for c, k in zip(table.columns, kinds, strict=True))
    bodies = []
    for section in table.sections:
        title = f'<tr class="section"><th colspan="{len(table.columns)}">{html.escape(section.title)}</th></tr>'
        cells = [
            [f"<td{kind}>{_html_entry(entry)}</td>" for entry, kind in zip(row, kinds, strict=True)]
            for row in section.rows
        ]
        rows = [f"<tr>{''.join(row)}</tr>" for row in cells]
        bodies.append("<tbody>\n" + "\n".join([title, *rows]) + "\n</tbody>")
    notes = "".join(f"<p><sup>{html.escape(mark)}</sup> {html.escape(text)}</p>\n" for mark, text in table.notes)
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n' + "\n".join(bodies) + "\n</table></div>\n"
        f'<div class="caption"><p>{html.escape(table.caption)}</p>\n{notes}</div>'
    )


WRITERS = {"md": to_markdown, "tex": to_latex, "csv": to_csv}


def _aligned(table: Table, cells: Sequence[str], widths: Sequence[int]) -> str:
    columns = zip(table.columns, cells, widths, strict=True)
    return f"| {' | '.join(cell.rjust(w) if column.number else cell.ljust(w) for column, cell, w in columns)} |"


def _markdown(text: str) -> str:
    return "".join(f"\\{sign}" if sign in r"\|*_<>`" else sign for sign in text)


def _latex(text: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in text)


def _latex_entry(entry: Entry, split: bool) -> str:
    marks = rf"\textsuperscript{{{entry.marks}}}" if entry.marks else ""
    if not split:
        return _latex(entry.text) + marks
    if entry.spread is None:
        return rf"\multicolumn{{2}}{{c}}{{{_latex(entry.text)}{marks}}}"
    return f"{_latex(entry.text)} & {_latex(entry.spread)}{marks}"


def _html_entry(entry: Entry) -> str:
    spread = "" if entry.spread is None else f' <span class="spread">± {html.escape(entry.spread)}</span>'
    marks = f"<sup>{html.escape(entry.marks)}</sup>" if entry.marks else ""
    return f"{html.escape(entry.text)}{spread}{marks}"


LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{"±": r"$\pm$", "−": r"$-$", "×": r"$\times$", "²": r"\textsuperscript{2}"},
}
