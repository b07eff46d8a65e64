"""Seconds to compile a run's graphs, cold and from an archive: `python -m benchmarks.compile_cache [--out FILE]`.

ResNet-18 with gap, plain and folded blocks in turns, batch 8, bf16 autocast, on one CPU thread with one compiler
process; a training step and an evaluation. Every measurement is a process of its own, from the first call of the
compiler on:

    cold    nothing is there
    same    the folder that the cold process left
    copied  an archive of that folder, unpacked in another place; the folder itself is gone
    bare    copied, on a node where torch's compiler has never run: C++ headers are precompiled anew (CPU graphs only)

Counted are the seconds of the processor, of the process and of the compilers that it starts: a busy machine changes
them little. Those of the clock stand beside them. Goal: copied at most a tenth of cold, in either form. About 20
minutes on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from sqzlab.config import Config
from sqzlab.resolving import resolve
from sqzlab.runs.kernels import Kernels, graphs_in
from sqzlab.runs.provenance import machine
from sqzlab.training.warm_up import compile_graphs

GOAL = 0.1
ROUNDS = 3
Seconds = tuple[float, float]  # of the processor, of the clock
KINDS = ("cold", "same", "copied", "bare")
FORMS = ("plain", "folded")


def config(image_size: int, form: str) -> Config:
    found = resolve(
        {
            "model.backbone": "resnet18",
            "model.squeeze": "gap",
            "data.name": "generated",
            "data.image_size": image_size,
            "train.recipe": "digits",
            "train.batch_size": 8,
            "train.precision": "bf16",
            "train.compile": True,
            "train.block_form": form,
        },
        seed=0,
    )
    assert isinstance(found, Config), found
    return found


def spent() -> tuple[float, float]:
    """Seconds of the processor, children included, and of the clock."""
    return sum(os.times()[:4]), time.perf_counter()


def compiled_in(folder: Path, image_size: int, form: str) -> Seconds:
    """What this process takes until a training step and an evaluation are compiled and done."""
    with graphs_in(folder):
        began = spent()
        compile_graphs(config(image_size, form), torch.device("cpu"))
        ended = spent()
    return ended[0] - began[0], ended[1] - began[1]


def child_s(folder: Path, temporary: Path, image_size: int, form: str) -> Seconds:
    temporary.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.compile_cache", "--child", str(folder), "--size", str(image_size)]
    command += ["--form", form]
    environment = {key: value for key, value in os.environ.items() if "INDUCTOR" not in key and "TRITON" not in key}
    environment |= {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    said = subprocess.run(command, env=environment, capture_output=True, text=True)
    if said.returncode:
        raise SystemExit(said.stderr)
    processor, clock = said.stdout.split()[-2:]
    return float(processor), float(clock)


def round_s(home: Path, image_size: int, form: str) -> dict[str, Seconds]:
    """One measurement of each kind."""
    first, node, bare = home / "first", home / "node", home / "bare"
    took = {"cold": child_s(first, node, image_size, form), "same": child_s(first, node, image_size, form)}
    archive = home / "archive.zip"
    Kernels(archive, first).publish()
    print(f"archive {archive.stat().st_size / 1e6:.1f} MB", flush=True)
    shutil.rmtree(first)
    for kind, temporary in (("copied", node), ("bare", bare)):
        folder = home / kind
        began = spent()
        assert Kernels(archive, folder).fetch()
        unpacked, child = spent(), child_s(folder, temporary, image_size, form)
        took[kind] = (unpacked[0] - began[0] + child[0], unpacked[1] - began[1] + child[1])
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels (default: 64)")
    parser.add_argument("--form", action="append", choices=FORMS, help="of the blocks (default: both, in turns)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--out", type=Path, help="file for the table")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        print(*compiled_in(given.child, given.size, *given.form))
        return
    rounds: dict[str, list[dict[str, Seconds]]] = {form: [] for form in given.form or FORMS}
    lines = [
        f"Compiling ResNet-18 with gap, {given.size} px, batch 8, bf16, one thread, one compiler process",
        f"{machine()['cpu']}, torch {torch.__version__}, Python {machine()['python']}",
        f"{'processor (clock) s':<20}" + "".join(f"{kind:>16}" for kind in KINDS),
    ]
    print("\n".join(lines), flush=True)
    for number in range(given.rounds):
        for form, measured in rounds.items():
            with tempfile.TemporaryDirectory() as home:
                measured.append(round_s(Path(home), given.size, form))
            lines.append(_row(f"{form}, round {number + 1}", measured[-1]))
            print(lines[-1], flush=True)
    for form, measured in rounds.items():
        median = {kind: _median([one[kind] for one in measured]) for kind in KINDS}
        share, bare = (median[kind][0] / median["cold"][0] for kind in ("copied", "bare"))
        met = "met" if share <= GOAL else "not met"
        lines += [
            _row(f"{form}, median", median),
            f"{form}: copied / cold {share:.3f}, goal at most {GOAL}: {met}",
            f"{form}: bare / cold {bare:.3f}, once a node and only for graphs of the CPU",
        ]
        print("\n".join(lines[-3:]))
    if given.out is not None:
        given.out.write_text("\n".join(lines) + "\n")


def _median(several: list[Seconds]) -> Seconds:
    return statistics.median(one[0] for one in several), statistics.median(one[1] for one in several)


def _row(name: str, took: dict[str, Seconds]) -> str:
    cells = (f"{processor:.1f} ({clock:.1f})" for processor, clock in (took[kind] for kind in KINDS))
    return f"{name:<20}" + "".join(f"{cell:>16}" for cell in cells)


if __name__ == "__main__":
    main()
