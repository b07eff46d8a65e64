"""The command line of analyze.py: tables, figures and reports from the files of finished studies alone."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqzlab.errors import ConfigError, SqzlabError, choices

if TYPE_CHECKING:
    from rich.console import Console

    from sqzlab.analysis.tables import Table

UNAVAILABLE, INTERRUPTED = 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs analyze.py; returns its exit code."""
    options = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without plus-minus signs still gets its tables
    try:
        _act(options)
    except SqzlabError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads on: as quiet as other tools
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"{where}{(error.strerror or str(error)).lower()}", file=sys.stderr)
        return UNAVAILABLE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def analyse(folder: Path, console: Console) -> Path:
    """Writes the study's report, prints its main table, and returns the path of the report's page.

    Raises ConfigError where the folder is no study, OSError where it cannot be read or written.
    """
    from sqzlab.analysis.published import read_published
    from sqzlab.analysis.report import make_report, write_report

    published = _published_file(folder.parent)
    report = make_report(folder, read_published(published) if published.is_file() else ())
    page = write_report(report)
    _warn(console, report.warnings)
    _show(console, report.tables[0])
    if report.not_drawn:
        console.print(report.not_drawn, style="yellow", highlight=False)
    console.print(f"report: {page}", soft_wrap=True, highlight=False, markup=False)
    return page


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="analyze.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("studies", nargs="*", type=Path, metavar="FOLDER", help="studies; default: all under --results")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument("--published", action="store_true", help="the tables of the two published studies again")
    parser.add_argument("--explain", metavar="ARM", help="the runs behind an arm, such as gap")
    return parser


def _act(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    if options.published:
        if options.studies or options.explain:
            raise ConfigError("--published takes neither studies nor --explain: it reads published.csv alone")
        _publish(console, options.results)
        return
    for folder in options.studies or _studies(options.results):
        if options.explain is None:
            console.rule(escape(str(folder)), align="left")
            analyse(folder, console)
        else:
            explain(folder, options.explain, console)


def _studies(results: Path) -> list[Path]:
    from sqzlab.analysis.records import is_study

    if not results.is_dir():
        raise ConfigError(f"{results}: no such folder; valid: the folder that launch.py writes its results to")
    found = [folder for folder in sorted(results.iterdir()) if folder.is_dir() and is_study(folder)]
    if not found:
        raise ConfigError(f"{results}: no study in it yet; launch.py experiments/squeeze_ablation.yaml makes one")
    return found


def explain(folder: Path, arm: str, console: Console) -> None:
    """Prints every run behind the arm of this name, or behind all arms with this value on an axis."""
    from rich.markup import escape
    from rich.table import Table as Grid

    from sqzlab.analysis.arms import group_arms
    from sqzlab.analysis.records import read_study

    groups = group_arms(read_study(folder))
    members = [(group, a) for group in groups for a in group.arms if arm in (a.label, *map(str, a.cell.values()))]
    if not members:
        names = dict.fromkeys(a.label for group in groups for a in group.arms)
        raise ConfigError(f"--explain: {folder} has no arm {arm!r}; {choices(names, arm)}")
    for group, found in members:
        grid = Grid(title=f"{group.title}: {found.label}", title_justify="left", box=None, pad_edge=False)
        grid.add_column("run", overflow="fold")
        for name in ("seed", "Top-1 %", "Top-5 %"):
            grid.add_column(name, justify="right")
        grid.add_column("state", overflow="fold")
        for row in found.rows:
            shown = [f"{100 * row[key]:.2f}" if row["state"] == "done" else "" for key in ("top1", "top5")]
            state = f"{row['state']}: {row['error']}" if row["error"] else str(row["state"])
            grid.add_row(*map(escape, (str(row["run_id"]), str(row["seed"]), *shown, state)))
        console.print(grid)
    console.print(f"each run's files: {folder}/<run>/", soft_wrap=True, highlight=False, markup=False)


def _publish(console: Console, results: Path) -> None:
    from sqzlab.analysis.files import write_files
    from sqzlab.analysis.published import read_published, sprg_table, ssenet_table
    from sqzlab.analysis.writers import WRITERS

    rows = read_published(_published_file(results))
    tables = ssenet_table(rows), sprg_table(rows)
    target = results / "published"
    write_files(target, {f"{t.name}.{kind}": write(t).encode() for t in tables for kind, write in WRITERS.items()})
    for table in tables:
        _show(console, table)
    console.print(f"written: {target}", soft_wrap=True, highlight=False, markup=False)


def _show(console: Console, table: Table) -> None:
    """A table within the terminal's width; sections are divided by a line."""
    from rich.markup import escape
    from rich.table import Table as Grid

    grid = Grid(box=None, pad_edge=False)
    for column in table.columns:
        grid.add_column(column.title, justify="right" if column.number else "left", overflow="fold")
    for section in table.sections[:MOST_SECTIONS]:
        grid.add_row()
        grid.add_row(f"[bold]{escape(section.title)}[/bold]")
        for row in section.rows[:MOST_ROWS]:
            grid.add_row(*(escape(str(entry)) for entry in row))
        if len(section.rows) > MOST_ROWS:
            grid.add_row(f"… {len(section.rows) - MOST_ROWS:,} more in the report")
    console.print(grid, highlight=False)
    if len(table.sections) > MOST_SECTIONS:
        console.print(f"… {len(table.sections) - MOST_SECTIONS:,} more groups in the report")
    console.print()
    for text in (table.caption, *(f"[{mark}] {note}" for mark, note in table.notes)):
        console.print(text, style="dim", markup=False, highlight=False)
    console.print()


def _warn(console: Console, warnings: Sequence[str]) -> None:
    for warning in warnings[:MOST_ROWS]:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)
    if len(warnings) > MOST_ROWS:
        console.print(f"… {len(warnings) - MOST_ROWS:,} more warnings in the report", style="yellow")


def _published_file(results: Path) -> Path:
    """published.csv of this folder of results, else the project's own."""
    own = results / "published.csv"
    return own if own.is_file() else Path(__file__).parents[2] / "results" / "published.csv"


MOST_SECTIONS, MOST_ROWS = 12, 24
