"""README.md's two set-up commands: one starts the main job, the other runs the tests; CI runs the same tests."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def _commands() -> list[str]:
    """The bash blocks that set up an environment."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = (block.strip() for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    return [block for block in blocks if block.startswith("python3 -m venv")]


def _last_words(command: str) -> list[str]:
    """What the last program of an `a && b && c` line is given: its words after the name of the interpreter."""
    words = shlex.split(command.rpartition("&&")[2])
    assert words[0].endswith("python"), command
    return words[1:]


def test_set_up_is_two_commands_of_one_line_each() -> None:
    commands = _commands()
    assert len(commands) == 2
    assert not [command for command in commands if "\n" in command]


def test_the_main_job_starts_as_written() -> None:
    words = _last_words(_commands()[0])
    assert words[0] == "launch.py"
    env = {name: value for name, value in os.environ.items() if name not in ("IMAGENET_DIR", "SLURM_CONF")}
    command = [sys.executable, *words, "--dry-run"]
    said = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert (said.returncode, said.stderr) == (0, "")


def test_ci_runs_the_tests_as_written() -> None:
    words = _last_words(_commands()[1])
    assert words[:2] == ["-m", "pytest"]
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert f"check tests python {shlex.join(words)}" in lines
