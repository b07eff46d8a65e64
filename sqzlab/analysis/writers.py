"""Writes a table as Markdown, LaTeX (booktabs and siunitx), csv in full precision, or an HTML fragment.

Any text may stand in a cell, title or caption: each form escapes what would be more than text in it. The tables of a
study of many arms repeat most of their texts, so that what a text becomes is kept.
"""

from __future__ import annotations

import csv
import html
import io
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from sqzlab.analysis.latex_layout import Layout, cells_width, head_lines, lay_out
from sqzlab.analysis.tables import Column, Entry, Table

KEPT = 32_768  # texts of each form


def to_markdown(table: Table) -> str:
    """One Markdown table for each section, aligned in the raw text too."""
    parts = []
    for section in table.sections:
        rows = [[_markdown_entry(entry) for entry in row] for row in section.rows]
        titles = [_markdown(column.title) for column in table.columns]
        widths = [max(3, *map(len, cells)) for cells in zip(titles, *rows, strict=True)]
        rule = ["-" * (w - 1) + ":" if c.number else "-" * w for c, w in zip(table.columns, widths, strict=True)]
        lines = [_aligned(table, titles, widths), f"| {' | '.join(rule)} |"]
        lines += [_aligned(table, row, widths) for row in rows]
        parts.append("\n".join([f"**{_markdown(section.title)}**", "", *lines]))
    notes = [f"[{mark}] {_markdown(text)}  " for mark, text in table.notes]
    return "\n\n".join([*parts, _markdown(table.caption), *(["\n".join(notes)] if notes else [])]) + "\n"


