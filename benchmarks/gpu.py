"""Squeezes against the plain network on one GPU, in under ten minutes: `python -m benchmarks.gpu`.

ResNet-50, then ResNet-18, at 224 px, batch 256, bf16 and channels_last: our plain network and the study's squeezes in
folded form, compiled, training and at inference, and timm's network eager; then the bytes that one folded block moves
against the plain block. Compiling comes first, in several processes that fill one cache; what the clock leaves no
time for is named, and everything measured is written. Goals are judged at the end; exit code 1 where a figure is
absent, whether or not a goal is missed.

`--device cpu --size 64 --batch 4 --backbone resnet18 --squeeze gap --out FILE` rehearses all of it without a GPU; its
figures are of a CPU and say so.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from sqzlab.bench.outcome import Outcome, Row, as_json, ratios
from sqzlab.bench.plan import COMPILED, EAGER, KINDS, OURS, SQUEEZES, TIMM, TRAINING, Contender, Entry, Settings

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
RATIO_GOALS = {"resnet50": (0.97, 0.93), "resnet18": (0.96, 0.92)}  # to plain: single sums; SP and RG
BOUND_GOALS = {"resnet50": 0.75, "resnet18": 0.60}  # training, compiled
TIMM_GOAL = 1.15  # our plain ResNet-50, compiled, against timm's eager
BLOCK_GOAL = 1.02  # bytes of a folded block against the plain one
BLOCK_SQUEEZES = ("gap", "std")
COMPILING_SHARE = 0.5  # of the time
LAST_S = 120.0  # kept for the blocks and for writing


def main() -> int:
    given = _arguments()
    if given.part is not None:
        return _compile_part(given)
    began = time.monotonic()
    deadline = began + 60 * given.minutes
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", folder)
        cache = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        found: dict[str, Any] = {"minutes": given.minutes, "throughput": {}, "blocks": {}}
        _say(began, f"compiling in {given.workers} processes")
        _compile_all(given, began + COMPILING_SHARE * 60 * given.minutes)
        for path in cache.rglob("*.best_config"):
            path.unlink()  # chosen while others were using the GPU; the choice is made again
        found["compiling_s"] = time.monotonic() - began
        outcomes: dict[str, Outcome] = {}
        for number, backbone in enumerate(given.backbone):
            now = time.monotonic()
            until = now + (deadline - LAST_S - now) / (len(given.backbone) - number)
            outcomes[backbone] = _measured(given, backbone, began, until)
            found["throughput"][backbone] = as_json(outcomes[backbone])
            _write(given.out, found)
        copy = max(
            (max(o.ceilings["copy_bytes_per_s"], default=0.0) for o in outcomes.values() if o.ceilings), default=0.0
        )
        for squeeze in ("baseline", *(name for name in BLOCK_SQUEEZES if name in given.squeeze)):
            _say(began, f"one block: {squeeze}")
            found["blocks"][squeeze] = _block(given, squeeze, copy, deadline)
            _write(given.out, found)
    found["goals"] = [*_goals(given, outcomes), *_block_goals(found["blocks"])]
    found["seconds"] = time.monotonic() - began
    _write(given.out, found)
    _show(given, found)
    absent = [row for outcome in outcomes.values() for row in outcome.rows if row.images_per_s is None]
    return 1 if absent or any("failure" in block for block in found["blocks"].values()) else 0


def entries(backbone: str, squeezes: Sequence[str]) -> list[Entry]:
    """What is measured of a backbone, the most important first."""
    plain, timm = Contender(OURS, backbone), Contender(TIMM, backbone)
    folded = [Contender(OURS, backbone, squeeze, "folded") for squeeze in (*squeezes, "baseline")]
    modes = {plain: COMPILED, timm: EAGER, **dict.fromkeys(folded, COMPILED)}
    return [Entry(contender, mode, kind) for contender, mode in modes.items() for kind in KINDS]


def settings(given: argparse.Namespace) -> Settings:
    return Settings(given.device, given.batch, given.size, given.precision, rounds=given.rounds)


# ---- compiling ---------------------------------------------------------------------------------


def _compile_all(given: argparse.Namespace, until: float) -> None:
    """Fills the cache; what is not there by then is compiled in turn, or left out."""
    command = [sys.executable, "-m", "benchmarks.gpu", *sys.argv[1:]]
    threads = str(max(1, (os.cpu_count() or 1) // given.workers))
    env = {**os.environ, "OMP_NUM_THREADS": threads, "TORCHINDUCTOR_COMPILE_THREADS": threads}
    parts = range(given.workers)
    processes = [subprocess.Popen([*command, "--part", str(part)], cwd=ROOT, env=env) for part in parts]
    try:
        for process in processes:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.terminate()
    finally:
        for process in processes:
            process.kill()  # nothing, where it has ended
            process.wait()


def _compile_part(given: argparse.Namespace) -> int:
    """Every so many-th entry: its first step compiles it."""
    import torch
    from torch._dynamo import config as dynamo

    from sqzlab.bench.networks import network
    from sqzlab.bench.step import Inputs, make_step

    chosen = settings(given)
    inputs = Inputs.of(chosen)
    compiled = [
        entry for backbone in given.backbone for entry in entries(backbone, given.squeeze) if entry.mode != EAGER
    ]
    with dynamo.patch(recompile_limit=1000, accumulated_recompile_limit=1000):
        for entry in compiled[given.part :: given.workers]:
            for again in (True, False):
                try:
                    make_step(network(entry.contender, chosen.size), entry, chosen, inputs)()
                    break
                except torch.OutOfMemoryError:  # others have it now
                    if again:
                        time.sleep(5)
            torch.compiler.reset()  # it holds the network
            if given.device == "cuda":
                torch.cuda.empty_cache()
    return 0


# ---- throughput --------------------------------------------------------------------------------


def _measured(given: argparse.Namespace, backbone: str, began: float, until: float) -> Outcome:
    from sqzlab.bench.measure import measure, open_outcome

    outcome = open_outcome(entries(backbone, given.squeeze), settings(given))
    measure(outcome, lambda text, number, of: _say(began, f"{backbone}: {text} ({number} of {of})"), until)
    return outcome


# ---- one block ---------------------------------------------------------------------------------


def _block(given: argparse.Namespace, squeeze: str, copy_bytes_per_s: float, deadline: float) -> dict[str, Any]:
    """Bytes of one block's training step: read by Nsight Compute, else two estimates that say so."""
    form = "plain" if squeeze == "baseline" else "folded"
    words = ["-m", "benchmarks.gpu_block", "--squeeze", squeeze, "--form", form, "--device", given.device]
    words += ["--batch", str(given.batch), "--size", str(given.size), "--precision", given.precision]
    left = deadline - time.monotonic()
    if left < 10:
        return {"form": form, "failure": "no time was left"}
    try:
        said = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=left)
    except subprocess.TimeoutExpired:
        return {"form": form, "failure": "it took longer than was left"}
    if said.returncode:
        return {"form": form, "failure": said.stderr.strip().splitlines()[-1]}
    block = json.loads(said.stdout.splitlines()[-1])
    return {"form": form, **block, "bytes_by_time": block["step_s"] * copy_bytes_per_s}


