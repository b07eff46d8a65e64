"""Runs as arrays of Slurm jobs: one array for each resource class, no longer than the cluster allows.

What several runs would compile is compiled before, by an array of its own with a task for each graph. Runs begin when
it has ended, however it ended: what is lacking then they compile themselves.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sqzlab.errors import ConfigError, UnavailableError
from sqzlab.run import Run
from sqzlab.runs.graphs import to_compile
from sqzlab.slurm import client, snapshot, throttle
from sqzlab.slurm.batches import FOLDER, Batch, awaited, now, read_all
from sqzlab.slurm.options import Options, minutes, of_job
from sqzlab.slurm.queue import compiled_by, of_study
from sqzlab.study.slurm import Slurm
from sqzlab.study.study import Study

IGNORING = "trap '' TERM USR2; exec \"$@\""
"""A signal that comes before Python can heed it would end the job, and one that ends by itself is not queued again."""
AMBIGUOUS = ("unable to contact", "timed out", "socket", "connection", "does not end")
"""In Slurm's words for what may have reached the controller nevertheless: such an intent stays, to be adopted."""

COMPILING_MIN = 30  # time limit of a job that compiles one graph, which takes a minute or two


class RefusedError(UnavailableError):
    """Slurm has refused an array, and has none of its jobs."""


@dataclass(frozen=True)
class Refused:
    """An array that only compiles, which Slurm has refused: the runs begin without it."""

    jobs: int
    why: str


@dataclass(frozen=True)
class Submitted:
    """One array that Slurm has accepted."""

    job_id: str
    jobs: int
    run_ids: tuple[str, ...]
    what: str  # its resource class in words
    slots: int | None  # of its jobs at once; None: no limit
    after: tuple[str, ...]  # the arrays that end before it begins
    compiles: bool = False  # for runs of later arrays; it has none of its own


@dataclass(frozen=True)
class _Asked:
    """One array to be."""

    resource_class: int
    resources: Slurm
    tasks: int  # processes of one run
    runs: tuple[tuple[str, ...], ...]
    graphs: tuple[str, ...] = ()


def submit(
    study: Study, runs: Sequence[Run], study_folder: Path, options: Options, most: int | None
) -> Iterator[Submitted | Refused]:
    """Submits the runs array by array, at most `most` jobs of the study at a time, yielding each accepted one.

    `options` are the user's own, over what the study asks. The caller holds the study's lock and has prepared the run
    folders. Each intent is on the disk before Slurm is asked. Raises UnavailableError with Slurm's own words where it
    refuses an array of runs; what it accepted before is submitted.
    """
    study_folder = study_folder.absolute()  # links stay: nodes may know a shared folder by another path than this host
    if "%" in str(study_folder):
        raise ConfigError(f"{str(study_folder)!r}: Slurm reads % in the path of a log as its own; rename the folder")
    code = snapshot.take(study_folder)
    longest = client.max_array_size()
    asked = list(_arrays(study, runs, longest))
    graphs = to_compile(runs, study_folder, least=1)  # a lone run waits for what is being compiled, too
    former = read_all(study_folder)
    under_way = compiled_by(of_study(former, client.listed())) if graphs else {}
    lacking = {graph: alike for graph, alike in graphs.items() if len(alike) > 1 and graph not in under_way}
    placed: list[tuple[int, int | str | None]] = [(len(one.runs), None) for one in asked]
    names = [secrets.token_hex(4) for _ in asked]
    present: dict[str, str] = {}
    arrays: list[throttle.Array] = []
    if most is not None:
        arrays, present = throttle.arrays_now(study_folder)
        placed = throttle.place(most, arrays, [len(one.runs) for one in asked])
    planned: list[tuple[str, _Asked, int, str | None]] = []  # name, what, slots, name of the one before it
    for one, name, (number, parent) in zip(asked, names, placed, strict=True):
        before = names[parent] if isinstance(parent, int) else parent
        for compiling in _compilations(one, lacking, longest):
            planned.append((secrets.token_hex(4), compiling, min(number, len(compiling.graphs)), before))
            before = planned[-1][0]
        planned.append((name, one, number, before))
    if most is not None:
        slots = {array.name: array.slots for array in arrays} | {name: number for name, _, number, _ in planned}
        throttle.store(study_folder, most, slots)
    launch, created = secrets.token_hex(4), now()
    ids = dict(present)  # by batch
    batches = {batch.folder.name: batch for batch in former}
    instead: dict[str, str | None] = {}  # of refused ones: what they would have come after
    for name, one, number, before in planned:
        while before in instead:
            before = instead[before]
        batch = Batch(
            study_folder / FOLDER / name,
            f"sqzlab-{study_folder.name}.{name}",
            created,
            launch,
            one.resource_class,
            one.runs,
            before,
            graphs=one.graphs,
        )
        batch.write({"resources": asdict(one.resources), "code": code.name, "slots": number})
        run_ids = tuple(run_id for runs in one.runs for run_id in runs)
        parents = [ids[other.folder.name] for other in awaited(before, batches) if other.folder.name in ids]
        if not one.graphs:
            own = set(run_ids)
            needed = [graph for graph, alike in graphs.items() if any(run.run_id in own for run in alike)]
            parents += [under_way[graph] for graph in needed if graph in under_way]
        after = tuple(dict.fromkeys(parents))
        try:
            job_id = _submit(batch, one, _brief(options) if one.graphs else options, code, number, after)
        except RefusedError as refused:
            if not one.graphs:
                raise
            instead[name] = before
            yield Refused(len(one.graphs), str(refused))
            continue
        batch.write_job_id(job_id)
        ids[name], batches[name] = job_id, batch
        under_way |= dict.fromkeys(one.graphs, job_id)
        limited = number if most is not None else None
        compiles = bool(one.graphs)
        yield Submitted(
            job_id, len(one.runs), () if compiles else run_ids, _told(one.resources), limited, after, compiles
        )


