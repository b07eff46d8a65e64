"""sbatch options: the study's, the user's and those of `--slurm`, and which of them a user may not set."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqzlab.errors import ConfigError
from sqzlab.slurm.options import OURS, of_job, of_user, parsed
from sqzlab.study.slurm import Slurm


@pytest.fixture
def user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".config" / "sqzlab" / "slurm.yaml"
    path.parent.mkdir(parents=True)
    return path


def test_values_are_taken_as_written_and_true_is_a_flag(user_file: Path) -> None:
    user_file.write_text("partition: gpu\ntime: 8:00:00\naccount: 016\nqos: no\nhold: true\nexclusive: false\n")
    expected = {"partition": "gpu", "time": "8:00:00", "account": "016", "qos": "no", "hold": True}
    assert of_user() == expected
    assert parsed([f"--{key}={'true' if value is True else value}" for key, value in expected.items()]) == expected


@pytest.mark.parametrize("text", ["- gpu", "partition:", "partition: [a, b]", "gres: {gpu: 1}", "a: 'b"])
def test_a_users_file_that_says_something_else_is_one_clear_line(user_file: Path, text: str) -> None:
    user_file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        of_user()
    assert str(user_file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(OURS))
def test_what_the_launch_itself_decides_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is set by the launch itself"):
        parsed([f"{name.replace('_', '-')}=1"])


@pytest.mark.parametrize("text", ["gpu", "=gpu", "partition="])
def test_an_option_needs_a_key_and_a_value(text: str) -> None:
    with pytest.raises(ConfigError, match="no KEY=VALUE"):
        parsed([text])


def test_what_nobody_names_is_left_to_the_cluster() -> None:
    asked = of_job(Slurm(), 1, {})
    assert {key: value for key, value in asked.items() if value is not None} == {
        "cpus_per_task": 1,
        "signal_delay_s": 120,
    }


def test_the_tasks_of_a_run_share_its_cores_and_memory() -> None:
    asked = of_job(Slurm(gpus=4, cpus=16, memory_gb=64, time_min=60), 4, {"partition": "gpu", "cpus_per_task": "2"})
    assert asked == {
        "nodes": 1,
        "ntasks_per_node": 4,
        "cpus_per_task": "2",
        "gpus_per_node": 4,
        "mem": "65536M",
        "time": 60,
        "partition": "gpu",
        "signal_delay_s": 120,
    }


@pytest.mark.parametrize(("time", "seconds"), [("1", 15), ("0:04:00", 60), ("1-00:00:00", 120), ("90:00", 120)])
def test_a_short_job_is_warned_later(time: str, seconds: int) -> None:
    assert of_job(Slurm(), 1, {"time": time})["signal_delay_s"] == seconds
