from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from sqzlab.bench.outcome import Bound, Outcome, Row, as_json, spread
from sqzlab.bench.plan import EAGER, OURS, TIMM, TRAINING, Contender, Entry, Settings

PLAIN, GAP, PEER = (
    Entry(contender, EAGER, TRAINING)
    for contender in (Contender(OURS, "resnet18"), Contender(OURS, "resnet18", "gap"), Contender(TIMM, "resnet18"))
)
SETTINGS = Settings("cpu", 4, 64, "fp32", rounds=4)
BOUND = Bound("resnet18", TRAINING, "eager", flops=1e9, bytes=1e8, images_per_s=40.0)


def outcome(**rounds: list[float | None]) -> Outcome:
    rows = [Row(entry, rounds[name]) for name, entry in (("plain", PLAIN), ("gap", GAP)) if name in rounds]
    return Outcome(SETTINGS, rows, ceilings={"copy_bytes_per_s": [1.0, 3.0, 2.0]}, bounds=[BOUND])


def row(found: Outcome, label: str) -> dict[str, Any]:
    return next(row for row in as_json(found)["rows"] if row["label"] == label)


def test_a_ratio_is_of_the_rounds_in_which_both_were_measured() -> None:
    found = outcome(plain=[10, 20, None, 40], gap=[9, 20, 30, 20])
    assert row(found, "gap")["ratio_rounds"] == [0.9, 1.0, 0.5]
    assert row(found, "gap")["ratio"]["median"] == 0.9  # not the ratio of the medians, which is 1


@pytest.mark.parametrize("values", [[3.0], [1.0, 2.0], [5.0, 1.0, 4.0], [2.0, 9.0, 4.0, 7.0, 1.0, 8.0, 3.0]])
def test_the_spread_is_what_numpy_finds(values: list[float]) -> None:
    found = spread(values)
    assert found is not None
    assert list(found) == ["median", "q1", "q3", "min", "max"]
    np.testing.assert_allclose(list(found.values()), np.quantile(values, [0.5, 0.25, 0.75, 0, 1]))


def test_the_fraction_is_of_the_bound_of_its_backbone_mode_and_kind() -> None:
    found = outcome(plain=[10, 20, 30])
    assert row(found, "baseline")["fraction"] == 0.5
    found.bounds = [Bound("resnet50", TRAINING, "eager", 1, 1, 40.0), Bound("resnet18", TRAINING, "fused", 1, 1, 40.0)]
    assert row(found, "baseline")["fraction"] is None


def test_the_best_of_the_rounds_is_the_ceiling() -> None:
    assert as_json(outcome(plain=[1]))["ceilings"]["copy_bytes_per_s"] == {"best": 3.0, "rounds": [1.0, 3.0, 2.0]}


def test_what_was_not_measured_is_null_and_the_rest_is_told() -> None:
    found = outcome(plain=[], gap=[4, None])
    found.rows[0].failure = "out of memory"
    found.rows.append(Row(PEER))
    told = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert [one["images_per_s"] and one["images_per_s"]["median"] for one in told["rows"]] == [None, 4, None]
    assert [one["ratio"] for one in told["rows"]] == [None] * 3
    assert [one["failure"] for one in told["rows"]] == ["out of memory", None, None]
    assert found.failures == found.rows[:1]
