"""Runs as Slurm jobs: one array through submitit; the queue is asked, the files decide."""

from __future__ import annotations

import contextlib
import getpass
import io
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sqzlab.errors import ConfigError, UnavailableError
from sqzlab.launching.children import python_path
from sqzlab.run import Run
from sqzlab.study.slurm import Slurm

FOLDER = "slurm"  # of a study: submitit's pickles and logs
SUBMITTED = "submitted.jsonl"  # one line a run and submission: {"run_id", "job_id"}
USER_FILE = Path("~/.config/sqzlab/slurm.yaml")
"""Partition, account and whatever else a user's own cluster wants: sbatch options, one a line."""


def answers() -> bool:
    """Whether a Slurm controller answers. Takes up to 9 s where one is configured but down."""
    return _scontrol_ping() is None


def require() -> None:
    """Raises UnavailableError where no controller answers."""
    if (reason := _scontrol_ping()) is not None:
        raise UnavailableError(f"no Slurm cluster: {reason}; valid here: --cluster local or --cluster inline")


def _scontrol_ping() -> str | None:
    if shutil.which("scontrol") is None:
        return "scontrol is not installed"
    try:
        said = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return "scontrol ping does not end"
    if said.returncode != 0 or " UP" not in said.stdout:
        lines = (said.stderr or said.stdout).strip().splitlines()
        return lines[0] if lines else "the controller does not answer"
    return None


def submit(
    runs: Sequence[Run], study_folder: Path, resources: Slurm, options: Mapping[str, str], jobs: int | None
) -> list[str]:
    """Submits the runs as one array, at most `jobs` of them at a time, and returns the job ids in the runs' order.

    `options` are those of `--slurm`; they go before what the user's own file and the study say.
    Raises UnavailableError with Slurm's own words where it refuses.
    """
    import submitit
    from submitit.core.utils import FailedJobError

    folder = study_folder / FOLDER
    executor = submitit.SlurmExecutor(folder=folder / "%j")
    asked = {**_resources(resources), **_user_options(), **options}
    own = executor._valid_parameters()
    executor.update_parameters(
        job_name=f"sqzlab-{study_folder.name}",
        array_parallelism=jobs or len(runs),
        additional_parameters={key: value for key, value in asked.items() if key not in own},
        **{key: value for key, value in asked.items() if key in own},
    )
    os.environ["PYTHONPATH"] = python_path()  # sbatch exports it
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it then raises
            submitted = executor.map_array(job, [str(study_folder.resolve() / run.run_id) for run in runs])
    except FailedJobError as error:
        lines = [line for line in str(error).splitlines() if "error:" in line]
        raise UnavailableError(f"Slurm refuses the jobs: {(lines or [str(error)])[-1].strip()}") from None
    with (study_folder / FOLDER / SUBMITTED).open("a") as file:
        for run, one in zip(runs, submitted, strict=True):
            file.write(json.dumps({"run_id": run.run_id, "job_id": one.job_id}) + "\n")
    return [one.job_id for one in submitted]


def job(folder: str) -> str:
    """What a job does. It never trusts its pickle: the run's folder says what is left to do."""
    from sqzlab.runs.execute import StopFlag, execute

    stop = StopFlag()
    with stop.on_signals(signal.SIGTERM, signal.SIGUSR2):
        return execute(Path(folder), stop)


def queued(study_folder: Path) -> dict[str, str]:
    """Run id to what Slurm says of its job, for every job of this study that waits or runs."""
    submitted = _submitted(study_folder)
    if not submitted or shutil.which("squeue") is None:
        return {}
    command = ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i|%T|%r"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        raise UnavailableError("squeue does not answer; the states of queued jobs are not known") from None
    if said.returncode != 0:
        lines = said.stderr.strip().splitlines() or [f"exit code {said.returncode}"]
        raise UnavailableError(f"squeue: {lines[-1]}; the states of queued jobs are not known")
    found = {}
    for line in said.stdout.splitlines():
        job_id, state, reason = line.strip().split("|", 2)
        if job_id in submitted:
            detail = reason if state == "PENDING" else state.lower()
            found[submitted[job_id]] = f"{detail}, job {job_id}"
    return found


def _submitted(study_folder: Path) -> dict[str, str]:
    """Job id to run id; a line cut by a crash is passed over."""
    path = study_folder / FOLDER / SUBMITTED
    found = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            values = json.loads(line)
        except ValueError:
            continue
        found[values["job_id"]] = values["run_id"]
    return found


def _resources(resources: Slurm) -> dict[str, Any]:
    """In sbatch's words; what the study leaves open is left to the cluster."""
    asked: dict[str, Any] = {"cpus_per_task": resources.cpus}
    if resources.gpus:
        asked["gpus_per_node"] = resources.gpus
    if resources.memory_gb is not None:
        asked["mem"] = f"{resources.memory_gb * 1024:.0f}M"
    if resources.time_min is not None:
        asked["time"] = resources.time_min
    return asked


def parsed(options: Sequence[str]) -> dict[str, str]:
    """sbatch options from the texts `KEY=VALUE` of `--slurm`. Raises ConfigError."""
    parsed = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise ConfigError(f"--slurm {option!r}: no KEY=VALUE; valid: an sbatch option, as in partition=gpu")
        parsed[key.replace("-", "_")] = value
    return parsed


def _user_options() -> dict[str, str]:
    path = USER_FILE.expanduser()
    if not path.exists():
        return {}
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: no mapping; valid: sbatch options, as in 'partition: gpu'")
    return {str(key).replace("-", "_"): str(value) for key, value in values.items()}
