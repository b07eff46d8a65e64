"""Compares what should exist of a study with its files and the queue, says the difference and runs what is missing."""

from __future__ import annotations

import argparse
import shutil
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from sqzlab.analysis.cli import analyse
from sqzlab.errors import ConfigError, UnavailableError
from sqzlab.launching import by_recipe, devices, estimate, local, plan
from sqzlab.launching.costs import measure_all
from sqzlab.launching.display import Display, say
from sqzlab.launching.status import State, Status, statuses, summary
from sqzlab.run import FAILURE, Run
from sqzlab.runs.files import read_json, write_json
from sqzlab.runs.graphs import forget, to_compile
from sqzlab.slurm import client, options, queue, throttle
from sqzlab.slurm.batches import locked
from sqzlab.slurm.cancel import cancel
from sqzlab.slurm.queue import Queue
from sqzlab.slurm.submit import Refused, Submitted, submit
from sqzlab.study.study import Study, select


def launch(arguments: argparse.Namespace, study: Study, folder: Path, console: Console) -> int:
    """Exit code: 0 all done or submitted, 1 a run failed now or before."""
    options.parsed(arguments.slurm)  # what is wrong with it is told before Slurm is asked
    cluster = _cluster(arguments)
    if arguments.slurm and cluster != "slurm":
        raise ConfigError(f"--slurm {arguments.slurm[0]!r}: does not apply to --cluster {cluster}")
    select(study, arguments.only)  # what is wrong with it is told before anything is written
    if cluster == "slurm" and not arguments.dry_run:
        with locked(folder):  # one launch compares and submits at a time
            return _launch(arguments, cluster, study, folder, console)
    return _launch(arguments, cluster, study, folder, console)


def _launch(arguments: argparse.Namespace, cluster: str, study: Study, folder: Path, console: Console) -> int:
    chosen = select(study, arguments.only)
    jobs = queue.read(folder)
    if jobs.silent is not None and cluster == "slurm" and not arguments.dry_run:
        raise UnavailableError(f"{jobs.silent}; nothing was submitted")
    if jobs.silent is not None and jobs.jobs and arguments.cluster == "auto" and shutil.which("squeue"):
        raise UnavailableError(
            f"{jobs.silent}; runs of this study were submitted to Slurm and may wait there; "
            "valid: try again later, or --cluster local to run them here"
        )
    if jobs.silent is not None and cluster != "slurm":
        jobs = queue.EMPTY
    found = statuses(folder, study.runs, jobs)
    wanted = (State.FAILED,) if arguments.retry_failed else (State.MISSING, State.INTERRUPTED, State.LOST)
    missing = [
        run
        for run in chosen
        if found[run.run_id].state in wanted or (arguments.retry_failed and run.run_id in jobs.held)
    ]
    elsewhere = _in_state(chosen, found, State.RUNNING)
    if cluster == "local" and missing and not arguments.dry_run:
        local.preload()
    costs = measure_all(run.config.model for run in study.runs)
    plan.check_parity(study, costs)
    if missing or arguments.dry_run:
        plan.show(console, study, costs, found)
    say(console, f"{folder}: {summary(found)}; {_intent(len(missing), cluster, arguments.dry_run)}")
    if jobs.held:
        error = next(iter(jobs.held.values()))
        say(
            console,
            f"held, because the first runs failed alike: {len(jobs.held)} runs ({error}); "
            "mend the cause and launch with --retry-failed",
        )
    at_once = arguments.jobs if cluster == "slurm" else len(_slots(study.runs, arguments.jobs))
    expected = estimate.estimate(study, folder, costs, found, at_once, chosen=missing, packed=cluster == "slurm")
    if missing or arguments.dry_run:
        for line in estimate.lines(expected):
            say(console, line)
        if arguments.dry_run and not arguments.debug and by_recipe.applies(study):
            by_recipe.show(console, study, costs, found, at_once, packed=cluster == "slurm")
        estimate.check_budget(study, expected)
    if (first := _compiled_first(missing, jobs, folder, cluster)) is not None:
        say(console, first)
    if arguments.dry_run:
        return 0
    if missing:
        estimate.check_disk(folder, expected)
        forget(folder, study.runs)
    plan.write_plan(study, folder, costs)
    left = [] if arguments.retry_failed else _in_state(chosen, found, State.FAILED)
    if left:
        say(console, f"failed before and not tried again without --retry-failed: {len(left)}")
    if cluster == "slurm":
        _submit(arguments, study, missing, jobs, folder, console)
    if not missing and not (elsewhere and cluster == "local"):
        if len(_in_state(chosen, found, State.DONE)) == len(chosen):
            _say_all_done(arguments, folder, console)
        return 1 if left else 0
    if cluster == "slurm":
        return 0
    _require_one_process(missing)
    _require_gpus(missing)
    plan.prepare(missing, folder)
    if cluster == "inline":
        code = _inline(missing, folder, arguments.debug, console)
    else:
        code = _local(arguments, missing, elsewhere, folder, console)
    analyse(folder, console)
    return code or (1 if left else 0)


