import csv
import html.parser
import io
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pylatexenc import latexwalker, macrospec
from pylatexenc.latex2text import LatexNodes2Text

from sqzlab.analysis.arms import Group, group_arms
from sqzlab.analysis.published import read_published, sprg_table, ssenet_table
from sqzlab.analysis.records import Records, read_study
from sqzlab.analysis.report import make_report
from sqzlab.analysis.tables import Column, Entry, Section, Table, error_table, full_table, squeeze_table
from sqzlab.analysis.writers import to_csv, to_html, to_latex, to_markdown

MakeStudy = Callable[..., Path]
ROOT = Path(__file__).parents[2]
HOSTILE = (
    *("50 % of a_b & c^2", "#1 {open", "close} ~tilde\\backslash", "$x$ *star* `tick`", "[optional]", "*", "a|b <i>"),
    *(
        "two\nlines\tand  spaces",
        "--dashes--- 'quoted' \"twice\"",
        "naïve Łódź größer",
        "σ × 2² ± 0.1 … –",
        "压缩 \U0001f642",
    ),
    *("\\\\", "\\input{x}", "%", "&&", "{", "}", "=1+1", "<script>", "--", "", "é", "**bold**", "![x](y)"),
)


def of_arms(names: tuple[str, ...]) -> Table:
    """One section with all that a table may have, once for each name."""
    rows = [
        (
            Entry(name),
            Entry("98.56", "0.16", bold=i % 2 == 0, value=98.5555),
            Entry("−0.56" if i % 2 else "+10.22", marks="a", bold=i % 3 == 0),
            Entry("−1.65", "+0.54", joint="to"),
            Entry("<0.001" if i % 2 else "0.750", value=0.75),
            Entry("11,689,512"),
            Entry(name, bold=True),
        )
        for i, name in enumerate(names)
    ]
    rows.append((Entry("absent"), Entry("1 of 2 failed"), *[Entry("n/a")] * 3, Entry(""), Entry("2")))
    columns = (
        *(Column("arm", False), Column("Top-1 %"), Column("diff_erence %p"), Column("95 % interval"), Column("p")),
        *(Column("params"), Column("n", False)),
    )
    return Table(
        "odd", " ".join(names), columns, tuple(Section(name, tuple(rows)) for name in names[:3]), (), (("a", "note"),)
    )


def tables_of(folder: Path) -> tuple[Table, ...]:
    """Every table of a study and of the published ones."""
    records = read_study(folder)
    groups = group_arms(records)
    published = read_published(ROOT / "results" / "published.csv")
    own = squeeze_table(records, groups), error_table(records, groups), full_table(records, groups)
    return *own, ssenet_table(published), sprg_table(published)


def renamed(records: Records, groups: tuple[Group, ...], name: str) -> tuple[Table, ...]:
    """A study's tables, all its groups and arms called so."""
    other = []
    for group in groups:
        arms = tuple(replace(arm, label=f"{name}{arm.label}") for arm in group.arms)
        other.append(replace(group, title=name, arms=arms, baseline=arms[0]))
    return tuple(make(records, other) for make in (squeeze_table, error_table, full_table))


# ---- LaTeX, read by a parser ---------------------------------------------------------------------

ARGUMENTS = {
    "multicolumn": "{{{",
    "caption": "[{",
    "shortstack": "{",
    "textsuperscript": "{",
    "textbf": "{",
    "emph": "{",
    "newcolumntype": "{[{",
}
RULES = ("toprule", "midrule", "bottomrule")
Nodes = list[latexwalker.LatexNode]


def parse(text: str) -> Nodes:
    """Every node of a document; unbalanced braces or environments raise."""
    known = latexwalker.get_default_latex_context_db()
    known.add_context_category("tables", prepend=True, macros=[macrospec.std_macro(n, a) for n, a in ARGUMENTS.items()])
    return list(latexwalker.LatexWalker(text, latex_context=known, tolerant_parsing=False).get_latex_nodes()[0])


def below(nodes: Nodes) -> Iterator[latexwalker.LatexNode]:
    for node in nodes:
        if node is None:
            continue
        yield node
        yield from below(getattr(node, "nodelist", None) or [])
        if getattr(node, "nodeargd", None) is not None:
            yield from below(node.nodeargd.argnlist or [])


