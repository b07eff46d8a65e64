"""Whole blocks against timm's with the same weights, and against the published sizes of their networks."""

from __future__ import annotations

import pytest
import torch
from small_blocks import made, maps
from timm.layers.cbam import CbamModule
from timm.layers.eca import EcaModule
from timm.layers.global_context import GlobalContext
from timm.layers.squeeze_excite import SEModule
from torch import nn

from sqzlab import catalog
from sqzlab.catalog import Site
from sqzlab.networks.blocks import BLOCKS, make_block
from sqzlab.networks.cost import measure
from sqzlab.networks.se_block import Excitation, SEBlock
from sqzlab.networks.squeezes import SQUEEZES
from sqzlab.resolving import model_config

BOTH = ("weight", "bias")


def copied(theirs: nn.Module, ours: nn.Module, names: dict[str, str]) -> None:
    """Gives timm's module our weights: each of its names that `names` maps."""
    state, weights = theirs.state_dict(), ours.state_dict()
    theirs.load_state_dict(
        state | {name: weights[own].reshape(state[name].shape) for name, own in names.items()}, strict=True
    )


def test_se_block_equals_timms() -> None:
    x = maps(3, 16, 6, 6)
    ours = SEBlock(SQUEEZES["gap"](16, 6, 6), Excitation(16, 4, bias=True, gate="sigmoid")).double()
    theirs = SEModule(16, rd_channels=4).double()
    copied(theirs, ours, {f"{fc}.{role}": f"excitation.{fc}.{role}" for fc in ("fc1", "fc2") for role in BOTH})
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("channels", [16, 64, 256])
def test_eca_equals_timms(channels: int) -> None:
    x, ours, theirs = maps(3, channels, 4, 4), made("ECA", channels), EcaModule(channels).double()
    copied(theirs, ours, {"conv.weight": "conv.weight"})
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("training", [True, False])
def test_cbam_equals_timms_whose_spatial_gate_takes_mean_then_maximum(training: bool) -> None:
    x, ours = maps(3, 16, 9, 9), made("CBAM", 16, 9, hidden=4)
    theirs = CbamModule(16, rd_channels=4, mlp_bias=True).double()
    names = {f"channel.{fc}.{role}": f"excitation.{fc}.{role}" for fc in ("fc1", "fc2") for role in BOTH}
    norm = ("weight", "bias", "running_mean", "running_var")
    copied(theirs, ours, names | {f"spatial.conv.bn.{role}": f"spatial.norm.{role}" for role in norm})
    conv = theirs.spatial.conv.conv
    with torch.no_grad():
        conv.weight.copy_(ours.get_parameter("spatial.conv.weight").flip(1))
    torch.testing.assert_close(ours.train(training)(x), theirs.train(training)(x))


def test_global_context_equals_timms() -> None:
    x, ours = maps(3, 16, 6, 6), made("GC", 16, 6, hidden=4)
    theirs = GlobalContext(16, fuse_add=True, fuse_scale=False, rd_channels=4).double()
    theirs.mlp_add.norm.eps = 1e-5  # GCNet's and torch's; timm's is 1e-6
    names = {f"mlp_add.{part}.{role}": f"{part}.{role}" for part in ("fc1", "norm", "fc2") for role in BOTH}
    copied(theirs, ours, names | {f"conv_attn.{role}": f"squeeze.score.{role}" for role in BOTH})
    torch.testing.assert_close(ours(x), theirs(x))


# ---- in a network ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "squeeze", "params"),
    [
        ("resnet18", "SRM", 11_697_192),
        ("resnet34", "SRM", 21_812_776),
        ("resnet50", "SRM", 25_617_448),
        ("resnet18", "CBAM", 11_779_392),
        ("resnet34", "CBAM", 21_960_468),
        ("resnet50", "CBAM", 28_089_624),
        ("resnet101", "CBAM", 49_330_172),
    ],
)
def test_parameters_are_those_of_the_published_networks(backbone: str, squeeze: str, params: int) -> None:
    assert measure(model_config(backbone=backbone, squeeze=squeeze)).params == params


def test_no_squeeze_adds_the_published_macs() -> None:
    plain, without = (measure(model_config(backbone="resnet50", squeeze=name)) for name in ("baseline", "no_squeeze"))
    assert (without.macs - plain.macs) / 1e9 == pytest.approx(0.411, abs=5e-4)  # arXiv:1709.01507 table 16


@pytest.mark.parametrize("squeeze", [name for name in catalog.SQUEEZES if name != "baseline"])
def test_every_row_makes_its_block(squeeze: str) -> None:
    config = model_config(backbone="resnet18", squeeze=squeeze, num_classes=5, image_size=224, width=0.5)
    block = make_block(config, Site(stage=1, index=0, channels=64, size=28), 7)
    assert isinstance(block, BLOCKS.get(squeeze, SEBlock))
    assert block(torch.randn(2, 64, 28, 28)).shape == (2, 64, 28, 28)


@pytest.mark.parametrize("squeeze", ["gap", "no_squeeze", "CBAM", "GC"])
@pytest.mark.parametrize(("rule", "hidden"), [("floor", 4), ("divisible8", 8)])
def test_hidden_units_follow_reduction_and_rule(squeeze: str, rule: str, hidden: int) -> None:
    config = model_config(backbone="resnet18", squeeze=squeeze, reduction=16, width_rule=rule)
    block = make_block(config, Site(stage=0, index=0, channels=64, size=56), 7)
    assert {len(p) for name, p in block.named_parameters() if name.endswith("fc1.weight")} == {hidden}


@pytest.mark.parametrize("name", BLOCKS)
def test_passes_count_reading_and_scaling_the_maps(name: str) -> None:
    expected = {"no_squeeze": 1, "CBAM": 6, "SRM": 3, "ECA": 2, "GCT": 2, "GSoP": 1, "GC": 2}
    assert BLOCKS[name].passes == expected[name]  # type: ignore[attr-defined]
