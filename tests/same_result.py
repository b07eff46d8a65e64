"""What two runs of the same configuration must have in common, whatever happened to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_runs import lines

from sqzlab.run import CHECKPOINT, CORRECT, EPOCHS, METRICS, PROVENANCE
from sqzlab.runs.files import read_json

TIMINGS = {"train_images_per_s", "time_s", "images_per_s"}


def untimed(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in TIMINGS}


def assert_same_result(folder: Path, other: Path) -> None:
    """Equal metrics, epochs, per-image outcomes, weights and momentum, to the last bit."""
    metrics, others = read_json(folder / METRICS), read_json(other / METRICS)
    assert metrics is not None
    assert others is not None
    assert untimed(metrics) == untimed(others)
    assert [untimed(line) for line in lines(folder / EPOCHS)] == [untimed(line) for line in lines(other / EPOCHS)]
    with np.load(folder / CORRECT) as mine, np.load(other / CORRECT) as theirs:
        assert set(mine) == set(theirs)
        for key in mine:
            np.testing.assert_array_equal(mine[key], theirs[key])
    mine, theirs = (torch.load(path / CHECKPOINT, weights_only=True) for path in (folder, other))
    for name, value in mine["model"].items():
        assert torch.equal(value, theirs["model"][name]), name
    for key, state in mine["optimizer"]["state"].items():
        assert torch.equal(state["momentum_buffer"], theirs["optimizer"]["state"][key]["momentum_buffer"])


def segments(folder: Path) -> list[dict[str, Any]]:
    return (read_json(folder / PROVENANCE) or {})["segments"]