def the_tabular(text: str) -> latexwalker.LatexNode:
    (found,) = [node for node in below(parse(text)) if getattr(node, "environmentname", "") == "tabular"]
    return found


def columns_of(tabular: latexwalker.LatexNode) -> int:
    """l, r, c, N{...} and P{...} are columns, @{...} is what stands between two."""
    spec = tabular.nodeargd.argnlist[-1].latex_verbatim()[1:-1]
    while "{" in spec:
        spec = re.sub(r"@?\{[^{}]*\}", "", spec)
    assert set(spec) <= set("lrcNP")
    return len(spec)


def rows_of(tabular: latexwalker.LatexNode) -> list[list[tuple[int, Nodes]]]:
    """Each row's cells: how many columns each spans, and what stands in it."""
    rows: list[list[tuple[int, Nodes]]] = []
    cells: list[Nodes] = [[]]
    for node in tabular.nodelist:
        if getattr(node, "specials_chars", "") == "&":
            cells.append([])
        elif getattr(node, "macroname", "") == "\\":
            assert node.latex_verbatim() == r"\\", "the line break took an argument from the next row"
            rows.append([(_span(cell), cell) for cell in cells])
            cells = [[]]
        elif getattr(node, "macroname", "") not in RULES:
            cells[-1].append(node)
    assert "".join(node.latex_verbatim() for node in cells[-1]).strip() == ""
    return rows


def _span(cell: Nodes) -> int:
    spans = [
        int(n.nodeargd.argnlist[0].nodelist[0].chars) for n in cell if getattr(n, "macroname", "") == "multicolumn"
    ]
    return spans[0] if spans else 1


def check_latex(text: str) -> None:
    tabular = the_tabular(text)
    width = columns_of(tabular)
    assert {sum(span for span, _ in row) for row in rows_of(tabular)} == {width}
    for node in below(tabular.nodelist):
        if isinstance(node, latexwalker.LatexCharsNode):
            assert not set(node.chars) & set("#_^"), "a sign that TeX takes for a command"
            assert all(" " <= sign <= "~" or sign == "\n" for sign in node.chars)
        assert not isinstance(node, latexwalker.LatexCommentNode), "the rest of the line is lost"


def test_every_tables_latex_has_the_columns_that_it_announces(make_study: MakeStudy) -> None:
    states = {"resnet18-gap": "failed", "resnet18-std": "missing", "resnet18-RG-s1": "failed"}
    for table in tables_of(make_study(states=states)):
        check_latex(to_latex(table))


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_of_an_arm_breaks_the_latex(make_study: MakeStudy, name: str) -> None:
    records = read_study(make_study(matrix={"model.squeeze": ["baseline", "gap"]}))
    for table in (*renamed(records, group_arms(records), name), of_arms((name,))):
        check_latex(to_latex(table))


READABLE = st.text(
    st.sampled_from([chr(i) for i in range(32, 127) if chr(i) not in "\"'`"] + list("éüçŁßσ±")), max_size=12
)


@given(READABLE)
def test_a_name_is_read_back_from_the_latex_as_it_was(name: str) -> None:
    text = to_latex(of_arms((f"x{name}x",)))
    check_latex(text)
    first = rows_of(the_tabular(text))[2][0][1]
    told = LatexNodes2Text(math_mode="text", keep_comments=True).nodelist_to_text(first)
    told = told.replace("ˆ", "^").replace("˜", "~")  # the signs that LaTeX prints for these two
    assert " ".join(told.split()) == " ".join(f"x{name}x".split())


def test_numbers_stand_in_siunitx_columns_and_all_else_in_braces() -> None:
    text = to_latex(of_arms(("one", "two")))
    spec = r"{lN{2.2}@{ $\pm$ }N{1.2}N{+2.2{\textsuperscript{a}}}N{+1.2}@{ to }N{+1.2}N{1.3}N{8.0}l}"
    assert spec in text
    bold = r"one & \bfseries 98.56 & \bfseries 0.16 & \bfseries +10.22{\textsuperscript{a}} & -1.65 & +0.54 & 0.750"
    assert rf"{bold} & 11689512 & \textbf{{one}} \\" in text.splitlines()
    absent = r"absent & \multicolumn{2}{c}{1 of 2 failed} & {n/a} & \multicolumn{2}{c}{n/a} & {n/a} &  & 2 \\"
    assert absent in text.splitlines()
    assert "{$<$0.001}" in text