def to_latex(table: Table) -> str:
    r"""A booktabs table whose numbers stand in siunitx's S columns, aligned at the decimal point.

    Mean and spread, or both ends of an interval, are two columns that meet at their sign. Where siunitx is not loaded,
    the same file compiles with array: its numbers are then set as they are and aligned at the right. It stands
    in one or both columns of a page, as `lay_out` estimates its width.
    """
    layout = lay_out(table)
    columns = [
        _LatexColumn(column, [row[i] for section in table.sections for row in section.rows], layout, i)
        for i, column in enumerate(table.columns)
    ]
    span = sum(1 + column.split for column in columns)
    body = [r"\toprule", " & ".join(column.head() for column in columns) + r" \\"]
    for section in table.sections:
        body += [r"\midrule", rf"\multicolumn{{{span}}}{{l}}{{\emph{{{_latex(section.title)}}}}} \\"]
        body += [" & ".join(c.cell(e) for c, e in zip(columns, row, strict=True)) + r" \\" for row in section.rows]
    environment = "table*" if layout.wide else "table"
    size = [rf"\{layout.size}\setlength{{\tabcolsep}}{{{layout.gap:g}pt}}"] if layout.size else []
    short, _, rest = _plain(table.caption).partition(". ")
    name, short, notes = f"tab:{table.name}", _latex(short.removesuffix(".")), _latex_notes(table.notes)
    caption = f"{short}." if layout.apart else _latex(table.caption)
    after = [rf"\begingroup\footnotesize\raggedright\noindent Table~\ref{{{name}}}: {_latex(rest)}\par"]
    after += [*notes, r"\endgroup"]
    below = [r"\par\smallskip", r"\begin{minipage}{\linewidth}\footnotesize\raggedright", *notes, r"\end{minipage}"]
    lines = [
        LATEX_NEEDS,
        *(rf"\begin{{{environment}}}", r"\centering", *LATEX_SETUP),
        *(rf"\caption[{{{short}}}]{{{caption}}}", rf"\label{{{name}}}", *size),
        *(rf"\begin{{tabular}}{{{''.join(c.spec() for c in columns)}}}", *body, r"\bottomrule", r"\end{tabular}"),
        *(below if notes and not layout.apart else []),
        *(rf"\end{{{environment}}}", *(after if layout.apart else [])),
    ]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """One line for each row of the table's data; an empty field where a figure does not exist."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = list(table.data[0]) if table.data else []
    writer.writerow(keys)
    writer.writerows([row[key] for key in keys] for row in table.data)
    return text.getvalue()


def to_html(table: Table) -> str:
    """A `<table>` with one body for each section, then caption and notes; `data-value` is what a cell sorts by."""
    kinds = [' class="number"' if column.number else "" for column in table.columns]
    head = "".join(f'<th scope="col"{k}>{_escaped(c.title)}</th>' for c, k in zip(table.columns, kinds, strict=True))
    bodies = []
    for section in table.sections:
        title = f'<tr class="section"><th colspan="{len(table.columns)}">{_escaped(section.title)}</th></tr>'
        cells = [
            [f"<td{kind}{_html_value(entry)}>{_html_entry(entry)}</td>" for entry, kind in zip(row, kinds, strict=True)]
            for row in section.rows
        ]
        rows = [f"<tr>{''.join(row)}</tr>" for row in cells]
        bodies.append("<tbody>\n" + "\n".join([title, *rows]) + "\n</tbody>")
    notes = "".join(f"<p><sup>{_escaped(mark)}</sup> {_escaped(text)}</p>\n" for mark, text in table.notes)
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n' + "\n".join(bodies) + "\n</table></div>\n"
        f'<div class="caption"><p>{_escaped(table.caption)}</p>\n{notes}</div>'
    )


WRITERS = {"md": to_markdown, "tex": to_latex, "csv": to_csv}


# ---- Markdown ----------------------------------------------------------------------------------


def _aligned(table: Table, cells: Sequence[str], widths: Sequence[int]) -> str:
    columns = zip(table.columns, cells, widths, strict=True)
    return f"| {' | '.join(cell.rjust(w) if column.number else cell.ljust(w) for column, cell, w in columns)} |"


@lru_cache(KEPT)
def _markdown(text: str) -> str:
    return _plain(text).translate(MARKDOWN).replace("](", r"]\(")


def _markdown_entry(entry: Entry) -> str:
    text = _markdown(str(entry))
    return f"**{text}**" if entry.bold and text else text


def _plain(text: str) -> str:
    """One line."""
    return " ".join(text.split())


# ---- LaTeX -------------------------------------------------------------------------------------


def _latex_notes(notes: Sequence[tuple[str, str]]) -> list[str]:
    """A paragraph each."""
    return [rf"\noindent\textsuperscript{{{_latex(mark)}}} {_latex(text)}.\par" for mark, text in notes]


class _LatexColumn:
    """One column of a table as LaTeX has it: two where an entry has a spread."""

    def __init__(self, column: Column, entries: Sequence[Entry], layout: Layout, index: int) -> None:
        lines = [_latex(line) for line in head_lines(column.title, layout.broken, cells_width(entries))]
        self.title = lines[0] if len(lines) == 1 else r"\shortstack{" + r"\\".join(lines) + "}"
        self.part = layout.parts.get(index)
        if self.part is not None:
            self.title = _latex(column.title)  # broken by its column
        self.joint = next((entry.joint for entry in entries if entry.spread is not None), None)
        self.split = self.joint is not None
        marks = max((entry.marks for entry in entries), key=len, default="")
        self.first = _number_format([entry.text for entry in entries], "" if self.split else marks)
        self.second = _number_format([entry.spread for entry in entries if entry.spread is not None], marks)
        if not column.number:
            self.first = self.second = None
        self.number = column.number

    def spec(self) -> str:
        if self.part is not None:
            return rf"P{{{self.part:g}\linewidth}}"
        halves = (self.first, self.second) if self.split else (self.first,)
        kinds = [f"N{{{found}}}" if found else "r" if self.number else "l" for found in halves]
        return f"@{{ {_latex(self.joint or '')} }}".join(kinds)

    def head(self) -> str:
        if self.split:
            return rf"\multicolumn{{2}}{{c}}{{{self.title}}}"
        return f"{{{self.title}}}" if self.first else self.title

    def cell(self, entry: Entry) -> str:
        marks = rf"{{\textsuperscript{{{_latex(entry.marks)}}}}}" if entry.marks else ""
        if not self.split:
            return _latex_half(entry.text, self.first, entry.bold, marks)
        if entry.spread is None:
            text = _latex_half(entry.text, None, entry.bold, marks)
            return rf"\multicolumn{{2}}{{c}}{{{text}}}"
        first = _latex_half(entry.text, self.first, entry.bold, "")
        return f"{first} & {_latex_half(entry.spread, self.second, entry.bold, marks)}"


def _latex_half(text: str, numbers: str | None, bold: bool, marks: str) -> str:
    """A number as siunitx reads it, or text, which stands in braces among numbers."""
    if numbers and _number(text):
        return (r"\bfseries " if bold else "") + text.replace("−", "-").replace(",", "") + marks
    shown = rf"\textbf{{{_latex(text)}}}" if bold and text else _latex(text)
    return f"{{{shown}{marks}}}" if numbers and (shown or marks) else shown + marks


@lru_cache(KEPT)
def _number(text: str) -> re.Match[str] | None:
    return NUMBER.fullmatch(text)


def _number_format(texts: Sequence[str], marks: str) -> str | None:
    """siunitx's table-format for the numbers among the texts, None where there are none: `+2.2`."""
    found = [match for text in texts if (match := _number(text))]
    if not found:
        return None
    sign = "+" if any(match["sign"] for match in found) else ""
    whole = max(len(match["whole"].replace(",", "")) for match in found)
    decimals = max(len(match["decimals"] or "") for match in found)
    after = rf"{{\textsuperscript{{{_latex(marks)}}}}}" if marks else ""
    return f"{sign}{whole}.{decimals}{after}"


