"""Writes a study's report: tables, figures and one page that needs nothing else, the same bytes for equal records.

It works at any time: of a study that is still running it tells what there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqzlab.analysis.arm_rows import table_rows
from sqzlab.analysis.arms import Group, group_arms
from sqzlab.analysis.beside import beside_table
from sqzlab.analysis.checks import find_warnings
from sqzlab.analysis.figure_list import curve_runs, is_figure, why_not_drawn
from sqzlab.analysis.files import write_files
from sqzlab.analysis.page import TITLES, render
from sqzlab.analysis.precision import precision_tables
from sqzlab.analysis.progress import Progress, read_progress
from sqzlab.analysis.published import PublishedRow
from sqzlab.analysis.records import Records, read_study
from sqzlab.analysis.tables import Table, error_table, full_table, squeeze_table
from sqzlab.analysis.writers import WRITERS

PAGE = "index.html"
NOT_ASKED = "figures are not drawn: --no-figures"


@dataclass(frozen=True)
class Report:
    """A study as analysed, in memory."""

    records: Records
    groups: tuple[Group, ...]
    tables: tuple[Table, ...]
    warnings: tuple[str, ...]
    figures: Mapping[str, bytes]  # file name to content; empty where they are not drawn
    not_drawn: str | None  # why
    progress: Mapping[str, Progress]  # of the runs that have begun and have no result


def make_report(
    folder: Path, published: Sequence[PublishedRow], correction: str = "dunnett", figures: bool = True
) -> Report:
    """Reads the study and makes its tables and figures. Raises ConfigError where the folder is no study."""
    records = read_study(folder)
    progress = read_progress(records)  # at once: what ends while figures are drawn would look interrupted
    groups = group_arms(records, correction)
    precise, doubts = precision_tables(records, groups)
    data = table_rows(groups)
    tables = [form(records, groups, data) for form in (squeeze_table, full_table, error_table)] + list(precise)
    if (beside := beside_table(records, groups, published)) is not None:
        tables.append(beside)
    warnings = [*find_warnings(records, groups), *doubts]
    drawn: Mapping[str, bytes] = {}
    if (not_drawn := why_not_drawn(groups) if figures else NOT_ASKED) is None:
        from sqzlab.analysis.curves import load_curves  # pandas
        from sqzlab.analysis.figures import draw  # matplotlib

        curves, damaged = load_curves(folder, curve_runs(groups))
        warnings += damaged
        drawn = draw(groups, curves, folder)
    return Report(records, groups, tuple(tables), tuple(warnings), drawn, not_drawn, progress)


def write_report(report: Report) -> Path:
    """Writes everything into the study's `report/` and returns its index.html.

    All files are written aside first and renamed then, so that a full disk leaves the former report whole.
    """
    files = {f"{t.name}.{kind}": _bytes(write(t)) for t in report.tables for kind, write in WRITERS.items()}
    files |= report.figures
    files[PAGE] = _bytes(render(report))
    target = report.records.folder / "report"
    write_files(target, files)
    for path in target.iterdir():
        if path.name not in files and (path.name in TABLE_FILES or is_figure(path.name)):
            path.unlink()
    return target / PAGE


def _bytes(text: str) -> bytes:
    """UTF-8, whatever a run's file says: half a surrogate pair in an error message is shown as a question mark."""
    return text.encode(errors="replace")


TABLE_FILES = frozenset(f"{name}.{kind}" for name in TITLES for kind in WRITERS)
