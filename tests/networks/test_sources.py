"""Other projects' checkpoints: timm's own networks, and the rest by the names that their code gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from sqzlab.config import ModelConfig
from sqzlab.errors import ConfigError
from sqzlab.networks.files import load_weights
from sqzlab.networks.resnet import build
from sqzlab.networks.sources import SOURCES, for_timm, translate
from sqzlab.resolving import model_config

HERE = Path("a.pt")
TIMM = {
    "resnet18": "torchvision",
    "seresnet18": "timm",
    "seresnet50": "timm",
    "seresnext50_32x4d": "timm",
    "legacy_seresnet50": "timm_legacy",
    "legacy_seresnext50_32x4d": "timm_legacy",
}


def lively(model: nn.Module) -> nn.Module:
    """With weights and statistics that leave no layer without effect, to be evaluated."""
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.0),
                (module.bias, -0.2, 0.2),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
            ):
                assert tensor is not None
                nn.init.uniform_(tensor, low, high, generator)
    return model.eval()


def images(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def ours(weights: dict[str, Tensor], **given: Any) -> tuple[nn.Module, ModelConfig]:
    """Our network of another project's weights, to be evaluated."""
    found = translate(weights, HERE, **given)
    model = build(found.config, seed=1)
    load_weights(model, found.weights, HERE, found.config)
    return model.eval(), found.config


def close(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5 * right.abs().max().item())


# ---- timm and torchvision ----------------------------------------------------------------------


@pytest.mark.parametrize("name", TIMM)
@torch.no_grad()
def test_networks_of_timm_compute_the_same_here_and_go_back_unchanged(name: str) -> None:
    torch.manual_seed(2)
    theirs = lively(timm.create_model(name, num_classes=7))
    state = theirs.state_dict()
    assert translate(state, HERE).source == TIMM[name]
    model, config = ours(state, image_size=64)
    close(model(images(64)), theirs(images(64)))
    again, weights = for_timm(config, model.state_dict())
    assert again == name
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[key], state[key]) for key in state)


@torch.no_grad()
def test_timm_eca_networks_compute_the_same_here() -> None:
    torch.manual_seed(2)
    arguments = {"block": timm.models.resnet.BasicBlock, "layers": [2, 2, 2, 2], "num_classes": 7}
    theirs = lively(timm.models.resnet.ResNet(**arguments, block_args={"attn_layer": "eca"}))
    model, config = ours(theirs.state_dict(), image_size=64)
    assert config.squeeze == "ECA"
    close(model(images(64)), theirs(images(64)))


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
@torch.no_grad()
def test_networks_of_torchvision_compute_the_same_here_bit_for_bit(name: str) -> None:
    theirs = lively(torchvision.models.get_model(name, num_classes=7))
    model, config = ours(theirs.state_dict(), image_size=64)
    assert (config.backbone, config.squeeze, config.num_classes) == (name, "baseline", 7)
    assert torch.equal(model(images(64)), theirs(images(64)))


def test_timms_legacy_basic_blocks_are_refused_with_the_reason() -> None:
    with torch.device("meta"):
        state = timm.create_model("legacy_seresnet18").state_dict()
    with pytest.raises(
        ConfigError, match=r"^a.pt: resnet18: timm's legacy basic blocks have a ReLU before the squeeze"
    ):
        translate(state, HERE)


@pytest.mark.parametrize("name", ["seresnet152d", "wide_resnet50_2", "resnest14d", "resnet26", "vgg11", "ecaresnet50d"])
def test_networks_of_timm_that_are_none_of_ours_are_refused_in_one_line(name: str) -> None:
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    with pytest.raises(ConfigError) as caught:
        translate(state, HERE)
    assert str(caught.value).startswith("a.pt: ")
    assert len(caught.value.faults) == 1


# ---- the rest by their names -------------------------------------------------------------------

