"""Reads a study's folder: a row for every run that is planned or found, whatever its state; and those as a frame.

Nothing in a folder can make it fail: what is damaged becomes a row with the state `damaged`, or a warning line.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqzlab.analysis.index import Found, Index
from sqzlab.config import ModelConfig
from sqzlab.errors import ConfigError
from sqzlab.resolving import complete
from sqzlab.run import CONFIG, FAILURE, METRICS, PLAN, PROVENANCE

if TYPE_CHECKING:
    import pandas as pd

STATES = ("done", "failed", "damaged", "missing")
Row = Mapping[str, Any]
Segments = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Plan:
    """What plan.json says should exist."""

    study: str
    profile: str | None
    axes: tuple[str, ...]
    baseline: Mapping[str, Any]
    runs: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Records:
    """A study's folder as read: its plan, one row a run, and what was wrong with the files."""

    folder: Path
    plan: Plan | None
    axes: tuple[str, ...]
    rows: tuple[Row, ...]  # each with all COLUMNS and axes; None for what does not exist
    resumed: Mapping[str, Segments]  # run id to the segments its result comes from, where they are several
    warnings: tuple[str, ...]

    @property
    def baseline(self) -> Mapping[str, Any]:
        return self.plan.baseline if self.plan is not None else DEFAULT_BASELINE

    @cached_property
    def distinct(self) -> Mapping[str, str]:
        """Of every origin of the finished runs, its values, each once: "8" or "8 and 10", "unknown" without any."""
        told = {}
        for key in ORIGINS:
            values = {row[key] for row in self.done} - {None}
            told[key] = " and ".join(sorted(f"{v:,}" if isinstance(v, int) else str(v) for v in values)) or "unknown"
        return told

    @cached_property
    def counted(self) -> tuple[Row, ...]:
        """The runs that tables and figures count: the planned ones, or the finished ones where there is no plan."""
        return tuple(row for row in self.rows if (row["planned"] if self.plan is not None else row["state"] == "done"))

    @cached_property
    def done(self) -> tuple[Row, ...]:
        """Those of the counted runs that are finished."""
        return tuple(row for row in self.counted if row["state"] == "done")

    def model(self, run_id: str) -> ModelConfig | None:
        """The network of a run as its config.json has it, defaults filled in; None where it cannot be read."""
        if run_id not in self._models:
            self._models[run_id] = _read_model(self.folder / run_id / CONFIG)
        return self._models[run_id]

    @cached_property
    def _models(self) -> dict[str, ModelConfig | None]:
        return {}


def load_records(folder: Path | str) -> pd.DataFrame:
    """One row a run: `state` (done, failed, damaged, missing), `planned`, `error`, metrics, axes by dotted name.

    Metrics are fractions and counts in full precision, of the last epoch. `folder` is this folder in every row, so that
    frames of several studies can be put together. `frame.attrs` has the study's `baseline`, which `sqzlab.compare` and
    the plotting functions take where nothing else is said; pandas keeps it where all frames have the same. Raises
    ConfigError where the folder is no study.
    """
    import pandas as pd

    records = read_study(Path(folder))
    columns = [*COLUMNS, *records.axes]
    frame = pd.DataFrame(list(records.rows), columns=columns, dtype=object)  # object: an axis keeps 8 beside None
    frame = frame.astype(
        {"planned": bool} | {key: "Int64" if kind is int else "float64" for key, kind in KINDS.items()}
    )
    frame.insert(len(COLUMNS), "folder", str(folder))
    frame.attrs = {"baseline": dict(records.baseline)}
    return frame


def is_study(folder: Path) -> bool:
    """Whether the folder holds a plan or at least one run's metrics."""
    if (folder / PLAN).is_file():
        return True
    return folder.is_dir() and any((folder / run / METRICS).is_file() for run in _run_folders(folder))


