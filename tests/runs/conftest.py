from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_runs import SMALL, MakeRun

from sqzlab.config import Config
from sqzlab.resolving import resolve
from sqzlab.run import CONFIG, Run
from sqzlab.runs.files import write_json


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes config.json of a small run and returns its folder. Keyword `train__lr=1` sets `train.lr`."""

    def make(name: str = "run", squeeze: str = "baseline", seed: int = 0, **values: Any) -> Path:
        given = {**SMALL, "model.squeeze": squeeze, **{key.replace("__", "."): v for key, v in values.items()}}
        if squeeze != "baseline":
            given["model.reduction"] = 4
        config = resolve(given, seed)
        assert isinstance(config, Config), config
        folder = tmp_path / name
        folder.mkdir()
        write_json(folder / CONFIG, Run("study", None, {"model.squeeze": squeeze}, config).to_json())
        return folder

    return make