STEM = {"conv1": "conv1", "bn1": "bn1", "fc": "fc"}
RESIDUAL = {name: name for name in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample.0", "downsample.1")}
RELEASED = {
    "conv1": "conv_conv1",
    "bn1": "bn_bn1",
    "conv2": "conv_conv2",
    "bn2": "bn_bn2",
    "conv3": "conv_conv3",
    "bn3": "bn_bn3",
    "downsample.0": "shortcut.shortcut_conv",
    "downsample.1": "shortcut.shortcut_bn",
    "se.excitation.fc1": "fc_reduction",
    "se.excitation.fc2": "fc_extention",
}
LINEAR = {"se.excitation.fc1": "se.fc.0", "se.excitation.fc2": "se.fc.2"}
THEIRS: dict[str, dict[str, Any]] = {
    "moskomule": {"names": RESIDUAL | LINEAR, "squeeze": "gap", "fc_bias": False},
    "ssenet": {
        "names": RESIDUAL | {"se.excitation.fc1": "se.excitation.0", "se.excitation.fc2": "se.excitation.2"},
        "squeeze": "gapXstd",
        "fc_bias": False,
    },
    "mmpretrain": {
        "names": RESIDUAL | {f"se.excitation.fc{i}": f"se_layer.conv{i}.conv" for i in (1, 2)},
        "stem": {"conv1": "backbone.conv1", "bn1": "backbone.bn1", "fc": "head.fc"},
        "layer": "backbone.layer{stage}.{index}",
        "convolutions": True,
        "squeeze": "gap",
        "fc_bias": True,
    },
    "cbam": {
        "names": RESIDUAL
        | {
            "se.excitation.fc1": "cbam.ChannelGate.mlp.1",
            "se.excitation.fc2": "cbam.ChannelGate.mlp.3",
            "se.spatial.conv": "cbam.SpatialGate.spatial.conv",
            "se.spatial.norm": "cbam.SpatialGate.spatial.bn",
        },
        "squeeze": "CBAM",
        "fc_bias": True,
    },
    "rgse": {
        "names": RELEASED | {"se.squeeze.fusion": "fc_spatial.fc_spatial", "se.squeeze.norm": "fc_spatial.bn_spatial"},
        "layer": "layer{stage}.layer{stage}_block_{index}",
        "squeeze": "RG",
        "fc_bias": True,
    },
    "spse": {
        "names": RELEASED
        | {
            "se.squeeze.fusions.0": "fc_spatial1",
            "se.squeeze.fusions.1": "fc_spatial2",
            "se.squeeze.fusions.2": "fc_spatial4",
            "se.squeeze.norm": "fc_bn",
        },
        "layer": "layer{stage}.layer{stage}_block_{index}",
        "squeeze": "SP",
        "fc_bias": True,
    },
}
"""How each project's code names the modules of a residual block, and what it squeezes."""


def network_of(source: str, **changed: Any) -> tuple[nn.Module, ModelConfig]:
    row = THEIRS[source]
    options = {"backbone": "resnet50", "width": 0.125, "num_classes": 7, "image_size": 128, "reduction": 4} | changed
    config = model_config(squeeze=row["squeeze"], fc_bias=row["fc_bias"], **options)
    return lively(build(config, seed=3)), config


def as_named_by(source: str, model: nn.Module) -> dict[str, Tensor]:
    """The network's weights as the project's code would save them."""
    row = THEIRS[source]
    found = {}
    for name, tensor in model.state_dict().items():
        path, _, role = name.rpartition(".")
        if path in STEM:
            found[f"{row.get('stem', STEM)[path]}.{role}"] = tensor
            continue
        layer, index, module = path.split(".", 2)
        place = row.get("layer", "layer{stage}.{index}").format(stage=layer.removeprefix("layer"), index=index)
        if row.get("convolutions") and "excitation" in module and role == "weight":
            tensor = tensor[:, :, None, None]
        found[f"{place}.{row['names'][module]}.{role}"] = tensor
    return found


def test_every_source_is_tested() -> None:
    assert {*THEIRS, *TIMM.values(), "timm_eca"} == set(SOURCES)


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("moskomule", {"backbone": "resnet18"}),
        ("ssenet", {"backbone": "resnet34"}),
        ("mmpretrain", {}),
        ("cbam", {"backbone": "resnet50"}),
        ("rgse", {"backbone": "resnext50_32x4d", "width": 0.25}),
        ("spse", {"backbone": "resnet50"}),
    ],
)
@torch.no_grad()
def test_a_network_comes_back_whole_from_the_names_of_another_project(source: str, options: dict[str, Any]) -> None:
    model, config = network_of(source, **options)
    named = as_named_by(source, model)
    assert translate(named, HERE, squeeze=config.squeeze).source == source
    again, found = ours(named, squeeze=config.squeeze, image_size=128)
    assert found == config
    before = model.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in again.state_dict().items())
    assert torch.equal(again(images(128)), model(images(128)))


