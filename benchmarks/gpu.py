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
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqzlab.bench.outcome import Outcome, Row, as_json, ratios
from sqzlab.bench.plan import COMPILED, EAGER, GRAPHS, KINDS, OURS, SQUEEZES, TIMM, TRAINING, Contender, Entry, Settings

if TYPE_CHECKING:
    from sqzlab.bench.step import Inputs

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
RATIO_GOALS = {"resnet50": (0.97, 0.93), "resnet18": (0.96, 0.92)}  # to plain: single sums; SP and RG
BOUND_GOALS = {"resnet50": 0.75, "resnet18": 0.60}  # training, compiled
TIMM_GOAL = 1.15  # our plain ResNet-50, compiled, against timm's eager
BLOCK_GOAL = 1.02  # bytes of a folded block against the plain one
BLOCK_SQUEEZES = ("gap", "std")
LAUNCH_BOUND = ("resnet18",)  # its kernels are short: CUDA graphs tell what launching them costs
COMPILING_SHARE = 0.5  # of the time
LAST_S = 120.0  # kept for the blocks and for writing


def main() -> int:
    given = _arguments()
    os.environ.setdefault("TORCHINDUCTOR_AUTOGRAD_CACHE_ALLOW_CUSTOM_AUTOGRAD", "1")  # else folded ones are traced anew
    if given.claims is not None:
        return _compile_claimed(given)
    from sqzlab.bench.measure import open_outcome

    began = time.monotonic()
    deadline = began + 60 * given.minutes
    outcomes = {name: open_outcome(entries(name, given.squeeze), settings(given)) for name in given.backbone}
    for reason in dict.fromkeys(reason for outcome in outcomes.values() for reason in outcome.left_out):
        _say(began, reason)
    found: dict[str, Any] = {"minutes": given.minutes, "throughput": {}, "blocks": {}}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(folder, "all"))
        try:
            _say(began, f"compiling in {given.workers} processes")
            found["blocks"] = _compile_all(given, Path(folder), began + COMPILING_SHARE * 60 * given.minutes)
            for path in Path(folder).rglob("*.best_config"):
                path.unlink()  # chosen while others were using the GPU; the choice is made again
            found["compiling_s"] = time.monotonic() - began
            for number, outcome in enumerate(outcomes.values()):
                now = time.monotonic()
                until = now + (deadline - LAST_S - now) / (len(outcomes) - number)
                _measure(outcome, began, until)
                _save(given, found, outcomes)
            copies = [max(outcome.ceilings["copy_bytes_per_s"]) for outcome in outcomes.values() if outcome.ceilings]
            for squeeze, block in found["blocks"].items():
                _say(began, f"one block: {squeeze}")
                block.update(_time_block(given, squeeze, Path(folder), max(copies, default=0.0), deadline))
        finally:
            _save(given, found, outcomes)
    found["goals"] = [*_goals(given, outcomes), *_block_goals(found["blocks"])]
    found["seconds"] = time.monotonic() - began
    _save(given, found, outcomes)
    _show(given, found)
    absent = [row for outcome in outcomes.values() for row in outcome.rows if row.images_per_s is None]
    unknown = [goal for goal in found["goals"] if goal["met"] is None]
    return 1 if absent or unknown else 0


def entries(backbone: str, squeezes: Sequence[str]) -> list[Entry]:
    """What is measured of a backbone, the most important first."""
    plain, timm = Contender(OURS, backbone), Contender(TIMM, backbone)
    folded = [Contender(OURS, backbone, squeeze, "folded") for squeeze in (*squeezes, "baseline")]
    modes = {plain: COMPILED, timm: EAGER, **dict.fromkeys(folded, COMPILED)}
    found = [Entry(contender, mode, kind) for contender, mode in modes.items() for kind in KINDS]
    if backbone in LAUNCH_BOUND:
        found += [Entry(contender, GRAPHS, kind) for contender in (plain, *folded[:1]) for kind in KINDS]
    return found


def settings(given: argparse.Namespace) -> Settings:
    threads = 1 if given.device == "cpu" else None  # kernels for a CPU are compiled for so many
    return Settings(given.device, given.batch, given.size, given.precision, threads=threads, rounds=given.rounds)


# ---- compiling ---------------------------------------------------------------------------------


