"""`python -m sqzlab predict`: every image is either predicted or named with the reason."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from inference_networks import network, photo, saved, trained

import sqzlab
from sqzlab.commands.cli import main

Captured = pytest.CaptureFixture[str]
NAMES = [f"class {label}" for label in range(10)]


@pytest.fixture
def net(tmp_path: Path) -> str:
    return str(saved(tmp_path / "net.safetensors", network(), NAMES))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    photo(0).save(folder / "b.png")
    photo(1).save(folder / "more/a.jpg")
    return folder


def test_the_five_most_likely_classes_are_shown_with_their_scores(net: str, images: Path, capsys: Captured) -> None:
    assert main(["predict", net, str(images / "b.png")]) == 0
    (row,) = sqzlab.predict(net, [images / "b.png"])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [str(images / "b.png"), *(f"  {one.score:8.3%}  {one.name}" for one in row)]


def test_json_has_a_line_for_each_image_of_a_folder_in_sorted_order(net: str, images: Path, capsys: Captured) -> None:
    assert main(["predict", net, str(images), "--json", "--top", "2", "--batch-size", "1"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    files = [images / "b.png", images / "more/a.jpg"]
    assert [line["image"] for line in said] == [str(file) for file in files]
    for line, row in zip(said, sqzlab.predict(net, files, top=2), strict=True):
        assert line["top"] == [pytest.approx(vars(one), abs=1e-5) for one in row]


def test_bad_files_are_named_and_the_others_go_on(net: str, images: Path, tmp_path: Path, capsys: Captured) -> None:
    (images / "a.png").touch()
    (images / "c.png").write_bytes((images / "b.png").read_bytes()[:200])
    (tmp_path / "nothing").mkdir()
    given = [images, tmp_path / "nothing", tmp_path / "absent.jpg"]
    assert main(["predict", net, *map(str, given), "--json"]) == 1
    said = capsys.readouterr()
    assert [json.loads(line)["image"] for line in said.out.splitlines()] == [
        str(images / "b.png"),
        str(images / "more/a.jpg"),
    ]
    assert [line.split(": ")[0] for line in said.err.splitlines()] == [
        repr(str(path)) for path in (tmp_path / "nothing", images / "a.png", images / "c.png", tmp_path / "absent.jpg")
    ]


def test_with_no_image_at_all_the_code_is_2(net: str, tmp_path: Path, capsys: Captured) -> None:
    assert main(["predict", net, str(tmp_path / "absent.jpg")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        f"{str(tmp_path / 'absent.jpg')!r}: no such file or directory",
        "none of the images can be used",
    ]


def test_what_is_left_out_of_an_image_is_told(net: str, images: Path, capsys: Captured) -> None:
    frames = [photo(seed) for seed in range(3)]
    frames[0].save(images / "b.gif", save_all=True, append_images=frames[1:])
    assert main(["predict", net, str(images / "b.gif")]) == 0
    assert capsys.readouterr().err == f"{str(images / 'b.gif')!r}: the first of its 3 frames is taken\n"


def test_that_random_depends_on_the_place_is_told(images: Path, capsys: Captured) -> None:
    assert main(["predict", str(trained("random")), str(images)]) == 0
    told = "the noise of squeeze 'random' is drawn by an image's place: elsewhere in the list it scores otherwise\n"
    assert capsys.readouterr().err == told


def test_a_hostile_checkpoint_is_one_line_and_is_not_run(tmp_path: Path, capsys: Captured) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"weights": Hostile()}, tmp_path / "net.pt")
    assert main(["predict", str(tmp_path / "net.pt"), "a.jpg"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"{tmp_path / 'net.pt'}: ")
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("command", ["evaluate", "predict", "features"])
def test_help_comes_without_torch(command: str) -> None:
    code = f"""
import sys
from sqzlab.commands.cli import main
try:
    main([{command!r}, "--help"])
finally:
    assert "torch" not in sys.modules
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith(f"usage: python -m sqzlab {command}")
