"""Reads a study's folder into one frame: a row for every run that is planned or found, whatever its state.

Nothing in a folder can make it fail: what is damaged becomes a row with the state `damaged`, or a warning line.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqzlab.analysis.index import Index
from sqzlab.config import ModelConfig, complete
from sqzlab.errors import ConfigError
from sqzlab.run import CONFIG, EPOCHS, FAILURE, METRICS, PLAN, PROVENANCE

if TYPE_CHECKING:
    import pandas as pd

STATES = ("done", "failed", "damaged", "missing")
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
    frame: pd.DataFrame
    resumed: Mapping[str, Segments]  # run id to the segments its result comes from, where they are several
    warnings: tuple[str, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(column for column in self.frame.columns if "." in column)

    @property
    def baseline(self) -> Mapping[str, Any]:
        return self.plan.baseline if self.plan is not None else DEFAULT_BASELINE

    @cached_property
    def distinct(self) -> Mapping[str, str]:
        """Of every origin of the finished runs, its values, each once: "8" or "8 and 10", "unknown" without any."""
        done = self.counted[self.counted["state"] == "done"]
        told = {}
        for key in ORIGINS:
            values = done[key].dropna().unique().tolist()
            told[key] = " and ".join(sorted(f"{v:,}" if isinstance(v, int) else str(v) for v in values)) or "unknown"
        return told

    @cached_property
    def counted(self) -> pd.DataFrame:
        """The runs that tables and figures count: the planned ones, or the finished ones where there is no plan."""
        return self.frame[self.frame["planned"] if self.plan is not None else self.frame["state"] == "done"]


def load_records(folder: Path | str) -> pd.DataFrame:
    """One row a run: `state` (done, failed, damaged, missing), `planned`, `error`, metrics, axes by dotted name.

    Metrics are fractions and counts in full precision, of the last epoch. `folder` is this folder in every row, so that
    frames of several studies can be put together. `frame.attrs` has the study's `baseline`, which `sqzlab.compare` and
    the plotting functions take where nothing else is said; pandas keeps it where all frames have the same. Raises
    ConfigError where the folder is no study.
    """
    records = read_study(Path(folder))
    records.frame.insert(len(COLUMNS), "folder", str(folder))
    records.frame.attrs = {"baseline": dict(records.baseline)}
    return records.frame


def is_study(folder: Path) -> bool:
    """Whether the folder holds a plan or at least one run's metrics."""
    if (folder / PLAN).is_file():
        return True
    return folder.is_dir() and any((run / METRICS).is_file() for run in _run_folders(folder))


def read_study(folder: Path) -> Records:
    """The plan and all runs of a study's folder. Raises ConfigError where the folder is no study."""
    import pandas as pd

    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; valid: a folder of results that launch.py wrote")
    if not is_study(folder):
        raise ConfigError(f"{folder}: no study (neither {PLAN} nor a run with {METRICS}); launch.py writes both")
    plan, warnings = _read_plan(folder / PLAN)
    planned = {run["run_id"]: run for run in plan.runs} if plan is not None else {}
    index = Index(folder, (METRICS, PROVENANCE), _finished)
    rows = [_row(folder / run_id, run, index) for run_id, run in planned.items()]
    for run_folder in _run_folders(folder):
        if run_folder.name not in planned and (row := _row(run_folder, None, index))["state"] != "missing":
            rows.append(row)
    index.save()
    resumed = {row["run_id"]: tuple(segments) for row in rows if (segments := row.get("segments"))}
    unread = [row["run_id"] for row in rows if row.get("unread")]
    axes = plan.axes if plan is not None else sorted({axis for row in rows for axis in row if "." in axis})
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *axes], dtype=object)  # object: an axis keeps 8 beside None
    frame = frame.astype(
        {"planned": bool} | {key: "Int64" if kind is int else "float64" for key, kind in KINDS.items()}
    )
    for row in rows:
        if row["state"] == "done" and (changed := _changed_counts(row, planned.get(row["run_id"]))):
            warnings.append(f"{row['run_id']}: {changed}")
    if unread:
        which = unread[0] if len(unread) == 1 else f"such as {unread[0]}"
        told = f"{PROVENANCE} of {len(unread):,} run{'s' * (len(unread) != 1)} is damaged ({which})"
        warnings.append(f"{told}: whether they were trained in parts of different origin cannot be told")
    return Records(folder, plan, frame, resumed, tuple(warnings))


