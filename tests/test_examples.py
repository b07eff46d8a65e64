"""The examples as a user runs them: as a script from anywhere, and cell by cell in IPython."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

import sqzlab

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/compare_arms.py"
STUDY = ROOT / "results/squeeze_ablation-laptop"
FIGURES = ("differences", "pareto", "curves")
CELLS = """
import json, re, sys
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
shell.history_manager.enabled = False
shown, text = [], Path(sys.argv.pop(1)).read_text(encoding="utf-8")
for cell in re.split(r"^# %%(?! \\[markdown\\]).*$", text, flags=re.M)[1:]:
    result = shell.run_cell(cell.partition("# %% [markdown]")[0])
    result.raise_error()
    if result.result is not None:
        data, _ = shell.display_formatter.format(result.result)
        shown.append([type(result.result).__name__, sorted(data)])
print(json.dumps(shown))
"""


def run(*words: object, cwd: Path) -> str:
    env = os.environ | {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(cwd / ".ipython")}
    env.pop("VIRTUAL_ENV", None)  # of the shell's, where the tests run in another: IPython would warn
    command = [sys.executable, "-W", "error", *map(str, words)]
    said = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, ""), said.stderr
    return said.stdout


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the script prints from another folder, and the folder that it put its figures in."""
    cwd = tmp_path_factory.mktemp("elsewhere")
    return run(EXAMPLE, "my figures", cwd=cwd), cwd / "my figures"


def tables(text: str) -> list[dict[str, list[str]]]:
    """The values in each row of each printed table, by arm."""
    found: list[dict[str, list[str]]] = []
    for line in text.splitlines():
        words = line.split()
        if words[:2] == ["arm", "n"]:
            found.append({})
        elif found and len(words) == 9:
            found[-1][words[0]] = words[1:]
    return found


def rows(frame: pd.DataFrame) -> dict[str, list[float]]:
    """n, mean and sd in percent, difference and interval in points, adjusted p."""
    shown = frame.set_index("arm")
    in_percent = 100 * shown[["mean", "sd", "difference", "low", "high"]].astype(float)
    return {
        str(arm): [float(shown.loc[arm, "n"]), *in_percent.loc[arm], float(shown.loc[arm, "p_adjusted"])]
        for arm in shown.index
    }


def test_the_tables_are_those_of_the_frame(printed: tuple[str, Path]) -> None:
    records = sqzlab.load_records(STUDY)
    fewer = records[records["model.squeeze"].isin(["gap", "gmp", "std", "gapXstd", "random"])]
    expected = [sqzlab.compare(records), sqzlab.compare(fewer, "gap", correction="holm")]
    found = tables(printed[0])
    assert len(found) == len(expected)
    for table, frame in zip(found, expected, strict=True):
        assert list(table) == list(frame["arm"])
        for arm, values in rows(frame).items():
            numbers = [float(word) for word in table[arm][:-1]]
            assert numbers == pytest.approx(values, abs=0.00501, nan_ok=True)
        separated = [table[arm][-1] for arm in frame["arm"]]
        assert separated == [str(value) for value in frame["separated"]]


def test_the_rest_is_that_of_the_frame_too(printed: tuple[str, Path]) -> None:
    records = sqzlab.load_records(STUDY)
    done = records[records["state"] == "done"]
    lines = printed[0].splitlines()
    assert lines[0].startswith(f"{len(done)} of {len(records)} runs are done, baseline {{'model.squeeze': 'baseline'}}")
    by_arm = done.groupby("model.squeeze")["val_loss"].mean()
    assert f"lowest validation loss: {by_arm.idxmin()}, {by_arm.min():.4f}" in lines
    assert max(map(len, lines)) <= 80


def test_the_figures_are_where_they_were_asked_for(printed: tuple[str, Path]) -> None:
    text, folder = printed
    assert text.splitlines()[-1] == "figures: my figures"
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{n}.{k}" for n in FIGURES for k in ("svg", "png"))
    for name in FIGURES:
        assert ElementTree.parse(folder / f"{name}.svg").getroot().tag.endswith("svg")
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_without_a_folder_it_writes_nothing_and_prints_the_same(printed: tuple[str, Path], tmp_path: Path) -> None:
    assert printed[0].startswith(run(EXAMPLE, cwd=tmp_path))
    assert not list(tmp_path.iterdir())


def test_in_a_notebook_every_frame_and_figure_is_shown_without_pyplot(tmp_path: Path) -> None:
    cells = tmp_path / "cells.py"
    cells.write_text(CELLS, encoding="utf-8")
    beside = tmp_path / "examples"
    beside.mkdir()
    (tmp_path / "results").symlink_to(ROOT / "results")
    said = run(cells, EXAMPLE, cwd=beside)
    shown = json.loads(re.findall(r"^\[\[.*$", said, re.M)[-1])
    frames = [["DataFrame", ["text/html", "text/plain"]]] * 2
    assert shown == frames + [["ShownFigure", ["image/png", "text/plain"]]] * 3
