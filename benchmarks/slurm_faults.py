"""What each fault costs a study on a real Slurm cluster: every fault, on every kind of cluster, several times.

    python benchmarks/slurm_faults.py [--trials N] [--only WORD] [--sample] [--at-once N] [--out FILE]

Needs root and Debian's packages, as `tests/slurm/cluster.py` says. Every trial has a throw-away cluster and a study of
one short run of its own; the user launches again until all is done. Counted are runs lost, runs done twice, and the
most steps that one interruption has cost, which should not exceed the steps between two checkpoints; results are
compared with an undisturbed local run's. The four kinds: with and without accounting, with and without
preempt_send_user_signal.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "slurm")]

from faults import FAULTS, attempt  # noqa: E402
from slurm_conf import LABS  # noqa: E402
from trial import INTERVAL, Outcome, clean_results  # noqa: E402

OUT = ROOT / "benchmarks" / "results" / "slurm_faults.md"
HEADER = (
    "| fault | trials | as told | runs lost | runs done twice | interruptions "
    "| most steps repeated / interval | results equal |\n"
    "|---|---|---|---|---|---|---|---|\n"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1, help="of every fault on every kind of cluster (default: 1)")
    parser.add_argument("--only", default="", help="only faults with this word in their name")
    parser.add_argument("--at-once", type=int, default=3, help="trials at a time (default: 3)")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--sample", action="store_true", help="every fault on one kind of cluster, as the tests do")
    given = parser.parse_args()
    began = time.monotonic()
    kinds = dict(zip(FAULTS, cycle([kind] for kind in LABS), strict=False)) if given.sample else {}
    tasks = [
        (fault, kind)
        for _ in range(given.trials)
        for fault in FAULTS
        if given.only in fault
        for kind in kinds.get(fault, LABS)
    ]
    outcomes: dict[str, list[Outcome | None]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clean = clean_results(folder / "clean")

        def one(number: int, fault: str, kind: str) -> None:
            try:
                outcome = attempt(fault, folder / str(number), clean, **LABS[kind])
            except Exception:
                outcome = None
                traceback.print_exc()
            outcomes[fault].append(outcome)
            ended = sum(map(len, outcomes.values()))
            print(f"{ended} of {len(tasks)}: {fault}, {kind}: {outcome or 'not as it should be'}", flush=True)

        with ThreadPoolExecutor(given.at_once) as pool:
            for number, (fault, kind) in enumerate(tasks):
                pool.submit(one, number, fault, kind)
    table = HEADER + "".join(_row(fault, outcomes[fault]) for fault in FAULTS if outcomes[fault])
    flawless = all(outcome is not None and outcome.flawless for found in outcomes.values() for outcome in found)
    table += (
        f"\n{len(tasks)} trials in {(time.monotonic() - began) / 60:.0f} min, {given.at_once} at a time; "
        f"a checkpoint every {INTERVAL} steps; as told: messages, exit codes and the queue were what they should be.\n"
    )
    print(table)
    given.out.write_text(table)
    return 0 if flawless else 1


def _row(fault: str, found: list[Outcome | None]) -> str:
    ended = [outcome for outcome in found if outcome is not None]
    cells = [
        fault,
        len(found),
        len(ended),
        sum(outcome.lost for outcome in ended),
        sum(outcome.twice for outcome in ended),
        sum(outcome.interruptions for outcome in ended),
        f"{max((outcome.repeated for outcome in ended), default='-')} / {INTERVAL}",
        sum(outcome.equal for outcome in ended),
    ]
    return "| " + " | ".join(map(str, cells)) + " |\n"


if __name__ == "__main__":
    sys.exit(main())
