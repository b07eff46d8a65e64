from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sqzlab.analysis.gates import block_rows, read_npz
from sqzlab.commands.cli import main
from sqzlab.data.digits import MEAN, STD
from sqzlab.networks.files import save_network
from sqzlab.networks.resnet import build
from sqzlab.resolving import model_config

ROOT = Path(__file__).parents[2]
QUICK = ["--data", "digits", "--images-per-class", "2", "--channels", "4"]
RUNS = tuple(f"{squeeze}.safetensors" for squeeze in ("gap", "ECA"))
NO_GATES = "baseline.safetensors: squeeze 'baseline' has no gates of channels to record\n"
Told = tuple[Path, int, str, str]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The path of a small untrained network for digits; ECA only in the last stage."""
    folder = tmp_path_factory.mktemp("networks")
    options = {"gap": {"reduction": 4}, "ECA": {"stages": "conv5"}, "baseline": {}}
    for squeeze, given in options.items():
        common = {"backbone": "resnet18", "stem": "small", "width": 0.125, "num_classes": 10, "image_size": 32}
        config = model_config(**common, **given, squeeze=squeeze)
        names = [f"number {k}" for k in range(10)]
        path = folder / f"{squeeze}.safetensors"
        save_network(path, build(config, seed=0), config, mean=(MEAN,) * 3, std=(STD,) * 3, class_names=names)
    return lambda squeeze: str(folder / f"{squeeze}.safetensors")


@pytest.fixture(scope="module")
def told(saved: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Told:
    """What the command wrote (a folder) and said of two networks with gates and one without."""
    out = tmp_path_factory.mktemp("out")
    networks = map(saved, ("gap", "baseline", "ECA"))
    words = ["excitation", *networks, *QUICK, "--out", str(out), "--classes", "3,7"]
    said = _python("-m", "sqzlab", *words)
    return out, said.returncode, said.stdout, said.stderr


def _python(*words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "80", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)


def test_each_network_has_its_gates_and_figures_and_all_have_a_table(told: Told) -> None:
    out = told[0]
    drawn = [f"{run}-{kind}" for run in RUNS for kind in ("classes", "within")]
    figures = {f"{name}.{ending}" for name in (*drawn, "depth") for ending in ("svg", "png", "pdf")}
    assert {path.name for path in out.iterdir()} == figures | {f"{run}.npz" for run in RUNS} | {"excitation.csv"}
    several = [read_npz(out / f"{run}.npz") for run in RUNS]
    assert [gates.images for gates in several] == [20] * 2
    with (out / "excitation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = [row for gates in several for row in block_rows(gates)]
    assert [(row["run"], row["block"]) for row in rows] == [(row["run"], row["block"]) for row in wanted]
    assert [float(row["between_share"]) for row in rows] == [row["between_share"] for row in wanted]


def test_the_table_fits_80_columns_and_names_blocks_without_a_gate(told: Told) -> None:
    lines = told[2].splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("layer4.1 ") for line in lines) == 2
    without = "no gate of channels in layer1.0, layer1.1, layer2.0, layer2.1, layer3.0, layer3.1"
    assert without in " ".join(told[2].split())


def test_a_network_without_gates_is_named_and_the_others_go_on(told: Told) -> None:
    assert (told[1], told[3]) == (1, NO_GATES)


def test_recorded_gates_are_drawn_again_without_torch(told: Told, tmp_path: Path) -> None:
    before = told[0]
    code = """
import sys
from sqzlab.commands.cli import main
code = main(sys.argv[1:])
sys.exit("imports torch" if "torch" in sys.modules else code)
"""
    words = ["excitation", str(before / f"{RUNS[0]}.npz"), "--channels", "4", "--classes", "3,7", "--json"]
    said = _python("-c", code, *words, "--out", str(tmp_path))
    assert (said.returncode, said.stderr) == (0, "")
    for path in tmp_path.iterdir():
        assert (before / path.name).read_bytes() == path.read_bytes() or path.stem in ("depth", "excitation")

    shown = json.loads(said.stdout)
    assert shown["runs"] == [{"run": RUNS[0], "blocks_without": []}]
    assert [row["block"] for row in shown["blocks"]] == [f"layer{stage}.{i}" for stage in range(1, 5) for i in range(2)]
    assert sorted(path.name for path in tmp_path.iterdir()) == shown["files"]


def test_a_single_network_without_gates_is_one_line(
    saved: Callable[[str], str], tmp_path: Path, capsys: Captured
) -> None:
    assert main(["excitation", saved("baseline"), *QUICK, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", NO_GATES)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["--classes", "3,11"], "--classes: no class '11'; valid: numbers from 0 to 9, names ('0', '1', '2', ...)\n"),
        (["--classes", "0,1,2,3,4,5,6"], "--classes: 7 classes cannot be told apart; valid: at most 6\n"),
        (["--channels", "0"], "argument --channels: '0' is out of range; valid: whole numbers from 1; "),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    given: list[str], text: str, told: Told, tmp_path: Path, capsys: Captured
) -> None:
    words = ["excitation", str(told[0] / f"{RUNS[0]}.npz"), "--out", str(tmp_path / "out"), *given]
    try:
        code = main(words)
    except SystemExit as end:
        code = int(str(end.code))
    assert code == 2
    assert capsys.readouterr().err.startswith(text)
    assert not (tmp_path / "out").exists()


def test_a_network_that_is_named_twice_is_refused(told: Told, tmp_path: Path, capsys: Captured) -> None:
    gates = str(told[0] / f"{RUNS[0]}.npz")
    assert main(["excitation", gates, gates, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"{RUNS[0]!r} is named twice\n"


def test_gates_of_other_images_are_not_compared(
    told: Told, saved: Callable[[str], str], tmp_path: Path, capsys: Captured
) -> None:
    words = ["--data", "digits", "--images-per-class", "1", "--out", str(tmp_path / "out")]
    assert main(["excitation", str(told[0] / f"{RUNS[0]}.npz"), saved("ECA"), *words]) == 2
    assert capsys.readouterr().err == f"{RUNS[1]}: its gates are of other images than those of {RUNS[0]}\n"