def test_the_names_here_are_those_that_the_projects_document() -> None:
    def names(source: str) -> set[str]:
        return set(as_named_by(source, network_of(source)[0]))

    assert {"backbone.layer1.0.se_layer.conv1.conv.weight", "backbone.bn1.running_var", "head.fc.bias"} <= names(
        "mmpretrain"
    )
    assert {"layer1.0.se.fc.0.weight", "layer4.2.se.fc.2.weight"} <= names("moskomule")
    assert {"layer1.0.cbam.ChannelGate.mlp.1.weight", "layer1.0.cbam.SpatialGate.spatial.bn.bias"} <= names("cbam")
    assert {"layer2.layer2_block_0.shortcut.shortcut_bn.weight", "layer1.layer1_block_2.fc_bn.bias"} <= names("spse")
    assert "layer3.layer3_block_5.fc_spatial.fc_spatial.weight" in names("rgse")
    assert not any(name.startswith("layer4") and "fc_spatial" in name for name in names("rgse"))


def test_a_small_stem_and_some_stages_are_seen() -> None:
    model, config = network_of("cbam", stem="small", image_size=32, stages="conv3+conv5")
    assert ours(as_named_by("cbam", model))[1] == config


def test_statistics_without_a_count_of_batches_are_those_of_old_torch() -> None:
    model, _ = network_of("cbam")
    named = {name: tensor for name, tensor in as_named_by("cbam", model).items() if "num_batches" not in name}
    again, _ = ours(named)
    assert again.get_buffer("bn1.num_batches_tracked") == 0


@pytest.mark.parametrize("rule", ["floor", "divisible8"])
@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_reduction_and_width_rule_are_found(rule: str, reduction: int) -> None:
    model, _ = network_of("moskomule", backbone="resnet18", width_rule=rule, reduction=reduction, width=0.5)
    _, found = ours(as_named_by("moskomule", model), image_size=64)
    same = reduction < 8  # then both rules make the same
    assert (found.width_rule, found.reduction) == ("floor" if same else rule, reduction)


# ---- what is refused ---------------------------------------------------------------------------


def test_a_source_that_does_not_say_what_it_squeezes_needs_to_be_told() -> None:
    named = as_named_by("ssenet", network_of("ssenet")[0])
    with pytest.raises(
        ConfigError, match="do not say what its blocks squeeze; say one of gap, gmp, std, gapXstd, random"
    ):
        translate(named, HERE)
    with pytest.raises(ConfigError, match="'gpa' is not what its blocks are; did you mean 'gmp'"):
        translate(named, HERE, squeeze="gpa")


