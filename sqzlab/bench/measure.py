"""The benchmark itself: everything in one process, in rounds in which every row has a turn."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ParamSpec, TypeVar

import torch
from torch._dynamo import config as dynamo

from sqzlab.bench.clock import TURN_S, Ceilings, calls_a_turn, seconds
from sqzlab.bench.networks import absent, network, peer_versions
from sqzlab.bench.outcome import Outcome, Row
from sqzlab.bench.plan import Entry, Settings
from sqzlab.bench.roofline import Counted, bounds, counted
from sqzlab.bench.step import Inputs, Step, make_step
from sqzlab.errors import UnavailableError
from sqzlab.runs.code import origin
from sqzlab.runs.provenance import machine, timestamp

Told = Callable[[str, int, int], None]
"""What is begun now, its number and of how many."""
Given = ParamSpec("Given")
Result = TypeVar("Result")
COPY, MATMUL = "copy_bytes_per_s", "matmul_flops_per_s"
LEAST_ROUNDS = 3  # of what was prepared
WARM_STEPS = 2  # after the first, before one is timed: allocators settle


def gpu_there() -> bool:
    return torch.cuda.is_available()


def open_outcome(rows: Sequence[Entry], settings: Settings) -> Outcome:
    """Where `measure` writes, without the peers' networks that are not to be had.

    Raises UnavailableError where the device is not there.
    """
    if settings.device == "cuda" and not gpu_there():
        raise UnavailableError(f"--device cuda: {platform.node()} has no GPU that can be used")
    gone = absent(dict.fromkeys(row.contender for row in rows))
    kept = [Row(entry) for entry in rows if entry.contender not in gone]
    return Outcome(settings, kept, left_out=list(dict.fromkeys(gone.values())))


def measure(outcome: Outcome, told: Told, deadline: float | None = None) -> None:
    """Fills the outcome, which is whole at every moment: an interruption leaves what was measured before it.

    A row that fails says why, and the others go on. After `deadline`, of `time.monotonic`, no round begins but the
    first few, and no row is prepared once the rounds of those before it need the rest of the time.
    """
    settings, device = outcome.settings, torch.device(outcome.settings.device)
    set_numerics(settings)
    work = counted(settings, dict.fromkeys((row.entry.contender.backbone, row.entry.kind) for row in outcome.rows))
    ceilings, inputs = Ceilings(device, settings.precision), Inputs.of(settings)
    outcome.about = _about()  # now that the device is in use, which names it
    # Dynamo keeps the graphs of all networks of a class in one place, and past its limit would run them uncompiled
    with dynamo.patch(recompile_limit=1000, accumulated_recompile_limit=1000, fail_on_recompile_limit_hit=True):
        steps: dict[Entry, Step] = {}
        round_s = 2 * TURN_S  # of the ceilings
        longest_s = 0.0  # that a row took to prepare
        for number, row in enumerate(outcome.rows, start=1):
            if _late(deadline, settings.rounds * round_s + longest_s):
                row.failure = "no time was left to prepare it"
                continue
            told(f"preparing {row.entry}", number, len(outcome.rows))
            began = time.monotonic()
            round_s += _tried(row, _prepare, row, steps, settings, inputs) or 0.0
            longest_s = max(longest_s, time.monotonic() - began)
        for number in range(settings.rounds):
            if _late(deadline) and (number >= LEAST_ROUNDS or not steps):
                return
            told("round", number + 1, settings.rounds)
            _raise_bounds(outcome, ceilings, work)
            _round(outcome, steps, number)
    outcome.complete = True


def _prepare(row: Row, steps: dict[Entry, Step], settings: Settings, inputs: Inputs) -> float:
    """Compiles and warms it; returns the seconds of a turn."""
    device = torch.device(settings.device)
    step = make_step(network(row.entry.contender, settings.size), row.entry, settings, inputs)
    row.first_step_s = seconds(step, 1, device)
    seconds(step, WARM_STEPS, device)
    step_s = seconds(step, 1, device)
    row.steps = settings.steps or calls_a_turn(step_s)
    steps[row.entry] = step
    return row.steps * step_s


def _raise_bounds(outcome: Outcome, ceilings: Ceilings, work: Counted) -> None:
    """The best that copies and products have reached in any round is what the machine can do."""
    measured = {COPY: ceilings.bytes_per_s(), MATMUL: ceilings.flops_per_s()}
    outcome.ceilings = {name: [*outcome.ceilings.get(name, ()), value] for name, value in measured.items()}
    best = {name: max(values) for name, values in outcome.ceilings.items()}
    outcome.bounds = bounds(work, outcome.settings.batch, best[MATMUL], best[COPY])


def _round(outcome: Outcome, steps: dict[Entry, Step], number: int) -> None:
    """A turn for each, in an order that rotates from round to round."""
    device = torch.device(outcome.settings.device)
    for row in outcome.rows:
        row.rounds.append(None)
    shift = number * len(outcome.rows) // outcome.settings.rounds
    for row in outcome.rows[shift:] + outcome.rows[:shift]:
        if row.failure is None and row.steps is not None:
            taken = _tried(row, seconds, steps[row.entry], row.steps, device)
            if taken is not None:
                row.rounds[number] = row.steps * outcome.settings.batch / taken
            else:
                del steps[row.entry]


def _tried(row: Row, action: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result | None:
    """What it returns, or None where it fails: the one place that turns an exception into a row's failure."""
    try:
        return action(*args, **kwargs)
    except Exception as error:
        row.failure = _told(error)
    if torch.cuda.is_available():
        with suppress(RuntimeError):  # a GPU that no longer answers: every other row will say so
            torch.cuda.empty_cache()  # what the failed one took, for the others; its frames are gone only here
    return None


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text:
        return "out of memory"
    return f"{type(error).__name__}: {text}"[:LONGEST_FAILURE]


def _late(deadline: float | None, needed_s: float = 0.0) -> bool:
    return deadline is not None and time.monotonic() + needed_s > deadline


def set_numerics(settings: Settings) -> None:
    """As in training: no TF32, and on CUDA the fastest algorithm for each convolution. Part of a kernel's cache key."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if settings.device == "cuda":
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        torch.backends.cudnn.benchmark = True


def _about() -> dict[str, object]:
    code = {key: value for key, value in origin().items() if key != "git_diff"}
    return {"started": timestamp(), **machine(), **peer_versions(), "threads": torch.get_num_threads(), **code}


LONGEST_FAILURE = 300  # characters
