"""Whole networks against timm's with the same weights, in float64.

timm names no ECA or CBAM network with this stem (`ecaresnet50d` has a deep one), so both are compared in `resnet50`.
Its `legacy_seresnet18` and `34` have a ReLU between the last BatchNorm and the block: those are not built here.
"""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from sqzlab import create_model

SE = {"squeeze": "gap", "fc_bias": True, "width_rule": "divisible8"}
LEGACY = {"squeeze": "gap", "fc_bias": True, "stride": "v1", "stem": "caffe"}


def images(count: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)


def pair(theirs_name: str, training: bool, block: str | None = None, **given: Any) -> tuple[nn.Module, nn.Module]:
    """timm's network, with its `block` where it is named apart, and ours; both in float64 with timm's weights."""
    torch.manual_seed(0)
    options = {"block_args": {"attn_layer": block}} if block else {}
    theirs = timm.create_model(theirs_name, num_classes=10, **options).double()
    theirs.drop_rate = 0.0
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # neither norms of 1 and 0 nor residual branches that start at 0
        for name, parameter in theirs.named_parameters():
            if parameter.ndim == 1:
                low = 0.5 if name.endswith("weight") else -0.5
                parameter.copy_(torch.rand(parameter.shape, generator=generator) + low)
        for module in theirs.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # running statistics are then those of this batch
        theirs.train()(images(4, 64))
    with torch.device("meta"):  # every value comes from timm
        ours = create_model(theirs_name.rpartition("_")[2].replace("se", ""), num_classes=10, **given)
    shapes = {name: value.shape for name, value in ours.state_dict().items()}
    weights = {ours_name(name): value.clone() for name, value in theirs.state_dict().items()}
    for name in weights:
        if "spatial.conv" in name:
            weights[name] = weights[name].flip(1)  # timm's mean and maximum, CBAM's maximum and mean
    ours.load_state_dict({name: value.reshape(shapes[name]) for name, value in weights.items()}, assign=True)
    return theirs.train(training), ours.train(training)


def ours_name(name: str) -> str:
    """Of a parameter of timm's `resnet.py` or, with `layer0`, `se_module` and `last_linear`, of its `senet.py`."""
    for theirs, ours in (
        ("layer0.", ""),
        ("last_linear.", "fc."),
        (".se_module.fc", ".se.fc"),
        (".se.channel.fc", ".se.fc"),
        (".se.fc", ".se.excitation.fc"),
        (".spatial.conv.conv.", ".spatial.conv."),
        (".spatial.conv.bn.", ".spatial.norm."),
    ):
        name = name.replace(theirs, ours)
    return name


def agree(theirs: nn.Module, ours: nn.Module, size: int) -> None:
    """Logits and, while training, the gradient of the images, which passes through every layer."""
    results = []
    for model in (theirs, ours):
        x = images(3, size).requires_grad_(model.training)
        with torch.set_grad_enabled(model.training):
            logits = model(x)
        if model.training:
            logits.square().sum().backward()
        results.append([value for value in (logits.detach(), x.grad) if value is not None])
    assert results[0][0].std(dim=0).min() > 0.01  # the images reach the logits
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-7, atol=1e-9 * float(a.abs().max()))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["seresnet18", "seresnet34", "seresnet50"])
def test_se_networks_equal_timms(name: str, training: bool) -> None:
    agree(*pair(name, training, **SE), size=64)


@pytest.mark.parametrize("name", ["seresnet101", "seresnet152"])
def test_deep_se_networks_equal_timms_at_evaluation(name: str) -> None:
    agree(*pair(name, False, **SE), size=64)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [64, 71])
def test_v1_stride_and_caffe_stem_equal_timms_legacy_network(size: int, training: bool) -> None:
    theirs, ours = pair("legacy_seresnet50", training, image_size=size, **LEGACY)
    agree(theirs, ours, size)


@pytest.mark.parametrize("training", [False, True])
def test_the_baseline_equals_timms_resnet(training: bool) -> None:
    agree(*pair("resnet50", training), size=64)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("block", "given"), [("eca", {"squeeze": "ECA"}), ("cbam", {"squeeze": "CBAM", "fc_bias": False})]
)
def test_networks_of_whole_blocks_equal_timms(block: str, given: dict[str, Any], training: bool) -> None:
    agree(*pair("resnet50", training, block, **given), size=64)
