"""What the report says of single runs: configuration, origin, learning curve, failure, end of the log, files.

Everything is read from the run's folder, and nothing in it is trusted: text goes on as text, and what is damaged is
left out.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqzlab.analysis.arms import Group
from sqzlab.analysis.metrics import METRICS as SHOWN
from sqzlab.analysis.progress import Progress, read_object
from sqzlab.analysis.records import Records, Row
from sqzlab.run import CONFIG, EPOCHS, FAILURE, PROVENANCE

Page = dict[str, Any]
Pairs = list[tuple[str, str]]
MOST_RUNS, MOST_OF_MANY, MOST_BYTES = 500, 100, 10_000_000
LOG_LINES, LOG_BYTES, LONGEST_LINE = 40, 65_536, 400
MOST_EPOCHS, LONGEST_TEXT = 10**9, 20_000
LOG = "log.txt"


def run_pages(
    records: Records,
    groups: Sequence[Group],
    progress: Mapping[str, Progress],
    most: int | None = None,
    most_bytes: int = MOST_BYTES,
) -> dict[str, Page]:
    """A page for each run that has begun, by run id in the order of the records; at most so many and so large.

    Where there are more, those without a result come first, then the first seeds of every arm.
    """
    arms = {
        row["run_id"]: (anchor(i, j), group.title, arm.label)
        for i, group in enumerate(groups)
        for j, arm in enumerate(group.arms)
        for row in arm.rows
    }
    if most is None:  # of a large study the page stays small, and is made quickly
        most = MOST_RUNS if len(records.rows) <= MOST_RUNS else MOST_OF_MANY
    logs = _JobLogs(records.folder)
    chosen: dict[str, Page] = {}
    left = most_bytes
    wanted = _by_weight(records, groups, progress)
    rows = {row["run_id"]: row for row in records.rows}
    for run_id in wanted[:most]:
        page = _page(records.folder / run_id, rows[run_id], arms.get(run_id), progress.get(run_id), logs)
        if (size := len(json.dumps(page))) <= left:
            left -= size
            chosen[run_id] = page
    return {run_id: chosen[run_id] for run_id in rows if run_id in chosen}


def anchor(group: int, arm: int) -> str:
    """Where the runs of an arm begin in the page's list."""
    return f"arm-{group}-{arm}"


def _by_weight(records: Records, groups: Sequence[Group], progress: Mapping[str, Progress]) -> list[str]:
    broken = ("failed", "damaged")
    first = [row["run_id"] for row in records.rows if row["state"] in broken or row["run_id"] in progress]
    done = [[row["run_id"] for row in arm.done] for group in groups for arm in group.arms]
    longest = max(map(len, done), default=0)
    seeds = [runs[i] for i in range(longest) for runs in done if i < len(runs)]
    others = [row["run_id"] for row in records.rows if row["state"] == "done" and not row["planned"]]
    return list(dict.fromkeys([*first, *seeds, *others]))


def _page(
    folder: Path,
    row: Row,
    arm: tuple[str, str, str] | None,
    progress: Progress | None,
    logs: _JobLogs,
) -> Page:
    config, origin = read_object(folder / CONFIG), read_object(folder / PROVENANCE)
    state = str(progress) if progress else str(row["state"])
    segments = [one for one in _list(origin.get("segments")) if isinstance(one, dict)]
    page: Page = {
        "state": state if row["planned"] else f"{state}, not in the plan",
        "arm": arm,
        "facts": _facts(row),
        "config": _config(config),
        "origin": _origin(origin, row),
        "segments": _segments(segments),
        "epochs": _epochs(folder / EPOCHS),
        "failure": None,
        "log": _log(folder, logs, segments),
        "files": _files(folder),
    }
    if row["state"] == "failed" or (progress and not progress.alive):
        told = read_object(folder / FAILURE)
        page["failure"] = {key: _text(told[key]) for key in ("error", "traceback", "time", "host") if key in told}
    if row["error"] and not page["failure"]:
        page["failure"] = {"error": _text(row["error"])}
    return page


def _facts(row: Row) -> Pairs:
    """The numbers of a finished run, as shown."""
    facts = []
    for key, title, form in FACTS:
        value = row[key]
        if value is not None:
            facts.append((title, form(value)))
    return facts


def _config(values: Mapping[str, Any]) -> list[tuple[str, Pairs]]:
    """The resolved configuration by section, the study and its cell first."""
    resolved = values.get("config")
    resolved = resolved if isinstance(resolved, dict) else {}
    head = [(key, _text(values[key])) for key in ("study", "profile") if key in values]
    head += [(key, _text(value)) for key, value in _dict(values.get("cell")).items()]
    head += [(key, _text(value)) for key, value in resolved.items() if not isinstance(value, dict)]
    sections = [("run", head)] if head else []
    for section, content in resolved.items():
        if isinstance(content, dict):
            sections.append((str(section), [(str(key), _text(value)) for key, value in content.items()]))
    return sections


def _origin(values: Mapping[str, Any], row: Row) -> Pairs:
    """Where the result comes from; for a record without provenance, what its metrics say."""
    known = {key: row[key] for key in ("git_commit", "git_dirty", "torch", "gpu", "device")} | dict(values)
    told = {key: value for key, value in known.items() if value not in (None, "") and value == value}
    if isinstance(dirty := told.get("git_dirty"), bool):
        told["git_dirty"] = "yes" if dirty else "no"
    lines = [(title, _text(told[key])) for key, title in ORIGIN.items() if key in told]
    if isinstance(diff := known.get("git_diff"), str):
        lines.append(("its changes", f"{len(diff.splitlines()):,} lines of diff, in {PROVENANCE}"))
    return lines


