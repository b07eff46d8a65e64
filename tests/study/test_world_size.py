"""How many processes train a run, and the resources of its job that have to agree with that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqzlab.study.slurm import Slurm
from sqzlab.study.study import load_study, parity_faults

Write = Callable[[str], Path]
Faults = Callable[..., list[str]]

STUDY = """\
matrix:
  model.backbone: [resnet18, resnet50]
  model.squeeze: [baseline, gap]
seeds: [0]
baseline: {model.squeeze: baseline}
defaults: {data.name: digits, train.recipe: digits, model.stem: small}
"""
CUDA = STUDY.replace("small", "small, train.device: cuda")


def shared(path: Path, **given: Any) -> set[tuple[int, int, int]]:
    """World size, GPUs and CPU cores of every run."""
    study = load_study(path, **given)
    asked = [(run.config.train.world_size, study.resources(run)) for run in study.runs]
    return {(world_size, slurm.gpus, slurm.cpus) for world_size, slurm in asked}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (STUDY, (1, 0, 1)),
        (STUDY + "slurm: {gpus: 8}", (1, 8, 1)),
        (CUDA, (1, 1, 1)),
        (CUDA + "slurm: {gpus: 8}", (8, 8, 8)),
        (CUDA + "slurm: {gpus: 8, cpus: 64}", (8, 8, 64)),
        (CUDA.replace("cuda", "cuda, train.world_size: 4"), (4, 4, 4)),
        (CUDA.replace("cuda", "cuda, train.world_size: 4") + "slurm: {gpus: 4}", (4, 4, 4)),
        (STUDY.replace("small", "small, train.world_size: 2, train.threads: 3"), (2, 0, 6)),
        (STUDY.replace("small", "small, train.threads: 3") + "slurm: {runs_per_job: 4}", (1, 0, 12)),
    ],
)
def test_on_gpus_a_run_trains_on_all_of_its_job_and_on_cpu_cores_as_the_study_says(
    write: Write, text: str, found: tuple[int, int, int]
) -> None:
    assert shared(write(text)) == {found}


@pytest.mark.parametrize(
    ("text", "overrides", "found"),
    [
        (CUDA + "slurm: {gpus: 8, cpus: 16}", ["train.world_size=2"], (2, 2, 16)),
        (CUDA + "slurm: {gpus: 1, cpus: 1}", ["train.world_size=4"], (4, 4, 4)),
        (CUDA + "slurm: {gpus: 8, cpus: 8}", ["train.device=cpu"], (1, 0, 8)),
        (STUDY + "slurm: {gpus: 0}", ["train.device=cuda"], (1, 1, 1)),
        (STUDY + "slurm: {gpus: 2, cpus: 1}", ["train.device=cuda"], (2, 2, 2)),
        (STUDY, ["train.world_size=2"], (2, 0, 2)),
        (STUDY, ["train.threads=3"], (1, 0, 3)),
    ],
)
def test_with_an_override_the_job_asks_for_what_the_run_then_needs(
    write: Write, text: str, overrides: list[str], found: tuple[int, int, int]
) -> None:
    assert shared(write(text), overrides=overrides) == {found}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (CUDA + "slurm: {gpus: 0}", "7:15: slurm.gpus: 0 is too few, as train.device is 'cuda'; valid: 1"),
        (
            CUDA.replace("cuda", "cuda, train.world_size: 4") + "slurm: {gpus: 2}",
            "7:15: slurm.gpus: 2 and train.world_size 4 differ, and train.device is 'cuda'; valid: the same number",
        ),
        (
            CUDA.replace("cuda", "cuda, train.world_size: 4") + "slurm: {include: [{model.squeeze: gap, gpus: 2}]}",
            "7:46: slurm.gpus: 2 and train.world_size 4 differ",
        ),
        (
            CUDA + "slurm: {gpus: 2, runs_per_job: 3}",
            "7:32: slurm.runs_per_job: 3 runs cannot share a job, as each trains in 2 processes (train.world_size, by",
        ),
        (
            STUDY.replace("small", "small, train.world_size: 2") + "slurm: {runs_per_job: 3}",
            "7:23: slurm.runs_per_job: 3 runs cannot share a job, as each trains in 2 processes",
        ),
        (
            CUDA + "slurm: {gpus: 4, cpus: 3}",
            "7:24: slurm.cpus: 3 is too few, as train.threads is 1 in each of 4 processes; valid: 4",
        ),
        (
            STUDY.replace("small", "small, train.threads: 4") + "slurm: {cpus: 2}",
            "7:15: slurm.cpus: 2 is too few, as train.threads is 4; valid: 4",
        ),
        (
            CUDA.replace("cuda", "cuda, train.batch_size: 32") + "slurm: {gpus: 3}",
            "6:110: train.batch_size: 32 cannot be shared equally by 3 processes",
        ),
    ],
)
def test_processes_that_do_not_fit_their_job_are_a_fault(faults: Faults, text: str, line: str) -> None:
    (told,) = faults(text)
    assert told.startswith(f"s.yaml:{line}")


def test_an_axis_of_world_sizes_takes_its_gpus_from_them_or_from_items(write: Write, faults: Faults) -> None:
    text = CUDA.replace("seeds", "  train.world_size: [1, 8]\nseeds")
    assert shared(write(text)) == {(1, 1, 1), (8, 8, 8)}
    items = "slurm: {gpus: 1, include: [{train.world_size: 8, gpus: 8, cpus: 32}]}"
    assert shared(write(text + items)) == {(1, 1, 1), (8, 8, 32)}
    (told,) = faults(text + "slurm: {gpus: 8}")
    assert told.startswith("s.yaml:8:15: slurm.gpus: 8 and train.world_size 1 differ")


def test_every_arm_has_the_world_size_of_its_own_gpus_and_another_name_with_it(write: Write) -> None:
    one = load_study(write(CUDA))
    some = load_study(write(CUDA + "slurm: {gpus: 1, include: [{model.backbone: resnet50, gpus: 2}]}"))
    same = [ours.run_id == theirs.run_id for ours, theirs in zip(one.runs, some.runs, strict=True)]
    assert [run.config.train.world_size for run in some.runs] == [1, 1, 2, 2]
    assert same == [True, True, False, False]
    assert some.resources(some.runs[-1]) == Slurm(gpus=2, cpus=2)


def test_an_arm_on_more_gpus_than_the_arm_it_is_compared_with_is_not_on_a_par(write: Write) -> None:
    text = CUDA + "slurm: {gpus: 1, include: [{%s, gpus: 2}]}"
    assert parity_faults(load_study(write(text % "model.backbone: resnet50"))) == []
    told = parity_faults(load_study(write(text % "model.squeeze: gap")))
    assert [line.partition(", and no")[0] for line in told] == [
        f"model.backbone={backbone}, model.squeeze=gap: train.world_size is 2, "
        f"but 1 in model.backbone={backbone}, model.squeeze=baseline"
        for backbone in ("resnet18", "resnet50")
    ]


def test_synchronised_batch_norm_needs_more_than_one_process(write: Write, faults: Faults) -> None:
    text = CUDA.replace("cuda", "cuda, train.sync_batch_norm: true")
    assert {run.config.train.sync_batch_norm for run in load_study(write(text + "slurm: {gpus: 2}")).runs} == {True}
    (told,) = faults(text + "slurm: {gpus: 1}")
    assert told.startswith("s.yaml:6:115: train.sync_batch_norm: true needs train.world_size above 1")
