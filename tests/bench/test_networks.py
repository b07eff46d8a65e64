from __future__ import annotations

import pytest
import torch

from sqzlab.bench.networks import absent, network
from sqzlab.bench.plan import OURS, TIMM, TORCHVISION, Contender

PARAMETERS_M = {  # as printed in torchvision's and timm's own tables
    Contender(OURS, "resnet18"): 11.69,
    Contender(OURS, "resnet18", "gap"): 11.78,
    Contender(OURS, "resnet18", "gap", "folded"): 11.78,
    Contender(TIMM, "resnet18"): 11.69,
    Contender(TIMM, "resnet18", "gap"): 11.78,
    Contender(TORCHVISION, "resnet18"): 11.69,
    Contender(TORCHVISION, "resnext50_32x4d"): 25.03,
}


@pytest.mark.parametrize("contender", PARAMETERS_M, ids=lambda c: f"{c.source}-{c.backbone}-{c.squeeze}-{c.form}")
def test_a_contender_is_the_network_that_it_names(contender: Contender) -> None:
    with torch.device("meta"):
        model = network(contender, 128)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == PARAMETERS_M[contender]


def test_a_peer_that_has_no_such_network_is_named() -> None:
    there, gone = Contender(TORCHVISION, "resnet18"), Contender(TORCHVISION, "resnext101_32x4d")
    assert absent([there, gone, Contender(OURS, "resnext101_32x4d")]) == {gone: "torchvision has no resnext101_32x4d"}


def test_timm_names_its_se_networks_after_their_backbones() -> None:
    names = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x4d")
    assert absent([Contender(TIMM, name, squeeze) for name in names for squeeze in ("baseline", "gap")]) == {}
