"""Synthetic studies in the true format of the files that a launch and its runs write."""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sqzlab import catalog

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
    baseline: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    **values: Any,
) -> Path:
    """Writes plan and runs; `states` maps a run id's beginning to "failed" or "missing"; `values` go in all metrics.

    `config` maps dotted keys to values of every config.json, beside those of the cell.
    """
    matrix = matrix or {"model.backbone": ["resnet18"], "model.squeeze": SQUEEZES}
    profile = values.get("profile", "laptop")
    plan: dict[str, Any] = {
        "study": "squeeze_ablation",
        "profile": profile,
        "folder": str(folder),
        "axes": list(matrix),
    }
    plan |= {"baseline": dict(baseline or {"model.squeeze": "baseline"}), "seeds": list(seeds), "runs": []}
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
            write_run(folder, run, epochs=epochs, failed=state == "failed", config=config or {}, **values)
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


def write_run(
    folder: Path,
    run: Mapping[str, Any],
    *,
    epochs: int = 8,
    failed: bool = False,
    config: Mapping[str, Any] | None = None,
    **values: Any,
) -> None:
    """One run's folder as an executed run leaves it."""
    own = folder / run["run_id"]
    own.mkdir()
    squeeze = run["cell"].get("model.squeeze", "gap")
    noise = random.Random(run["run_id"])
    lines = []
    for epoch in range(1, epochs + 1):
        share = 1 - (1 - epoch / epochs) ** 3
        top1 = round(597 * min(1.0, (LEVELS.get(squeeze, 0.93) - 0.1) * share + 0.1 + noise.gauss(0, 0.008))) / 597
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
    resolved = sections({**run["cell"], **(config or {})})
    (own / "config.json").write_text(json.dumps({"run_id": run["run_id"], "cell": run["cell"], "config": resolved}))
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
        metrics |= values
        (own / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
        write_correct(own, *(outcomes(run["run_id"], metrics[key], metrics["val_images"]) for key in ("top1", "top5")))


def write_correct(own: Path, top1: NDArray[np.bool_], top5: NDArray[np.bool_], order: str = "0" * 64) -> None:
    """A run's outcomes on every image, (N,) each, as an executed run leaves them."""
    arrays = {"top1": np.packbits(top1), "top5": np.packbits(top5), "n": np.array(len(top1))}
    np.savez_compressed(own / "correct.npz", **arrays, order_hash=np.array(order))


def outcomes(run_id: str, accuracy: float, images: int) -> NDArray[np.bool_]:
    """As many images right as the accuracy says; which of them are easy is much the same for all runs."""
    ease = np.random.default_rng(0).normal(size=images)
    own = np.random.default_rng(random.Random(run_id).getrandbits(64)).normal(size=images)
    correct = np.zeros(images, dtype=bool)
    correct[np.argsort(-(ease + OWN_SHARE * own))[: round(images * accuracy)]] = True
    return correct


def begin_run(folder: Path, start: str, *, epoch: int, epochs: int = 8, alive: bool = True) -> Path:
    """A planned run without a folder as its writer leaves it after so many epochs: at work, or killed long ago."""
    plan = json.loads((folder / "plan.json").read_text())
    run = next(run for run in plan["runs"] if run["run_id"].startswith(start))
    write_run(folder, run, epochs=epochs, failed=True, config={"train.epochs": epochs})
    own = folder / run["run_id"]
    (own / "failure.json").unlink()
    lines = (own / "epochs.jsonl").read_text().splitlines(keepends=True)
    (own / "epochs.jsonl").write_text("".join(lines[:epoch]))
    at = {"step": 40 * epoch + 7, "steps": 40 * epochs, "epoch": epoch, "epochs": epochs, "images_per_s": 900.0}
    (own / "progress.json").write_text(json.dumps({**at, "eta_s": 3.0, "updated": "2026-11-21T13:55:08.687+00:00"}))
    segment = {"first_step": 0, "last_step": 40 * epoch, "start": "2026-11-21T13:55:08.687+00:00", "end": None}
    segment |= {"why": None, "host": "node7", "slurm_job": None, "token": 1}
    (own / "provenance.json").write_text(json.dumps({"git_commit": "0" * 40, "segments": [segment]}))
    (own / "lease.json").write_text(json.dumps({"token": 1, "host": "node7", "boot": "b", "pid": 7, "started": "7"}))
    beat = 4_000_000_000 if alive else 1_700_000_000  # in the future: a heart that beats now is silent under load
    os.utime(own / "lease.json", (beat, beat))
    return own


OWN_SHARE = 0.6  # then runs disagree on as many images as the spread of their accuracies lets expect


def sections(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Sections of a config.json: a small network on digits, and what is given instead."""
    model = {"model.backbone": "resnet18", "model.squeeze": "gap", "model.stem": "small", "model.width": 0.25}
    model |= {"model.image_size": 32, "model.num_classes": 10, "model.zero_init_gamma": True}
    squeeze = given.get("model.squeeze", "gap")
    excitation = {"model.reduction": 16, "model.fc_bias": False}
    applies = catalog.SQUEEZES[squeeze].arguments if squeeze in catalog.SQUEEZES else ()
    model |= {key: value for key, value in excitation.items() if key.removeprefix("model.") in applies}
    found: dict[str, dict[str, Any]] = {"model": {}, "data": {"name": "digits"}, "train": {"recipe": "digits"}}
    for key, value in (model | dict(given)).items():
        section, name = key.split(".")
        found[section][name] = value
    return found


NAMED = ("model.backbone", "model.squeeze")


@pytest.fixture(scope="session")
def study_writer() -> Callable[..., Path]:
    """`write_study`, for fixtures of a wider scope."""
    return write_study


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Path]:
    """Writes a synthetic study under the test's folder: `make_study("results/x", seeds=(0,), ...)`."""
    return lambda name="results/squeeze_ablation-laptop", **how: write_study(tmp_path / name, **how)


@pytest.fixture
def store() -> Callable[..., None]:
    """`write_correct`, for tests that make outcomes of their own."""
    return write_correct


@pytest.fixture(scope="session")
def begin() -> Callable[..., Path]:
    """`begin_run`, for tests of a study that is still running."""
    return begin_run


@pytest.fixture(scope="session")
def write() -> Callable[..., Path]:
    """`write_study`, for studies that several tests share."""
    return write_study


@pytest.fixture
def study(make_study: Callable[..., Path]) -> Callable[..., Path]:
    """A study with these outcomes, (S, N) for each squeeze: `study({"baseline": ..., "gap": ...})`."""

    def make(bits: Mapping[str, NDArray[np.bool_]], name: str = "results/laptop", **how: Any) -> Path:
        seeds = range(max(map(len, bits.values())))
        folder = make_study(name, matrix={"model.squeeze": list(bits)}, seeds=seeds, epochs=1, **how)
        for squeeze, runs in bits.items():
            for seed in seeds:
                (path,) = folder.glob(f"resnet18-{squeeze}-s{seed}-*/metrics.json")
                if seed >= len(runs):
                    path.unlink()
                    continue
                metrics = json.loads(path.read_text()) | {"top1": float(runs[seed].mean()), "val_images": runs.shape[1]}
                path.write_text(json.dumps(metrics))
                write_correct(path.parent, runs[seed], runs[seed])
        return folder

    return make
