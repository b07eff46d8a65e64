"""`python -m sqzlab evaluate`: tables for people, JSON and csv for programs, one line for what is wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from inference_networks import class_folders, network, planned, saved, trained

from sqzlab.commands.cli import main
from sqzlab.run import METRICS
from sqzlab.runs.execute import execute
from sqzlab.runs.stop import StopFlag

Captured = pytest.CaptureFixture[str]


def evaluated(*words: str | Path) -> int:
    run = trained()
    return main(["evaluate", *(map(str, words or [run.name])), "--results", str(run.parents[1])])


def test_the_table_sets_the_record_beside_what_was_found(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert evaluated() == 0
    said = capsys.readouterr()
    metrics = json.loads((trained() / METRICS).read_text())
    lines = said.out.splitlines()
    assert lines[0] == f"{trained().name}: 450 images of digits, on cpu"
    for title, key, form in (("top-1", "top1", "{:.2%}"), ("top-5", "top5", "{:.2%}"), ("loss", "val_loss", "{:.4f}")):
        value = form.format(metrics[key])
        assert [title, value, value] in [line.split() for line in lines]
    assert "worst 10 of 10 classes" in lines
    assert max(map(len, lines)) <= 80
    assert said.err == ""


def test_json_holds_all_classes_and_the_record(capsys: Captured) -> None:
    assert evaluated(trained(), "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert {key: values[key] for key in ("top1", "top5", "val_loss")} == values["recorded"]
    assert [row["name"] for row in values["classes"]] == list("0123456789")
    assert sum(row["images"] for row in values["classes"]) == values["images"] == 450
    hits = sum(row["images"] * row["recall"] for row in values["classes"])
    assert hits / 450 == pytest.approx(values["top1"])


def test_predictions_and_confusion_are_written_as_csv(capsys: Captured, tmp_path: Path) -> None:
    predictions, confusion = tmp_path / "predictions.csv", tmp_path / "confusion.csv"
    assert evaluated(trained(), "--csv", predictions, "--confusion", confusion, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    with predictions.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["correct"]) for row in rows) / len(rows) == values["top1"]
    assert sum(int(row["top5"]) for row in rows) / len(rows) == values["top5"]
    with confusion.open(newline="") as file:
        matrix = list(csv.reader(file))[1:]
    assert sum(int(row[1 + label]) for label, row in enumerate(matrix)) == round(values["top1"] * 450)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["confusion.csv", "predictions.csv"]


def test_a_file_takes_the_names_of_the_folders_and_names_every_bad_image(capsys: Captured, tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", ["[red]ant", "bee"])
    for name in ("0.png", "2.png"):
        (root / "val/bee" / name).write_bytes(b"no image")
    path = saved(tmp_path / "net.safetensors", network(classes=2))
    assert evaluated(path, "--data", "imagefolder", "--root", root) == 1
    said = capsys.readouterr()
    assert said.out.startswith("net.safetensors: 4 images of imagefolder, 2 could not be read, on cpu\n")
    assert said.err.splitlines() == [
        f"{str(root / 'val/bee' / name)!r}: is no image that Pillow can read" for name in ("0.png", "2.png")
    ]


def test_classes_of_other_names_are_matched_by_order_with_a_remark(capsys: Captured, tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", ["n01", "n02"])
    path = saved(tmp_path / "net.safetensors", network(classes=2), ["ant", "bee"])
    assert evaluated(path, "--data", "imagefolder", "--root", root, "--json") == 0
    said = capsys.readouterr()
    assert [row["name"] for row in json.loads(said.out)["classes"]] == ["ant", "bee"]
    told = "classes are called otherwise in 'imagefolder' than in net.safetensors: matched by their order\n"
    assert said.err == told


def test_on_images_of_another_size_there_is_no_record_to_compare(capsys: Captured) -> None:
    assert evaluated(trained(), "--image-size", "24", "--json") == 0
    said = capsys.readouterr()
    assert "recorded" not in json.loads(said.out)
    assert said.err == "'digits' is not as the run had it: its record cannot be compared\n"


def test_of_a_run_that_is_not_done_it_is_said_how_far_it_is(capsys: Captured, tmp_path: Path) -> None:
    run = planned(tmp_path)
    assert execute(run, StopFlag(after_steps=11)) == "interrupted"
    assert main(["evaluate", run.name, "--results", str(tmp_path), "--json"]) == 0
    assert capsys.readouterr().err == f"{run.name} is not done: these are its weights after 1 of 2 epochs\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--csv", "found.txt"], "--csv 'found.txt': valid: a file that ends in .csv"),
        (["--csv", "absent/found.csv"], "--csv 'absent/found.csv': there is no folder 'absent'"),
        (["--confusion", "folder.csv"], "--confusion 'folder.csv': is a folder"),
        (
            ["--data", "generated"],
            "{} has 10 classes, data set 'generated' has 1000; valid: a data set of as many clas",
        ),
        (["--batch-size", "0"], "argument --batch-size: '0' is out of range; valid: whole numbers from 1; see python"),
        (["--data", "cifar"], "argument --data: invalid choice: 'cifar'"),
    ],
)
def test_what_is_wrong_is_one_line_and_code_2(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], line: str
) -> None:
    run = trained()
    monkeypatch.chdir(tmp_path)
    Path("folder.csv").mkdir()
    try:
        code = main(["evaluate", str(run), *words])
    except SystemExit as ended:  # of argparse
        code = int(str(ended.code))
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert said.err.startswith(line.format(run.name))
    assert len(said.err.splitlines()) == 1


def test_an_image_size_that_the_squeeze_cannot_take_is_one_line(capsys: Captured, tmp_path: Path) -> None:
    path = saved(tmp_path / "net.safetensors", network("SP"))
    assert evaluated(path, "--data", "digits", "--image-size", "16") == 2
    assert capsys.readouterr().err.startswith("image size 16 with the small stem gives maps of 16x16, 8x8, 4x4, 2x2: ")


def test_imagenet_is_found_where_the_environment_says(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGENET_DIR", str(class_folders(tmp_path / "data", ["n01", "n02"])))
    path = saved(tmp_path / "net.safetensors", network(classes=2))
    assert evaluated(path, "--data", "imagenet", "--json") == 0
    assert json.loads(capsys.readouterr().out)["images"] == 6
