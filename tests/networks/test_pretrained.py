"""Trained weights in networks with other blocks: what is computed before the first step."""

from __future__ import annotations

import math
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from sqzlab import catalog, create_model
from sqzlab.config import ModelConfig
from sqzlab.errors import ConfigError
from sqzlab.networks.files import save_network
from sqzlab.networks.pretrained import STARTS, Loaded, PretrainedWarning, load_pretrained
from sqzlab.networks.random_squeeze import set_random_keys
from sqzlab.networks.resnet import build
from sqzlab.resolving import model_config

SQUEEZES = tuple(name for name in catalog.SQUEEZES if name != "baseline")
SMALL: dict[str, Any] = {"num_classes": 10, "image_size": 32, "stem": "small", "width": 0.25}


def lively(model: nn.Module) -> nn.Module:
    """With weights and statistics that leave no layer without effect, to be evaluated."""
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.weight, 0.3, 0.9, generator)
            nn.init.uniform_(module.bias, -0.2, 0.2, generator)
            nn.init.uniform_(module.running_mean, -0.2, 0.2, generator)
            nn.init.uniform_(module.running_var, 0.5, 1.5, generator)
    return model.eval()


@cache
def trained(backbone: str, stem: str) -> nn.Module:
    """What was loaded: a network without blocks."""
    return lively(create_model(backbone, **SMALL | {"stem": stem}, seed=3))


def loaded(tmp_path: Path, **options: Any) -> tuple[nn.Module, Loaded, nn.Module]:
    """A network with blocks over one without, which comes last; both to be evaluated."""
    options = SMALL | {"backbone": "resnet18"} | options
    if options["squeeze"] == "dct":  # its frequencies need maps of 7x7 and more
        options |= {"image_size": 56}
    if "reduction" in catalog.SQUEEZES[options["squeeze"]].arguments:
        options.setdefault("reduction", 4)
    config = model_config(**options)
    before = trained(config.backbone, config.stem)
    torch.save(before.state_dict(), tmp_path / "trained.pth")
    model = build(config, seed=4).eval()
    found = load_pretrained(model, config, tmp_path / "trained.pth", warn=False)
    set_random_keys(model, seed=1, split=1, epoch=0, image_index=torch.arange(2))
    return model, found, before


def images(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


# ---- near the identity -------------------------------------------------------------------------


@pytest.mark.parametrize("squeeze", SQUEEZES)
@torch.no_grad()
def test_every_arm_computes_what_was_loaded_bit_for_bit(tmp_path: Path, squeeze: str) -> None:
    model, found, before = loaded(tmp_path, squeeze=squeeze)
    x = images(56 if squeeze == "dct" else 32)
    assert torch.equal(model(x), before(x))
    assert found.notes == (f"8 blocks {squeeze!r}, which start as the identity",)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"placement": "pre"}, "16 blocks 'gap', which start as the identity"),
        ({"placement": "3x3"}, "16 blocks 'gap', which start as the identity"),
        ({"placement": "pre", "squeeze": "CBAM"}, "16 blocks 'CBAM', which start as the identity"),
        ({"gate": "relu", "fc_bias": True}, "16 blocks 'gap', which start as the identity"),
        ({"gate": "relu", "fc_bias": True, "placement": "post"}, "16 blocks 'gap', which start as the identity"),
        ({"placement": "identity", "squeeze": "GCT"}, "16 blocks 'GCT', which start as the identity"),
        ({"stages": "conv3+conv5", "stride": "v1"}, "7 blocks 'gap', which start as the identity"),
        ({"squeeze": "no_squeeze", "fc_bias": True}, "16 blocks 'no_squeeze', which start as the identity"),
    ],
)
@torch.no_grad()
def test_placements_and_gates_that_can_compute_what_was_loaded_bit_for_bit(
    tmp_path: Path, options: dict[str, Any], text: str
) -> None:
    model, found, before = loaded(tmp_path, **{"backbone": "resnet50", "squeeze": "gap"} | options)
    x = images(32)
    if options.get("stride") == "v1":
        before = build(model_config(backbone="resnet50", stride="v1", **SMALL)).eval()
        before.load_state_dict(trained("resnet50", "small").state_dict())
    assert torch.equal(model(x), before(x))
    assert found.notes == (text,)