def read_study(folder: Path) -> Records:
    """The plan and all runs of a study's folder. Raises ConfigError where the folder is no study."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; valid: a folder of results that launch.py wrote")
    if not is_study(folder):
        raise ConfigError(f"{folder}: no study (neither {PLAN} nor a run with {METRICS}); launch.py writes both")
    plan, warnings = _read_plan(folder / PLAN)
    planned = {run["run_id"]: run for run in plan.runs} if plan is not None else {}
    index = Index(folder, (METRICS, PROVENANCE), _finished)
    resumed: dict[str, Segments] = {}
    rows, unread = [], []
    for run_id in (*planned, *(name for name in _run_folders(folder) if name not in planned)):
        found = index.read(run_id)
        row = _row(folder, run_id, planned.get(run_id), found)
        if row["planned"] or row["state"] != "missing":
            rows.append(row)
        if found is not None:
            *_, segments, damaged = found
            resumed |= {run_id: tuple(segments)} if segments else {}
            unread += [run_id] if damaged else []
            if changed := _changed_counts(row, planned.get(run_id)):
                warnings.append(f"{run_id}: {changed}")
    index.save()
    axes = plan.axes if plan is not None else tuple(sorted({axis for row in rows for axis in row if "." in axis}))
    if unread:
        which = unread[0] if len(unread) == 1 else f"such as {unread[0]}"
        told = f"{PROVENANCE} of {len(unread):,} run{'s' * (len(unread) != 1)} is damaged ({which})"
        warnings.append(f"{told}: whether they were trained in parts of different origin cannot be told")
    for row in rows:
        for axis in axes:
            row.setdefault(axis, None)
    return Records(folder, plan, axes, tuple(rows), resumed, tuple(warnings))


# ---- one run -----------------------------------------------------------------------------------


def _row(folder: Path, run_id: str, planned: Mapping[str, Any] | None, found: Found | None) -> dict[str, Any]:
    """COLUMNS and the axes of the run's cell; `found` is what `_finished` says."""
    row: dict[str, Any]
    if found is not None:
        cell: Mapping[str, Any] = json.loads(found[len(MEASURED)]) if planned is None else planned["cell"]
        row = dict(zip(COLUMNS, (run_id, planned is not None, "done", None, *found), strict=False))
        row.update(cell)
        return row
    row = dict.fromkeys(COLUMNS)
    row |= {"run_id": run_id, "planned": planned is not None, "state": "missing"}
    if planned is not None:
        row |= {"seed": int(planned["seed"]), "params": planned.get("params"), "macs": planned.get("macs")}
        row |= planned["cell"]
    return row | _unfinished(folder / run_id)