@lru_cache(KEPT)
def _latex(text: str) -> str:
    dashes = re.sub("-(?=-)", "-\0", _plain(text).replace("\0", " "))  # two of them would be printed as one longer dash
    return "".join(map(_latex_sign, dashes)).replace("\0", "{}")


def _latex_sign(sign: str) -> str:
    """One character as LaTeX prints it with any engine and font encoding, or its code point."""
    if sign in LATEX:
        return LATEX[sign]
    if " " <= sign <= "~" or sign == "\0":
        return sign
    parts = unicodedata.normalize("NFD", sign)
    if len(parts) == 2 and parts[1] in ACCENTS and parts[0].isascii() and parts[0].isalpha():
        return f"\\{ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"{{[}}U+{ord(sign):04X}]"


MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in r"\|*_<>`~$&"})
NUMBER = re.compile(r"(?P<sign>[+−-])?(?P<whole>\d{1,3}(?:,\d{3})+|\d+)(?:\.(?P<decimals>\d+))?")
LATEX_NEEDS = r"% needs \usepackage{booktabs} and \usepackage{siunitx}; or, for plain numbers, \usepackage{array}"
LATEX_SETUP = (
    r"\ifdefined\sisetup\sisetup{detect-weight=true, retain-explicit-plus=true, group-digits=integer}"
    r"\newcolumntype{N}[1]{S[table-format=#1]}%",
    r"\else\newcolumntype{N}[1]{r}\fi",
    r"\newcolumntype{P}[1]{>{\raggedright\arraybackslash}p{#1}}%",
    r"\setlength{\abovecaptionskip}{0pt}\setlength{\belowcaptionskip}{6pt}",
)
GREEK = {"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "θ": "theta", "λ": "lambda", "σ": "sigma"}
LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": "$<$", ">": "$>$", "|": "$|$", '"': "''", "`": r"\textasciigrave{}"},
    **{"[": "{[}", "*": "{*}"},  # at the start of a row they would be arguments of the line break before it
    **{"≈": r"$\approx$", "≤": r"$\le$", "≥": r"$\ge$", "→": r"$\to$", "√": r"$\surd$"},
    **{"±": r"$\pm$", "−": r"$-$", "×": r"$\times$", "²": r"\textsuperscript{2}", "–": r"\textendash{}"},
    **{"—": r"\textemdash{}", "…": r"\dots{}", "’": "'", "‘": "`", "“": "``", "”": "''", "µ": r"$\mu$", "ß": r"\ss{}"},
    **{"ø": r"\o{}", "Ø": r"\O{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}"},
    **{name: rf"$\{text}$" for name, text in GREEK.items()},
}
ACCENTS = {
    **{"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": "."},
    **{"\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c"},
}


# ---- HTML --------------------------------------------------------------------------------------


@lru_cache(KEPT)
def _escaped(text: str) -> str:
    return html.escape(text)


def _html_value(entry: Entry) -> str:
    if entry.value is None:
        return ""
    value = entry.value if isinstance(entry.value, str) else repr(entry.value)
    return f' data-value="{_escaped(value)}"'


def _html_entry(entry: Entry) -> str:
    spread = ""
    if entry.spread is not None:
        spread = f' <span class="spread">{_escaped(entry.joint)} {_escaped(entry.spread)}</span>'
    marks = f"<sup>{_escaped(entry.marks)}</sup>" if entry.marks else ""
    shown = f"{_escaped(entry.text)}{spread}{marks}"
    return f"<strong>{shown}</strong>" if entry.bold else shown
