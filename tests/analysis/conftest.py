"""Synthetic studies in the true format of the files that a launch and its runs write."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

SQUEEZES = ("baseline", "gap", "gmp", "std", "gapXstd", "random", "SP", "RG")
LEVELS = {
    "baseline": 0.91,
    "gap": 0.935,
    "gmp": 0.93,
    "std": 0.925,
    "gapXstd": 0.938,
    "random": 0.9,
    "SP": 0.94,
    "RG": 0.936,
}
PARAMS = {"baseline": 701_466, "SP": 714_000, "RG": 711_900}
MACS = {"baseline": 35_049_792, "SP": 35_083_000, "RG": 35_071_000}


def write_study(
    folder: Path,
    *,
    matrix: Mapping[str, Sequence[Any]] | None = None,
    seeds: Sequence[int] = (0, 1),
    epochs: int = 8,
    states: Mapping[str, str] | None = None,
    **values: Any,
) -> Path:
    """Writes plan and runs; `states` maps a run id's beginning to "failed" or "missing"; `values` go in all metrics."""
    matrix = matrix or {"model.backbone": ["resnet18"], "model.squeeze": SQUEEZES}
    profile = values.get("profile", "laptop")
    plan: dict[str, Any] = {
        "study": "squeeze_ablation",
        "profile": profile,
        "folder": str(folder),
        "axes": list(matrix),
    }
    plan |= {"baseline": {"model.squeeze": "baseline"}, "seeds": list(seeds), "runs": []}
    folder.mkdir(parents=True, exist_ok=True)
    for combination in itertools.product(*matrix.values()):
        cell = dict(zip(matrix, combination, strict=True))
        if cell.get("model.squeeze") == "baseline":
            cell = {axis: value for axis, value in cell.items() if axis not in ("model.reduction", "model.fc_bias")}
        for seed in seeds:
            run = planned_run(cell, seed)
            if run not in plan["runs"]:
                plan["runs"].append(run)
    for run in plan["runs"]:
        state = next((s for start, s in (states or {}).items() if run["run_id"].startswith(start)), "done")
        if state != "missing":
            write_run(folder, run, epochs=epochs, failed=state == "failed", **values)
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


def planned_run(cell: Mapping[str, Any], seed: int) -> dict[str, Any]:
    squeeze = cell.get("model.squeeze", "gap")
    others = [f"{axis.rpartition('.')[2]}{value}" for axis, value in cell.items() if axis not in NAMED]
    backbone = cell.get("model.backbone", "resnet18")
    scale = 2 if backbone == "resnet34" else 1
    digest = f"{random.Random(json.dumps([cell, seed])).getrandbits(32):08x}"
    run_id = "-".join([backbone, squeeze, *others, f"s{seed}", digest])
    counts = {"params": scale * PARAMS.get(squeeze, 706_900), "macs": scale * MACS.get(squeeze, 35_055_000)}
    return {"run_id": run_id, "cell": dict(cell), "seed": seed, **counts}


def write_run(folder: Path, run: Mapping[str, Any], *, epochs: int = 8, failed: bool = False, **values: Any) -> None:
    """One run's folder as an executed run leaves it."""
    own = folder / run["run_id"]
    own.mkdir()
    squeeze = run["cell"].get("model.squeeze", "gap")
    noise = random.Random(run["run_id"])
    lines = []
    for epoch in range(1, epochs + 1):
        share = 1 - (1 - epoch / epochs) ** 3
        top1 = round(597 * min(1.0, (LEVELS[squeeze] - 0.1) * share + 0.1 + noise.gauss(0, 0.008))) / 597
        losses = {"train_loss": 2.3 - 2.1 * share + noise.random() * 0.05, "val_loss": 2.4 - 2.1 * share}
        counts = {"top1": top1, "top5": min(1.0, top1 + 0.06), "train_top1": top1}
        lines.append(
            {"epoch": epoch, "lr": 0.1 * (1 - share), **losses, **counts, "images_per_s": 900.0, "time_s": 1.5}
        )
    last = lines[-1]
    if failed:
        lines = lines[: epochs // 2]
        told = {
            "error": "FloatingPointError: loss is nan at step 12",
            "traceback": "Traceback ...",
            "time": "2026-11-21",
        }
        (own / "failure.json").write_text(json.dumps(told))
    (own / "epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (own / "config.json").write_text(json.dumps({"run_id": run["run_id"], "cell": run["cell"]}))
    if not failed:
        metrics = {
            **{"run_id": run["run_id"], "study": "squeeze_ablation", "profile": "laptop", "cell": run["cell"]},
            **{"backbone": run["cell"].get("model.backbone", "resnet18"), "squeeze": squeeze, "seed": run["seed"]},
            **{"reduction": None if squeeze == "baseline" else 16, "fc_bias": None if squeeze == "baseline" else False},
            **{key: last[key] for key in ("top1", "top5", "val_loss", "train_loss")},
            **{"epochs": epochs, "steps": 300, "params": run["params"], "macs": run["macs"]},
            **{"train_images_per_s": 900.0, "time_s": 12.5, "data": "digits", "classes": 10},
            **{"train_images": 1200, "val_images": 597, "recipe": "digits", "precision": "fp32", "device": "cpu"},
            **{
                "gpu": None,
                "git_commit": "0123456789abcdef0123456789abcdef01234567",
                "git_dirty": False,
                "torch": "2.15.0",
            },
            **{"initial_weights": f"{run['seed']:016x}", "data_order": f"{run['seed'] + 100:016x}"},
        }
        (own / "metrics.json").write_text(json.dumps(metrics | values, indent=1) + "\n")


NAMED = ("model.backbone", "model.squeeze")


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Path]:
    """Writes a synthetic study under the test's folder: `make_study("results/x", seeds=(0,), ...)`."""
    return lambda name="results/squeeze_ablation-laptop", **how: write_study(tmp_path / name, **how)
