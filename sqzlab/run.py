"""One run of a study: its configuration, its cell of the matrix and its name.

A run is done if and only if its folder holds `metrics.json`; the other names of that folder stand here too, so
that writers, launcher and analysis agree on them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqzlab.config import Config, ModelConfig
from sqzlab.resolving import complete

CONFIG = "config.json"
PROVENANCE = "provenance.json"
EPOCHS = "epochs.jsonl"
CHECKPOINT = "checkpoint.pt"
PREVIOUS_CHECKPOINT = "checkpoint.previous.pt"
CORRECT = "correct.npz"
METRICS = "metrics.json"
FAILURE = "failure.json"
PROGRESS = "progress.json"
LEASE = "lease.json"
PLAN = "plan.json"  # in the study's folder

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Run:
    """A cell of the matrix with one seed."""

    study: str
    profile: str | None
    cell: Mapping[str, Value]  # dotted axis to value; the same for all seeds of the cell
    config: Config

    @cached_property
    def run_id(self) -> str:
        """`<backbone>-<squeeze>[-...what else differs]-s<seed>-<hash8>`, safe as a folder's and a job's name."""
        model = self.config.model
        named = ("model.backbone", "model.squeeze")
        axes = [(key, value) for key, value in self.cell.items() if key not in named and value is not None]
        others = [f"{key.rpartition('.')[2]}{value}" for key, value in axes]
        parts = [model.backbone, model.squeeze, *others, f"s{self.config.seed}", self.config.digest()]
        return "-".join(re.sub(r"[^A-Za-z0-9._]+", "_", part) for part in parts)

    def to_json(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "study": self.study,
            "profile": self.profile,
            "cell": dict(self.cell),
            "config": self.config.model_dump(mode="json"),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Run:
        config = Config.model_validate(values["config"])
        model = complete(config.model)  # a configuration written before a key existed has its default
        if not isinstance(model, ModelConfig):
            raise ValueError(f"{values['run_id']}: {model[0][0]}: {model[0][1]}")
        config = config.model_copy(update={"model": model})
        return cls(values["study"], values["profile"], values["cell"], config)
