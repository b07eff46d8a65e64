"""The plan of a study: which runs should exist, what their networks cost, and that all else is equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sqzlab.analysis.records import why_unusable
from sqzlab.catalog import DATASETS, STORED
from sqzlab.config import Config, ModelConfig
from sqzlab.errors import ConfigError
from sqzlab.launching.costs import Cost
from sqzlab.launching.status import COLOURS, Status
from sqzlab.run import CONFIG, FAILURE, LEASE, METRICS, PLAN, Run
from sqzlab.runs.files import read_json, write_json
from sqzlab.runs.lease import expired
from sqzlab.study.study import Study, parity_faults

MOST_ROWS = 64
WRITERS = 16  # on a shared file system each waits for its server
DEBUG = {"epochs": 2, "limit_batches": 1, "batch_size": 8, "warmup_epochs": 0, "checkpoint_steps": 1}
DEBUG |= {"world_size": 1, "sync_batch_norm": False}
DEBUG_ON_CPU = {"compile": False, "cuda_graphs": False}  # compiling would take minutes a network there


def debugged(run: Run, device: str) -> Run:
    """The same network, recipe and data, cut to two epochs of one small batch; generated images without a folder.

    On the CPU it is not compiled, and a store is not read into memory whole; the form of its blocks stays.
    """
    train = run.config.train
    milestones = None if train.milestones is None else (1,)
    cut: dict[str, Any] = {
        **DEBUG,
        **(DEBUG_ON_CPU if device == "cpu" else {}),
        "milestones": milestones,
        "device": device,
    }
    if train.train_sizes is not None:  # the first and the last
        sizes = (train.train_sizes[0], *train.train_sizes[1:][-1:])
        cut |= {"train_sizes": sizes, "size_milestones": (1,) * (len(sizes) - 1)}
    train = train.model_copy(update=cut)
    data, model = run.config.data, run.config.model
    stored = data.tier in STORED
    if data.store_digest is None if stored else DATASETS[data.name].needs_root and data.root is None:
        counts = dict(zip(("classes", "train_images", "val_images"), DATASETS["generated"].counts or (), strict=True))
        data = data.model_copy(update={"name": "generated", "tier": None, "store": None, **counts})
        model = model.model_copy(update={"num_classes": data.classes})
    elif stored and device == "cpu":
        data = data.model_copy(update={"tier": "store"})
    data = data.model_copy(update={"workers": min(data.workers, 1)})
    config = Config(model=model, data=data, train=train, seed=run.config.seed)
    return Run(run.study, run.profile, run.cell, config)


def check_parity(study: Study, costs: Mapping[ModelConfig, Cost]) -> None:
    """Raises ConfigError where arms differ in more than what the axes name.

    Two arms of one cell share every configured value that no axis names, every weight outside the SE blocks, and the
    rule and name by which each weight that both have is drawn; with one seed such weights then start identical.
    """
    faults = list(parity_faults(study))
    cells = {tuple(run.cell.items()): run for run in study.runs}
    for run in cells.values():
        base = study.baseline_of(run)
        if base is None or base == dict(run.cell):
            continue
        other = cells[tuple(base.items())]
        faults += _weight_faults(run, other, costs)
    if faults:
        raise ConfigError(f"{study.path}: {fault}" for fault in dict.fromkeys(faults))


def _weight_faults(run: Run, other: Run, costs: Mapping[ModelConfig, Cost]) -> list[str]:
    mine, theirs = costs[run.config.model].parameters, costs[other.config.model].parameters
    arm = f"{run.config.model.backbone} {run.config.model.squeeze}"
    if run.config.model.backbone == other.config.model.backbone:
        lacking = {name for name in mine.keys() ^ theirs.keys() if ".se." not in name}
        if lacking:
            return [f"arm {arm}: only one of it and the baseline has {', '.join(sorted(lacking)[:3])}"]
    if run.config.model.zero_init_gamma != other.config.model.zero_init_gamma:
        return []  # an axis says so, or `parity_faults` has told it
    unlike = [name for name in mine.keys() & theirs.keys() if mine[name] != theirs[name] and ".se." not in name]
    if unlike and run.config.model.backbone == other.config.model.backbone:
        return [f"arm {arm}: {sorted(unlike)[0]} does not start as the baseline's"]
    return []


# ---- files -------------------------------------------------------------------------------------


def write_plan(study: Study, folder: Path, costs: Mapping[ModelConfig, Cost]) -> None:
    """Writes plan.json where it has changed, so that a repeated launch leaves it alone.

    Raises ConfigError where the folder holds another study: `a-b.yaml` and profile `b` of `a.yaml` share a name.
    """
    before = read_json(folder / PLAN)
    if before is not None and (before.get("study"), before.get("profile")) != (study.name, study.profile):
        raise ConfigError(
            f"{folder}: holds study {before.get('study')!r} with profile {before.get('profile')!r}, "
            f"not {study.name!r} with {study.profile!r}; rename one of them, or use --results DIR"
        )
    plan = {
        "study": study.name,
        "profile": study.profile,
        "folder": folder.name,
        "axes": list(study.axes),
        "baseline": dict(study.baseline),
        "seeds": list(study.seeds),
        "runs": [
            {
                "run_id": run.run_id,
                "cell": dict(run.cell),
                "seed": run.config.seed,
                "params": costs[run.config.model].params,
                "macs": costs[run.config.model].macs,
            }
            for run in study.runs
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    if before != plan:
        write_json(folder / PLAN, plan)


def prepare(runs: Sequence[Run], folder: Path) -> None:
    """A folder with config.json for each run that is about to be executed, without a former failure.

    Metrics that analysis could not use go too: they would make the run done. The folder of a run at work is left alone.
    """
    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(lambda run: _prepare(run, folder), runs):
            pass  # raises what a writer raised


def _prepare(run: Run, folder: Path) -> None:
    values = run.to_json()
    path = folder / values["run_id"]
    path.mkdir(exist_ok=True)
    if not expired(path, read_json(path / LEASE) or {}):
        return
    if read_json(path / CONFIG) != values:
        write_json(path / CONFIG, values, durable=False)  # thousands of runs; a lost one is written again
    (path / FAILURE).unlink(missing_ok=True)
    if why_unusable(read_json(path / METRICS), values["run_id"]) is not None:
        (path / METRICS).unlink(missing_ok=True)


# ---- tables ------------------------------------------------------------------------------------


def plan_table(study: Study, costs: Mapping[ModelConfig, Cost], found: Mapping[str, Status]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left", padding=(0, 1))
    for title in ("arm", "backbone", "squeeze"):
        table.add_column(title, no_wrap=True)
    for title in ("seed", "params", "MACs"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("state")  # the only column that gives way on a narrow terminal
    for run in study.runs[:MOST_ROWS]:
        model, status = run.config.model, found[run.run_id]
        cost = costs[model]
        state = Text(no_wrap=True, overflow="ellipsis").append(status.state, COLOURS[status.state])
        state.append(f" {status.detail}" if status.detail else "")
        columns = (arm(run), model.backbone, model.squeeze, str(run.config.seed))
        table.add_row(*columns, f"{cost.params:,}", _macs(cost.macs), state)
    return table


def difference_table(study: Study, costs: Mapping[ModelConfig, Cost]) -> Table:
    """Each arm beside the baseline of its cell, in params and MACs."""
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left", padding=(0, 1))
    table.add_column("against the baseline", no_wrap=True)
    for title in ("params", "", "MACs", ""):
        table.add_column(title, justify="right", no_wrap=True)
    cells = {tuple(run.cell.items()): run for run in study.runs}
    for run in list(cells.values())[:MOST_ROWS]:
        base = study.baseline_of(run)
        if base is None or base == dict(run.cell):
            continue
        mine, theirs = costs[run.config.model], costs[cells[tuple(base.items())].config.model]
        table.add_row(
            f"{run.config.model.backbone} {arm(run)}",
            f"{mine.params - theirs.params:+,}",
            f"{mine.params / theirs.params - 1:+.2%}",
            f"{mine.macs - theirs.macs:+,}",
            f"{mine.macs / theirs.macs - 1:+.2%}",
        )
    return table


def arm(run: Run) -> str:
    """The cell's values besides the backbone, as one word."""
    values = [str(value) for key, value in run.cell.items() if key != "model.backbone" and value is not None]
    return "/".join(values) or str(run.config.model.squeeze)


def show(console: Console, study: Study, costs: Mapping[ModelConfig, Cost], found: Mapping[str, Status]) -> None:
    console.print(plan_table(study, costs, found))
    if len(study.runs) > MOST_ROWS:
        console.print(f"... and {len(study.runs) - MOST_ROWS:,} more runs")
    console.print()
    if study.baseline:
        console.print(difference_table(study, costs))
        console.print()


def _macs(macs: int) -> str:
    return f"{macs / 1e9:.3f} G" if macs >= 1e9 else f"{macs / 1e6:.2f} M"
