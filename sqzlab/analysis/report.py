"""Writes a study's report: tables, figures and one page that needs nothing else, the same bytes for equal records."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqzlab.analysis import figures
from sqzlab.analysis.arms import Group, group_arms
from sqzlab.analysis.beside import beside_table
from sqzlab.analysis.checks import find_warnings
from sqzlab.analysis.files import write_files
from sqzlab.analysis.published import PublishedRow
from sqzlab.analysis.records import STATES, Records, load_curves, read_study
from sqzlab.analysis.tables import Table, describe_records, error_table, squeeze_table
from sqzlab.analysis.writers import WRITERS, to_html


@dataclass(frozen=True)
class Report:
    """A study as analysed, in memory."""

    records: Records
    groups: tuple[Group, ...]
    tables: tuple[Table, ...]
    warnings: tuple[str, ...]
    figures: Mapping[str, bytes]  # file name to content; empty where they are not drawn
    not_drawn: str | None  # why


def make_report(folder: Path, published: Sequence[PublishedRow]) -> Report:
    """Reads the study and makes its tables and figures. Raises ConfigError where the folder is no study."""
    records = read_study(folder)
    groups = group_arms(records)
    tables = [squeeze_table(records, groups), error_table(records, groups)]
    if (beside := beside_table(records, groups, published)) is not None:
        tables.append(beside)
    warnings = list(find_warnings(records, groups))
    not_drawn, drawn = figures.why_not_drawn(groups), {}
    if not_drawn is None:
        runs = [row["run_id"] for group in groups for arm in group.arms for row in arm.done[: figures.MOST_SEEDS]]
        curves, damaged = load_curves(folder, runs)
        warnings += damaged
        drawn = figures.draw(groups, curves)
    return Report(records, groups, tuple(tables), tuple(warnings), drawn, not_drawn)


def write_report(report: Report) -> Path:
    """Writes everything into the study's `report/` and returns its index.html.

    All files are written aside first and renamed then, so that a full disk leaves the former report whole.
    """
    files = {f"{t.name}.{kind}": write(t).encode() for t in report.tables for kind, write in WRITERS.items()}
    files |= report.figures
    files[PAGE] = render(report).encode()
    target = report.records.folder / "report"
    write_files(target, files)
    stale = {f"{name}.{kind}" for name in TABLES for kind in WRITERS} | set(FIGURE_FILES)
    for name in stale - set(files):
        (target / name).unlink(missing_ok=True)
    return target / PAGE


def render(report: Report) -> str:
    """The page: warnings first, then tables, figures and every run."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    records = report.records
    states = records.counted["state"].value_counts()
    return environment.get_template(TEMPLATE).render(
        study=records.plan.study if records.plan else records.folder.name,
        profile=records.plan.profile if records.plan else None,
        states=[(state, int(states[state])) for state in STATES if state in states],
        total=len(records.counted),
        warnings=report.warnings,
        about=describe_records(records),
        tables=[(table.name, TABLES[table.name], to_html(table)) for table in report.tables],
        figures=[(name, *FIGURES[name], inline(report.figures[f"{name}.svg"], name)) for name in FIGURES]
        if report.figures
        else [],
        not_drawn=report.not_drawn,
        axes=records.axes,
        runs=run_lines(records),
    )


def run_lines(records: Records) -> list[dict[str, Any]]:
    """Every run, also those not in the plan, as text for a list."""
    lines = []
    for row in records.frame.to_dict("records"):
        done = row["state"] == "done"
        shown = {key: f"{100 * row[key]:.2f}" if done else "" for key in ("top1", "top5")}
        shown["time_s"] = f"{row['time_s']:,.1f}" if done and row["time_s"] == row["time_s"] else ""
        shown["state"] = row["state"] if row["planned"] or records.plan is None else f"{row['state']}, not in the plan"
        lines.append(
            {
                "run_id": row["run_id"],
                "seed": row["seed"] if row["planned"] or done else "",
                "error": row["error"] or "",
                **shown,
            }
        )
    return lines


def inline(svg: bytes, name: str) -> str:
    """A figure as an element of a page: ids of its own, ink and paper in the page's colours."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for ink, variable in INKS.items():
        text = text.replace(ink, f"var(--{variable})")
    return re.sub(r'<svg width="[^"]*" height="[^"]*"|<svg height="[^"]*" width="[^"]*"', "<svg", text, count=1)


PAGE = "index.html"
TEMPLATE = "report.html"
INKS = {figures.INK: "ink", figures.FAINT: "faint", figures.GRID: "grid", figures.PAPER: "paper"}
TABLES = {
    "squeeze": "Accuracy by squeeze",
    "error": "Error and cost",
    "published": "Beside published numbers",
}
FIGURES = {
    "gain": (
        "Gain over the baseline",
        "Top-1 minus the baseline's mean Top-1. Marker: mean; bar: plus and minus one sample standard deviation over "
        f"the seeds (none for one seed); dots: single seeds, up to {figures.MOST_SEEDS}. No claim of significance is "
        "made here.",
    ),
    "curves": (
        "Learning curves",
        "Training loss and validation error by epoch. Thick: mean over the seeds; thin lines: single seeds, or a band "
        f"from least to greatest of more than {figures.CURVES_PER_ARM}. Only the first {figures.MOST_SEEDS} seeds of "
        "an arm are drawn.",
    ),
    "cost": (
        "Accuracy against cost",
        "Mean Top-1 of the last epoch against the multiply-accumulates of convolutions and linear layers for one "
        "image. Arms of equal cost stand above each other.",
    ),
}
FIGURE_FILES = tuple(f"{name}.{kind}" for name in FIGURES for kind in figures.FORMATS)
