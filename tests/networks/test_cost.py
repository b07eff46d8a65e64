"""Parameters and MACs against published counts."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from sqzlab import catalog
from sqzlab.networks.cost import Cost, measure
from sqzlab.networks.resnet import build
from sqzlab.resolving import model_config, sites_of

NO_BIAS = ("gap", "gmp", "std", "gapXstd", "random")
PARAMS = [
    *(
        (backbone, squeeze, None if squeeze == "baseline" else False, params)
        for backbone, plain, squeezed in [
            ("resnet18", 11_689_512, 11_776_552),
            ("resnet34", 21_797_672, 21_954_856),
            ("resnet50", 25_557_032, 28_071_976),
            ("resnet101", 44_549_160, 49_292_328),
            ("resnet152", 60_192_808, 66_770_984),
        ]
        for squeeze, params in [("baseline", plain), *((name, squeezed) for name in NO_BIAS)]
    ),
    ("resnet50", "gap", True, 28_088_024),
    ("resnet50", "RG", True, 28_212_440),
    ("resnet101", "RG", True, 49_555_736),
    ("resnet152", "RG", True, 67_167_448),
    ("resnet50", "SP", True, 28_480_728),
    ("resnet101", "SP", True, 50_172_184),
    ("resnet152", "SP", True, 68_066_520),
    ("resnet18", "SP", True, 11_828_512),
    ("resnet18", "RG", True, 11_794_720),
    ("resnet34", "SP", True, 22_057_044),
    ("resnet34", "RG", True, 21_989_972),
]
GMACS = [
    ("resnet18", "baseline", 1.8141),
    ("resnet34", "baseline", 3.6638),
    ("resnet50", "baseline", 4.0892),
    ("resnet101", "baseline", 7.8014),
    ("resnet152", "baseline", 11.5136),
    ("resnet18", "gap", 1.8142),
    ("resnet34", "gap", 3.6639),
    ("resnet50", "gap", 4.0917),
    ("resnet101", "gap", 7.8061),
    ("resnet152", "gap", 11.5202),
    ("resnet50", "RG", 4.0918),
    ("resnet101", "RG", 7.8063),
    ("resnet152", "RG", 11.5205),
    ("resnet50", "SP", 4.0920),
    ("resnet101", "SP", 7.8068),
    ("resnet152", "SP", 11.5212),
]
V1 = [  # stride in the first 1x1 convolution: conv and FC, then the papers' count, as far as its source states both
    ("resnet50", "baseline", 3.8580, 3.8635),
    ("resnet101", "baseline", 7.5702, 7.5791),
    ("resnet152", "baseline", 11.2824, 11.2956),
    ("resnet50", "gap", 3.8605, 3.8770),
    ("resnet50", "RG", 3.8606, 3.8772),
    ("resnet50", "SP", 3.8608, 3.8884),
]
PASSES = {  # over the maps of a residual block's output, to pool or to scale
    "baseline": 0,
    **{name: 2 for name in ("gap", "gmp", "std", "rms", "gem", "attention", "dct", "RG")},
    **{name: 3 for name in ("gapXstd", "avgmax")},
    "SP": 4,
    **{name: 1 for name in ("random", "constant", "frozen_random", "random_train")},
    **{"no_squeeze": 1, "CBAM": 6, "SRM": 3, "ECA": 2, "GCT": 2, "GSoP": 1, "GC": 2},
}


def cost(backbone: str, squeeze: str, fc_bias: bool | None = None, **given: Any) -> Cost:
    return measure(model_config(backbone=backbone, squeeze=squeeze, fc_bias=fc_bias, **given))


@pytest.mark.parametrize(("backbone", "squeeze", "fc_bias", "params"), PARAMS)
def test_parameters_are_those_of_the_published_networks(
    backbone: str, squeeze: str, fc_bias: bool | None, params: int
) -> None:
    assert cost(backbone, squeeze, fc_bias).params == params


@pytest.mark.parametrize(("backbone", "squeeze", "gmacs"), GMACS)
def test_macs_are_those_of_the_published_networks(backbone: str, squeeze: str, gmacs: float) -> None:
    measured = cost(backbone, squeeze, None if squeeze == "baseline" else True).macs / 1e9
    assert measured == pytest.approx(gmacs, abs=0.6e-4)


@pytest.mark.parametrize(("backbone", "squeeze", "gmacs", "papers"), V1)
def test_counts_on_a_v1_backbone_are_the_published_ones(
    backbone: str, squeeze: str, gmacs: float, papers: float
) -> None:
    measured = cost(backbone, squeeze, None if squeeze == "baseline" else True, stride="v1")
    assert measured.macs / 1e9 == pytest.approx(gmacs, abs=0.6e-4)
    assert measured.paper_ops / 1e9 == pytest.approx(papers, abs=0.6e-4)


@pytest.mark.parametrize("squeeze", catalog.SQUEEZES)
def test_the_papers_count_adds_one_operation_an_element_for_the_addition_and_each_pass(squeeze: str) -> None:
    config = model_config(backbone="resnet18", squeeze=squeeze, width=0.5, num_classes=10)
    placed = catalog.sites("resnet18", width=0.5, image_size=224, stem="imagenet")
    elements = sum(site.channels * site.size**2 for site in placed)  # E
    covariances = sum(128**2 * site.size**2 for site in placed) if squeeze == "GSoP" else 0
    measured = measure(config)
    assert measured.paper_ops - measured.macs == (1 + PASSES[squeeze]) * elements + covariances


@pytest.mark.parametrize("placement", ["pre", "post", "identity", "3x3"])
def test_passes_are_over_the_maps_where_the_block_stands(placement: str) -> None:
    plain = cost("resnet50", "baseline", width=0.25)
    config = model_config(backbone="resnet50", squeeze="gap", placement=placement, stages="conv4", width=0.25)
    elements = sum(site.channels * site.size**2 for site in sites_of(config))
    measured = measure(config)
    assert measured.paper_ops - measured.macs - (plain.paper_ops - plain.macs) == 2 * elements


def test_no_squeeze_adds_the_macs_of_its_paper() -> None:
    added = cost("resnet50", "no_squeeze", stride="v1").macs - cost("resnet50", "baseline", stride="v1").macs
    assert added == 411_041_792  # 2 C C/16 H W in every block


@pytest.mark.parametrize("reduction", [2, 4, 8, 16, 32])
def test_added_weights_follow_the_papers_formula(reduction: int) -> None:
    stages = [(3, 256), (4, 512), (6, 1024), (3, 2048)]  # N_s, C_s of ResNet-50; arXiv:1709.01507 eq. 5
    added = cost("resnet50", "gap", False, reduction=reduction).params - cost("resnet50", "baseline").params
    assert added == 2 * sum(count * channels**2 for count, channels in stages) // reduction


def test_biases_of_the_excitation_add_no_macs() -> None:
    assert cost("resnet50", "gap", True).macs == cost("resnet50", "gap", False).macs


@pytest.mark.parametrize("squeeze", catalog.SQUEEZES)
def test_meta_network_has_the_parameters_of_the_real_one(squeeze: str) -> None:
    config = model_config(
        backbone="resnet18", squeeze=squeeze, width=0.5, stem="small", image_size=56, zero_init_gamma=True
    )
    real = {name: list(value.shape) for name, value in build(config, seed=0).named_parameters()}
    assert {name: shape for name, (shape, _) in measure(config).parameters.items()} == real


def test_rules_tell_zero_init_and_fan_apart() -> None:
    usual, zeroed = (cost("resnet18", "gap", zero_init_gamma=zero).parameters for zero in (False, True))
    changed = {name for name in usual if usual[name] != zeroed[name]}
    assert changed == {name for name in usual if name.endswith("bn2.weight")}
    assert usual["conv1.weight"] == ([64, 3, 7, 7], "normal(0.0252538136)")


def test_command_measures_a_list_from_stdin() -> None:
    configs = [model_config(backbone="resnet18", squeeze=squeeze) for squeeze in ("baseline", "SP")]
    text = json.dumps([config.model_dump(mode="json") for config in configs])
    done = subprocess.run(
        [sys.executable, "-m", "sqzlab.networks.cost"], input=text, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert [set(row) for row in found] == [{"params", "macs", "paper_ops", "parameters"}] * 2
    assert [row["params"] for row in found] == [measure(config).params for config in configs]
    assert found[0]["parameters"]["fc.bias"] == [[1000], "uniform(0.0441941738)"]
    assert done.stderr == ""
