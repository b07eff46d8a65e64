"""What a study costs before it is launched: hours of GPUs or cores, time at the throttle, disk.

From finished runs of the same study where there are some, else from a rough table of published speeds; every
estimate says which.
"""

from __future__ import annotations

import heapq
import math
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sqzlab.catalog import DATASETS
from sqzlab.config import Config, ModelConfig
from sqzlab.errors import ConfigError, UnavailableError
from sqzlab.launching.costs import Cost
from sqzlab.launching.status import UNDER_WAY, State, Status, duration
from sqzlab.run import Run
from sqzlab.study.slurm import Slurm
from sqzlab.study.study import Study

GPU_HOURS, CORE_HOURS = "GPU-hours", "core-hours"


@dataclass(frozen=True)
class Estimate:
    """What the runs that are missing take. Hours are those of all their devices together, GPUs or cores."""

    runs: int
    needed_hours: float
    used_hours: float  # by all runs of the study, failed ones too
    unit: str
    wall_s: float  # from the first start, `at_once` jobs at a time
    at_once: int | None  # None: all of them
    disk_bytes: int
    free_bytes: int
    source: str


def estimate(
    study: Study,
    study_folder: Path,
    costs: Mapping[ModelConfig, Cost],
    found: Mapping[str, Status],
    jobs: int | None,
    *,
    chosen: Iterable[Run] | None = None,
    packed: bool = True,
) -> Estimate:
    """The cost of what is missing, `jobs` jobs at a time (None: all at once).

    `found` has the state of every run of the study. Counted are the runs of `chosen` that are not done (None: those of
    the study that are neither done nor failed) and all that are under way; of a run that has begun only the rest.
    `packed` False: each run has a job and devices of its own, whatever `runs_per_job` says, as in the local queue.
    """
    if chosen is None:
        chosen = [run for run in study.runs if found[run.run_id].state is not State.FAILED]
    asked_for = {run.run_id for run in chosen}
    missing = [
        run
        for run in study.runs
        if (state := found[run.run_id].state) in UNDER_WAY or (run.run_id in asked_for and state is not State.DONE)
    ]
    speeds = Speeds(study.runs, found, costs)
    sources: Counter[Source] = Counter()
    seconds = []
    for run in missing:
        whole_s, source = speeds.seconds(run.config)
        seconds.append(whole_s * (1 - fraction_done(found[run.run_id])))
        sources[source] += 1
    asked = [study.resources(run) if packed else None for run in missing]
    together = max((slurm.runs_per_job for slurm in asked if slurm), default=1)
    at_once = len(missing) if jobs is None else min(len(missing), jobs * together)
    return Estimate(
        runs=len(missing),
        needed_hours=sum(map(hours, missing, seconds, asked)),
        used_hours=used_hours(study.runs, found, study.resources if packed else None),
        unit=unit(study.runs),
        wall_s=makespan(jobs_of(seconds, asked), jobs),
        at_once=jobs,
        disk_bytes=_disk_bytes([(run.config, costs[run.config.model].params) for run in missing], at_once),
        free_bytes=_free_bytes(study_folder),
        source=_told(sources, bool(speeds.times)),
    )


def lines(estimate: Estimate) -> list[str]:
    """What a person reads of it."""
    if not estimate.runs:
        return []
    used = f" ({figure(estimate.used_hours)} used so far)" if estimate.used_hours else ""
    at_once = f"{estimate.at_once} at a time" if estimate.at_once else "all at once"
    return [
        f"{estimate.runs} runs need about {figure(estimate.needed_hours)} {estimate.unit}{used}, "
        f"{duration(estimate.wall_s)} with {at_once}",
        f"and {_size(estimate.disk_bytes)} of disk, where {_size(estimate.free_bytes)} are free",
        f"estimated from: {estimate.source}",
    ]


def check_budget(study: Study, estimate: Estimate) -> None:
    """Raises ConfigError where the study would use more GPU-hours than its file allows."""
    budget = study.budget_gpu_hours
    if budget is None or estimate.unit != GPU_HOURS or not estimate.runs:
        return
    if estimate.used_hours + estimate.needed_hours <= budget:
        return
    used = f" beside the {figure(estimate.used_hours)} used" if estimate.used_hours else ""
    least = math.ceil(estimate.used_hours + estimate.needed_hours)
    raise ConfigError(
        f"{study.path}: budget.gpu_hours: {budget:g}: the {estimate.runs} runs need about "
        f"{figure(estimate.needed_hours)} GPU-hours{used} ({estimate.source}); "
        f"valid: {least:,} or more, or fewer runs by --only"
    )


def check_disk(study_folder: Path, estimate: Estimate) -> None:
    """Raises UnavailableError where the file system has not the space. A quota it cannot see."""
    if estimate.disk_bytes > estimate.free_bytes:
        raise UnavailableError(
            f"{study_folder}: {estimate.runs} runs need about {_size(estimate.disk_bytes)} and "
            f"{_size(estimate.free_bytes)} are free; valid: --results DIR elsewhere, fewer at a time by --jobs"
        )


# ---- hours -------------------------------------------------------------------------------------