@torch.no_grad()
def test_a_tanh_gate_is_the_identity_but_for_rounding(tmp_path: Path) -> None:
    model, _, before = loaded(tmp_path, squeeze="gap", gate="tanh", fc_bias=True)
    torch.testing.assert_close(model(images(32)), before(images(32)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "told", "factor"),
    [
        ({"placement": "post"}, "8 blocks 'gap', which start as a factor of 0.5 each", 0.5),
        ({"placement": "post", "fc_bias": True}, "start as a factor of 0.982 each", 1 / (1 + math.exp(-4))),
        ({"placement": "post", "fc_bias": True, "gate": "tanh"}, "start as a factor of 0.964 each", math.tanh(2)),
        ({"placement": "post", "squeeze": "CBAM"}, "start as a factor of 0.964 each", 1 / (1 + math.exp(-4)) ** 2),
        ({"placement": "post", "squeeze": "CBAM", "fc_bias": False}, "factor of 0.491 each", 0.5 / (1 + math.exp(-4))),
        ({"placement": "post", "squeeze": "SRM"}, "start as a factor of 0.982 each", 1 / (1 + math.exp(-4))),
        ({"placement": "post", "squeeze": "ECA"}, "start as a factor of 0.5 each", 0.5),
        ({"placement": "post", "squeeze": "GSoP"}, "start as a factor of 0.982 each", 1 / (1 + math.exp(-4))),
        ({"placement": "post", "squeeze": "GC"}, "start as the identity", 1.0),
        ({"placement": "identity"}, "of which 5 start as a factor of 0.5 each and 3 start as the identity", 0.5),
    ],
)
@torch.no_grad()
def test_where_nothing_takes_a_factor_back_the_blocks_are_that_factor(
    tmp_path: Path, options: dict[str, Any], told: str, factor: float
) -> None:
    model, found, _ = loaded(tmp_path, **{"squeeze": "gap"} | options)
    assert told in found.notes[0]
    block = model.get_submodule("layer1.1.se")
    x = torch.randn(2, 16, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(block(x), factor * x)


@pytest.mark.parametrize("gate", ["relu", "tanh"])
def test_gates_that_nothing_can_hold_at_one_are_left_as_drawn(tmp_path: Path, gate: str) -> None:
    model, found, _ = loaded(tmp_path, squeeze="gap", gate=gate)
    assert found.notes == (
        "8 blocks 'gap', which start as drawn, far from the identity (no bias can hold their gate at 1)",
    )
    config = model_config(backbone="resnet18", squeeze="gap", gate=gate, reduction=4, **SMALL)
    drawn = build(config, seed=4).get_parameter("layer1.0.se.excitation.fc2.weight")
    assert torch.equal(model.get_parameter("layer1.0.se.excitation.fc2.weight"), drawn)


def test_blocks_that_start_as_the_identity_learn_from_the_first_step(tmp_path: Path) -> None:
    for squeeze in ("gap", "SP", "ECA", "GSoP", "CBAM"):
        model, _, _ = loaded(tmp_path, squeeze=squeeze)
        model.train()(images(32)).square().sum().backward()
        last = next(iter(STARTS[_key(squeeze)].constants))
        gradient = model.get_parameter(f"layer2.0.se.{last}").grad
        assert gradient is not None
        assert gradient.abs().max() > 0


def _key(squeeze: str) -> tuple[str, bool | None]:
    config = model_config(backbone="resnet18", squeeze=squeeze)
    return config.gate or squeeze, config.fc_bias


def test_every_block_has_a_start_and_every_start_a_block() -> None:
    named = {_key(squeeze) for squeeze in SQUEEZES}
    gates = {(gate, bias) for gate in catalog.GATES for bias in (True, False)}
    assert set(STARTS) == named | gates | {("CBAM", False)}


# ---- what is loaded ----------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@torch.no_grad()
def test_torchvisions_networks_start_arms_of_ours(tmp_path: Path, backbone: str) -> None:
    theirs = lively(torchvision.models.get_model(backbone, num_classes=10))
    torch.save({"model": theirs.state_dict()}, tmp_path / "a.pth")
    with pytest.warns(PretrainedWarning, match="a.pth: not loaded: .* blocks 'gap', which start as the identity"):
        model = create_model(backbone, "gap", num_classes=10, image_size=64, seed=1, pretrained=str(tmp_path / "a.pth"))
    assert torch.equal(model.eval()(images(64)), theirs(images(64)))


def test_the_same_blocks_are_loaded_whole_without_a_warning(tmp_path: Path) -> None:
    config = model_config(backbone="resnet18", squeeze="SP", **SMALL)
    before, model = lively(build(config, seed=1)), build(config, seed=2)
    save_network(tmp_path / "a.safetensors", before, config, mean=(0, 0, 0), std=(1, 1, 1), class_names=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_pretrained(model, config, tmp_path / "a.safetensors")
    weights = before.state_dict()
    assert found == Loaded(tuple(weights), (), (), ())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_another_number_of_classes_leaves_the_classifier_as_drawn(tmp_path: Path) -> None:
    torch.save(trained("resnet18", "small").state_dict(), tmp_path / "a.pt")
    config = model_config(backbone="resnet18", **SMALL | {"num_classes": 3})
    model = build(config, seed=4)
    with pytest.warns(PretrainedWarning, match=r"a.pt: not loaded: the classifier \(10 classes, not 3\)$"):
        found = load_pretrained(model, config, tmp_path / "a.pt")
    assert found.missing == ("fc.weight", "fc.bias")
    assert torch.equal(model.get_parameter("fc.weight"), build(config, seed=4).get_parameter("fc.weight"))


def test_other_blocks_of_our_files_are_left_out_though_their_shapes_fit(tmp_path: Path) -> None:
    gap, gmp = (model_config(backbone="resnet18", squeeze=squeeze, **SMALL) for squeeze in ("gap", "gmp"))
    save_network(tmp_path / "a.pt", build(gap, seed=1), gap, mean=(0, 0, 0), std=(1, 1, 1), class_names=None)
    found = load_pretrained(build(gmp, seed=2), gmp, tmp_path / "a.pt", warn=False)
    assert len(found.unexpected) == len(found.missing) == 16
    assert found.notes[-1] == "16 tensors of its own blocks"


def test_blocks_in_more_stages_keep_those_that_the_file_has(tmp_path: Path) -> None:
    some = model_config(backbone="resnet18", squeeze="gap", stages="conv3", **SMALL)
    every = model_config(backbone="resnet18", squeeze="gap", **SMALL)
    before, model = build(some, seed=1), build(every, seed=2)
    save_network(tmp_path / "a.pt", before, some, mean=(0, 0, 0), std=(1, 1, 1), class_names=None)
    found = load_pretrained(model, every, tmp_path / "a.pt", warn=False)
    name = "layer2.1.se.excitation.fc2.weight"
    assert name in found.loaded
    assert torch.equal(model.get_parameter(name), before.get_parameter(name))
    assert found.notes == ("6 blocks 'gap', which start as the identity",)


def test_a_state_of_old_torch_without_counts_of_batches_is_loaded(tmp_path: Path) -> None:
    state = trained("resnet18", "small").state_dict()
    torch.save({name: tensor for name, tensor in state.items() if "num_batches" not in name}, tmp_path / "a.pt")
    config = model_config(backbone="resnet18", **SMALL)
    assert load_pretrained(build(config, seed=1), config, tmp_path / "a.pt").missing == ()


# ---- what is refused ---------------------------------------------------------------------------


def refused(path: Path, config: ModelConfig) -> str:
    """The one line; the network stays as it was."""
    model = build(config, seed=4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ConfigError) as caught:
        load_pretrained(model, config, path)
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert len(caught.value.faults) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"backbone": "resnet34"}, "is of another backbone: it has no 'layer1.2.conv1.weight'"),
        ({"backbone": "resnet50"}, "is of another backbone: 'layer1.0.conv1.weight' has shape (16, 16, 3, 3), not"),
        ({"stem": "imagenet", "image_size": 64}, "'conv1.weight' has shape (16, 3, 3, 3), not (16, 3, 7, 7)"),
        ({"width": 0.5}, "'conv1.weight' has shape (16, 3, 3, 3), not (32, 3, 3, 3)"),
    ],
)
def test_another_backbone_is_refused(tmp_path: Path, options: dict[str, Any], text: str) -> None:
    torch.save(trained("resnet18", "small").state_dict(), tmp_path / "a.pt")
    assert text in refused(tmp_path / "a.pt", model_config(**{"backbone": "resnet18"} | SMALL | options))


