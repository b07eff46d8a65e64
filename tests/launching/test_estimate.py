"""What a study costs before it is launched, against sums by hand and against the committed laptop records."""

from __future__ import annotations

import io
import re
import statistics
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from launching.conftest import ROOT

from sqzlab import create_model
from sqzlab.catalog import BACKBONES, SQUEEZES
from sqzlab.config import ModelConfig
from sqzlab.errors import ConfigError, UnavailableError
from sqzlab.launching import estimate as module
from sqzlab.launching.costs import Cost, measure_all
from sqzlab.launching.estimate import (
    CORE_HOURS,
    CPU_MACS_PER_S,
    GPU_HOURS,
    PASSES,
    SPEEDS,
    Estimate,
    check_budget,
    check_disk,
    estimate,
    images,
    lines,
    makespan,
)
from sqzlab.launching.status import State, Status
from sqzlab.resolving import model_config
from sqzlab.run import Run
from sqzlab.runs.files import read_json
from sqzlab.study.study import Study, load_study

ON_GPU = """
matrix:
  model.backbone: [resnet18, resnet50]
  model.squeeze: [baseline, gap]
seeds: [0, 1]
baseline: {model.squeeze: baseline}
budget: {gpu_hours: 100}
defaults:
  data: {name: imagenet, root: /images, workers: 16}
  train: {recipe: sprg, precision: bf16, device: cuda}
slurm: {gpus: 1}
"""
RECORDS = ROOT / "results" / "squeeze_ablation-laptop"
ABSENT = Status(State.MISSING)


@pytest.fixture
def on_gpu(tmp_path: Path) -> Study:
    path = tmp_path / "on_gpu.yaml"
    path.write_text(ON_GPU)
    return load_study(path)


@pytest.fixture(scope="session")
def gpu_costs() -> dict[ModelConfig, Cost]:
    return measure_all(
        model_config(backbone=b, squeeze=s) for b in ("resnet18", "resnet50") for s in ("baseline", "gap")
    )


def costs_of(runs: Iterable[Run], macs: int = 1000, params: int = 0) -> dict[ModelConfig, Cost]:
    return {run.config.model: Cost(params, macs, macs, {}) for run in runs}


def states(study: Study, **by_number: Status) -> dict[str, Status]:
    """`r3=Status(...)` for the fourth run; the others have not started."""
    return {run.run_id: by_number.get(f"r{number}", ABSENT) for number, run in enumerate(study.runs)}


def done(seconds: float) -> Status:
    return Status(State.DONE, used_s=seconds)


def trained_with(study: Study, **train: object) -> Study:
    runs = [
        replace(run, config=run.config.model_copy(update={"train": run.config.train.model_copy(update=train)}))
        for run in study.runs
    ]
    return replace(study, runs=tuple(runs))


# ---- from finished runs ------------------------------------------------------------------------


def test_an_arm_with_finished_seeds_takes_their_mean(study: Path, tmp_path: Path) -> None:
    study_ = load_study(study, overrides=["train.threads=3"])
    found = states(study_, r0=done(100), r2=done(500))
    expected = estimate(study_, tmp_path, costs_of(study_.runs), found, jobs=None)
    assert expected.runs == 2
    assert expected.unit == CORE_HOURS
    assert expected.needed_hours == pytest.approx(3 * (100 + 500) / 3600)
    assert expected.used_hours == pytest.approx(3 * (100 + 500) / 3600)
    assert expected.wall_s == 500
    assert expected.source == "all 2 from finished runs"


def test_an_arm_without_is_scaled_by_its_macs_images_and_epochs(study: Path, tmp_path: Path) -> None:
    study_ = load_study(study)
    baseline, gap = (run.config.model for run in study_.runs[::2])
    costs = {baseline: Cost(0, 1000, 1000, {}), gap: Cost(0, 1500, 1500, {})}
    expected = estimate(study_, tmp_path, costs, states(study_, r0=done(100)), jobs=1)
    assert expected.needed_hours == pytest.approx((100 + 2 * 150) / 3600)
    assert expected.wall_s == pytest.approx(400)
    assert expected.source == "1 of 3 from finished runs, 2 scaled from finished runs"
    longer = study.with_name("longer.yaml")
    longer.write_text(study.read_text().replace("epochs: 2, ", "").replace("seeds:", "  train.epochs: [2, 6]\nseeds:"))
    study_ = load_study(longer)
    expected = estimate(study_, tmp_path, costs_of(study_.runs), states(study_, r0=done(100)), jobs=1)
    assert expected.needed_hours * 3600 == pytest.approx(100 + 2 * 300 + 2 * 100 + 2 * 300)


