"""Renders a study's report as one page that needs nothing else: style, script, figures and runs stand in it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sqzlab.analysis.captions import describe_records
from sqzlab.analysis.figure_list import FAINT, GRID, INK, PAPER, described
from sqzlab.analysis.findings import describe_groups, describe_result
from sqzlab.analysis.progress import NAMES, count_states, describe_progress
from sqzlab.analysis.records import Records, Row
from sqzlab.analysis.run_pages import Page, anchor, run_pages
from sqzlab.analysis.tables import Table
from sqzlab.analysis.writers import to_html

if TYPE_CHECKING:
    from sqzlab.analysis.report import Report

HERE = Path(__file__).parent
TEMPLATE, STYLE, SCRIPT = "report.html", "report.css", "report.js"
NUMBERS = (("top1", 100, 2), ("top5", 100, 2), ("time_s", 1, 1))  # column, factor, decimals
MOST_LISTED = 2_000  # runs in the list; a page of more would be slow to make and to open
MOST_RESULTS = 12  # groups whose result is told in words
MOST_WARNINGS = 24  # the others stand folded


def render(report: Report) -> str:
    """The page: state and warnings first, then results in words, tables, figures and every run."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    records, groups = report.records, report.groups
    pages = run_pages(records, groups, report.progress)
    told = describe_progress(records, report.progress)
    return environment.get_template(TEMPLATE).render(
        style=Markup((HERE / STYLE).read_text(encoding="utf-8")),
        script=Markup((HERE / SCRIPT).read_text(encoding="utf-8")),
        study=records.plan.study if records.plan else records.folder.absolute().name,
        profile=records.plan.profile if records.plan else None,
        progress=told,
        states=list(count_states(records, report.progress).items()),
        total=len(records.counted),
        warnings=report.warnings,
        most_warnings=MOST_WARNINGS,
        clean=_clean(records),
        compared=describe_groups(groups),
        results=[(group.title, describe_result(group, told is None)) for group in groups[:MOST_RESULTS]],
        more_results=max(0, len(groups) - MOST_RESULTS),
        about=describe_records(records),
        tables=[(table.name, TITLES.get(table.name, table.name), _labelled(table)) for table in report.tables],
        figures=[
            (name, title, caption, inline(report.figures[f"{name}.svg"], name))
            for name, title, caption in described(report.figures)
        ],
        not_drawn=report.not_drawn,
        runs=run_rows(report, pages),
        left_out=max(0, len(records.rows) - MOST_LISTED),
        without_page=_without_page(report, pages),
        folder=records.folder.absolute().name,
        data=Markup(embedded(pages)),
    )


def _clean(records: Records) -> str:
    """What may be said where nothing speaks against the numbers: only what is known."""
    done = records.done
    known = [said for key, said in SAME.items() if done and all(row[key] is not None for row in done)]
    planned = "Every planned run is done" if records.plan is not None else "Nothing is amiss with the runs found here"
    return f"{planned}{': ' if known else ''}{', '.join(known)}."


def run_rows(report: Report, pages: Mapping[str, Page]) -> list[tuple[str, str]]:
    """Title of a group, and a line of HTML for each of its runs, by arm; those outside the plan come last."""
    records, groups = report.records, report.groups
    arms = {
        row["run_id"]: (i, j, row["run_id"] == arm.rows[0]["run_id"], arm.label)
        for i, group in enumerate(groups)
        for j, arm in enumerate(group.arms)
        for row in arm.rows
    }
    lines: dict[int, list[tuple[int, str]]] = {}
    for row in records.rows[:MOST_LISTED]:
        run_id = row["run_id"]
        i, j, first, label = arms.get(run_id, (len(groups), 0, False, ""))
        outside = records.plan is not None and not row["planned"]
        state = str(report.progress.get(run_id) or NAMES.get(row["state"], row["state"]))
        line = _run_row(row, f' id="{anchor(i, j)}"' if first else "", run_id in pages, (j, label), outside, state)
        lines.setdefault(i, []).append((j, line))
    titles = [*(group.title for group in groups), "not in the plan"]
    return [(titles[i], "\n".join(line for _, line in sorted(lines[i], key=lambda one: one[0]))) for i in sorted(lines)]


def _run_row(row: Row, own_id: str, has_page: bool, arm: tuple[int, str], outside: bool, state: str) -> str:
    """Written here, not in the template: of ten thousand lines that takes a third of the time."""
    run_id, done = html.escape(row["run_id"]), row["state"] == "done"
    name = f'<a href="#run-{run_id}"><code>{run_id}</code></a>' if has_page else f"<code>{run_id}</code>"
    numbers = "".join(
        f'<td class="number" data-value="{row[key]!r}">{scale * row[key]:,.{digits}f}</td>'
        if done and row[key] is not None
        else '<td class="number"></td>'
        for key, scale, digits in NUMBERS
    )
    return (
        f'<tr{own_id}><td>{name}</td><td data-value="{arm[0]}">{html.escape(arm[1])}</td>'
        f'<td class="number">{row["seed"] if done or not outside else ""}</td>{numbers}'
        f"<td>{html.escape(state)}{', not in the plan' if outside else ''}</td>"
        f'<td class="error">{html.escape(row["error"] or "")}</td></tr>'
    )


def _without_page(report: Report, pages: Mapping[str, Page]) -> int:
    """Runs that have begun and whose page would have made the file too large."""
    rows, progress = report.records.rows, report.progress
    return len([row for row in rows if row["state"] != "missing" or row["run_id"] in progress]) - len(pages)


def embedded(values: object) -> str:
    """JSON that may stand in a script element: whatever its text, it ends no element and opens none."""
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))  # ASCII: no U+2028 that ends a line
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _labelled(table: Table) -> str:
    """The table as HTML, named by the heading above it."""
    return to_html(table).replace("<table", f'<table aria-labelledby="heading-{table.name}"', 1)


def inline(svg: bytes, name: str) -> str:
    """A figure as an element of a page: ids of its own, ink and paper in the page's colours."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for ink, variable in INKS.items():
        text = text.replace(ink, f"var(--{variable})")
    return re.sub(r'<svg width="[^"]*" height="[^"]*"|<svg height="[^"]*" width="[^"]*"', "<svg", text, count=1)


SAME = {  # what no warning means, where it is known of every run
    "git_commit": "all of one commit",
    "torch": "with one version of torch",
    "device": "on one kind of device",
    "initial_weights": "all arms started with the same weights",
    "data_order": "and saw the images in the same order",
}
INKS = {INK: "ink", FAINT: "faint", GRID: "grid", PAPER: "paper"}
TITLES = {
    "squeeze": "Accuracy by squeeze",
    "full": "All arms in full",
    "error": "Error and cost",
    "images": "Seed noise and new images",
    "precision": "What this study can resolve",
    "more_seeds": "Seeds still needed",
    "published": "Beside published numbers",
}
