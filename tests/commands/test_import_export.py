"""`python -m sqzlab import` and `export`, in one process."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from sqzlab.commands.cli import main
from sqzlab.commands.exporting import FORMATS
from sqzlab.config import ModelConfig
from sqzlab.data.cifar import STATISTICS as CIFAR
from sqzlab.data.source import IMAGENET_MEAN, IMAGENET_STD
from sqzlab.networks.files import read_network, read_weights, save_network, save_zip
from sqzlab.networks.resnet import build
from sqzlab.networks.sources import SOURCES
from sqzlab.resolving import model_config

SMALL = model_config(
    backbone="resnet18", squeeze="gap", reduction=4, num_classes=3, image_size=32, stem="small", width=0.125
)
NAMES = ("cat", "dog", "bird")


def small_of_moskomule() -> dict[str, Tensor]:
    weights = build(SMALL, seed=1).state_dict()
    layers = {"excitation.fc1": "fc.0", "excitation.fc2": "fc.2"}
    for ours, theirs in layers.items():
        weights = {name.replace(ours, theirs): tensor for name, tensor in weights.items()}
    return weights


@pytest.fixture
def moskomule(tmp_path: Path) -> Path:
    torch.save({"model": small_of_moskomule(), "epoch": 3}, tmp_path / "theirs.pth.tar")
    return tmp_path / "theirs.pth.tar"


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return saved(tmp_path / "ours.safetensors", SMALL)


def saved(path: Path, config: ModelConfig) -> Path:
    names = NAMES if config.num_classes == 3 else None
    model = build(config, seed=1)
    save_network(path, model, config, mean=IMAGENET_MEAN, std=IMAGENET_STD, class_names=names)
    return path


def said(capsys: pytest.CaptureFixture[str], code: int, *words: object) -> str:
    """What the command prints: on stdout where all went well, on stderr in one line where not."""
    assert main([str(word) for word in words]) == code
    out, err = capsys.readouterr()
    assert (err if code == 0 else out) == ""
    if code:
        assert err.count("\n") == 1
    return out if code == 0 else err


# ---- import ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_checkpoint_of_another_project_becomes_one_of_ours(
    tmp_path: Path, moskomule: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\nbird\n")
    out = tmp_path / "made" / f"ours{suffix}"
    text = said(capsys, 0, "import", moskomule, "--out", out, "--classes", tmp_path / "names.txt")
    assert text == (
        f"{moskomule}: SENet of moskomule/senet.pytorch\n"
        f"{out}: resnet18, squeeze 'gap', reduction 4, fc_bias false, stem small, width 0.125, "
        "image_size 32\n"
        "181,387 parameters, 3 classes, images as those of imagenet\n"
    )
    found = read_network(out)
    assert (found.config, found.class_names, found.mean, found.std) == (SMALL, NAMES, IMAGENET_MEAN, IMAGENET_STD)
    weights = build(SMALL, seed=1).state_dict()
    assert all(torch.equal(tensor, found.weights[name]) for name, tensor in weights.items())


def test_what_a_checkpoint_does_not_say_can_be_said(
    tmp_path: Path, moskomule: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {name.replace("se.fc.", "se.excitation."): tensor for name, tensor in small_of_moskomule().items()}
    torch.save(weights, tmp_path / "theirs.pt")
    out = tmp_path / "ours.pt"
    given = ("--from", "ssenet", "--squeeze", "std", "--data", "cifar10", "--image-size", 64)
    said(capsys, 0, "import", tmp_path / "theirs.pt", "--out", out, *given)
    found = read_network(out)
    assert (found.config.squeeze, found.config.image_size) == ("std", 64)
    assert (found.mean, found.std) == CIFAR["cifar10"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--from", "timmm"], "source: unknown name 'timmm'; did you mean 'timm'? valid: rgse, spse"),
        (["--squeeze", "RG"], "squeeze: 'RG' is not what its blocks are; valid: gap"),
        (["--image-size", "0"], "image_size: 0 is out of range"),
        (["--classes", "two.txt"], "'two.txt': has 2 names; valid: 3, as the network has classes"),
        (["--classes", "hole.txt"], "'hole.txt': line 2 is empty; valid: a name a line"),
        (["--classes", "bytes.txt"], "'bytes.txt': is no UTF-8 text file"),
        (["--classes", "none.txt"], "'none.txt': there is no such file"),
        (["--out", "ours.bin"], "'ours.bin' ends in '.bin'; valid: .safetensors, .pt, .pth"),
    ],
)
def test_a_wrong_word_of_import_is_told_in_one_line_and_nothing_is_written(
    tmp_path: Path,
    moskomule: Path,
    words: list[str],
    text: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.txt").write_text("cat\ndog\n")
    Path("hole.txt").write_text("cat\n\nbird\n")
    Path("bytes.txt").write_bytes(b"\xff\xfe\xfa")
    assert text in said(capsys, 2, "import", moskomule, "--out", "ours.pt", *words)
    assert not list(tmp_path.glob("ours*"))


def test_a_checkpoint_of_a_network_that_is_none_of_ours_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = small_of_moskomule()
    weights["layer1.0.bam.weight"] = torch.ones(3)
    torch.save(weights, tmp_path / "theirs.pt")
    text = said(capsys, 2, "import", tmp_path / "theirs.pt", "--out", tmp_path / "ours.pt")
    assert "is not of resnet18 with squeeze 'gap': has 'layer1.0.bam.weight', which that network has not" in text


def test_a_file_of_ours_is_not_imported_again(tmp_path: Path, ours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is a file of ours already" in said(capsys, 2, "import", ours, "--out", tmp_path / "again.pt")


@pytest.mark.parametrize("command", ["import", "export"])
def test_a_file_is_never_written_over_itself(ours: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = ours.read_bytes()
    text = said(capsys, 2, command, ours, "--out", ours.parent / ".." / ours.parent.name / ours.name)
    assert "is the file to be read; valid: another name" in text
    assert ours.read_bytes() == before


def test_a_damaged_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs.pt").write_bytes(b"PK\x03\x04 and no more")
    text = said(capsys, 2, "import", tmp_path / "theirs.pt", "--out", tmp_path / "ours.pt")
    assert text.startswith(f"{tmp_path / 'theirs.pt'}: is damaged or cut off (file is not a zip file); valid:")


# ---- export ------------------------------------------------------------------------------------


def test_a_network_goes_from_one_format_to_the_other_unchanged(
    tmp_path: Path, ours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for source, out in ((ours, tmp_path / "a.pt"), (tmp_path / "a.pt", tmp_path / "b.safetensors")):
        assert said(capsys, 0, "export", source, "--out", out).startswith(f"{out}: resnet18, squeeze 'gap', ")
    assert (tmp_path / "b.safetensors").read_bytes() == ours.read_bytes()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@torch.no_grad()
def test_timm_takes_what_is_exported_for_it(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = model_config(backbone="resnet18", squeeze="gap", num_classes=5)
    path, out = saved(tmp_path / "ours.safetensors", config), tmp_path / f"timm{suffix}"
    text = said(capsys, 0, "export", path, "--out", out, "--format", "timm")
    assert text == f"{out}: the state dict of timm.create_model('seresnet18', num_classes=5)\n"
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    wanted = build(config, seed=1).eval()(x)
    theirs = timm.create_model("seresnet18", num_classes=5, checkpoint_path=str(out)).eval()
    torch.testing.assert_close(theirs(x), wanted, rtol=1e-5, atol=1e-5 * wanted.abs().max().item())
    again = timm.create_model("seresnet18", num_classes=5)
    again.load_state_dict(read_weights(out), strict=True)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--format", "timm"], "timm has no such network: width 0.125; valid: 1"),
        (["--format", "onnx"], "--format: unknown name 'onnx'; valid: safetensors, pt, timm"),
        (["--format", "safetensors", "--out", "a.pt"], "'a.pt' ends in '.pt'; valid: .safetensors"),
        (["--format", "pt", "--out", "a.safetensors"], "'a.safetensors' ends in '.safetensors'; valid: .pt, .pth"),
    ],
)
def test_a_wrong_word_of_export_is_told_in_one_line_and_nothing_is_written(
    tmp_path: Path,
    ours: Path,
    words: list[str],
    text: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert text in said(capsys, 2, "export", ours, "--out", "a.pth", *words)
    assert list(tmp_path.iterdir()) == [ours]


def test_weights_alone_are_sent_to_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_zip(tmp_path / "a.pt", {"weights": build(SMALL, seed=1).state_dict()})
    text = said(capsys, 2, "export", tmp_path / "a.pt", "--out", tmp_path / "b.pt")
    assert "holds weights, but not of which network; valid: a file of `python -m sqzlab import`" in text


@pytest.mark.parametrize(("command", "names"), [("import", SOURCES), ("export", FORMATS)])
def test_the_help_names_every_source_and_format(
    command: str, names: Iterable[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []
