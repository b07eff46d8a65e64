"""Two real runs of the committed study in a folder of their own, and runs as they are before they end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COMMITTED = Path(__file__).parents[1] / "results/squeeze_ablation-laptop"


def copied(folder: Path) -> Path:
    """The first two runs of the committed plan, seeds of one arm, as their jobs left them."""
    folder.mkdir(parents=True)
    plan = json.loads((COMMITTED / "plan.json").read_text())
    plan["runs"] = plan["runs"][:2]
    (folder / "plan.json").write_text(json.dumps(plan))
    for run in plan["runs"]:
        shutil.copytree(COMMITTED / run["run_id"], folder / run["run_id"])
    return folder


def runs(study: Path) -> list[Path]:
    return [study / run["run_id"] for run in json.loads((study / "plan.json").read_text())["runs"]]


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "epochs.jsonl").read_text().splitlines()]


def write(run: Path, records: list[Mapping[str, Any]]) -> None:
    put(run / "epochs.jsonl", "".join(json.dumps(record) + "\n" for record in records).encode())


def put(path: Path, content: bytes) -> None:
    """At once: whoever follows the run never sees half of it."""
    aside = path.with_name(f".{path.name}")
    aside.write_bytes(content)
    aside.replace(path)


def unfinish(run: Path, epochs: int) -> tuple[list[dict[str, Any]], bytes]:
    """Leaves so many epochs; returns all of them and the metrics that were there."""
    records, metrics = lines(run), (run / "metrics.json").read_bytes()
    write(run, records[:epochs])
    (run / "metrics.json").unlink()
    return records, metrics
