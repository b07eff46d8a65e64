"""How long does `python analyze.py` take for 10,000 records, as a whole cold process? Goal: 6 s.

    python benchmarks/analysis_10k.py

Two shapes of study: 40 cells with 250 seeds each (figures are drawn) and 1,250 cells with 8 seeds (they are not).
It needs about 250 MB in the temporary folder for as long as it runs and takes about a minute.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
GOAL_S = 6.0


def main() -> None:
    synthetic = _load(ROOT / "tests" / "analysis" / "conftest.py")
    backbones = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
    few = {"model.backbone": backbones, "model.squeeze": synthetic.SQUEEZES}
    many = {
        "model.backbone": backbones,
        "model.squeeze": synthetic.SQUEEZES[1:6],
        "train.lr": [i / 100 for i in range(1, 51)],
    }
    for name, matrix, seeds in (("40 cells x 250 seeds", few, 250), ("1,250 cells x 8 seeds", many, 8)):
        with tempfile.TemporaryDirectory() as folder:
            study = synthetic.write_study(
                Path(folder) / "results" / "large", matrix=matrix, seeds=range(seeds), epochs=8
            )
            runs = sum((run / "metrics.json").is_file() for run in study.iterdir())
            began = time.perf_counter()
            command = [sys.executable, str(ROOT / "analyze.py"), str(study)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
            taken = time.perf_counter() - began
        print(f"{name}: {runs:,} records in {taken:.1f} s (goal: {GOAL_S:g} s)")


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("synthetic_studies", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
