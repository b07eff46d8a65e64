"""Files of weights: round trips, what is in them, and networks that they are not of."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from refused_files import told
from torch import nn

from sqzlab import catalog
from sqzlab.config import ModelConfig
from sqzlab.errors import ConfigError
from sqzlab.networks.files import (
    FORMAT,
    SUFFIXES,
    load_weights,
    read_network,
    read_weights,
    save_network,
    save_safetensors,
    save_zip,
)
from sqzlab.networks.resnet import build
from sqzlab.resolving import model_config

MEAN, STD = (0.5, 0.25, 0.125), (0.1, 0.2, 0.3)
NAMES = ("cat", "dog", "a bird, or two")
CONFIG = model_config(backbone="resnet18", squeeze="RG", num_classes=3, image_size=32, stem="small", width=0.25)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return build(CONFIG, seed=4)


@pytest.fixture(params=SUFFIXES)
def saved(network: nn.Module, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / f"network{request.param}"
    save_network(path, network, CONFIG, mean=MEAN, std=STD, class_names=NAMES)
    return path


# ---- round trips -------------------------------------------------------------------------------


def test_a_network_comes_back_whole(saved: Path, network: nn.Module) -> None:
    found = read_network(saved)
    assert (found.config, found.mean, found.std, found.class_names) == (CONFIG, MEAN, STD, NAMES)
    assert found.weights.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert found.weights[name].dtype == tensor.dtype
        assert torch.equal(found.weights[name], tensor)


@pytest.mark.parametrize("squeeze", catalog.SQUEEZES)
def test_a_network_with_any_block_comes_back_whole(tmp_path: Path, squeeze: str) -> None:
    options: dict[str, Any] = {"reduction": 4} if "reduction" in catalog.SQUEEZES[squeeze].arguments else {}
    config = model_config(backbone="resnet18", squeeze=squeeze, stem="small", image_size=56, width=0.125, **options)
    model = build(config, seed=4)
    save_network(tmp_path / "a.safetensors", model, config, mean=MEAN, std=STD, class_names=None)
    found, weights = read_network(tmp_path / "a.safetensors"), model.state_dict()
    assert (found.config, found.weights.keys()) == (config, weights.keys())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in found.weights.items())


def test_a_network_may_have_no_class_names(network: nn.Module, tmp_path: Path) -> None:
    save_network(tmp_path / "a.safetensors", network, CONFIG, mean=MEAN, std=STD, class_names=None)
    assert read_network(tmp_path / "a.safetensors").class_names is None


def test_weights_in_channels_last_are_saved_as_any_others(saved: Path, network: nn.Module) -> None:
    other = saved.with_name(f"other{saved.suffix}")
    model = build(CONFIG, seed=4).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_network(other, model, CONFIG, mean=MEAN, std=STD, class_names=NAMES)
    found = read_weights(saved)
    assert all(torch.equal(tensor, found[name]) for name, tensor in read_weights(other).items())


def test_the_same_network_makes_the_same_bytes(saved: Path, network: nn.Module, tmp_path: Path) -> None:
    again = tmp_path / "again" / saved.name  # torch's zip holds its own file name
    save_network(again, network, CONFIG, mean=MEAN, std=STD, class_names=NAMES)
    assert again.read_bytes() == saved.read_bytes()


def test_safetensors_of_ours_are_read_by_the_library_itself(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_network(path, network, CONFIG, mean=MEAN, std=STD, class_names=NAMES)
    found = safetensors.torch.load_file(path)
    assert all(torch.equal(tensor, found[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "weights"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_weights_are_found_under_what_training_scripts_put_around_them(
    tmp_path: Path, wrapper: str | None, prefix: str
) -> None:
    weights = {f"{prefix}fc.weight": torch.ones(2, 3), f"{prefix}fc.bias": torch.zeros(2)}
    torch.save(weights if wrapper is None else {"epoch": 3, wrapper: weights}, tmp_path / "a.pth.tar")
    assert list(read_weights(tmp_path / "a.pth.tar")) == ["fc.weight", "fc.bias"]


def test_files_of_torch_before_its_zips_are_read(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(5)}, tmp_path / "a.pkl", _use_new_zipfile_serialization=False)
    assert torch.equal(read_weights(tmp_path / "a.pkl")["a"], torch.arange(5))


def test_settings_in_a_namespace_beside_the_weights_do_no_harm(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}, "args": argparse.Namespace(lr=0.1)}, tmp_path / "a.pt")
    assert list(read_weights(tmp_path / "a.pt")) == ["a"]


# ---- metadata ----------------------------------------------------------------------------------


def metadata(**changed: Any) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "model": CONFIG.model_dump(mode="json"),
        "mean": [0.5, 0.5, 0.5],
        "std": [0.1, 0.1, 0.1],
        "class_names": None,
        **changed,
    }


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"format": 2}, "is of format 2; valid with this version: 1"),
        ({"model": None}, "does not know: model"),
        ({"model": CONFIG.model_dump() | {"backbone": "vgg16"}}, "does not know: backbone"),
        ({"model": CONFIG.model_dump() | {"depth": 3}}, "does not know: depth"),
        ({"model": CONFIG.model_dump() | {"image_size": 36}}, "cannot be built: model.image_size"),
        ({"mean": [0.5]}, "its mean is [0.5]; valid: three finite numbers"),
        ({"std": "none"}, "its std is 'none'"),
        ({"std": [1, 1, 0]}, "its std is [1, 1, 0]"),
        ({"mean": [0, 0, math.nan]}, "its mean is [0, 0, nan]"),
        ({"class_names": ["one"]}, "its class names are not 3 texts"),
        ({"model": CONFIG.model_dump() | {"num_classes": 2**24}}, "has 3 classes, not 16777216"),
        ({"model": CONFIG.model_dump() | {"num_classes": 10**12}}, "that this version does not know: num_classes"),
        ({"model": CONFIG.model_dump() | {"width": 8.0}}, "'conv1.weight' has shape (16, 3, 3, 3), not (512, 3, 3, 3)"),
    ],
)
def test_metadata_that_cannot_be_used_is_told(
    network: nn.Module, tmp_path: Path, changed: dict[str, Any], text: str
) -> None:
    path = tmp_path / "a.pt"
    save_zip(path, {"sqzlab": metadata(**changed), "weights": network.state_dict()})
    assert text in told(path, read_network)


@pytest.mark.parametrize("text", ["not json", "3", "[" * 100_000])
def test_metadata_of_safetensors_that_is_no_mapping_is_told(network: nn.Module, tmp_path: Path, text: str) -> None:
    save_safetensors(tmp_path / "a.safetensors", network.state_dict(), {"sqzlab": text})
    assert "its metadata is" in told(tmp_path / "a.safetensors", read_network)


def test_a_configuration_from_before_a_key_existed_is_completed(network: nn.Module, tmp_path: Path) -> None:
    older = {name: value for name, value in CONFIG.model_dump().items() if name not in ("gate", "placement", "stages")}
    save_zip(tmp_path / "a.pt", {"sqzlab": metadata(model=older), "weights": network.state_dict()})
    assert read_network(tmp_path / "a.pt").config == CONFIG


def test_weights_alone_are_no_network(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    assert "holds weights, but not of which network" in told(tmp_path / "a.pt", read_network)


# ---- writing -----------------------------------------------------------------------------------


def test_a_wrong_number_of_class_names_writes_nothing(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 class names for a network of 3 classes"):
        save_network(tmp_path / "a.pt", network, CONFIG, mean=MEAN, std=STD, class_names=NAMES[:2])
    assert not list(tmp_path.iterdir())


def test_a_name_that_says_no_format_writes_nothing(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in '.bin'; valid: .safetensors, .pt, .pth"):
        save_network(tmp_path / "a.bin", network, CONFIG, mean=MEAN, std=STD, class_names=None)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_file_that_was_there(saved: Path, network: nn.Module) -> None:
    before = saved.read_bytes()
    resource = pytest.importorskip("resource", reason="limits on files are those of POSIX")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_network(saved, network, CONFIG, mean=MEAN, std=STD, class_names=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


# ---- into a network ----------------------------------------------------------------------------


def refused(config: ModelConfig, weights: dict[str, torch.Tensor]) -> str:
    model = build(config, seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ConfigError) as caught:
        load_weights(model, weights, Path("a.pt"), config)
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    return str(caught.value)


def test_weights_of_the_network_are_loaded(network: nn.Module) -> None:
    model = build(CONFIG, seed=1)
    weights = network.state_dict()
    load_weights(model, weights, Path("a.pt"), CONFIG)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_another_number_of_classes_is_told_as_one(network: nn.Module) -> None:
    config = CONFIG.model_copy(update={"num_classes": 5})
    assert refused(config, network.state_dict()).startswith("a.pt: has 3 classes, not 5; valid: weights of resnet18 ")


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"backbone": "resnet34"}, "has no 'layer1.2.conv1.weight'"),
        ({"squeeze": "gap"}, "has 'layer1.0.se.squeeze.fusion.weight', which that network has not"),
        ({"width": 0.5}, "'conv1.weight' has shape (16, 3, 3, 3), not (32, 3, 3, 3)"),
        ({"reduction": 8}, "'layer1.0.se.excitation.fc1.weight' has shape (1, 16), not (2, 16)"),
    ],
)
def test_weights_of_another_network_are_told_by_the_first_that_differs(
    network: nn.Module, changed: dict[str, Any], text: str
) -> None:
    told = refused(CONFIG.model_copy(update=changed), network.state_dict())
    assert told.startswith("a.pt: is not of resnet")
    assert text in told
