"""`python -m sqzlab bench`: networks side by side on this machine, and how near each is to what the machine can do."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqzlab.bench.plan import COMPILED, EAGER, GRAPHS, KINDS, MODES, PEERS, SQUEEZES, Settings, entries
from sqzlab.catalog import BACKBONES, BLOCK_FORMS, DEVICES
from sqzlab.catalog import SQUEEZES as ALL_SQUEEZES
from sqzlab.commands.network import positive
from sqzlab.errors import ConfigError, choices

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from sqzlab.bench.outcome import Outcome

PRECISIONS = ("fp32", "bf16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Everything is measured in one process, in rounds in which every network has a turn. Writes bench.json (each "
        "round, ceilings, bounds, versions), bench.svg and bench.png into DIR. Several names: with spaces or commas. "
        "Compiling takes about a minute a network, training and inference, unless the compiler's cache has it. Folded "
        "networks are for compilers and measured compiled only. exit codes: 0 all measured, 1 a row failed, 2 what was "
        "written is wrong, 3 no GPU, 130 Ctrl-C (what was measured is written)"
    )
    several: dict[str, Any] = {"nargs": "+", "metavar": "NAME"}
    parser.add_argument("--backbone", **several, default=["resnet50"], help="default: resnet50")
    parser.add_argument("--squeeze", **several, default=[*SQUEEZES], help=f"default: {', '.join(SQUEEZES)}")
    parser.add_argument("--form", **several, default=[*BLOCK_FORMS], help=f"default: {', '.join(BLOCK_FORMS)}")
    parser.add_argument(
        "--peers", **several, default=[*PEERS], help=f"default: {', '.join(PEERS)}, as far as they are there; or none"
    )
    parser.add_argument(
        "--mode",
        **several,
        default=[EAGER, COMPILED],
        help=f"of {', '.join(MODES)} (CUDA graphs); default: the first two",
    )
    parser.add_argument("--train", action="store_true", help="training steps only; default: and inference")
    parser.add_argument("--inference", action="store_true", help="inference only; default: and training steps")
    parser.add_argument("--device", choices=tuple(DEVICES), help="default: the GPU if there is one")
    parser.add_argument("--batch", type=positive, metavar="N", help="images a step; default: 256, on the CPU 16")
    parser.add_argument("--size", type=positive, metavar="PIXELS", help="default: 224, on the CPU 128")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: bf16 (autocast), on the CPU fp32")
    parser.add_argument("--channels-last", action=argparse.BooleanOptionalAction, default=True, help="default: yes")
    parser.add_argument("--threads", type=positive, metavar="N", help="of the CPU; default: torch's choice")
    parser.add_argument("--rounds", type=positive, default=7, metavar="N", help="default: 7")
    parser.add_argument(
        "--steps", type=positive, metavar="N", help="a turn; default: as many as take some tenths of a second"
    )
    parser.add_argument("--out", type=Path, default=Path("bench"), metavar="DIR", help="default: bench")


def run(arguments: argparse.Namespace) -> int:
    named = _named(arguments)  # wrong names are told before torch is imported
    arguments.out.mkdir(parents=True, exist_ok=True)

    from rich.console import Console

    from sqzlab.bench.measure import measure, open_outcome

    settings = _settings(arguments)
    if settings.device == "cpu" and GRAPHS in named["modes"]:
        raise ConfigError(f"--mode: {GRAPHS!r} needs --device cuda; valid: {EAGER}, {COMPILED}")
    kinds = [kind for kind, only in zip(KINDS, (arguments.train, arguments.inference), strict=True) if only]
    rows = entries(**named, kinds=kinds or KINDS, size=settings.size)
    outcome = open_outcome(rows, settings)
    said = Console(stderr=True, highlight=False)
    for text in outcome.left_out:
        said.print(f"left out: {text}", markup=False)
    try:
        with progress(said) as told:
            measure(outcome, told)
    finally:  # Ctrl-C keeps what was measured
        _write(outcome, arguments.out)
    return 1 if outcome.failures else 0


def _write(outcome: Outcome, folder: Path) -> None:
    from rich.console import Console

    from sqzlab.analysis.figures.throughput import draw
    from sqzlab.analysis.files import write_files
    from sqzlab.bench.outcome import as_json

    found = as_json(outcome)
    files = {"bench.json": (json.dumps(found, indent=1) + "\n").encode(), **draw(found)}
    if any(row["images_per_s"] or row["failure"] for row in found["rows"]):
        write_files(folder, files)
        show(Console(highlight=False), found)
        print(f"written: {len(files)} files in {folder}")


# ---- what was asked for ------------------------------------------------------------------------


def _named(arguments: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    """The names of each option, each once. Raises ConfigError, with all that is wrong."""
    asked: dict[str, tuple[str, Sequence[str], Iterable[str]]] = {
        "backbones": ("--backbone", arguments.backbone, BACKBONES),
        "squeezes": ("--squeeze", arguments.squeeze, ALL_SQUEEZES),
        "forms": ("--form", arguments.form, BLOCK_FORMS),
        "peers": ("--peers", arguments.peers, (*PEERS, "none")),
        "modes": ("--mode", arguments.mode, MODES),
    }
    faults: list[str] = []
    named: dict[str, tuple[str, ...]] = {}
    for key, (option, texts, table) in asked.items():
        valid = list(table)
        names = [name for text in texts for name in text.split(",") if name]
        faults += [f"{option}: unknown name {name!r}; {choices(valid, name)}" for name in names if name not in valid]
        named[key] = tuple(dict.fromkeys(name for name in names if name != "none"))
    if named["forms"] == ("folded",) and named["modes"] == (EAGER,):
        faults.append("--form: 'folded' is measured compiled; add --mode compiled or --form plain")
    if faults:
        raise ConfigError(faults)
    return named


def _settings(arguments: argparse.Namespace) -> Settings:
    from sqzlab.bench.measure import gpu_there

    device = arguments.device or ("cuda" if gpu_there() else "cpu")
    gpu = device == "cuda"
    return Settings(
        device=device,
        batch=arguments.batch or (256 if gpu else 16),
        size=arguments.size or (224 if gpu else 128),
        precision=arguments.precision or ("bf16" if gpu else "fp32"),
        channels_last=arguments.channels_last,
        threads=arguments.threads,
        rounds=arguments.rounds,
        steps=arguments.steps,
    )


# ---- output ------------------------------------------------------------------------------------


@contextmanager
def progress(said: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Told what is begun, shows it: a line that changes on a terminal, a line each in a log."""
    began = time.monotonic()

    def line(text: str, number: int, of: int) -> str:
        return f"{time.monotonic() - began:5.0f} s  {text} ({number} of {of})"

    if not said.is_terminal:
        yield lambda *what: print(line(*what), file=sys.stderr, flush=True)
        return
    with said.status("starting") as status:
        yield lambda *what: status.update(line(*what))


