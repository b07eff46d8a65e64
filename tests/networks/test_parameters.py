"""Parameters to the last digit: published counts, timm's, and the papers' formula for what a block adds."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import timm
import torch
from torch import nn

from sqzlab import catalog
from sqzlab.networks.resnet import build
from sqzlab.resolving import model_config

PLAIN = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,  # torchvision
    "resnext101_32x4d": 44_177_704,  # timm
}
COUNTS: list[tuple[str, str, dict[str, Any], int]] = [
    # timm's legacy_seresnet18 to 152, hujie-frank/SENet from 50 on
    ("resnet18", "gap", {"fc_bias": True}, 11_778_592),
    ("resnet34", "gap", {"fc_bias": True}, 21_958_868),
    ("resnet50", "gap", {"fc_bias": True, "stride": "v1", "stem": "caffe"}, 28_088_024),
    ("resnet101", "gap", {"fc_bias": True}, 49_326_872),
    ("resnet152", "gap", {"fc_bias": True}, 66_821_848),
    # megvii-research/RG-SENet_SP-SENet, its ResNeXt
    ("resnext50_32x4d", "RG", {"fc_bias": True}, 27_684_312),
    ("resnext50_32x4d", "SP", {"fc_bias": True}, 27_952_600),
    # Jongchan/attention-module
    ("resnet18", "CBAM", {}, 11_779_392),
    ("resnet34", "CBAM", {}, 21_960_468),
    ("resnet50", "CBAM", {}, 28_089_624),
    ("resnet101", "CBAM", {}, 49_330_172),
    # hyunjaelee410/style-based-recalibration-module
    ("resnet18", "SRM", {}, 11_697_192),
    ("resnet34", "SRM", {}, 21_812_776),
    ("resnet50", "SRM", {}, 25_617_448),
    # the definitions: kernels of 5, 5, 5 and 7; three numbers a channel; one more than SE a block
    ("resnet50", "ECA", {}, 25_557_032 + 13 * 5 + 3 * 7),
    ("resnet50", "GCT", {}, 25_557_032 + 3 * 15_104),
    ("resnet50", "gem", {}, 28_071_976 + 16),
    # arXiv:1709.01507 table 15
    ("resnet50", "gap", {"placement": "3x3"}, 25_714_216),
]
SENET_TABLES: list[tuple[str, dict[str, Any], float]] = [
    # arXiv:1709.01507 tables 10 and 13 to 16: millions of a ResNet-50
    *(("gap", {"reduction": r}, m) for r, m in [(2, 45.7), (4, 35.7), (8, 30.7), (16, 28.1), (32, 26.9)]),
    *(("gap", {"stages": stage}, m) for stage, m in [("conv2", 25.6), ("conv3", 25.7), ("conv4", 26.4)]),
    *(("gap", {"placement": placement}, 28.1) for placement in ("standard", "post", "identity")),
    ("gap", {"placement": "3x3"}, 25.8),
    ("no_squeeze", {}, 28.1),
]
ROUNDED: list[tuple[str, str, dict[str, Any], float, int]] = [
    # SRM's table, in units of 10^6
    ("resnet50", "gap", {"fc_bias": True}, 28.09, 10**6),
    ("resnet101", "gap", {"fc_bias": True}, 49.33, 10**6),
    ("resnet101", "SRM", {}, 44.68, 10**6),
    # arXiv:1910.03151 table 3, in units of 2^20 where its own code counted
    ("resnet50", "gap", {}, 26.77, 2**20),
    ("resnet101", "gap", {}, 47.01, 2**20),
    ("resnet152", "gap", {}, 63.68, 2**20),
    ("resnet50", "ECA", {}, 24.37, 2**20),
    ("resnet101", "ECA", {}, 42.49, 2**20),
    ("resnet152", "ECA", {}, 57.40, 2**20),
    ("resnet50", "GC", {"stages": "conv3+conv4+conv5"}, 28.08, 10**6),
]
WITHOUT_PARAMETERS = ("gap", "gmp", "std", "gapXstd", "random", "rms", "avgmax", "dct")
WITHOUT_PARAMETERS += ("constant", "frozen_random", "random_train", "no_squeeze")


@cache
def counted(backbone: str, squeeze: str, given: frozenset[tuple[str, Any]]) -> int:
    with torch.device("meta"):
        model = build(model_config(backbone=backbone, squeeze=squeeze, **dict(given)))
    return numbers(model)


def count(backbone: str, squeeze: str = "baseline", **given: Any) -> int:
    return counted(backbone, squeeze, frozenset(given.items()))


def numbers(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("backbone", "squeeze", "given", "params"), COUNTS)
def test_counts_are_the_published_ones(backbone: str, squeeze: str, given: dict[str, Any], params: int) -> None:
    assert count(backbone, squeeze, **given) == params


@pytest.mark.parametrize(("squeeze", "given", "millions"), SENET_TABLES)
def test_counts_are_those_of_the_senet_papers_tables(squeeze: str, given: dict[str, Any], millions: float) -> None:
    """They are rounded up, and only with biases, which the paper says these networks had not, do all of them agree."""
    assert math.ceil(count("resnet50", squeeze, fc_bias=True, **given) / 1e5) == round(10 * millions)


@pytest.mark.parametrize(("backbone", "squeeze", "given", "rounded", "unit"), ROUNDED)
def test_counts_are_those_that_other_papers_round(
    backbone: str, squeeze: str, given: dict[str, Any], rounded: float, unit: int
) -> None:
    assert round(count(backbone, squeeze, **given) / unit, 2) == rounded


@pytest.mark.parametrize(("backbone", "params"), PLAIN.items())
def test_the_baseline_has_the_published_count(backbone: str, params: int) -> None:
    assert count(backbone) == params


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_hidden_widths_that_8_divides_give_timms_count(depth: int) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(f"seresnet{depth}")
    assert count(f"resnet{depth}", "gap", fc_bias=True, width_rule="divisible8") == numbers(theirs)


@pytest.mark.parametrize("reduction", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("backbone", catalog.BACKBONES)
def test_se_adds_what_the_papers_formula_says(backbone: str, reduction: int) -> None:
    """2/r * sum of N_s C_s^2, arXiv:1709.01507 section 4."""
    row = catalog.BACKBONES[backbone]
    total = sum(n * c * c for n, c in zip(row.depths, row.channels(1.0), strict=True))
    assert (count(backbone, "gap", reduction=reduction) - PLAIN[backbone]) * reduction == 2 * total


@pytest.mark.parametrize("squeeze", WITHOUT_PARAMETERS)
def test_a_squeeze_without_parameters_adds_what_the_mean_adds(squeeze: str) -> None:
    assert count("resnet50", squeeze) == 28_071_976


@pytest.mark.parametrize("placement", ["post", "identity"])
def test_blocks_on_a_stages_output_have_the_same_count(placement: str) -> None:
    assert count("resnet50", "gap", placement=placement) == count("resnet50", "gap")


def test_blocks_before_the_residual_unit_have_its_inputs_channels() -> None:
    channels = [64] + 3 * [256] + 4 * [512] + 6 * [1024] + 2 * [2048]
    assert count("resnet50", "gap", placement="pre") - PLAIN["resnet50"] == sum(2 * c * (c // 16) for c in channels)


@pytest.mark.parametrize("stages", [name for name in catalog.STAGES if name != "all"])
def test_stages_add_up(stages: str) -> None:
    parts = [count("resnet50", "gap", stages=stage) - PLAIN["resnet50"] for stage in stages.split("+")]
    assert count("resnet50", "gap", stages=stages) - PLAIN["resnet50"] == sum(parts)
