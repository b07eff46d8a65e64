from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from sqzlab.commands.cli import main

ROOT = Path(__file__).parents[2]
SMALL = ["bench", "--backbone", "resnet18", "--form", "plain", "--mode", "eager", "--peers", "none", "--device", "cpu"]
SMALL += ["--size", "32", "--batch", "2", "--threads", "1", "--steps", "1"]
Captured = pytest.CaptureFixture[str]


def started(*words: str, **environment: str) -> subprocess.Popen[str]:
    env = os.environ | {"COLUMNS": "80", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, "-m", "sqzlab", *words]
    return subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored where pytest runs in the background
    )


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    out = tmp_path_factory.mktemp("bench")
    process = started(*SMALL, "--squeeze", "baseline,gap", "gap", "--rounds", "2", "--out", str(out))
    text, errors = process.communicate()
    assert process.returncode == 0, errors
    return out, text, errors


def test_the_tables_have_every_network_and_fit_into_80_columns(told: tuple[Path, str, str]) -> None:
    lines = told[1].splitlines()[:-1]  # the last one names the folder
    assert max(map(len, lines)) <= 80
    for kind in ("training", "inference"):
        at = lines.index(next(line for line in lines if line.startswith(f"resnet18, {kind}, eager")))
        assert [line.split()[0] for line in lines[at + 2 : at + 4]] == ["baseline", "gap"]
        assert re.fullmatch(r"baseline( +[\d.,]+){3} +1\.000 +1\.000 +1\.000 +\d+%", lines[at + 2].strip())


def test_json_and_figure_are_written(told: tuple[Path, str, str]) -> None:
    out = told[0]
    assert {path.name for path in out.iterdir()} == {"bench.json", "bench.svg", "bench.png"}
    found = json.loads((out / "bench.json").read_text())
    assert found["complete"]
    assert [len(row["rounds"]) for row in found["rows"]] == [2] * 4
    assert {"torch", "torchvision", "timm", "cpu", "gpu", "threads", "settings", "ceilings", "bounds"} <= found.keys()


def test_progress_in_a_log_is_a_line_each(told: tuple[Path, str, str]) -> None:
    lines = [re.sub(r"^ *\d+ s  ", "", line) for line in told[2].splitlines()]
    assert lines[0] == "preparing resnet18 baseline, eager, training (1 of 4)"
    assert lines[-1] == "round (2 of 2)"


def test_an_interruption_keeps_what_was_measured(tmp_path: Path) -> None:
    process = started(*SMALL, "--squeeze", "baseline", "--inference", "--rounds", "1000", "--out", str(tmp_path))
    assert process.stderr is not None
    for line in process.stderr:
        if "round (2 of" in line:
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate()
    assert (process.returncode, errors.splitlines()[-1]) == (130, "interrupted")
    found = json.loads((tmp_path / "bench.json").read_text())
    assert not found["complete"]
    assert all(row["rounds"][0] > 0 for row in found["rows"])


def test_what_cannot_be_compiled_says_why_and_the_rest_goes_on(tmp_path: Path) -> None:
    words = [*SMALL, "--mode", "eager,compiled", "--inference", "--squeeze", "baseline", "--rounds", "1"]
    process = started(
        *words, "--out", str(tmp_path), CXX="no-such-compiler", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "kernels")
    )
    text, _ = process.communicate()
    assert process.returncode == 1
    eager, compiled = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert eager["images_per_s"]["median"] > 0
    assert "no-such-compiler" in compiled["failure"] or "InvalidCxxCompiler" in compiled["failure"]
    assert compiled["images_per_s"] is None
    assert re.search(r"baseline +failed", text)
    assert max(map(len, text.splitlines()[:-1])) <= 80


WRONG = {
    "a backbone": (["--backbone", "resnet5"], "--backbone: unknown name 'resnet5'; did you mean 'resnet50'? valid: "),
    "a squeeze": (["--squeeze", "gap,gapp"], "--squeeze: unknown name 'gapp'; did you mean 'gap'? valid: baseline"),
    "a mode": (["--mode", "compile"], "--mode: unknown name 'compile'; did you mean 'compiled'? valid: eager, "),
    "folded eager": (["--form", "folded"], "--form: 'folded' is measured compiled; add --mode compiled or --form "),
    "graphs on the CPU": (["--mode", "compiled+graphs"], "--mode: 'compiled+graphs' needs --device cuda; valid: eager"),
    "a size": (["--squeeze", "SP"], "image_size: 32 with the imagenet stem gives maps"),
    "no rounds": (["--rounds", "0"], "argument --rounds: '0' is out of range; valid: whole numbers from 1; "),
}


@pytest.mark.parametrize(("words", "text"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_in_one_line(words: list[str], text: str, tmp_path: Path, capsys: Captured) -> None:
    try:
        code = main([*SMALL, "--out", str(tmp_path), *words])
    except SystemExit as end:
        code = int(str(end.code))
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith(text)
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [["--help"], ["--squeeze", "gapp"]], ids=" ".join)
def test_help_and_wrong_names_import_no_torch(words: list[str]) -> None:
    code = f"""
import sys
from sqzlab.commands.cli import main
try:
    main({["bench", *words]!r})
except SystemExit:
    pass
sys.exit("torch is imported" if "torch" in sys.modules else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
