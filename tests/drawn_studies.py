"""Frames of records in memory, with the accuracies that a test wants, and what stands in a figure of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sqzlab.analysis.arms import Group
from sqzlab.analysis.compare import group_frame
from sqzlab.analysis.records import COLUMNS, DEFAULT_BASELINE, KINDS

Cells = Sequence[tuple[Mapping[str, Any], Sequence[float | str]]]


def frame_of(cells: Cells, **values: Any) -> pd.DataFrame:
    """A frame of `load_records`: for each cell its seeds' Top-1, or a state where one has no result.

    `values` stand in all rows; a list holds one value for each cell, `params` for example.
    """
    rows = []
    for i, (cell, seeds) in enumerate(cells):
        own = {key: value[i] if isinstance(value, list) else value for key, value in values.items()}
        named = {"squeeze": cell.get("model.squeeze", "gap"), "backbone": cell.get("model.backbone", "resnet18")}
        for seed, top1 in enumerate(seeds):
            run_id = "-".join([*map(str, cell.values()), f"s{seed}"])
            row = dict.fromkeys(COLUMNS) | {"run_id": run_id, "planned": True, "seed": seed, "macs": 10**6, **cell}
            if isinstance(top1, str):
                rows.append(row | {"state": top1})
                continue
            measured = {"top1": top1, "top5": 0.99, "val_loss": 0.1, "train_loss": 0.1, "train_images_per_s": 900.0}
            rows.append(row | {"state": "done", "device": "cpu", "precision": "fp32", **named, **measured, **own})
    axes = dict.fromkeys(axis for cell, _ in cells for axis in cell)
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *axes], dtype=object)
    kinds = {key: "Int64" if kind is int else "float64" for key, kind in KINDS.items()}
    frame.insert(len(COLUMNS), "folder", "nowhere")
    frame.attrs = {"baseline": DEFAULT_BASELINE}
    return frame.astype({"planned": bool} | kinds)


def groups_of(cells: Cells, **values: Any) -> tuple[Group, ...]:
    return group_frame(frame_of(cells, **values), DEFAULT_BASELINE)


def squeezes(**seeds: Sequence[float | str]) -> Cells:
    return [({"model.squeeze": squeeze}, top1) for squeeze, top1 in seeds.items()]


def texts(where: Figure | Axes) -> str:
    """All that is written in a panel or in a figure's panels and margins, a line each."""
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in where.findobj(Text) if text.get_text()).replace("\u00a0", " ")


def points(ax: Axes, marker: str) -> list[tuple[float, float]]:
    """Places of the single points within the panel that have this marker."""
    lines = [line for line in ax.lines if line.get_marker() == marker and line.get_transform() == ax.transData]
    return [(float(x), float(y)) for line in lines for x, y in zip(*line.get_data(), strict=True)]