def test_the_first_line_names_the_packages() -> None:
    first = to_latex(of_arms(("one",))).splitlines()[0]
    assert first.startswith("%")
    assert r"\usepackage{booktabs}" in first
    assert r"\usepackage{siunitx}" in first


def test_notes_stand_below_the_table_and_the_lists_of_tables_have_the_first_sentence() -> None:
    table = replace(of_arms(("one",)), caption="Of 5 % more. Then ] the rest.", notes=(("a", "of a_b"), ("b", "c")))
    above, _, rest = to_latex(table).partition(r"\begin{tabular}")
    assert r"\caption[{Of 5 \% more}]{Of 5 \% more. Then ] the rest.}" in above
    _, _, below = rest.partition(r"\end{tabular}")
    assert r"\noindent\textsuperscript{a} of a\_b.\par" in below.splitlines()
    assert r"\noindent\textsuperscript{b} c.\par" in below.splitlines()
    assert below.splitlines()[2] == r"\begin{minipage}{\linewidth}\footnotesize\raggedright"
    assert "minipage" not in to_latex(replace(table, notes=()))


def test_what_would_make_a_float_taller_than_a_page_stands_after_it() -> None:
    notes = tuple((f"{i}", f"note {i}, {'words ' * 40}") for i in range(40))
    text = to_latex(replace(of_arms(("one",)), caption="The first. The second.", notes=notes))
    inside, _, after = text.partition(r"\end{table*}")
    assert r"\caption[{The first}]{The first.}" in inside
    assert "note 1," not in inside
    assert after.splitlines()[1].endswith(r"Table~\ref{tab:odd}: The second.\par")
    assert [f"note {i}," in after for i in range(40)] == [True] * 40


def tex_has(*files: str) -> bool:
    if shutil.which("pdflatex") is None or shutil.which("kpsewhich") is None:
        return False
    return all(subprocess.run(["kpsewhich", name], capture_output=True).returncode == 0 for name in files)


@pytest.mark.parametrize("numbers", ["siunitx", "array"])
def test_pdflatex_compiles_every_table(make_study: MakeStudy, tmp_path: Path, numbers: str) -> None:
    if not tex_has("article.cls", "booktabs.sty", f"{numbers}.sty"):
        pytest.skip(f"pdflatex with booktabs and {numbers} is not installed; the parser's tests still hold")
    records = read_study(make_study(states={"resnet18-gap": "failed", "resnet18-RG-s1": "failed"}))
    tables = [*tables_of(records.folder), of_arms(HOSTILE)]
    tables += [table for name in HOSTILE for table in renamed(records, group_arms(records), name)[::2]]
    preamble = [r"\documentclass{article}", r"\usepackage{booktabs}", rf"\usepackage{{{numbers}}}", r"\begin{document}"]
    source = "\n".join([*preamble, *(to_latex(table) + r"\clearpage" for table in tables), r"\end{document}"])
    (tmp_path / "all.tex").write_text(source, encoding="utf-8")
    compiled(tmp_path)
    assert (tmp_path / "all.pdf").stat().st_size


def compiled(folder: Path) -> str:
    """What pdflatex says of all.tex."""
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


LONG = {"model.squeeze": ["baseline", "gap", "gapXstd"], "model.reduction": [8, 16], "model.fc_bias": [False, True]}
STUDIES: dict[str, dict[str, Any]] = {
    "as the laptop's": {},
    "with failures": {"states": {"resnet18-gap": "failed", "resnet18-RG-s1": "failed", "resnet18-std-s0": "missing"}},
    "one seed": {"seeds": [0]},
    "with long names": {"matrix": {"model.backbone": ["resnet18", "resnet34"], **LONG}, "seeds": (0, 1, 2)},
    "on ImageNet": {
        **{"matrix": {"model.backbone": ["resnet50"], "model.squeeze": ["baseline", "gap", "RG", "ECA"]}},
        **{"config": {"model.stem": "imagenet", "model.width": 1.0, "model.image_size": 224}, "classes": 1000},
        **{"train_images": 1_281_167, "val_images": 50_000, "seeds": (0, 1, 2)},
    },
}