def load_curves(folder: Path, run_ids: Iterable[str]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """One row for each epoch of each of these runs (`run_id, epoch, train_loss, val_loss, top1, ...`), and warnings.

    A line that a crash cut short is left out with a warning; of an epoch that is there twice, the later line counts.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    warnings: list[str] = []
    for run_id in run_ids:
        path = folder / run_id / EPOCHS
        try:
            lines = path.read_bytes().splitlines()
        except OSError as error:
            warnings.append(f"{run_id}: {EPOCHS}: {_why(error)}; its learning curve is not drawn")
            continue
        epochs = {}
        for number, line in enumerate(lines, start=1):
            try:
                values = json.loads(line)
                epochs[int(values["epoch"])] = {key: float(values[key]) for key in CURVES}
            except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
                what = "the last line is cut short" if number == len(lines) else f"line {number} is damaged"
                warnings.append(f"{run_id}: {EPOCHS}: {what} and left out")
        rows += [{"run_id": run_id, "epoch": epoch, **epochs[epoch]} for epoch in sorted(epochs)]
    return pd.DataFrame(rows, columns=["run_id", "epoch", *CURVES]), tuple(warnings)


def read_model(folder: Path, run_id: str) -> ModelConfig | None:
    """The network of a run as its config.json has it, defaults filled in; None where it cannot be read."""
    try:
        values = json.loads((folder / run_id / CONFIG).read_bytes())["config"]["model"]
        found = complete(ModelConfig.model_validate(values))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return found if isinstance(found, ModelConfig) else None


# ---- one run -----------------------------------------------------------------------------------


def _row(folder: Path, planned: Mapping[str, Any] | None, index: Index) -> dict[str, Any]:
    row: dict[str, Any] = {"run_id": folder.name, "planned": planned is not None, "state": "missing", "error": None}
    if planned is not None:
        row |= {"seed": planned["seed"], "params": planned.get("params"), "macs": planned.get("macs")}
        row |= planned["cell"]
    if (found := index.read(folder)) is None:
        return row | _unfinished(folder)
    if planned is None:
        row |= found["cell"]
    row |= found["values"]
    return row | {"state": "done", "segments": found["segments"], "unread": found["unread"]}


def _finished(folder: Path) -> dict[str, Any] | None:
    """What the files of a run say, None unless its metrics are there and usable."""
    try:
        values = json.loads((folder / METRICS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if why_unusable(values, folder.name):
        return None
    segments, code, unread = _origins(folder / PROVENANCE)
    kept = {key: values.get(key) for key in COLUMNS[4:]} | ({"code": code} if code is not None else {})
    kept |= {key: None for key in OPTIONAL if not _is_finite(kept[key])}
    return {"values": kept, "cell": values.get("cell", {}), "segments": segments, "unread": unread}


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


def _run_folders(folder: Path) -> Sequence[Path]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    return [folder / name for name in sorted(names)]


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
    *("gpu", "git_commit", "git_dirty", "code", "torch", "initial_weights", "data_order"),
)
COLUMNS = ("run_id", "planned", "state", "error", *KINDS, *TEXTS)
REQUIRED = ("run_id", "seed", "top1", "top5", "val_loss", "epochs", "params", "macs")
OPTIONAL = tuple(key for key, kind in KINDS.items() if kind is float and key not in REQUIRED)
ORIGINS = ("epochs", "data", "classes", "train_images", "val_images", "device", "gpu", "precision", "torch")
CURVES = ("train_loss", "val_loss", "top1", "top5")
