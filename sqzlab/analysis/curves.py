"""Reads the learning curves of a study's runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from sqzlab.run import EPOCHS

CURVES = ("train_loss", "val_loss", "top1", "top5")


def load_curves(folder: Path, run_ids: Iterable[str]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """One row for each epoch of each of these runs (`run_id, epoch, train_loss, val_loss, top1, ...`), and warnings.

    A line that a crash cut short is left out with a warning; of an epoch that is there twice, the later line counts.
    """
    rows: list[dict[str, Any]] = []
    warnings: list[str] = []
    for run_id in run_ids:
        path = folder / run_id / EPOCHS
        try:
            lines = path.read_bytes().splitlines()
        except OSError as error:
            why = (error.strerror or type(error).__name__).lower()
            warnings.append(f"{run_id}: {EPOCHS}: {why}; its learning curve is not drawn")
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