def _segments(segments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The parts in which the run was trained, only the columns in which something stands."""
    keys = [key for key in SEGMENT if any(one.get(key) not in (None, "") for one in segments)]
    rows = [["" if one.get(key) is None else _in_segment(key, one[key]) for key in keys] for one in segments]
    return {"columns": [SEGMENT[key] for key in keys], "rows": rows}


def _in_segment(key: str, value: object) -> str:
    return _text(value)[:10] if key == "git_commit" else TIME.sub(r"\1 \2", _text(value))


def _epochs(path: Path) -> dict[str, list[float | None]]:
    """The learning curve by column, in five digits; lines that are damaged are left out."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return {}
    epochs: dict[int, Mapping[str, Any]] = {}
    for line in lines:
        try:
            values = json.loads(line)
            if 0 <= (epoch := int(values["epoch"])) < MOST_EPOCHS:
                epochs[epoch] = values
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            continue
    if not epochs:
        return {}
    columns: dict[str, list[float | None]] = {"epoch": [float(epoch) for epoch in sorted(epochs)]}
    for name, (key, transform) in CURVES.items():
        found = [_number(epochs[epoch].get(key)) for epoch in sorted(epochs)]
        if any(value is not None for value in found):
            columns[name] = [None if value is None else float(f"{transform(value):.5g}") for value in found]
    return columns


class _JobLogs:
    """The logs of a study's Slurm jobs, listed once and only where a run asks."""

    def __init__(self, study: Path) -> None:
        self.study = study
        self.known: dict[str, Path] | None = None

    def of(self, job: object) -> Path | None:
        if not isinstance(job, str):
            return None
        if self.known is None:
            found = sorted((self.study / "slurm").glob("*/*_0_log.out"))
            self.known = {path.name.removesuffix("_0_log.out"): path for path in found}
        return self.known.get(job)


def _log(folder: Path, logs: _JobLogs, segments: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The last lines of the run's own log, else of its last job's."""
    job = segments[-1].get("slurm_job") if segments else None
    for path in (folder / LOG, logs.of(job)):
        if path is None:
            continue
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(0, size - LOG_BYTES))
                text = file.read().decode(errors="replace")
        except OSError:
            continue
        lines = [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")]  # a bar's last state
        lines = [CONTROL.sub("", ANSI.sub("", line))[:LONGEST_LINE].rstrip() for line in lines]
        while lines and not lines[-1]:
            lines.pop()
        if lines:
            return {"name": os.path.relpath(path, folder.parent), "lines": lines[-LOG_LINES:]}
    return None


def _files(folder: Path) -> list[tuple[str, int]]:
    """What a finished writer leaves in the folder, with sizes; not what only says who writes."""
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.stat().st_size) for entry in entries if entry.is_file()]
    except OSError:
        return []
    return sorted((name, size) for name, size in found if not name.startswith((".", "lease.")) and name.isprintable())


def _text(value: object) -> str:
    """As shown; of what is long, beginning and end."""
    text = _plain(value)
    if len(text) <= LONGEST_TEXT:
        return text
    half = LONGEST_TEXT // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters ...]\n{text[-half:]}"


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    return json.dumps(value, default=str) if isinstance(value, dict) else str(value)


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _list(value: object) -> Iterable[Any]:
    return value if isinstance(value, list) else []


def _dict(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}


ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
TIME = re.compile(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)\.\d+(?=\+00:00$)")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
FACTS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("top1", "Top-1", lambda value: f"{SHOWN['top1'].transform(value):.2f} %"),
    ("top5", "Top-5", lambda value: f"{SHOWN['top5'].transform(value):.2f} %"),
    ("val_loss", "validation loss", lambda value: f"{value:.4f}"),
    ("train_loss", "training loss", lambda value: f"{value:.4f}"),
    ("epochs", "epochs", lambda value: f"{value:,}"),
    ("params", "parameters", lambda value: f"{value:,}"),
    ("macs", "multiply-accumulates", lambda value: f"{value:,}"),
    ("train_images_per_s", "training speed", lambda value: f"{value:,.0f} images/s"),
    ("time_s", "time", lambda value: f"{value:,.1f} s"),
)
ORIGIN = {
    "git_commit": "commit",
    "git_dirty": "uncommitted changes",
    "code": "code (digest of the package)",
    "sqzlab": "sqzlab",
    "python": "python",
    "torch": "torch",
    "torchvision": "torchvision",
    "cuda": "CUDA",
    "gpu": "GPU",
    "device": "device",
    "cpu": "CPU",
    "host": "host",
    "command": "command",
}
SEGMENT = {
    "first_step": "first step",
    "last_step": "last step",
    "why": "why it ended",
    "start": "start",
    "end": "end",
    "host": "host",
    "node": "node",
    "slurm_job": "job",
    "restart": "restart",
    "world_size": "processes",
    "gpu": "GPU",
    "torch": "torch",
    "git_commit": "commit",
    "git_dirty": "uncommitted changes",
}
CURVES: Mapping[str, tuple[str, Callable[[float], float]]] = {
    "training loss": ("train_loss", lambda value: value),
    "validation loss": ("val_loss", lambda value: value),
    "Top-1 %": ("top1", SHOWN["top1"].transform),
    "Top-5 %": ("top5", SHOWN["top5"].transform),
    "training Top-1 %": ("train_top1", SHOWN["top1"].transform),
    "learning rate": ("lr", lambda value: value),
}
