"""sbatch options: what the study asks, what the user's own cluster wants, what `--slurm` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sqzlab.errors import ConfigError
from sqzlab.study.slurm import Slurm, time_min

USER_FILE = Path("~/.config/sqzlab/slurm.yaml")
"""Partition, account and whatever else a user's own cluster wants: sbatch options, one a line."""
OURS = frozenset(
    {
        *("job_name", "J", "array", "a", "array_parallelism", "map_count", "dependency", "d", "wckey", "clusters", "M"),
        *("nodes", "N", "ntasks", "n", "ntasks_per_node", "wrap", "command", "setup", "teardown", "srun_args"),
        *("use_srun", "additional_parameters", "export", "output", "o", "error", "e", "open_mode", "stderr_to_stdout"),
        *("requeue", "signal"),
    }
)
"""What decides how a job is recognised, what it runs and where its log is."""
SAVE_S = 120  # before the time limit, for a run to reach a step boundary, save and ask for a requeue


Options = Mapping[str, str | bool]
"""sbatch's words with underscores; True for an option that takes no value."""


def parsed(options: Sequence[str]) -> dict[str, str | bool]:
    """sbatch options from the texts `KEY=VALUE` of `--slurm`. Raises ConfigError."""
    given = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key or not value:
            raise ConfigError(f"--slurm {option!r}: no KEY=VALUE; valid: an sbatch option, as in partition=gpu")
        given[key] = value
    return _checked(given, "--slurm")


def of_user() -> dict[str, str | bool]:
    """Those of the user's own file, if there is one. Raises ConfigError."""
    path = USER_FILE.expanduser()
    if not path.exists():
        return {}
    try:
        values = yaml.load(path.read_text(), Loader=yaml.BaseLoader)  # text as written: 8:00:00 is no number here
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    if not values:
        return {}
    if not isinstance(values, dict) or not all(isinstance(value, str) and value for value in values.values()):
        raise ConfigError(f"{path}: valid: a mapping of sbatch options, each with one value, as in 'partition: gpu'")
    return _checked(values, str(path))


def _checked(given: Mapping[str, str], where: str) -> dict[str, str | bool]:
    """Names with underscores; `hold=true` is the flag --hold, and `false` its absence."""
    options: dict[str, str | bool] = {}
    for key, value in given.items():
        name = key.lstrip("-").replace("-", "_")
        if name in OURS:
            raise ConfigError(f"{where}: {key}: is set by the launch itself; valid: partition, account, time, ...")
        if value != "false":
            options[name] = True if value == "true" else value
    return options


def of_job(resources: Slurm, tasks: int, given: Options) -> dict[str, Any]:
    """All options of a job with so many tasks (processes of one run); `given` go before what the study says.

    What neither names is left to the cluster.
    """
    asked: dict[str, Any] = {"cpus_per_task": max(1, resources.cpus // tasks), "time": resources.time_min}
    if tasks > 1:
        asked |= {"nodes": 1, "ntasks_per_node": tasks}
    if resources.gpus:
        asked["gpus_per_node"] = resources.gpus
    if resources.memory_gb is not None:
        asked["mem"] = f"{resources.memory_gb * 1024:.0f}M"
    asked |= given
    longest_min = minutes(asked["time"])
    if longest_min is not None:  # a short job must get somewhere before it is told to save
        asked.setdefault("signal_delay_s", min(SAVE_S, 15 * longest_min))
    else:
        asked.setdefault("signal_delay_s", SAVE_S)
    return asked


def minutes(time: object) -> int | None:
    """Of `90`, `1:30:00` or `1-0:00:00`; other forms of sbatch are left to it."""
    text = str(time)
    return int(text) if text.isdecimal() else time_min(text)