def _block_goals(blocks: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """By the best source that both have: counters of the DRAM, or Inductor's count of what its kernels name."""
    plain = blocks.get("baseline", {})
    for squeeze, block in blocks.items():
        if squeeze == "baseline":
            continue
        sources = ("dram_bytes", "inductor_bytes")
        source = next((name for name in sources if plain.get(name) and block.get(name)), None)
        value = block[source] / plain[source] if source else None
        yield _goal(f"block {squeeze}: bytes, {SOURCES[source]}", value, BLOCK_GOAL, below=True)


SOURCES = {"dram_bytes": "DRAM counters", "inductor_bytes": "ESTIMATE, Inductor's counter", None: "not measured"}


# ---- goals -------------------------------------------------------------------------------------


def _goals(given: argparse.Namespace, outcomes: dict[str, Outcome]) -> Iterator[dict[str, Any]]:
    for (backbone, outcome), kind in product(outcomes.items(), KINDS):
        plain = _row(outcome, Contender(OURS, backbone), COMPILED, kind)
        for squeeze in given.squeeze if backbone in RATIO_GOALS else ():
            row = _row(outcome, Contender(OURS, backbone, squeeze, "folded"), COMPILED, kind)
            goal = RATIO_GOALS[backbone][squeeze in ("SP", "RG")]
            yield _goal(f"{backbone} {squeeze}, {kind}: to plain", _median(ratios(row, plain)), goal)
        if backbone == "resnet50":
            theirs = outcome.row(Entry(Contender(TIMM, backbone), EAGER, kind))
            value = _median(ratios(plain, theirs)) if theirs else None
            yield _goal(f"{backbone} plain, {kind}: to timm's eager", value, TIMM_GOAL)
        if kind == TRAINING and backbone in BOUND_GOALS:
            yield _goal(f"{backbone} plain, {kind}: of the bound", outcome.fraction(plain), BOUND_GOALS[backbone])


def _row(outcome: Outcome, contender: Contender, mode: str, kind: str) -> Row:
    row = outcome.row(Entry(contender, mode, kind))
    assert row is not None
    return row


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _goal(name: str, value: float | None, goal: float, *, below: bool = False) -> dict[str, Any]:
    met = None if value is None else (value <= goal if below else value >= goal)
    return {"goal": name, "value": value, "wanted": goal, "at_most": below, "met": met}


# ---- output ------------------------------------------------------------------------------------


def _show(given: argparse.Namespace, found: dict[str, Any]) -> None:
    from rich.console import Console

    from sqzlab.commands.bench import show

    console = Console(highlight=False, width=80)
    for one in found["throughput"].values():
        if one["ceilings"]:
            show(console, one)
            console.print()
    if given.device != "cuda":
        print("a rehearsal on the CPU: none of these figures is a GPU's")
    for goal in found["goals"]:
        verdict = {True: "pass", False: "MISS", None: "not measured"}[goal["met"]]
        value = "" if goal["value"] is None else f"{goal['value']:.3f}"
        print(f"{goal['goal']:<52}{value:>8}  {'<=' if goal['at_most'] else '>='} {goal['wanted']:.2f}  {verdict}")
    print(f"{found['seconds']:.0f} s, of which compiling {found['compiling_s']:.0f}; written: {given.out}")


def _write(path: Path, found: dict[str, Any]) -> None:
    from sqzlab.runs.files import write_json

    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, found)


def _say(began: float, text: str) -> None:
    print(f"{time.monotonic() - began:5.0f} s  {text}", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbone", nargs="+", default=["resnet50", "resnet18"], metavar="NAME")
    parser.add_argument(
        "--squeeze", nargs="+", default=[*SQUEEZES[1:]], metavar="NAME", help="beside the plain network"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--batch", type=int, default=256, metavar="N")
    parser.add_argument("--size", type=int, default=224, metavar="PIXELS")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--minutes", type=float, default=9.5, metavar="M", help="for everything; default: 9.5")
    parser.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1), metavar="N", help="that compile")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: benchmarks/results/gpu.json; on the CPU needed"
    )
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)  # of the compiling, in a process of its own
    given = parser.parse_args()
    if given.out is None and given.device == "cpu":
        parser.error("--out: a rehearsal on the CPU needs a file of its own")
    given.out = (given.out or RESULTS / "gpu.json").resolve()
    return given


if __name__ == "__main__":
    sys.exit(main())
