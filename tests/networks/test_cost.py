"""Parameters and MACs against published counts."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from sqzlab import catalog
from sqzlab.config import model_config
from sqzlab.networks.cost import Cost, measure
from sqzlab.networks.resnet import build

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


def test_biases_of_the_excitation_add_no_macs() -> None:
    assert cost("resnet50", "gap", True).macs == cost("resnet50", "gap", False).macs


@pytest.mark.parametrize("squeeze", catalog.SQUEEZES)
def test_meta_network_has_the_parameters_of_the_real_one(squeeze: str) -> None:
    config = model_config(
        backbone="resnet18", squeeze=squeeze, width=0.25, stem="small", image_size=32, zero_init_gamma=True
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
    assert [set(row) for row in found] == [{"params", "macs", "parameters"}] * 2
    assert [row["params"] for row in found] == [measure(config).params for config in configs]
    assert found[0]["parameters"]["fc.bias"] == [[1000], "uniform(0.0441941738)"]
    assert done.stderr == ""
