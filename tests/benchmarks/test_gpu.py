"""What benchmarks/gpu.py makes of measurements; the measuring itself is the package's."""

from __future__ import annotations

import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest

from sqzlab.bench.outcome import Bound, Outcome, Row
from sqzlab.bench.plan import COMPILED, OURS, TIMM, TRAINING, Contender

ROOT = str(Path(__file__).parents[2])
sys.path.insert(0, ROOT)  # scripts beside the package, not parts of it
try:
    from benchmarks import gpu, gpu_block
finally:
    sys.path.remove(ROOT)

RAW = """\
==PROF== Connected to process 7
==PROF== Profiling "triton_red_fused_0": 0%....50%....100% - 3 passes
"ID","Process ID","Kernel Name","Grid Size","dram__bytes_read.sum","dram__bytes_write.sum"
"","","","","byte","byte"
"0","7","triton_red_fused_0","(132, 1, 1)","1,000,000","24"
"1","7","void cutlass::Kernel<a, b>(c)","(4, 1, 1)","500","1,000"
==PROF== Disconnected from process 7
"""


def test_the_bytes_of_all_kernels_are_added() -> None:
    assert gpu_block.dram_bytes(RAW) == 1_000_000 + 24 + 500 + 1_000


@pytest.mark.parametrize("text", ["", "==ERROR== ERR_NVGPUCTRPERM - the user does not have permission\n"])
def test_without_counters_there_are_no_bytes(text: str) -> None:
    assert gpu_block.dram_bytes(text) == 0


def goals(**speeds: float) -> dict[str, tuple[float | None, bool | None]]:
    """Of a ResNet-50 that was measured in one round at these images a second; the bound is at 1000."""
    rows = [Row(entry, steps=1) for entry in gpu.entries("resnet50", ["gap", "SP"])]
    for row in rows:
        if row.entry.contender.label in speeds and row.entry.kind == TRAINING:
            row.rounds = [speeds[row.entry.contender.label]]
    outcome = Outcome(gpu.settings(SETTINGS), rows, bounds=[Bound("resnet50", TRAINING, "fused", 1, 1, 1000.0)])
    found = gpu._goals(Namespace(squeeze=["gap", "SP"]), {"resnet50": outcome})
    return {goal["goal"].removeprefix("resnet50 "): (goal["value"], goal["met"]) for goal in found}


SETTINGS = Namespace(device="cpu", batch=1, size=64, precision="fp32", rounds=1)


def test_each_goal_is_judged_by_its_own_threshold() -> None:
    found = goals(**{"baseline": 760.0, "gap, folded": 729.6, "SP, folded": 714.4, "timm": 700.0})
    assert found["gap, training: to plain"] == (pytest.approx(0.96), False)
    assert found["SP, training: to plain"] == (pytest.approx(0.94), True)
    assert found["plain, training: to timm's eager"] == (pytest.approx(1.0857, abs=1e-4), False)
    assert found["plain, training: of the bound"] == (pytest.approx(0.76), True)


def test_what_was_not_measured_neither_passes_nor_misses() -> None:
    assert set(goals(baseline=800.0).values()) == {(None, None), (0.8, True)}


def test_the_most_important_figures_come_first() -> None:
    contenders = list(dict.fromkeys((e.contender, e.mode) for e in gpu.entries("resnet50", ["gap", "RG"])))
    folded = [Contender(OURS, "resnet50", squeeze, "folded") for squeeze in ("gap", "RG", "baseline")]
    assert contenders == [
        (Contender(OURS, "resnet50"), COMPILED),
        (Contender(TIMM, "resnet50"), "eager"),
        *((contender, COMPILED) for contender in folded),
    ]


def test_a_block_is_judged_by_counters_and_else_by_an_estimate_that_says_so() -> None:
    measured = {"baseline": {"dram_bytes": 100, "inductor_bytes": 50}, "gap": {"dram_bytes": 103, "inductor_bytes": 50}}
    estimated = {name: {"inductor_bytes": block["inductor_bytes"]} for name, block in measured.items()}
    told = [next(gpu._block_goals(blocks)) for blocks in (measured, estimated)]
    assert [(goal["met"], "ESTIMATE" in goal["goal"]) for goal in told] == [(False, False), (True, True)]


def test_counters_that_cannot_be_read_are_no_bytes() -> None:
    assert gpu_block.dram_bytes(RAW.replace('"24"', '"n/a"')) == 0


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import sys; sys.exit('a\\nlast words')", {"failure": "last words"}),
        ("import os; os.abort()", {"failure": "ended with -6"}),
        ('print(\'{"step_s": 2}\'); print(\'{"step_s": 2, "dram\'); raise SystemExit(1)', {"step_s": 2}),
    ],
)
def test_a_block_that_fails_leaves_what_it_had_measured_and_its_last_words(code: str, told: dict[str, object]) -> None:
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True)
    assert gpu._block_said("gap", process, time.monotonic() + 30) == {"form": "folded", **told}