def reported(folder: Path) -> tuple[Table, ...]:
    """Every table of a study's report, that of the published numbers among them."""
    return make_report(folder, read_published(ROOT / "results" / "published.csv"), figures=False).tables


@pytest.mark.parametrize("name", STUDIES)
def test_every_table_of_a_report_fits_a_page_of_two_columns(make_study: MakeStudy, tmp_path: Path, name: str) -> None:
    if not tex_has("article.cls", "booktabs.sty", "array.sty"):
        pytest.skip("pdflatex with booktabs and array is not installed; the estimates of the widths are tested below")
    published = read_published(ROOT / "results" / "published.csv")
    tables = [*reported(make_study(**STUDIES[name])), ssenet_table(published), sprg_table(published)]
    assert {"full", "precision", "published"} <= {table.name for table in tables}
    preamble = [r"\documentclass[twocolumn]{article}", r"\usepackage{booktabs,array}", r"\begin{document}"]
    source = "\n".join([*preamble, *(to_latex(table) + r"\clearpage" for table in tables), r"\end{document}"])
    (tmp_path / "all.tex").write_text(source, encoding="utf-8")
    told = compiled(tmp_path)
    assert not re.findall(r"Overfull .*|.*Float too large.*", told)


@pytest.mark.parametrize("name", STUDIES)
def test_every_table_of_a_report_has_signs_and_columns_that_latex_knows(make_study: MakeStudy, name: str) -> None:
    for table in reported(make_study(**STUDIES[name])):
        text = to_latex(table)
        assert "[}U+" not in text
        check_latex(text)


# ---- Markdown, csv, HTML -------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_keeps_its_cells_and_is_aligned(name: str) -> None:
    lines = [line for line in to_markdown(of_arms((name, "b"))).splitlines() if line.startswith("|")]
    assert len(lines) == 2 * (2 + 3)
    assert len({len(line) for line in lines[:5]}) == 1
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {8}


def test_markdown_sets_bold_and_escapes_the_rest() -> None:
    text = to_markdown(of_arms(("x_1|y",)))
    assert r"**98.56 ± 0.16**" in text
    assert r"| x\_1\|y " in text
    assert r"\<0.001" in to_markdown(of_arms(("a", "b")))
    assert "−1.65 to +0.54" in text


@given(name=st.text(), value=st.none() | st.integers() | st.floats(allow_nan=False))
def test_csv_gives_back_what_it_was_given(name: str, value: float | None) -> None:
    name = name.replace("\r", "").replace("\0", "")
    table = Table("t", "", (), (), ({"name": name, "value": value},))
    (row,) = csv.DictReader(io.StringIO(to_csv(table)))
    assert row["name"] == name
    assert (float(row["value"]) if row["value"] else None) == (None if value is None else float(value))


class Cells(html.parser.HTMLParser):
    """Text and sort key of every cell of a page's tables."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[tuple[str, str | None]] = []
        self.tags: set[str] = set()
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "td":
            self.inside = True
            self.cells.append(("", dict(attrs).get("data-value")))

    def handle_endtag(self, tag: str) -> None:
        self.inside &= tag != "td"

    def handle_data(self, data: str) -> None:
        if self.inside:
            text, key = self.cells[-1]
            self.cells[-1] = text + data, key


@given(st.text())
def test_html_shows_any_name_as_text(name: str) -> None:
    name = name.replace("\r", "").replace("\0", "")
    page = Cells(to_html(of_arms((name,))))
    assert page.tags <= {"div", "table", "thead", "tbody", "tr", "th", "td", "p", "sup", "span", "strong"}
    assert page.cells[0][0] == name


def test_html_cells_have_what_they_sort_by(make_study: MakeStudy) -> None:
    records = read_study(make_study())
    table = full_table(records, group_arms(records))
    cells = iter(Cells(to_html(table)).cells)
    for entry in (entry for section in table.sections for row in section.rows for entry in row):
        text, key = next(cells)
        assert text.startswith(entry.text)
        assert key == (None if entry.value is None else repr(entry.value))
        assert entry.value is None or float(str(key)) == entry.value