def _compile_all(given: argparse.Namespace, folder: Path, until: float) -> dict[str, dict[str, Any]]:
    """Fills the cache, and counts the bytes of the blocks; what is not there by then is compiled in turn, or left out.

    Which entry is next is a matter of who comes first, so that no process waits while there is one left.
    """
    (claims := folder / "claims").mkdir()
    command = [sys.executable, "-m", "benchmarks.gpu", *sys.argv[1:], "--claims", str(claims)]
    threads = str(max(1, _cores() // given.workers))
    env = {**os.environ, "OMP_NUM_THREADS": threads, "TORCHINDUCTOR_COMPILE_THREADS": threads}
    processes = [subprocess.Popen(command, cwd=ROOT, env=env) for _ in range(given.workers)]
    names = ("baseline", *(name for name in BLOCK_SQUEEZES if name in given.squeeze))
    counts = {name: _start_block(given, name, folder, "count") for name in names}
    try:
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
        return {name: _block_said(name, process, until) for name, process in counts.items()}
    finally:
        for process in (*processes, *counts.values()):
            process.kill()  # nothing, where it has ended
            process.wait()


def _compile_claimed(given: argparse.Namespace) -> int:
    """Compiles one entry after another that no other process has claimed; its first step does it.

    Training graphs come first: they take several times as long.
    """
    import torch
    from torch._dynamo import config as dynamo

    from sqzlab.bench.measure import set_numerics
    from sqzlab.bench.step import Inputs

    chosen = settings(given)
    set_numerics(chosen)
    inputs = Inputs.of(chosen)
    compiled = [e for backbone in given.backbone for e in entries(backbone, given.squeeze) if e.mode != EAGER]
    failed = 0
    with dynamo.patch(recompile_limit=1000, accumulated_recompile_limit=1000):
        for number, entry in enumerate(sorted(compiled, key=lambda e: e.kind != TRAINING)):
            try:
                (given.claims / str(number)).touch(exist_ok=False)
            except FileExistsError:
                continue
            for pause in (5, 0):
                if (failure := _compiled(entry, chosen, inputs)) is None:
                    break
                torch.compiler.reset()
                if given.device == "cuda":
                    torch.cuda.empty_cache()
                time.sleep(pause)  # others may have the memory now
            if failure is not None:
                failed = 1
                print(f"{entry}: {failure}", file=sys.stderr, flush=True)
            torch.compiler.reset()  # it holds the network
            if given.device == "cuda":
                torch.cuda.empty_cache()
    return failed


def _compiled(entry: Entry, chosen: Settings, inputs: Inputs) -> str | None:
    """Why it failed. Its frames, and with them what it took of the GPU, are gone on return."""
    from sqzlab.bench.networks import network
    from sqzlab.bench.step import make_step

    try:
        make_step(network(entry.contender, chosen.size), entry, chosen, inputs)()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


def _cores() -> int:
    return len(os.sched_getaffinity(0))


# ---- throughput --------------------------------------------------------------------------------


def _measure(outcome: Outcome, began: float, until: float) -> None:
    from sqzlab.bench.measure import measure

    backbone = outcome.rows[0].entry.contender.backbone
    measure(outcome, lambda text, number, of: _say(began, f"{backbone}: {text} ({number} of {of})"), until)


# ---- one block ---------------------------------------------------------------------------------


def _form(squeeze: str) -> str:
    return "plain" if squeeze == "baseline" else "folded"


def _start_block(
    given: argparse.Namespace, squeeze: str, folder: Path, only: str, left: float = 0.0
) -> subprocess.Popen[str]:
    words = ["-m", "benchmarks.gpu_block", "--squeeze", squeeze, "--form", _form(squeeze), "--device", given.device]
    words += ["--batch", str(given.batch), "--size", str(given.size), "--precision", given.precision]
    words += ["--only", only, "--seconds", str(max(1.0, left - 10))]
    env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(folder / squeeze)}  # counted is what is compiled, not found
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *words], cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)


def _time_block(
    given: argparse.Namespace, squeeze: str, folder: Path, copy_bytes_per_s: float, deadline: float
) -> dict[str, Any]:
    """Bytes of one block's training step: read by Nsight Compute, else an estimate from its time that says so."""
    if (left := deadline - time.monotonic()) < 10:
        return {"failure": "no time was left"}
    block = _block_said(squeeze, _start_block(given, squeeze, folder, "time", left), deadline)
    return {**block, "bytes_by_time": block["step_s"] * copy_bytes_per_s} if "step_s" in block else block


def _block_said(squeeze: str, process: subprocess.Popen[str], until: float) -> dict[str, Any]:
    """The last whole line of what it prints, and where there is none why."""
    try:
        said, error = process.communicate(timeout=max(1.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        said, error = process.communicate()
        error += "\nit took longer than was left"
    lines = [line for line in said.splitlines() if line.startswith("{") and line.endswith("}")]
    if lines:
        return {"form": _form(squeeze), **json.loads(lines[-1])}
    told = error.strip().rpartition("\n")[2] or f"ended with {process.returncode}"
    return {"form": _form(squeeze), "failure": told}


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


def _save(given: argparse.Namespace, found: dict[str, Any], outcomes: dict[str, Outcome]) -> None:
    """All that there is so far."""
    from sqzlab.runs.files import write_json

    found["throughput"] = {backbone: as_json(outcome) for backbone, outcome in outcomes.items() if outcome.about}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(given.out, found)


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
    parser.add_argument("--workers", type=int, default=min(8, _cores()), metavar="N", help="that compile")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: benchmarks/results/gpu.json; on the CPU needed"
    )
    parser.add_argument("--claims", type=Path, help=argparse.SUPPRESS)  # of a process that compiles
    given = parser.parse_args()
    if given.out is None and given.device == "cpu":
        parser.error("--out: a rehearsal on the CPU needs a file of its own")
    given.out = (given.out or RESULTS / "gpu.json").resolve()
    return given


if __name__ == "__main__":
    sys.exit(main())