def show(console: Console, found: Mapping[str, Any]) -> None:
    """The tables of a benchmark's JSON, one for each backbone, kind and mode, and what they mean."""
    from sqzlab.analysis.figures.throughput import grouped

    for (backbone, mode, kind), rows in grouped(found["rows"]).items():
        console.print(_table(f"{backbone}, {kind}, {mode}", rows))
        for row in rows:
            if row["failure"]:
                console.print(f"{row['label']}: {row['failure']}", markup=False)
        console.print()
    settings, ceilings = found["settings"], found["ceilings"]
    told = [
        f"{found['gpu'] or found['cpu']}, CPU threads: {found['threads']}, torch {found['torch']}; batch "
        f"{settings['batch']}, {settings['size']} px, {settings['precision']}, {_rounds(found)} rounds."
    ]
    if best := {name: values["best"] for name, values in ceilings.items() if values["rounds"]}:
        told.append(
            f"Ceilings measured beside: copy {best['copy_bytes_per_s'] / 1e9:,.1f} GB/s (read + written), product "
            f"{best['matmul_flops_per_s'] / 1e12:,.2f} TFLOP/s."
        )
    told.append(CAPTION)
    console.print(" ".join(told), style="dim", markup=False)


def _rounds(found: Mapping[str, Any]) -> int:
    """Rounds in which something was measured."""
    return max((sum(value is not None for value in row["rounds"]) for row in found["rows"]), default=0)


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    grid = Table(title=escape(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    grid.add_column("", no_wrap=True)
    for name in ("images/s", "min", "max", "ratio", "min", "max", "of bound"):
        grid.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        if row["images_per_s"] is None:
            grid.add_row(row["label"], "failed")
            continue
        speeds = [_speed(row["images_per_s"][key]) for key in ("median", "min", "max")]
        ratios = [f"{row['ratio'][key]:.3f}" for key in ("median", "min", "max")] if row["ratio"] else ["", "", ""]
        grid.add_row(row["label"], *speeds, *ratios, f"{row['fraction']:.0%}" if row["fraction"] else "")
    return grid


def _speed(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


CAPTION = (
    "images/s: median of the rounds. ratio: to our baseline in the same mode, round by round. of bound: of the plain "
    "network's roofline at these ceilings, operator by operator for eager, with elementwise ones fused for compiled."
)
