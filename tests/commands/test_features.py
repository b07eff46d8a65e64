"""`python -m sqzlab features`: an npz file, whole or not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from inference_networks import class_folders, network, photo, saved, trained

import sqzlab
from sqzlab.commands.cli import main

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(3):
        photo(seed).save(folder / f"{seed}.png")
    return folder


def test_features_of_a_folder_are_those_of_the_function(images: Path, tmp_path: Path, capsys: Captured) -> None:
    net, out = str(saved(tmp_path / "net.pt", network())), tmp_path / "found.npz"
    assert main(["features", net, "--stages", "--out", str(out), "--batch-size", "2", str(images)]) == 0
    files = sorted(images.iterdir())
    expected = sqzlab.extract_features(net, files, stages=True)
    with np.load(out) as found:
        assert found["names"].tolist() == [str(file) for file in files]
        assert set(found) == {"names", *expected}
        for name, value in expected.items():
            assert np.allclose(found[name], value, atol=1e-5), name
    said = capsys.readouterr()
    assert said.out.startswith(f"{out}: pooled (3, 64)")
    assert said.err == ""


def test_a_data_set_gives_labels_too(tmp_path: Path, capsys: Captured) -> None:
    net, out = str(saved(tmp_path / "net.pt", network(classes=2))), tmp_path / "found.npz"
    root = class_folders(tmp_path / "data", ["ant", "bee"])
    (root / "val/ant/1.png").write_bytes(b"")
    assert main(["features", net, "--data", "imagefolder", "--root", str(root), "--out", str(out)]) == 1
    with np.load(out) as found:
        assert found["labels"].tolist() == [0, 0, 1, 1, 1]
        assert found["names"].tolist()[:2] == ["val/ant/0.png", "val/ant/2.png"]
        assert found["pooled"].shape == (5, 64)
    assert capsys.readouterr().err == f"{str(root / 'val/ant/1.png')!r}: is empty\n"


def test_the_noise_of_random_on_a_data_set_is_that_of_its_evaluation(tmp_path: Path) -> None:
    run, out = trained("random"), tmp_path / "found.npz"
    assert main(["features", str(run), "--data", "digits", "--out", str(out)]) == 0
    from sqzlab.inference.checkpoint import open_network
    from sqzlab.inference.evaluate import evaluate
    from sqzlab.inference.validation import open_validation

    net = open_network(str(run))
    found = evaluate(net, open_validation(net), bad=pytest.fail)
    classifier = net.model.get_submodule("fc")
    weight, bias = (value.detach().numpy() for value in (classifier.weight, classifier.bias))
    with np.load(out) as kept:
        logits = kept["pooled"] @ weight.T + bias  # type: ignore[operator]
    assert (logits.argmax(1) == found.predicted).mean() > 0.99


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["a.png", "--out", "found.csv"], "--out 'found.csv': valid: a file that ends in .npz"),
        (["a.png", "--out", "absent/found.npz"], "--out 'absent/found.npz': there is no folder 'absent'"),
        (["--out", "found.npz"], "valid: images and folders, or --data NAME, and not both"),
        (
            ["a.png", "--data", "digits", "--out", "found.npz"],
            "valid: images and folders, or --data NAME, and not both",
        ),
        (["absent.png", "--out", "found.npz"], "none of the images can be used; nothing is written"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, words: list[str], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["features", str(trained()), *words]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == line
    assert list(tmp_path.iterdir()) == []
