"""`python -m sqzlab`: its commands by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sqzlab.commands.cli import COMMANDS, main

ROOT = Path(__file__).parents[2]


def helped(*words: str) -> tuple[str, set[str]]:
    """The help that is printed, and every module that it takes."""
    command = [sys.executable, "-X", "importtime", "-m", "sqzlab", *words, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_help_names_every_command_without_importing_torch() -> None:
    text, imported = helped()
    assert [name for name in COMMANDS if f"\n    {name}" not in text] == []
    assert "sqzlab.errors" in imported
    assert not {"torch", "torchvision", "pandas", "rich"} & imported


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_that_imports_no_torch(command: str) -> None:
    text, imported = helped(command)
    assert text.startswith(f"usage: python -m sqzlab {command} ")
    assert not {"torch", "torchvision"} & imported


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["cots"], "unknown command 'cots'; did you mean 'cost'? valid: train, "),
        ([], "the following arguments are required: COMMAND; see "),
        (["--results"], "the following arguments are required: COMMAND; see "),
        (["cost", "--backbones", "resnet18"], "unrecognized arguments: --backbones resnet18; see "),
        (["cost", "resnet18"], "unrecognized arguments: resnet18; see "),
        (["cost", "--squeeze"], "argument --squeeze: expected at least one argument; see "),
    ],
)
def test_what_is_no_command_line_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(told)
    assert err.count("\n") == 1


def test_a_reader_that_stops_reading_is_no_error() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "sqzlab", "cost", "--backbone", "resnet18", "--squeeze", "baseline", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    said = child.stderr.read()
    child.stderr.close()
    assert (child.wait(), said) == (1, "")