def test_other_networks_scale_from_their_own_kind_first(
    on_gpu: Study, gpu_costs: dict[ModelConfig, Cost], tmp_path: Path
) -> None:
    found = states(on_gpu, r0=done(7200), r4=done(72_000))
    expected = estimate(on_gpu, tmp_path, gpu_costs, found, jobs=None)
    eighteen, fifty = (
        gpu_costs[model_config(backbone=b, squeeze="gap")].macs / gpu_costs[model_config(backbone=b)].macs
        for b in ("resnet18", "resnet50")
    )
    assert expected.needed_hours == pytest.approx(2 + 2 * 2 * eighteen + 20 + 2 * 20 * fifty)
    assert expected.source == "2 of 6 from finished runs, 4 scaled from finished runs"


def test_only_the_rest_of_a_run_that_has_begun_counts(study: Path, tmp_path: Path) -> None:
    study_ = load_study(study)
    busy = Status(State.RUNNING, values={"step": 75, "steps": 100}, used_s=60)
    waits = Status(State.PREEMPTED, values={"step": 50, "steps": 100}, used_s=40)
    failed = Status(State.FAILED, used_s=10)
    found = states(study_, r0=done(100), r1=busy, r2=waits, r3=failed)
    expected = estimate(study_, tmp_path, costs_of(study_.runs), found, jobs=None)
    assert expected.needed_hours * 3600 == pytest.approx(25 + 50)
    assert expected.used_hours * 3600 == pytest.approx(100 + 60 + 40 + 10)
    again = estimate(study_, tmp_path, costs_of(study_.runs), found, jobs=None, chosen=[study_.runs[3]])
    assert again.needed_hours * 3600 == pytest.approx(25 + 50 + 100), "what is asked for and what is under way"


def test_each_committed_record_is_predicted_from_the_others_within_half_as_much_again(tmp_path: Path) -> None:
    study = load_study(ROOT / "experiments" / "squeeze_ablation.yaml", "laptop")
    costs = measure_all(run.config.model for run in study.runs)
    took = {run.run_id: (read_json(RECORDS / run.run_id / "metrics.json") or {})["time_s"] for run in study.runs}
    for left_out in study.runs:
        for alone in (False, True):  # beside its other seed, and without: from other arms
            found = {run_id: done(seconds) for run_id, seconds in took.items()}
            for run in study.runs if alone else ():
                found |= {run.run_id: ABSENT} if run.cell == left_out.cell else {}
            found[left_out.run_id] = ABSENT
            expected = estimate(study, tmp_path, costs, found, jobs=1, chosen=[left_out])
            assert expected.source == ("all 1 scaled from finished runs" if alone else "all 1 from finished runs")
            assert 1 / 1.5 < expected.wall_s / took[left_out.run_id] < 1.5, left_out.run_id


# ---- the rough table ---------------------------------------------------------------------------


def test_a_core_is_as_fast_as_in_the_committed_records() -> None:
    speeds = []
    for path in RECORDS.glob("*/metrics.json"):
        metrics, run = read_json(path) or {}, Run.from_json(read_json(path.with_name("config.json")) or {})
        speeds.append(metrics["macs"] * images(run.config) / metrics["time_s"])
    assert len(speeds) == 16
    assert statistics.median(speeds) == pytest.approx(CPU_MACS_PER_S, rel=0.02)


def test_every_network_and_squeeze_has_its_place_in_the_table() -> None:
    assert SPEEDS.keys() == BACKBONES.keys()
    assert PASSES.keys() == SQUEEZES.keys()
    costs = measure_all(model_config(backbone=backbone) for backbone in SPEEDS)
    for model, cost in costs.items():
        assert SPEEDS[model.backbone].macs == pytest.approx(cost.macs, rel=1e-3)