def _arrays(study: Study, runs: Sequence[Run], longest: int) -> Iterator[_Asked]:
    """Runs of one class in the study's order, `runs_per_job` of them a job, cut where an array would be too long."""
    classes: dict[tuple[Slurm, int], list[str]] = {}
    for run in runs:
        classes.setdefault((study.resources(run), run.config.train.world_size), []).append(run.run_id)
    for number, ((resources, tasks), run_ids) in enumerate(classes.items()):
        size = resources.runs_per_job
        jobs = [tuple(run_ids[at : at + size]) for at in range(0, len(run_ids), size)]
        for at in range(0, len(jobs), longest):
            yield _Asked(number, resources, tasks, tuple(jobs[at : at + longest]))


def _compilations(one: _Asked, lacking: dict[str, list[Run]], longest: int) -> Iterator[_Asked]:
    """What is to be compiled before this array and by none before it, which it takes out of `lacking`.

    The jobs get what the array's own get, but not for so long.
    """
    own = {run_id for runs in one.runs for run_id in runs}
    graphs = [graph for graph, alike in lacking.items() if any(run.run_id in own for run in alike)]
    jobs = [(graph, tuple(run.run_id for run in lacking.pop(graph))) for graph in graphs]
    resources = replace(one.resources, time_min=min(COMPILING_MIN, one.resources.time_min or COMPILING_MIN))
    for at in range(0, len(jobs), longest):
        some = jobs[at : at + longest]
        yield _Asked(
            one.resource_class,
            replace(resources, runs_per_job=1),
            one.tasks,
            tuple(runs for _, runs in some),
            tuple(graph for graph, _ in some),
        )


def _brief(options: Options) -> Options:
    """Without a time limit that is longer than compiling needs, so that a scheduler fits the jobs in early."""
    asked = minutes(options.get("time"))
    if asked is not None and asked < COMPILING_MIN:
        return options
    return {key: value for key, value in options.items() if key not in ("time", "time_min")}


def _submit(batch: Batch, asked: _Asked, options: Options, code: Path, slots: int, after: Sequence[str]) -> str:
    """Asks Slurm for the array and returns its id."""
    import submitit
    from submitit.core.utils import FailedJobError

    wanted = of_job(asked.resources, asked.tasks, options)
    executor = submitit.SlurmExecutor(folder=batch.folder)
    own = executor._valid_parameters()
    extra: dict[str, Any] = {"requeue": True, **{key: value for key, value in wanted.items() if key not in own}}
    step = [f"--cpus-per-task={wanted['cpus_per_task']}"]  # since 22.05 a step does not inherit its job's
    executor.update_parameters(
        job_name=batch.job_name,
        array_parallelism=slots,
        additional_parameters=extra,
        setup=_setup(code),
        stderr_to_stdout=True,
        srun_args=[*step, *(["--kill-on-bad-exit=1"] if asked.tasks > 1 else [])],
        wckey=None,
        dependency=client.after_all(after) or None,
        **{key: value for key, value in wanted.items() if key in own},
    )
    executor.parameters["map_count"] = len(batch.runs)
    # Not submitit's pickles: they are renamed after sbatch has answered, so a client killed in between would leave
    # jobs that find none. This command needs nothing but the intent.
    command = shlex.join(
        ["bash", "-c", IGNORING, "bash", sys.executable, "-u", "-m", "sqzlab.slurm.job", str(batch.folder)]
    )
    try:
        with _clean_environment(wanted), contextlib.redirect_stderr(io.StringIO()):  # it prints what it then raises
            return str(executor._submit_command(command).job_id)
    except FailedJobError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("Try ")]
        said = ([line for line in lines if "error:" in line] or lines)[-1]
        if not any(word in said.lower() for word in AMBIGUOUS):
            shutil.rmtree(batch.folder)
            raise RefusedError(f"Slurm refuses the jobs: {said}") from None
        raise UnavailableError(f"Slurm refuses the jobs: {said}") from None


def _setup(code: Path) -> list[str]:
    """Lines of the batch script: the code is the snapshot's, whatever folder the job starts in."""
    return [
        f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1",
        "export SLURM_EXPORT_ENV=ALL",  # to the step, also where --export=NONE kept the launch's own from the job
    ]


@contextlib.contextmanager
def _clean_environment(given: Options) -> Iterator[None]:
    """Without what the job around this launch, if there is one, says of itself: sbatch would take it for options.

    Of the user's own SBATCH variables, which go before the script, those stay that it does not give: a partition, an
    account.
    """
    kept = {f"SBATCH_{name}" for name in USERS if name.lower() not in given}
    kept |= {"SLURM_CONF", "SLURM_CLUSTERS"}
    removed = {key: os.environ.pop(key) for key in list(os.environ) if key.startswith(FOREIGN) and key not in kept}
    try:
        yield
    finally:
        os.environ.update(removed)


def _told(resources: Slurm) -> str:
    """`1 GPU, 16 cores, 64 GB, 24:00 h`."""
    parts = [f"{resources.gpus} GPU{'s' if resources.gpus > 1 else ''}"] if resources.gpus else []
    parts.append(f"{resources.cpus} core{'s' if resources.cpus > 1 else ''}")
    if resources.memory_gb is not None:
        parts.append(f"{resources.memory_gb:g} GB")
    if resources.time_min is not None:
        parts.append(f"{resources.time_min // 60}:{resources.time_min % 60:02} h")
    return ", ".join(parts)


FOREIGN = ("SLURM_", "SBATCH_")
USERS = ("ACCOUNT", "PARTITION", "QOS", "RESERVATION", "CONSTRAINT", "WCKEY")