def unit(runs: Iterable[Run]) -> str:
    """What the study's hours count: GPUs as soon as one run trains on one."""
    return GPU_HOURS if any(run.config.train.device == "cuda" for run in runs) else CORE_HOURS


def hours(run: Run, seconds: float, asked: Slurm | None = None) -> float:
    """Device-hours of one run: its GPUs, or its part of those that its job shares; on the CPU its threads."""
    train = run.config.train
    if train.device != "cuda":
        devices: float = train.world_size * train.threads
    elif asked is not None and asked.gpus:
        devices = asked.gpus / asked.runs_per_job
    else:
        devices = train.world_size
    return devices * seconds / 3600


def used_hours(
    runs: Iterable[Run], found: Mapping[str, Status], resources: Callable[[Run], Slurm] | None = None
) -> float:
    """Of all these runs so far, failed ones too. `resources` tells which of them share a job."""
    return sum(hours(run, found[run.run_id].used_s, resources(run) if resources else None) for run in runs)


def makespan(durations: Iterable[float], slots: int | None) -> float:
    """Time until all are done, each started in turn as soon as a slot is free; None: a slot for each."""
    if slots is None:
        return max(durations, default=0.0)
    free = [0.0] * slots
    for taken in durations:
        heapq.heapreplace(free, free[0] + taken)
    return max(free)


def jobs_of(seconds: Sequence[float], asked: Sequence[Slurm | None]) -> list[float]:
    """Durations of jobs: runs that share one are trained at the same time, so it takes as long as its longest."""
    classes: dict[Slurm | None, list[float]] = defaultdict(list)
    for one, slurm in zip(seconds, asked, strict=True):
        classes[slurm].append(one)
    jobs = []
    for slurm, durations in classes.items():
        size = slurm.runs_per_job if slurm else 1
        jobs += [max(durations[first : first + size]) for first in range(0, len(durations), size)]
    return jobs


def fraction_done(status: Status) -> float:
    """Part of the run's steps that is done."""
    step, steps = status.values.get("step"), status.values.get("steps")
    return step / steps if step and steps and status.state is not State.DONE else 0.0


# ---- seconds of one run ------------------------------------------------------------------------


class Source(StrEnum):
    SAME = "from finished runs"  # of the same arm
    SCALED = "scaled from finished runs"  # of the study's other arms, by their work
    ROUGH = "by the rough table"


Arm = tuple[object, ...]


class Speeds:
    """What the finished runs of a study say about others."""

    def __init__(self, runs: Iterable[Run], found: Mapping[str, Status], costs: Mapping[ModelConfig, Cost]) -> None:
        self.costs = costs
        self.times: dict[Arm, list[float]] = defaultdict(list)
        self.work: dict[Arm, float] = defaultdict(float)  # by kind of run
        self.spent_s: dict[Arm, float] = defaultdict(float)
        self.known: dict[Arm, tuple[float, Source]] = {}
        for run in runs:
            status = found[run.run_id]
            if status.state is State.DONE and status.used_s > 0:
                self.times[_arm(run.config)].append(status.used_s)
                for kind in _kinds(run.config):
                    self.work[kind] += self._work(run.config)
                    self.spent_s[kind] += status.used_s

    def seconds(self, config: Config) -> tuple[float, Source]:
        """How long the whole run takes, and how we know."""
        arm = _arm(config)
        if arm not in self.known:
            self.known[arm] = self._seconds(config, arm)
        return self.known[arm]

    def _seconds(self, config: Config, arm: Arm) -> tuple[float, Source]:
        if times := self.times.get(arm):
            return sum(times) / len(times), Source.SAME
        for kind in _kinds(config):
            if kind in self.work:
                return self._work(config) * self.spent_s[kind] / self.work[kind], Source.SCALED
        return rough_s(config, self.costs[config.model].macs), Source.ROUGH

    def _work(self, config: Config) -> float:
        """MACs of a device."""
        return self.costs[config.model].macs * images(config) / _devices(config)


def _arm(config: Config) -> Arm:
    return config.model, config.data, config.train


def _kinds(config: Config) -> tuple[Arm, ...]:
    """Whose speed is most like this one's: the same network's first, then that of the same device."""
    train = config.train
    same = (train.device, train.precision)
    return (*same, train.compile, train.block_form, config.model.backbone), same, (train.device,)


def _devices(config: Config) -> int:
    train = config.train
    return train.world_size * (train.threads if train.device == "cpu" else 1)


def images(config: Config) -> float:
    """Images that the run trains on, of `data.image_size`; a smaller one counts by its area.

    One that is evaluated counts a third: it has no backward pass.
    """
    return sum(epochs * (trained * area + evaluated / 3) for epochs, trained, area, evaluated in _epochs(config))


