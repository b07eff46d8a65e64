"""`python -m sqzlab cost`, against the counts that papers printed."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from sqzlab.commands.cli import main
from sqzlab.networks.cost import measure
from sqzlab.resolving import model_config

ROOT = Path(__file__).parents[2]
RESNETS = ("ResNet-50", "ResNet-101", "ResNet-152")
RESNEXTS = ("ResNeXt-50", "ResNeXt-101")
SMALL = ("--backbone", "resnet18", "--width", "0.25", "--stem", "small", "--image-size", "32")


def said(*words: str) -> str:
    """What the command prints at 80 columns."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.setenv("COLUMNS", "80")
        assert main(["cost", *words]) == 0
    return out.getvalue()


def found(*words: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(said(*words, "--json"))
    return values


@pytest.fixture(scope="module")
def table() -> list[dict[str, Any]]:
    """The SP/RG table, which comes without arguments."""
    networks: list[dict[str, Any]] = found()["networks"]
    return networks


@pytest.fixture(scope="module")
def resnet50() -> list[dict[str, Any]]:
    networks: list[dict[str, Any]] = found("--published", "--backbone", "resnet50")["networks"]
    return networks


# ---- the SP/RG table ---------------------------------------------------------------------------


def test_without_arguments_every_row_of_the_sprg_table_is_counted(table: list[dict[str, Any]]) -> None:
    with (ROOT / "results" / "published.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["source"].startswith("SP/RG README")]
    printed = [(row["backbone"], row["variant"], float(row["gflops"])) for row in rows]
    counted = [tuple(row["published"][key] for key in ("backbone", "variant", "gflops")) for row in table]
    assert counted == printed
    assert len(counted) == 25


@pytest.mark.parametrize("backbone", RESNETS)
def test_the_papers_count_is_within_a_hundredth_of_the_printed_gflops(
    table: list[dict[str, Any]], backbone: str
) -> None:
    rows = [row for row in table if row["published"]["backbone"] == backbone]
    assert [row["model"]["squeeze"] for row in rows] == ["baseline", "gap", "CBAM", "SP", "RG"]
    for row in rows:
        assert row["paper_ops"] / 1e9 == pytest.approx(row["published"]["gflops"], abs=0.01)
        assert row["published"]["difference"] == row["paper_ops"] / 1e9 - row["published"]["gflops"]
        assert row["published"]["notes"] == []


@pytest.mark.parametrize("backbone", RESNEXTS)
def test_no_rule_reproduces_the_resnext_rows_and_the_table_says_so(table: list[dict[str, Any]], backbone: str) -> None:
    rows = [row for row in table if row["published"]["backbone"] == backbone]
    assert all(abs(row["published"]["difference"]) > 0.1 for row in rows)
    assert all("no rule" in row["published"]["notes"][0] for row in rows)
    text = said()
    assert f"{backbone} [a]" in text
    assert "[a] no rule" in text


@pytest.mark.parametrize("backbone", RESNEXTS)
def test_what_blocks_add_to_a_resnext_is_as_printed(table: list[dict[str, Any]], backbone: str) -> None:
    plain, *others = [row["published"]["difference"] for row in table if row["published"]["backbone"] == backbone]
    assert others == pytest.approx([plain] * 4, abs=0.01)


def test_the_table_fits_into_80_columns(table: list[dict[str, Any]]) -> None:
    lines = said().splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if line.startswith("SPSE"))
    assert row.split() == ["SPSE", "28,480,728", "3.861", "3.888", "3.88", "+0.008"]


# ---- other published tables --------------------------------------------------------------------


def test_published_parameters_are_ours_in_the_units_of_their_source(resnet50: list[dict[str, Any]]) -> None:
    exact = ("CBAM ECCV", "SRM", "ECA-Net", "BangguWu")  # two decimals
    rows = [row for row in resnet50 if row["published"]["source"].startswith(exact)]
    assert len(rows) == 9
    for row in rows:
        unit = 2**20 if row["published"]["unit"] == 2**30 else 10**6
        assert row["params"] / unit == pytest.approx(row["published"]["params_m"], abs=0.006)


def test_cbam_counts_convolutions_and_linear_layers_only(resnet50: list[dict[str, Any]]) -> None:
    row = next(row for row in resnet50 if row["published"]["source"].startswith("CBAM ECCV"))
    assert row["published"]["compared_with"] == "macs"
    assert row["published"]["difference"] == pytest.approx(0, abs=0.0005)


def test_no_squeeze_is_as_printed_but_for_its_scaling_pass(resnet50: list[dict[str, Any]]) -> None:
    row = next(row for row in resnet50 if row["model"]["squeeze"] == "no_squeeze")
    scaling = 5_519_360
    assert round((row["paper_ops"] - scaling) / 1e9, 2) == row["published"]["gflops"] == 4.27
    assert row["published"]["difference"] == pytest.approx(0.01, abs=0.0005)


def test_the_units_of_eca_net_are_noted(resnet50: list[dict[str, Any]]) -> None:
    text = said("--published", "--backbone", "resnet50", "--squeeze", "ECA")
    assert "ResNet-50 [d]" in text
    assert "2^30 operations and 2^20 parameters" in " ".join(text.split())
    assert "no rule" not in text


# ---- networks by name --------------------------------------------------------------------------


def test_named_networks_are_counted_as_they_are_built() -> None:
    rows = found(*SMALL, "--squeeze", "baseline", "gap", "--reduction", "4", "--fc-bias", "true")["networks"]
    shared: dict[str, Any] = {"backbone": "resnet18", "width": 0.25, "stem": "small", "image_size": 32}
    given = [shared, {**shared, "squeeze": "gap", "reduction": 4, "fc_bias": True}]
    for row, config in zip(rows, (model_config(**values) for values in given), strict=True):
        cost = measure(config)
        assert (row["params"], row["macs"], row["paper_ops"]) == (cost.params, cost.macs, cost.paper_ops)
        assert model_config(**row["model"]) == config


def test_what_applies_to_a_part_of_the_networks_is_noted() -> None:
    text = said(*SMALL, "--squeeze", "baseline", "gap", "--reduction", "4", "--fc-bias", "true")
    assert "resnet18, 32x32" in text
    assert "[*] --reduction applies to gap only; --fc-bias applies to gap only" in text


# ---- what a user gets wrong --------------------------------------------------------------------

WRONG = {
    "a squeeze": (["--squeeze", "gapp"], "--squeeze: unknown name 'gapp'; did you mean 'gap'? valid: baseline, gap"),
    "a backbone": (["--backbone", "resnet5"], "--backbone: unknown name 'resnet5'; did you mean 'resnet50'? valid: "),
    "a placement": (
        ["--placement", "standart"],
        "--placement: unknown name 'standart'; did you mean 'standard'? valid: standard, pre",
    ),
    "what applies to none": (
        ["--squeeze", "baseline", "--fc-bias", "true"],
        "--fc-bias: does not apply to squeeze 'baseline'; it applies to gap, gmp",
    ),
    "a stride of basic blocks": (["--backbone", "resnet18", "--stride", "v1"], "--stride: does not apply to backbone"),
    "text for a number": (["--reduction", "many"], "--reduction: 'many' is text; valid: a whole number"),
    "text for a truth": (["--fc-bias", "yes"], "--fc-bias: 'yes' is text; write true or false"),
    "a small image": (
        ["--squeeze", "RG", "--image-size", "100"],
        "--image-size: 100 with the imagenet stem gives maps",
    ),
    "no hidden unit": (
        ["--backbone", "resnet18", "--squeeze", "gap", "--reduction", "65"],
        "--reduction: 65 leaves no hidden unit",
    ),
    "a network of no paper": (["--published", "--squeeze", "GCT"], "--squeeze: no count of 'GCT' with these"),
    "a pair of no paper": (
        ["--published", "--squeeze", "gap", "--backbone", "resnet18", "resnet50"],
        "--backbone: no count of 'resnet18' with these is published; valid: resnet50",
    ),
    "another form of a published network": (
        ["--published", "--image-size", "64"],
        "--published counts networks as their sources built them; leave out --image-size",
    ),
}


@pytest.mark.parametrize(("words", "told"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_in_one_line(capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    assert main(["cost", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(told)
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [["--help"], ["--squeeze", "gapp"], ["--reduction", "0"]], ids=" ".join)
def test_help_and_wrong_words_import_no_torch(words: list[str]) -> None:
    code = f"""
import sys
from sqzlab.commands.cli import main
try:
    main({["cost", *words]!r})
except SystemExit:
    pass
sys.exit("torch is imported" if "torch" in sys.modules else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
