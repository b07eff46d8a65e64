"""Tables, figures and a report of studies, from their files alone, also while they run; written to FOLDER/report/."""

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
EPILOG = "exit codes: 0 written; 2 what you wrote is wrong; 3 a file cannot be read or written; 130 Ctrl-C"
MOST_SECTIONS, MOST_ROWS = 12, 24  # of a table in the terminal


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


def analyse(folder: Path, console: Console, correction: str = "dunnett", figures: bool = True) -> Path:
    """Writes the study's report, prints its main table, and returns the path of the report's page.

    Raises ConfigError where the folder is no study, OSError where it cannot be read or written.
    """
    from sqzlab.analysis.progress import describe_progress
    from sqzlab.analysis.published import read_published
    from sqzlab.analysis.report import make_report, write_report

    published = _published_file(folder.absolute().parent)
    report = make_report(folder, read_published(published) if published.is_file() else (), correction, figures)
    page = write_report(report)
    if told := describe_progress(report.records, report.progress):
        console.print(told, style="bold", markup=False, highlight=False)
    _warn(console, report.warnings)
    _show(console, report.tables[0])
    if report.not_drawn:
        console.print(report.not_drawn, style="yellow", highlight=False)
    full = page.with_name("full.md")
    console.print(f"intervals and p values of every arm: {full}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"report: {page}", soft_wrap=True, highlight=False, markup=False)
    return page


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="analyze.py", description=__doc__, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("studies", nargs="*", type=Path, metavar="FOLDER", help="studies; default: all under --results")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument("--published", action="store_true", help="the tables of the two published studies again")
    parser.add_argument("--explain", metavar="ARM", help="the runs and sums behind an arm, such as gap")
    parser.add_argument("--against", metavar="ARM", help="with --explain: the seeds that would tell the two arms apart")
    told = "for comparing many arms with one baseline: dunnett (default), holm or none"
    parser.add_argument("--correction", metavar="NAME", help=told)
    parser.add_argument("--no-figures", action="store_true", help="tables and page only, for a quick look")
    return parser


def _act(options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    if options.published:
        if options.studies or options.explain or options.against or options.correction:
            told = "--published goes with --results alone: it reads nothing but published.csv"
            raise ConfigError(told)
        _publish(console, options.results)
        return
    if options.against and not options.explain:
        raise ConfigError("--against needs --explain: the other of the two arms")
    from sqzlab.statistics.comparison import CORRECTIONS

    correction = options.correction or CORRECTIONS[0]
    if correction not in CORRECTIONS:
        raise ConfigError(f"--correction: {correction!r}; {choices(CORRECTIONS, correction)}")
    folders = options.studies or _studies(options.results)
    faults: list[SqzlabError] = []
    for folder in folders:  # one that cannot be read keeps no other from its report
        try:
            if options.explain is None:
                if len(folders) > 1:
                    console.rule(escape(str(folder)), align="left")
                analyse(folder, console, correction, not options.no_figures)
            else:
                explain(folder, options.explain, console, correction, options.against)
        except SqzlabError as error:
            faults.append(error)
    if faults and (options.explain is None or options.studies or len(faults) == len(folders)):
        raise ConfigError(line for error in faults for line in str(error).splitlines())


def _studies(results: Path) -> list[Path]:
    from sqzlab.analysis.records import is_study

    if not results.is_dir():
        raise ConfigError(f"{results}: no such folder; valid: the folder that launch.py writes its results to")
    found = [folder for folder in sorted(results.iterdir()) if folder.is_dir() and is_study(folder)]
    if not found:
        raise ConfigError(f"{results}: no study in it yet; launch.py experiments/squeeze_ablation.yaml makes one")
    return found


def explain(folder: Path, arm: str, console: Console, correction: str = "dunnett", against: str | None = None) -> None:
    """Prints every run behind the arm of this name, or behind all arms with this value on an axis, and the sums."""
    from sqzlab.analysis.explain import explain_arm, explain_pair

    pair = () if against is None else explain_pair(folder, arm, against, correction)
    for table in explain_arm(folder, arm, correction):
        _show(console, table, most=len(table.sections[0].rows))
    for sentence in pair:
        console.print(sentence, markup=False, highlight=False)
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


def _show(console: Console, table: Table, most: int = MOST_ROWS) -> None:
    """A table within the terminal's width; sections are divided by a line."""
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=None, pad_edge=False)
    for column in table.columns:
        grid.add_column(column.title, justify="right" if column.number else "left", overflow="fold")
    for section in table.sections[:MOST_SECTIONS]:
        grid.add_row()
        grid.add_row(Text(section.title, "bold"))
        for row in section.rows[:most]:
            grid.add_row(*(Text(str(entry), "bold" if entry.bold else "") for entry in row))
        if len(section.rows) > most:
            grid.add_row(f"… {len(section.rows) - most:,} more in the report")
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