@pytest.mark.parametrize(
    ("change", "given", "text"),
    [
        ({}, {"source": "tim"}, "source: unknown name 'tim'; did you mean 'timm'"),
        ({}, {"source": "torchvision"}, "a.pt: has blocks, which resnet and resnext of torchvision have not"),
        ({}, {"squeeze": "gmp"}, "a.pt: squeeze: 'gmp' is not what its blocks are; .*valid: gap"),
        ({"conv1.weight": None}, {}, "a.pt: is no moskomule checkpoint: it has no 'conv1.weight'"),
        ({"layer3.6.se.fc.0.weight": 1}, {}, "a.pt: its bottleneck blocks 3-4-7-3 in 1 groups, 8 to 32 channels are"),
        ({"layer2.0.se.fc.0.weight": torch.ones(3, 64)}, {}, "a.pt: its hidden units .* follow no rule"),
        (
            {"layer2.0.se.fc.0.weight": 1},
            {},
            r"a.pt: 'layer2.0.se.excitation.fc1.weight' has shape \(1,\); valid: 2 dim",
        ),
        ({"conv1.weight": torch.tensor(1.0)}, {}, r"a.pt: 'conv1.weight' has shape \(\); valid: 4 dimensions"),
        ({"layer1.0.conv2.weight": 1}, {}, r"a.pt: 'layer1.0.conv2.weight' has shape \(1,\); valid: 4 dimensions"),
        ({"fc.weight": 1}, {}, r"a.pt: 'fc.weight' has shape \(1,\); valid: 2 dimensions"),
    ],
)
def test_what_cannot_be_a_network_is_told_in_one_line(change: dict[str, Any], given: dict[str, Any], text: str) -> None:
    named = as_named_by("moskomule", network_of("moskomule")[0])
    for name, tensor in change.items():
        named[name] = torch.ones(1) if isinstance(tensor, int) else tensor
    named = {name: tensor for name, tensor in named.items() if tensor is not None}
    with pytest.raises(ConfigError, match=text) as caught:
        translate(named, HERE, **given)
    assert len(caught.value.faults) == 1


def test_names_of_nobody_are_told() -> None:
    with pytest.raises(ConfigError, match=r"^a.pt: its names \('a', 'b', ...\) are of no known source; valid: rgse,"):
        translate({"a": torch.ones(1), "b": torch.ones(1)}, HERE)


# ---- for timm ----------------------------------------------------------------------------------


@torch.no_grad()
def test_excitations_that_timm_has_wider_and_with_biases_are_filled_with_zeros() -> None:
    config = model_config(backbone="resnet18", squeeze="gap", num_classes=7)
    model = lively(build(config, seed=3))
    name, weights = for_timm(config, model.state_dict())
    theirs = timm.create_model(name, num_classes=7)
    theirs.load_state_dict(weights, strict=True)
    close(theirs.eval()(images(64)), model(images(64)))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"squeeze": "gmp"}, "squeeze 'gmp'; valid: baseline, gap"),
        ({"squeeze": "gap", "width": 0.5}, "width 0.5; valid: 1"),
        ({"squeeze": "gap", "gate": "tanh"}, "gate 'tanh'; valid: 'sigmoid'"),
        ({"squeeze": "gap", "placement": "post"}, "placement 'post'; valid: 'standard'"),
        ({"squeeze": "gap", "stages": "conv3"}, "stages 'conv3'; valid: 'all'"),
        ({"squeeze": "gap", "stem": "small"}, "the small stem"),
        ({"squeeze": "gap", "stem": "caffe"}, "stride 'v1.5' with the caffe stem; valid: 'v1'"),
        ({"squeeze": "gap", "stride": "v1"}, "stride 'v1' with the imagenet stem; valid: 'v1.5'"),
        ({"squeeze": "baseline", "stem": "caffe"}, "the caffe stem"),
        ({"squeeze": "gap", "reduction": 8}, "32 hidden units for 256 channels, more than its 16"),
        ({"squeeze": "gap", "backbone": "resnet18", "stem": "caffe"}, "legacy basic blocks have a ReLU"),
    ],
)
def test_what_timm_has_not_is_refused_with_the_reason(options: dict[str, Any], text: str) -> None:
    config = model_config(**{"backbone": "resnet50"} | options)
    with torch.device("meta"):
        weights = build(config).state_dict()
    with pytest.raises(ConfigError, match="timm has no such network: ") as caught:
        for_timm(config, weights)
    assert text in str(caught.value)
