"""Runs as arrays of Slurm jobs: one array for each resource class, no longer than the cluster allows."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqzlab.errors import ConfigError, UnavailableError
from sqzlab.run import Run
from sqzlab.slurm import client, snapshot, throttle
from sqzlab.slurm.batches import FOLDER, Batch, now
from sqzlab.slurm.options import Options, of_job
from sqzlab.study.slurm import Slurm
from sqzlab.study.study import Study

IGNORING = "trap '' TERM USR2; exec \"$@\""
"""A signal that comes before Python can heed it would end the job, and one that ends by itself is not queued again."""
AMBIGUOUS = ("unable to contact", "timed out", "socket", "connection", "does not end")
"""In Slurm's words for what may have reached the controller nevertheless: such an intent stays, to be adopted."""


@dataclass(frozen=True)
class Submitted:
    """One array that Slurm has accepted."""

    job_id: str
    jobs: int
    run_ids: tuple[str, ...]
    what: str  # its resource class in words
    slots: int | None  # of its jobs at once; None: no limit
    after: str | None  # the array id that ends before it begins


@dataclass(frozen=True)
class _Asked:
    """One array to be."""

    resource_class: int
    resources: Slurm
    tasks: int  # processes of one run
    runs: tuple[tuple[str, ...], ...]


def submit(
    study: Study, runs: Sequence[Run], study_folder: Path, options: Options, most: int | None
) -> Iterator[Submitted]:
    """Submits the runs array by array, at most `most` jobs of the study at a time, yielding each accepted one.

    `options` are the user's own, over what the study asks. The caller holds the study's lock and has prepared the run
    folders. Each intent is on the disk before Slurm is asked. Raises UnavailableError with Slurm's own words where it
    refuses; what it accepted before is submitted.
    """
    study_folder = study_folder.absolute()  # links stay: nodes may know a shared folder by another path than this host
    if "%" in str(study_folder):
        raise ConfigError(f"{str(study_folder)!r}: Slurm reads % in the path of a log as its own; rename the folder")
    code = snapshot.take(study_folder)
    asked = list(_arrays(study, runs, client.max_array_size()))
    sizes = [len(one.runs) for one in asked]
    placed: list[tuple[int, int | str | None]] = [(size, None) for size in sizes]
    names = [secrets.token_hex(4) for _ in asked]
    present: dict[str, str] = {}
    if most is not None:
        arrays, present = throttle.arrays_now(study_folder)
        placed = throttle.place(most, arrays, sizes)
        slots = {array.name: array.slots for array in arrays} | {n: s for n, (s, _) in zip(names, placed, strict=True)}
        throttle.store(study_folder, most, slots)
    launch, created = secrets.token_hex(4), now()
    ids: dict[str, str] = {}
    for one, name, (number, parent) in zip(asked, names, placed, strict=True):
        parent_name = names[parent] if isinstance(parent, int) else parent
        batch = Batch(
            study_folder / FOLDER / name,
            f"sqzlab-{study_folder.name}.{name}",
            created,
            launch,
            one.resource_class,
            one.runs,
            parent_name,
        )
        batch.write({"resources": asdict(one.resources), "code": code.name, "slots": number})
        parent_id = None if parent_name is None else ids.get(parent_name) or present[parent_name]
        job_id = _submit(batch, one, options, code, number, parent_id)
        batch.write_job_id(job_id)
        ids[name] = job_id
        limited = number if most is not None else None
        run_ids = tuple(run_id for runs in one.runs for run_id in runs)
        yield Submitted(job_id, len(one.runs), run_ids, _told(one.resources), limited, parent_id)


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


def _submit(batch: Batch, asked: _Asked, options: Options, code: Path, slots: int, parent: str | None) -> str:
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
        dependency=f"afterany:{parent}" if parent else None,
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