def _finished(folder: Path) -> Found | None:
    """A value for each of MEASURED, cell (as text), segments, whether provenance.json is damaged.

    None unless the metrics of the run are there and usable.
    """
    try:
        values = json.loads((folder / METRICS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if why_unusable(values, folder.name):
        return None
    segments, code, unread = _origins(folder / PROVENANCE)
    kept = {key: values.get(key) for key in MEASURED} | ({"code": code} if code is not None else {})
    for key, value in kept.items():
        if KINDS.get(key) is float:
            kept[key] = float(value) if _is_finite(value) else None
        elif value != value:  # NaN among texts
            kept[key] = None
    return *kept.values(), json.dumps(values.get("cell", {})), segments, unread


def _unfinished(folder: Path) -> dict[str, Any]:
    """State and error of a run without usable metrics."""
    try:
        values = json.loads((folder / METRICS).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return _failure(folder / FAILURE)
    except OSError as error:
        return {"state": "damaged", "error": f"{METRICS}: {_why(error)}"}
    except (ValueError, RecursionError) as error:
        return {"state": "damaged", "error": f"{METRICS}: not whole JSON ({_one_line(error)})"}
    fault = why_unusable(values, folder.name)
    return {"state": "damaged", "error": f"{METRICS}: {fault}"} if fault else {}  # else it ended this very moment


def why_unusable(values: Any, run_id: str) -> str | None:
    """What makes the metrics of this run unusable, or None: a measurement beside them that is no number does not."""
    if not isinstance(values, dict):
        return "not a JSON object"
    if absent := [key for key in REQUIRED if key not in values]:
        return f"without {', '.join(absent)}"
    if values["run_id"] != run_id:
        return f"of another run, {values['run_id']!r}"
    for key, kind in KINDS.items():
        value = values.get(key)
        if key in OPTIONAL or (value is None and key not in REQUIRED):
            continue
        if kind is int and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63):
            return f"{key} is {value!r}, no count"
        if kind is float and not _is_finite(value):
            return f"{key} is {value!r}, no finite number"
    if not _scalars(values.get(key) for key in TEXTS) or not _is_cell(values.get("cell", {})):
        return "a value that is no text, number or truth value"
    for key in ("top1", "top5"):
        if not 0 <= values[key] <= 1:
            return f"{key} is {values[key]!r}, no fraction"
    return None


def _failure(path: Path) -> dict[str, Any]:
    try:
        error = json.loads(path.read_bytes())["error"]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        error = f"{path.name} is damaged"
    return {"state": "failed", "error": _one_line(error)}


def _origins(path: Path) -> tuple[list[Mapping[str, Any]] | None, str | None, bool]:
    """Segments of a run that was resumed, the digest of its code, and whether provenance.json is damaged.

    A segment that was taken up again at its own first step, or before it, left nothing in the result.
    """
    try:
        values = json.loads(path.read_bytes())
        kept = values["segments"][-1:]
        for segment in reversed(values["segments"]):
            if segment["first_step"] < kept[-1]["first_step"]:
                kept.append(segment)
        code = values.get("code")
    except (FileNotFoundError, NotADirectoryError):
        return None, None, False
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None, None, True
    return (kept[::-1] if len(kept) > 1 else None), (code if isinstance(code, str) else None), False


def _changed_counts(row: Mapping[str, Any], planned: Mapping[str, Any] | None) -> str | None:
    for key in ("params", "macs"):
        if planned and planned.get(key) not in (None, row[key]):
            return f"counted {row[key]:,} {key}, the plan says {planned[key]:,}"
    return None


def _read_model(path: Path) -> ModelConfig | None:
    try:
        return _model(json.dumps(json.loads(path.read_bytes())["config"]["model"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


@lru_cache(maxsize=1024)
def _model(section: str) -> ModelConfig | None:
    """Few of a study's networks differ."""
    found = complete(ModelConfig.model_validate(json.loads(section)))
    return found if isinstance(found, ModelConfig) else None


# ---- the plan ----------------------------------------------------------------------------------


def _read_plan(path: Path) -> tuple[Plan | None, list[str]]:
    try:
        values = json.loads(path.read_bytes())
        runs = tuple(values["runs"])
        for run in runs:
            if not (NAME.fullmatch(run["run_id"]) and _is_cell(run["cell"]) and isinstance(run["seed"], int)):
                raise TypeError("a run without usable run_id, cell and seed")
        axes, baseline = tuple(values["axes"]), values.get("baseline") or {}
        if not _is_cell(baseline) or not _is_cell(dict.fromkeys(axes)):
            raise TypeError("axes or baseline of another kind")
        plan = Plan(values["study"], values.get("profile"), axes, baseline, runs)
    except FileNotFoundError:
        return None, [f"{path.name} is absent: cells that were planned and never ran cannot be shown"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return None, [f"{path.name} is damaged ({_one_line(error)}): planned cells that never ran cannot be shown"]
    return plan, []


def _is_cell(values: object) -> bool:
    """Whether this is a mapping from dotted axes to single values."""
    return isinstance(values, dict) and all("." in axis for axis in values) and _scalars(values.values())


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _scalars(values: Iterable[object]) -> bool:
    return all(value is None or isinstance(value, str | int | float) for value in values)


def _run_folders(folder: Path) -> Sequence[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__


NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
DEFAULT_BASELINE = {"model.squeeze": "baseline"}
KINDS: dict[str, type] = {
    "seed": int,
    "top1": float,
    "top5": float,
    "val_loss": float,
    "train_loss": float,
    "epochs": int,
    "params": int,
    "macs": int,
    "train_images_per_s": float,
    "time_s": float,
    "train_images": int,
    "val_images": int,
    "classes": int,
}
TEXTS = (
    *("study", "profile", "backbone", "squeeze", "reduction", "fc_bias", "data", "recipe", "precision", "device"),
    *("compile", "block_form", "gpu", "git_commit", "git_dirty", "code", "torch", "initial_weights", "data_order"),
)
MEASURED = (*KINDS, *TEXTS)
COLUMNS = ("run_id", "planned", "state", "error", *MEASURED)
REQUIRED = ("run_id", "seed", "top1", "top5", "val_loss", "epochs", "params", "macs")
OPTIONAL = tuple(key for key, kind in KINDS.items() if kind is float and key not in REQUIRED)
ORIGINS = ("epochs", "data", "classes", "train_images", "val_images", "device", "gpu", "precision", "torch")