def test_where_nothing_has_finished_published_speeds_tell(
    on_gpu: Study, gpu_costs: dict[ModelConfig, Cost], tmp_path: Path
) -> None:
    expected = estimate(on_gpu, tmp_path, gpu_costs, states(on_gpu), jobs=None)
    assert expected.source == "rough table (no run has finished)"
    assert expected.unit == GPU_HOURS
    seen = 100 * (1_281_024 + 50_000 / 3)  # 5004 whole batches and the validation set
    slowest = 971.79 * 2500 / 1218.01 * gpu_costs[model_config(backbone="resnet50")].macs
    slowest /= gpu_costs[model_config(backbone="resnet50", squeeze="gap")].macs
    assert expected.wall_s == pytest.approx(seen / slowest, rel=1e-3)


def test_the_real_study_costs_about_what_its_header_says(tmp_path: Path) -> None:
    path = ROOT / "experiments" / "squeeze_ablation.yaml"
    said = re.search(r"about (\d+) GPU-hours on an A100", path.read_text())
    assert said is not None
    study = load_study(path, "imagenet")
    costs = measure_all(run.config.model for run in study.runs)
    expected = estimate(study, tmp_path, costs, {run.run_id: ABSENT for run in study.runs}, jobs=None)
    assert expected.needed_hours == pytest.approx(float(said[1]), rel=0.25)


def test_images_are_decoded_no_faster_than_the_cores_allow(on_gpu: Study, tmp_path: Path) -> None:
    tiny = costs_of(on_gpu.runs, macs=1)
    expected = 100 * (1_281_024 + 50_000 / 3) / 6400
    assert estimate(on_gpu, tmp_path, tiny, states(on_gpu), jobs=None).wall_s == pytest.approx(expected, rel=1e-6)


def test_float32_takes_longer_and_more_devices_less(
    on_gpu: Study, gpu_costs: dict[ModelConfig, Cost], tmp_path: Path
) -> None:
    def expected(study: Study) -> Estimate:
        return estimate(study, tmp_path, gpu_costs, states(study), jobs=None, packed=False)

    bf16, fp32 = expected(on_gpu), expected(trained_with(on_gpu, precision="fp32"))
    assert fp32.wall_s == pytest.approx(6 * bf16.wall_s)
    eight = expected(trained_with(on_gpu, precision="fp32", world_size=8))
    assert eight.wall_s == pytest.approx(fp32.wall_s / 8)
    assert eight.needed_hours == pytest.approx(fp32.needed_hours)


def test_cut_epochs_count_as_they_are_cut(study: Path) -> None:
    config = load_study(study).runs[0].config
    assert images(config) == pytest.approx(2 * (2 * 32 + 2 * 32 / 3))
    whole = config.model_copy(update={"train": config.train.model_copy(update={"limit_batches": None})})
    assert images(whole) == pytest.approx(2 * (42 * 32 + 450 / 3))


# ---- wall time ---------------------------------------------------------------------------------


def second_by_second(durations: list[int], slots: int) -> int:
    """A clock that ticks: whoever is next in line takes a free slot."""
    waiting, working, now = list(durations), [0] * slots, 0
    while True:
        for slot in range(slots):
            if not working[slot] and waiting:
                working[slot] = waiting.pop(0)
        if not any(working):
            return now
        working = [max(0, left - 1) for left in working]
        now += 1


@given(durations=st.lists(st.integers(1, 30), max_size=20), slots=st.integers(1, 6))
def test_wall_time_is_that_of_a_clock_that_ticks(durations: list[int], slots: int) -> None:
    assert makespan(durations, slots) == second_by_second(durations, slots)


@given(durations=st.lists(st.integers(1, 30), max_size=20))
def test_without_a_throttle_the_longest_run_decides(durations: list[int]) -> None:
    assert makespan(durations, None) == makespan(durations, 20) == max(durations, default=0)


def test_runs_that_share_a_job_take_as_long_as_its_longest_and_share_its_hours(study: Path, tmp_path: Path) -> None:
    study.write_text(study.read_text() + "slurm: {gpus: 1, runs_per_job: 2}\n")
    study_ = load_study(study, overrides=["train.device=cuda"])
    baseline, gap = (run.config.model for run in study_.runs[::2])
    costs = {baseline: Cost(0, 1000, 1000, {}), gap: Cost(0, 3000, 3000, {})}
    chosen = study_.runs[1:]
    found = states(study_, r0=done(100))
    expected = estimate(study_, tmp_path, costs, found, jobs=1, chosen=chosen)
    assert expected.wall_s == pytest.approx(300 + 300), "the first two share a job"
    assert expected.needed_hours == pytest.approx((100 + 300 + 300) / 2 / 3600)
    alone = estimate(study_, tmp_path, costs, found, jobs=1, chosen=chosen, packed=False)
    assert alone.wall_s == pytest.approx(100 + 300 + 300)
    assert alone.needed_hours == pytest.approx((100 + 300 + 300) / 3600)