def _epochs(config: Config) -> Iterator[tuple[int, float, float, float]]:
    """By size of training crops: epochs, images trained on in each, their area beside the whole, images evaluated."""
    data, train = config.data, config.train
    limit = train.limit_batches or math.inf
    trained = min(data.train_images // train.batch_size, limit) * train.batch_size
    evaluated = min(data.val_images, limit * train.batch_size)
    sizes, begin = train.train_sizes or (data.image_size,), (0, *(train.size_milestones or ()))
    for size, first, end in zip(sizes, begin, (*begin[1:], train.epochs), strict=True):
        yield end - first, trained, (size / data.image_size) ** 2, evaluated


def rough_s(config: Config, macs: int) -> float:
    """Seconds of the run by published speeds alone, good to a factor of about two."""
    if config.train.device == "cpu":
        return macs * images(config) / (CPU_MACS_PER_S * _devices(config))
    speed = SPEEDS[config.model.backbone]
    image_s = 1 / speed.plain + (1 / speed.squeezed - 1 / speed.plain) * PASSES[config.model.squeeze] / PASSES["gap"]
    image_s *= macs / speed.macs / A100
    if config.train.precision == "fp32":
        image_s *= FP32
    read_s = 0.0
    if DATASETS[config.data.name].tiers:
        read_s = 1 / (READ_PER_CORE_S[config.data.tier or "pil"] * max(1, config.data.workers))
    seconds = sum(
        epochs * (trained * max(image_s * area, read_s) + evaluated / 3 * max(image_s, read_s))
        for epochs, trained, area, evaluated in _epochs(config)
    )
    return seconds / _devices(config)


@dataclass(frozen=True)
class Speed:
    """Training in images/s without and with an SE block, and the MACs of one image without."""

    plain: float
    squeezed: float
    macs: float


# timm, results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv (224 pixels); the SE-ResNets are `seresnet50` and so
# on. Narrower networks and other image sizes are scaled by their MACs.
SPEEDS = {
    "resnet18": Speed(3481.78, 3138.91, 1.814e9),
    "resnet34": Speed(2036.51, 1837.21, 3.664e9),
    "resnet50": Speed(1218.01, 971.79, 4.089e9),
    "resnet101": Speed(747.89, 590.42, 7.801e9),
    "resnet152": Speed(501.44, 379.38, 11.514e9),
    "resnext50_32x4d": Speed(1001.03, 814.69, 4.230e9),
    "resnext101_32x4d": Speed(609.01, 479.03, 7.970e9),
}
A100 = 2500 / 1218.01
"""How much faster an A100 is: ResNet-50, mixed precision, 2,470 images/s in NVIDIA's DeepLearningExamples (PyTorch,
21.03), 2,600 in timm's issue 1491."""
PASSES = {
    **{"baseline": 0, "gap": 13, "gmp": 17.5, "std": 17, "gapXstd": 21.5, "random": 8, "SP": 23, "RG": 13},
    **{"rms": 18, "gem": 39, "avgmax": 22.5, "attention": 20, "dct": 15},
    **{"constant": 8, "frozen_random": 8, "random_train": 8},
    **{"no_squeeze": 23, "CBAM": 44.5, "SRM": 21.5, "ECA": 13, "GCT": 18, "GSoP": 24, "GC": 15},
}
"""How often a squeeze and its scale, or a whole block, read or write the block's map, forward and backward, each
operation by itself. Counted from the formulas of their gradients; the time beside `gap`'s is taken to be in
proportion."""
FP32 = 6.0
"""How much slower than bf16: without tensor cores (we turn TF32 off) ResNet-50's 24.5 GFLOP an image at 19.5 TFLOP/s
allow 800 images/s at most, of which we take a half."""
READ_PER_CORE_S = {"pil": 400, "jpeg": 650, "store": 30_000, "resident": math.inf}
"""Images of ImageNet that one core gets ready, by `catalog.TIERS`; rough figures. A GPU crops those of a store."""
CPU_MACS_PER_S = 5.5e9
"""MACs of the forward pass, times images trained, a second and core: the median of results/squeeze_ablation-laptop
(narrow ResNet-18s; wide networks reach up to three times as much)."""


def _told(sources: Mapping[Source, int], finished: bool) -> str:
    """`16 of 48 from finished runs, 32 scaled from those`."""
    total = sum(sources.values())
    if sources[Source.ROUGH] == total:
        return f"rough table (no {'such ' if finished else ''}run has finished)"
    parts = [f"{sources[source]} {source}" for source in Source if sources[source]]
    return ", ".join(parts).replace(" ", f" of {total} ", 1) if len(parts) > 1 else f"all {parts[0]}"


# ---- disk --------------------------------------------------------------------------------------


def _disk_bytes(runs: Sequence[tuple[Config, int]], at_once: int) -> int:
    """Most bytes at any moment: of a run at work its newest state, the one before and the one being written."""
    kept = [_checkpoint_bytes(params) for _, params in runs]
    written = sum(_RECORDS + config.data.val_images // 4 + _LINE * config.train.epochs for config, _ in runs)
    return sum(kept) + 2 * sum(sorted(kept)[-at_once:] if at_once else []) + written


def _checkpoint_bytes(params: int) -> int:
    """Weights and momentum in float32; names and BatchNorm's statistics."""
    return 8 * params + 100_000


_RECORDS = 50_000  # of a run: config, provenance, metrics, logs
_LINE = 300  # of epochs.jsonl


def _free_bytes(folder: Path) -> int:
    folder = folder.resolve()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _size(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"
