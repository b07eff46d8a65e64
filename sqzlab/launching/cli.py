"""`python launch.py STUDY`: compares what should exist with what does, and runs what is missing."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sqzlab.errors import ConfigError, SqzlabError, UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rich.console import Console

    from sqzlab.launching.status import State, Status
    from sqzlab.run import Run
    from sqzlab.study.study import Study

IMAGENET_DIR = "IMAGENET_DIR"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 all done or submitted, 1 a run failed, 2 bad input, 3 something is lacking, 130 Ctrl-C."""
    arguments = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without plus-minus signs still gets its tables
    try:
        return _launch(arguments)
    except SqzlabError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"{error.filename or arguments.results}: {(error.strerror or str(error)).lower()}", file=sys.stderr)
        return UnavailableError.exit_code
    except KeyboardInterrupt:
        print("stopped; launch again to go on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch.py",
        allow_abbrev=False,
        description="Run what is missing of a study. May be repeated at any moment: what is done is never run again.",
        epilog="exit codes: 0 all done or submitted, 1 a run failed, 2 what was written is wrong, "
        "3 data, Slurm or GPU lacking, 130 Ctrl-C",
    )
    parser.add_argument("study", type=Path, help="study file, as in experiments/squeeze_ablation.yaml")
    parser.add_argument(
        "--profile", help="profile of the study file (default: imagenet or laptop, as fits this machine)"
    )
    parser.add_argument("--cluster", choices=("auto", "slurm", "local", "inline"), default="auto", help="where to run")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at a time (default: what cores or GPUs allow)")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument("--only", action="append", default=[], metavar="KEY=V1,V2", help="launch only these runs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set a value for all arms")
    parser.add_argument(
        "--slurm", action="append", default=[], metavar="KEY=VALUE", help="sbatch option: partition=..."
    )
    parser.add_argument("--dry-run", action="store_true", help="show the plan and end")
    parser.add_argument("--status", action="store_true", help="show the state of every run and end")
    parser.add_argument("--retry-failed", action="store_true", help="run again what failed, and only that")
    parser.add_argument(
        "--debug", action="store_true", help="try every run with a few small batches, in its own folder"
    )
    return parser