def _submit(
    arguments: argparse.Namespace, study: Study, missing: Sequence[Run], jobs: Queue, folder: Path, console: Console
) -> None:
    """Submits what is missing, and puts --jobs into force for what is queued already."""
    queue.adopt(folder)
    planned = {run.run_id for run in study.runs}
    former = {job.job_id for run_id, job in jobs.jobs.items() if run_id not in planned}
    held = {run.run_id for run in missing if run.run_id in jobs.held}
    if arguments.retry_failed:
        held |= jobs.held.keys() - planned
    if held:
        cancel(folder, held)
    elif former:
        say(console, f"jobs in the queue for runs that are no longer of this study: {len(former)}; see --cancel")
    if jobs.not_started:
        client.release(jobs.not_started)
        say(console, f"released {len(jobs.not_started)} jobs that Slurm held because a node could not start them")
    most = throttle.limit_now(folder, arguments.jobs, present=bool(jobs.jobs or jobs.compiling))
    if most is not None:
        about = "" if arguments.jobs else ", as before; --jobs N changes it"
        say(console, f"at most {most} jobs of this study at once{about}")
    if not missing:
        return
    found = {run.run_id: read_json(folder / run.run_id / FAILURE) for run in missing}
    failures = {run_id: failed for run_id, failed in found.items() if failed is not None}
    plan.prepare(missing, folder)
    asked = {**options.of_user(), **options.parsed(arguments.slurm)}
    total = 0
    accepted: set[str] = set()
    try:
        for one in submit(study, missing, folder, asked, most):
            if isinstance(one, Refused):
                say(console, f"{one.why}; {one.jobs} graphs are not compiled first: each run compiles for itself")
                continue
            total += 0 if one.compiles else one.jobs
            accepted.update(one.run_ids)
            _tell(console, one)
    finally:  # of what Slurm has refused
        for run_id, failed in failures.items():
            if run_id not in accepted:
                write_json(folder / run_id / FAILURE, failed)
    say(console, f"submitted {total} jobs; python launch.py {arguments.study} --status shows them")


def _tell(console: Console, one: Submitted) -> None:
    runs = "" if one.compiles or len(one.run_ids) == one.jobs else f" for {len(one.run_ids)} runs"
    slots = f", {one.slots} at once" if one.slots is not None else ""
    after = f", after array {' and '.join(one.after)}" if one.after else ""
    if one.compiles:
        runs = " that compile"
    say(console, f"array {one.job_id}: {one.jobs} jobs{runs} of {one.what}{slots}{after}")


def _cluster(arguments: argparse.Namespace) -> str:
    if arguments.cluster == "slurm" and not arguments.dry_run:
        client.require()
    if arguments.cluster == "auto":
        return "slurm" if not arguments.debug and client.answers() else "local"
    return str(arguments.cluster)


def _in_state(runs: Sequence[Run], found: Mapping[str, Status], *states: State) -> list[Run]:
    return [run for run in runs if found[run.run_id].state in states]


def _intent(missing: int, cluster: str, dry_run: bool) -> str:
    if not missing:
        return "nothing to run"
    verb = "submitting" if cluster == "slurm" else "running"
    return f"{'would run' if dry_run else verb} {missing} ({cluster})"


def _compiled_first(missing: Sequence[Run], jobs: Queue, folder: Path, cluster: str) -> str | None:
    """What is compiled before runs that share it, in words; in one process the first of them simply comes first."""
    graphs = {graph: runs for graph, runs in to_compile(missing, folder).items() if graph not in jobs.compiling}
    if not graphs or cluster == "inline":
        return None
    told = f"{len(graphs)} graph{'s are' if len(graphs) > 1 else ' is'} compiled first"
    runs = sum(map(len, graphs.values()))
    if cluster == "slurm":
        return f"{told}, then {runs} runs start"
    return f"{told}, each by one of the {runs} runs that share them"


def _say_all_done(arguments: argparse.Namespace, folder: Path, console: Console) -> None:
    report = folder / "report" / "index.html"
    what = "what --only names is done" if arguments.only else "everything is done"
    say(console, f"{what}; report: {report if report.exists() else 'python analyze.py ' + str(folder)}")


def _require_one_process(runs: Sequence[Run]) -> None:
    sizes = {run.config.train.world_size for run in runs}
    if sizes - {1}:
        raise UnavailableError(
            f"a run of this study is shared by {max(sizes)} processes, which a Slurm job provides; "
            "valid: --cluster slurm, or --set train.world_size=1"
        )


def _require_gpus(runs: Sequence[Run]) -> None:
    if any(run.config.train.device == "cuda" for run in runs) and not devices.visible_gpus():
        raise UnavailableError(
            f"the study asks for a GPU and {socket.gethostname()} has none that can be used; "
            "valid here: --debug, or a profile for the CPU"
        )


def _local(
    arguments: argparse.Namespace, runs: Sequence[Run], elsewhere: Sequence[Run], folder: Path, console: Console
) -> int:
    with Display(console, total=len(runs) + len(elsewhere)) as display:
        return local.work_off(
            runs,
            folder,
            slots=_slots((*runs, *elsewhere), arguments.jobs),
            display=display,
            elsewhere=elsewhere,
            try_resuming=arguments.debug,
        )


def _slots(runs: Sequence[Run], jobs: int | None) -> Sequence[str | None]:
    """What runs at a time on this machine: its GPUs, or as many as its cores allow."""
    trains = [run.config.train for run in runs]
    gpus = devices.visible_gpus() if any(train.device == "cuda" for train in trains) else ()
    slots = gpus or (None,) * max(1, devices.cores() // max(train.threads for train in trains))
    return slots[:jobs]


def _inline(runs: Sequence[Run], folder: Path, try_resuming: bool, console: Console) -> int:
    """In this process, one after another: a breakpoint works and an error surfaces where it happens."""
    from sqzlab.runs.execute import execute
    from sqzlab.runs.stop import StopFlag

    code = 0
    for number, run in enumerate(runs, start=1):
        say(console, f"{run.run_id} ({number} of {len(runs)})")
        stop = StopFlag()
        with stop.on_signals(signal.SIGINT):
            if try_resuming:
                execute(folder / run.run_id, StopFlag(after_steps=1))
            outcome = execute(folder / run.run_id, stop)
        if stop.why:
            raise KeyboardInterrupt
        if outcome == "done":
            say(console, "  done")
        else:
            say(console, "  held by another launch; launch again once that has ended")
            code = 1
    return code