# ---- disk --------------------------------------------------------------------------------------


def test_a_checkpoint_is_as_large_as_a_real_one() -> None:
    model = create_model("resnet18", "gap")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.zeros(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    content = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, content)
    params = sum(parameter.numel() for parameter in model.parameters())
    assert module._checkpoint_bytes(params) == pytest.approx(content.tell(), rel=0.01)


def test_a_run_at_work_has_three_checkpoints_and_keeps_one(study: Path, tmp_path: Path) -> None:
    study_ = load_study(study)

    def size(jobs: int | None) -> float:
        costs = costs_of(study_.runs, params=10**9)
        return estimate(study_, tmp_path, costs, states(study_), jobs).disk_bytes / 8e9

    assert size(1) == pytest.approx(4 + 2, rel=1e-3)
    assert size(3) == pytest.approx(4 + 6, rel=1e-3)
    assert size(None) == size(100) == pytest.approx(4 + 8, rel=1e-3)


def test_too_small_a_disk_is_refused_before_anything_is_written(study: Path, tmp_path: Path) -> None:
    study_, folder = load_study(study), tmp_path / "results" / "none-yet"
    fits = estimate(study_, folder, costs_of(study_.runs), states(study_), jobs=1)
    assert 0 < fits.disk_bytes < fits.free_bytes
    check_disk(folder, replace(fits, free_bytes=fits.disk_bytes))
    with pytest.raises(UnavailableError, match=r"none-yet: 4 runs need about 0\.6 MB and 0\.5 MB are free; valid: "):
        check_disk(folder, replace(fits, disk_bytes=600_000, free_bytes=500_000))
    assert not folder.exists()


# ---- what is told ------------------------------------------------------------------------------

FULL = Estimate(48, 640.0, 0.0, GPU_HOURS, 80 * 3600, 8, 12 * 10**9, 10**12, "rough table (no run has finished)")


def test_a_dry_run_tells_hours_time_disk_and_where_they_come_from() -> None:
    assert lines(FULL) == [
        "48 runs need about 640 GPU-hours, 80:00 h with 8 at a time",
        "and 12.0 GB of disk, where 1,000.0 GB are free",
        "estimated from: rough table (no run has finished)",
    ]
    begun = replace(FULL, used_hours=3.14159, at_once=None)
    assert lines(begun)[0] == "48 runs need about 640 GPU-hours (3.1 used so far), 80:00 h with all at once"
    assert lines(replace(FULL, runs=0)) == []


def test_a_budget_is_kept_to_the_hour(on_gpu: Study) -> None:
    check_budget(on_gpu, replace(FULL, needed_hours=60.0, used_hours=40.0))
    with pytest.raises(ConfigError) as refused:
        check_budget(on_gpu, replace(FULL, needed_hours=60.5, used_hours=40.0))
    assert str(refused.value) == (
        f"{on_gpu.path}: budget.gpu_hours: 100: the 48 runs need about 60 GPU-hours beside the 40 used "
        "(rough table (no run has finished)); valid: 101 or more, or fewer runs by --only"
    )


def test_a_budget_of_gpu_hours_does_not_bind_a_study_without_gpus_or_a_study_without_a_budget(on_gpu: Study) -> None:
    check_budget(on_gpu, replace(FULL, unit=CORE_HOURS))
    check_budget(replace(on_gpu, budget_gpu_hours=None), FULL)


def test_a_study_that_needs_nothing_more_is_never_refused(on_gpu: Study) -> None:
    check_budget(on_gpu, replace(FULL, runs=0, needed_hours=0.0, used_hours=140.0))


def test_what_no_finished_run_resembles_is_told_by_the_table(on_gpu: Study, tmp_path: Path) -> None:
    cpu = trained_with(on_gpu, device="cpu").runs[0]
    mixed = replace(on_gpu, runs=(cpu, *on_gpu.runs))
    expected = estimate(mixed, tmp_path, costs_of(mixed.runs), states(mixed, r0=done(100)), jobs=None, packed=False)
    assert expected.source == "rough table (no such run has finished)"