def _launch(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    console = Console(highlight=False)
    if arguments.jobs is not None and arguments.jobs < 1:
        raise ConfigError(f"--jobs {arguments.jobs}: valid: 1 or more")
    study = _study(arguments, console)
    folder = arguments.results / (study.folder_name + ("-debug" if arguments.debug else ""))
    if arguments.status:
        return _show_status(arguments, study, folder, console)
    return _run(arguments, study, folder, console)


# ---- the study ---------------------------------------------------------------------------------


def _study(arguments: argparse.Namespace, console: Console) -> Study:
    from sqzlab.data.fingerprint import count
    from sqzlab.study.study import load_study

    trying = arguments.dry_run or arguments.debug or arguments.status
    root = os.environ.get(IMAGENET_DIR)

    def counts(name: str, root: str | None) -> tuple[int, int, int] | None:
        return None if trying and root is None else count(name, root)

    profile = arguments.profile or _default_profile(arguments, console)
    roots = {"imagenet": root} if root else {}
    study = load_study(arguments.study, profile, overrides=arguments.set, counts=counts, roots=roots)
    if arguments.debug:
        from sqzlab.launching.devices import visible_gpus
        from sqzlab.launching.plan import debugged

        device = "cuda" if visible_gpus() else "cpu"
        first = study.seeds[0]
        runs = tuple(debugged(run, device) for run in study.runs if run.config.seed == first)
        study = replace(study, runs=runs, seeds=(first,))
    return study


def _default_profile(arguments: argparse.Namespace, console: Console) -> str | None:
    """The profile that fits this machine, for a study that has the two usual ones; said in one plain line."""
    from sqzlab.launching import slurm
    from sqzlab.study.study import profile_names

    names = profile_names(arguments.study)
    if not {"imagenet", "laptop"} <= set(names):
        return None  # load_study knows whether the file is a study without one, and tells all that is wrong with it
    if os.environ.get(IMAGENET_DIR):
        return "imagenet"
    if arguments.cluster == "slurm" or (arguments.cluster == "auto" and slurm.answers()):
        raise UnavailableError(
            f"a Slurm cluster is here but {IMAGENET_DIR} is not set; set it to ImageNet's folder for the real study, "
            "or name --profile laptop for the small one"
        )
    _say(
        console,
        f"No {IMAGENET_DIR} and no Slurm here: taking the laptop profile. The real study: "
        f"{IMAGENET_DIR}=/path/to/imagenet python launch.py {arguments.study}",
    )
    return "laptop"


# ---- status ------------------------------------------------------------------------------------


def _show_status(arguments: argparse.Namespace, study: Study, folder: Path, console: Console) -> int:
    from rich.markup import escape
    from rich.table import Table

    from sqzlab.launching.status import COLOURS, statuses, summary
    from sqzlab.study.study import select

    found = statuses(folder, select(study, arguments.only), _queue(folder, console))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("run", no_wrap=True)
    table.add_column("state", overflow="fold")
    for run_id, status in found.items():
        detail = f" {status.detail}" if status.detail else ""
        table.add_row(run_id, f"[{COLOURS[status.state]}]{status.state}[/]{escape(detail)}")
    console.print(table)
    _say(console, f"{folder}: {summary(found)}")
    return 0


def _queue(folder: Path, console: Console) -> dict[str, str]:
    """What Slurm says of this study's jobs; that it does not answer is said, and raised only before submitting."""
    from sqzlab.launching import slurm

    try:
        return slurm.queued(folder)
    except UnavailableError as error:
        _say(console, str(error))
        return {}


# ---- launching ---------------------------------------------------------------------------------


def _run(arguments: argparse.Namespace, study: Study, folder: Path, console: Console) -> int:
    from sqzlab.launching import local, plan, slurm
    from sqzlab.launching.costs import measure_all
    from sqzlab.launching.status import State, statuses, summary
    from sqzlab.study.study import select

    cluster = _cluster(arguments)
    options = slurm.parsed(arguments.slurm)
    if options and cluster != "slurm":
        raise ConfigError(f"--slurm {arguments.slurm[0]!r}: does not apply to --cluster {cluster}")
    submitting = cluster == "slurm" and not arguments.dry_run
    found = statuses(folder, study.runs, slurm.queued(folder) if submitting else _queue(folder, console))
    chosen = select(study, arguments.only)
    missing = _in_state(
        chosen, found, *((State.FAILED,) if arguments.retry_failed else (State.MISSING, State.INTERRUPTED))
    )
    elsewhere = _in_state(chosen, found, State.RUNNING)
    if cluster == "local" and missing and not arguments.dry_run:
        local.preload()
    costs = measure_all(run.config.model for run in study.runs)
    plan.check_parity(study, costs)
    if missing or arguments.dry_run:
        plan.show(console, study, costs, found)
    _say(console, f"{folder}: {summary(found)}; {_intent(len(missing), cluster, arguments.dry_run)}")
    if arguments.dry_run:
        return 0
    plan.write_plan(study, folder, costs)
    left = [] if arguments.retry_failed else _in_state(chosen, found, State.FAILED)
    if left:
        _say(console, f"failed before and not tried again without --retry-failed: {len(left)}")
    if not missing and not (elsewhere and cluster == "local"):
        if len(_in_state(chosen, found, State.DONE)) == len(chosen):
            _say_all_done(arguments, folder, console)
        return 1 if left else 0
    if cluster == "slurm":
        slurm.require()
        plan.prepare(missing, folder)
        jobs = slurm.submit(missing, folder, study.slurm, options, arguments.jobs)
        _say(
            console, f"submitted {len(jobs)} jobs: {jobs[0]} to {jobs[-1]}; python launch.py {arguments.study} --status"
        )
        return 0
    _require_gpus(missing)
    plan.prepare(missing, folder)
    if cluster == "inline":
        code = _inline(missing, folder, arguments.debug, console)
    else:
        code = _local(arguments, missing, elsewhere, folder, console)
    _report(folder, console)
    return code or (1 if left else 0)


def _cluster(arguments: argparse.Namespace) -> str:
    from sqzlab.launching import slurm

    if arguments.cluster == "slurm" and not arguments.dry_run:
        slurm.require()
    if arguments.cluster == "auto":
        return "slurm" if not arguments.debug and slurm.answers() else "local"
    return str(arguments.cluster)


def _in_state(runs: Sequence[Run], found: Mapping[str, Status], *states: State) -> list[Run]:
    return [run for run in runs if found[run.run_id].state in states]


def _intent(missing: int, cluster: str, dry_run: bool) -> str:
    if not missing:
        return "nothing to run"
    return f"{'would run' if dry_run else 'running'} {missing} ({cluster})"


def _say_all_done(arguments: argparse.Namespace, folder: Path, console: Console) -> None:
    report = folder / "report" / "index.html"
    what = "what --only names is done" if arguments.only else "everything is done"
    _say(console, f"{what}; report: {report if report.exists() else 'python analyze.py ' + str(folder)}")


def _require_gpus(runs: Sequence[Run]) -> None:
    import socket

    from sqzlab.launching.devices import visible_gpus

    if any(run.config.train.device == "cuda" for run in runs) and not visible_gpus():
        raise UnavailableError(
            f"the study asks for a GPU and {socket.gethostname()} has none that can be used; "
            "valid here: --debug, or a profile for the CPU"
        )


def _local(
    arguments: argparse.Namespace, runs: Sequence[Run], elsewhere: Sequence[Run], folder: Path, console: Console
) -> int:
    from sqzlab.launching import devices, local
    from sqzlab.launching.display import Display

    trains = [run.config.train for run in (*runs, *elsewhere)]
    gpus = devices.visible_gpus() if any(train.device == "cuda" for train in trains) else ()
    slots = gpus or (None,) * max(1, devices.cores() // max(train.threads for train in trains))
    with Display(console, total=len(runs) + len(elsewhere)) as display:
        return local.work_off(
            runs,
            folder,
            slots=slots[: arguments.jobs],
            display=display,
            elsewhere=elsewhere,
            try_resuming=arguments.debug,
        )


def _inline(runs: Sequence[Run], folder: Path, try_resuming: bool, console: Console) -> int:
    """In this process, one after another: a breakpoint works and an error surfaces where it happens."""
    import signal

    from sqzlab.runs.execute import StopFlag, execute

    code = 0
    for number, run in enumerate(runs, start=1):
        _say(console, f"{run.run_id} ({number} of {len(runs)})")
        stop = StopFlag()
        with stop.on_signals(signal.SIGINT):
            if try_resuming:
                execute(folder / run.run_id, StopFlag(after_steps=1))
            outcome = execute(folder / run.run_id, stop)
        if stop.why:
            raise KeyboardInterrupt
        if outcome == "done":
            _say(console, "  done")
        else:
            _say(console, "  held by another launch; launch again once that has ended")
            code = 1
    return code


def _report(folder: Path, console: Console) -> None:
    from sqzlab.analysis.cli import analyse

    analyse(folder, console)


def _say(console: Console, text: str) -> None:
    """A line that a terminal wraps, not we: it can be copied and searched."""
    console.print(text, markup=False, soft_wrap=True)
