"""How long does `python analyze.py` take for 10,000 records, as a whole process? Goals: 6 s, and 2 s with its cache.

    python benchmarks/analysis_10k.py

Two shapes of study: 40 cells with 250 seeds each and 1,250 cells with 8 seeds (of which no figures are drawn). Cold:
without the cache; warm: with it, the median of 5; 10 new: after 10 runs have got another result. All without drawing;
the last column is warm and drawn. It needs about 400 MB in the temporary folder and takes some three minutes.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


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
            metrics = sorted(study.glob("*/metrics.json"))
            cold = analysed(study, "--no-figures")
            warm = statistics.median(analysed(study, "--no-figures") for _ in range(5))
            for path in metrics[:10]:
                path.write_text(json.dumps(json.loads(path.read_text()) | {"time_s": 1.0}))
            refreshed, drawn = analysed(study, "--no-figures"), analysed(study)
        told = (
            f"cold {cold:.1f} s (goal: 6), warm {warm:.1f} s (goal: 2), 10 new {refreshed:.1f} s, drawn {drawn:.1f} s"
        )
        print(f"{name}: {len(metrics):,} records: {told}", flush=True)


def analysed(study: Path, *options: str) -> float:
    """Seconds that it took."""
    began = time.perf_counter()
    command = [sys.executable, str(ROOT / "analyze.py"), str(study), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=study.parent)
    return time.perf_counter() - began


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("synthetic_studies", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
