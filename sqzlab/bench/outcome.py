"""What a benchmark has measured so far, and what follows from it. Without torch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqzlab.bench.plan import Entry, Settings


@dataclass
class Row:
    """Images a second of one entry in every round, None where it was not measured; `failure` says why not."""

    entry: Entry
    rounds: list[float | None] = field(default_factory=list)
    steps: int | None = None  # a turn
    first_step_s: float | None = None  # which compiles, or takes from the compiler's cache
    failure: str | None = None

    @property
    def images_per_s(self) -> float | None:
        """Median of the rounds."""
        return statistics.median(measured) if (measured := self.measured) else None

    @property
    def measured(self) -> list[float]:
        return [value for value in self.rounds if value is not None]


@dataclass(frozen=True)
class Bound:
    """What the plain network of a backbone moves and computes an image, by one accounting of `traffic.py`.

    In training a squeeze need cost nothing, so it is the bound of every network of this backbone; at inference a folded
    block reads its maps once more than a plain one without a squeeze.
    """

    backbone: str
    kind: str
    accounting: str
    flops: float
    bytes: float
    images_per_s: float


@dataclass
class Outcome:
    """Filled by `measure`, whole at every moment."""

    settings: Settings
    rows: list[Row]
    about: dict[str, Any] = field(default_factory=dict)
    ceilings: dict[str, list[float]] = field(default_factory=dict)
    bounds: list[Bound] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    complete: bool = False

    def row(self, entry: Entry) -> Row | None:
        return next((row for row in self.rows if row.entry == entry), None)

    def bound(self, entry: Entry) -> Bound | None:
        wanted = (entry.contender.backbone, entry.kind, entry.accounting)
        return next((b for b in self.bounds if (b.backbone, b.kind, b.accounting) == wanted), None)

    def ratio(self, row: Row) -> list[float]:
        """To our plain network in the same mode, round by round; empty where that was not measured."""
        reference = self.row(row.entry.reference)
        return ratios(row, reference) if reference else []

    def fraction(self, row: Row) -> float | None:
        """Of the bound."""
        bound, speed = self.bound(row.entry), row.images_per_s
        return speed / bound.images_per_s if bound and speed is not None else None

    @property
    def failures(self) -> list[Row]:
        return [row for row in self.rows if row.failure is not None]


def ratios(row: Row, reference: Row) -> list[float]:
    """Of the rounds in which both were measured; neighbours in time share the machine's moods."""
    both = zip(row.rounds, reference.rounds, strict=False)
    return [ours / theirs for ours, theirs in both if ours is not None and theirs is not None]


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Median, quartiles and extremes; None of nothing."""
    if not values:
        return None
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    found = {"median": statistics.median(values), "q1": low, "q3": high, "min": min(values), "max": max(values)}
    return found


def as_json(outcome: Outcome) -> dict[str, Any]:
    """All that was measured, each round of it, and what was computed from it."""
    return {
        "complete": outcome.complete,
        **outcome.about,
        "settings": asdict(outcome.settings),
        "ceilings": {name: {"best": max(values), "rounds": values} for name, values in outcome.ceilings.items()},
        "bounds": [asdict(bound) for bound in outcome.bounds],
        "rows": [_row(outcome, row) for row in outcome.rows],
        "left_out": outcome.left_out,
    }


def _row(outcome: Outcome, row: Row) -> Mapping[str, Any]:
    entry, ratio = row.entry, outcome.ratio(row)
    return {
        "label": entry.contender.label,
        **asdict(entry.contender),
        "mode": entry.mode,
        "kind": entry.kind,
        "first_step_s": row.first_step_s,
        "steps": row.steps,
        "rounds": row.rounds,
        "images_per_s": spread(row.measured),
        "ratio": spread(ratio),
        "ratio_rounds": ratio,
        "bound_images_per_s": bound.images_per_s if (bound := outcome.bound(entry)) else None,
        "fraction": outcome.fraction(row),
        "failure": row.failure,
    }