def test_a_deeper_backbone_is_refused(tmp_path: Path) -> None:
    torch.save(trained("resnet34", "small").state_dict(), tmp_path / "a.pt")
    text = refused(tmp_path / "a.pt", model_config(backbone="resnet18", squeeze="gap", **SMALL))
    assert "it has 'layer1.2.conv1.weight', which the network has not" in text


@pytest.mark.parametrize(
    ("name", "shape", "text"),
    [
        ("fc.bias", (3,), "'fc.bias' has shape (3,), not (10,)"),
        ("fc.bias", (), "'fc.bias' has shape (), not (10,)"),
        ("fc.weight", (), "'fc.weight' has shape (), not (128,)"),
    ],
)
def test_a_classifier_that_is_none_is_refused(tmp_path: Path, name: str, shape: tuple[int, ...], text: str) -> None:
    torch.save(trained("resnet18", "small").state_dict() | {name: torch.ones(shape)}, tmp_path / "a.pt")
    assert text in refused(tmp_path / "a.pt", model_config(backbone="resnet18", **SMALL))


def test_a_stride_that_leaves_no_trace_in_shapes_is_refused_in_files_of_ours(tmp_path: Path) -> None:
    v1, config = (model_config(backbone="resnet50", stride=stride, **SMALL) for stride in ("v1", "v1.5"))
    save_network(tmp_path / "a.pt", build(v1, seed=1), v1, mean=(0, 0, 0), std=(1, 1, 1), class_names=None)
    assert "is of a network with stride 'v1'; valid: 'v1.5'" in refused(tmp_path / "a.pt", config)


def test_names_of_other_projects_are_sent_to_import(tmp_path: Path) -> None:
    state = {f"backbone.{name}": tensor for name, tensor in trained("resnet18", "small").state_dict().items()}
    torch.save(state, tmp_path / "a.pt")
    text = refused(tmp_path / "a.pt", model_config(backbone="resnet18", **SMALL))
    assert "its names are those of ResNet and SEResNet of open-mmlab/mmpretrain; valid: torchvision's or ours" in text
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    assert "its names are unknown" in refused(tmp_path / "a.pt", model_config(backbone="resnet18", **SMALL))
