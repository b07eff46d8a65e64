"""Initial weights: equal wherever two arms share a name, different otherwise, and of the recipe's distribution."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from sqzlab import catalog, create_model
from sqzlab.networks.squeezes import SQUEEZES, Fusion
from sqzlab.networks.weights import draw_weights, last_norms_of, weight_rules

SMALL: dict[str, Any] = {"num_classes": 10, "image_size": 32, "stem": "small", "width": 0.25}


def weights(squeeze: str, seed: int = 0, backbone: str = "resnet18", **given: Any) -> dict[str, Tensor]:
    model = create_model(backbone, squeeze, seed=seed, **{**SMALL, **given})
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_all_arms_start_equal_in_every_parameter_that_they_share(backbone: str) -> None:
    arms = {squeeze: weights(squeeze, backbone=backbone) for squeeze in catalog.SQUEEZES}
    for a, b in itertools.combinations(arms.values(), 2):
        shared = a.keys() & b.keys()
        assert arms["baseline"].keys() <= shared
        assert all(torch.equal(a[name], b[name]) for name in shared)


def test_excitations_are_shared_by_all_squeezes_and_fusions_by_none() -> None:
    arms = {squeeze: set(weights(squeeze)) - set(weights("baseline")) for squeeze in SQUEEZES}
    excitation = arms["gap"]
    assert all(excitation <= names for names in arms.values())
    assert not {name for name in arms["SP"] & arms["RG"] if "fusion" in name}


@pytest.mark.parametrize("squeeze", ["SP", "RG"])
def test_every_name_and_seed_draws_different_values(squeeze: str) -> None:
    drawn = [
        tuple(value.flatten()[:8].tolist())
        for seed in (0, 1, 2)
        for value in weights(squeeze, seed, fc_bias=True).values()
        if value.numel() >= 8 and value.std() > 0
    ]
    assert len(drawn) > 3 * 50
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("squeeze", catalog.SQUEEZES)
def test_every_parameter_follows_its_rule(squeeze: str) -> None:
    fc_bias = None if squeeze == "baseline" else True
    model = create_model("resnet50", squeeze, seed=4, num_classes=100, image_size=64 * 2, width=0.5, fc_bias=fc_bias)
    pooled: dict[str, list[Tensor]] = {"normal": [], "uniform": []}
    for name, rule in weight_rules(model).items():
        value = model.get_parameter(name).detach()
        if rule.distribution == "constant":
            assert torch.equal(value, torch.full_like(value, rule.scale))
        else:
            pooled[rule.distribution].append(value.flatten()[:2000] / rule.scale)
            assert rule.distribution == "normal" or value.abs().max() <= rule.scale
    assert stats.kstest(torch.cat(pooled["normal"]).double().numpy(), "norm").pvalue > 0.001
    assert stats.kstest(torch.cat(pooled["uniform"]).double().numpy(), "uniform", (-1, 2)).pvalue > 0.001


@pytest.mark.parametrize("squeeze", catalog.SQUEEZES)
def test_rules_are_those_by_which_torch_and_torchvision_start(squeeze: str) -> None:
    torch.manual_seed(0)
    fc_bias = None if squeeze == "baseline" else True
    model = create_model("resnet18", squeeze, num_classes=100, image_size=128, fc_bias=fc_bias)  # no seed: their code
    for name, rule in weight_rules(model).items():
        value = model.get_parameter(name).detach().double()
        if rule.distribution == "constant":
            assert torch.equal(value, torch.full_like(value, rule.scale))
            continue
        expected = rule.scale if rule.distribution == "normal" else rule.scale / math.sqrt(3)
        assert value.square().mean().sqrt() == pytest.approx(expected, rel=6 / math.sqrt(2 * value.numel()))


@pytest.mark.parametrize("grid", [1, 2, 4, 8])
def test_fusions_start_uniform_within_one_over_their_grid(grid: int) -> None:
    fusion = Fusion(16, grid, bias=True)
    rules = weight_rules(fusion)
    assert str(rules["weight"]) == str(rules["bias"]) == f"uniform({1 / grid:g})"
    assert fusion.weight.abs().max() <= 1 / grid  # torch's own draw


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("squeeze", ["baseline", "SP", "RG"])
def test_zero_bias_starts_every_bias_at_0_and_changes_nothing_else(squeeze: str, seed: int | None) -> None:
    fc_bias = None if squeeze == "baseline" else True
    models = []
    for init in ("torchvision", "zero_bias"):
        torch.manual_seed(0)
        models.append(create_model("resnet18", squeeze, seed=seed, init=init, fc_bias=fc_bias, **SMALL))
    for (name, usual), (_, zeroed) in zip(models[0].named_parameters(), models[1].named_parameters(), strict=True):
        assert torch.equal(zeroed, torch.zeros_like(usual) if name.endswith("bias") else usual)


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("squeeze", catalog.SQUEEZES)
@pytest.mark.parametrize(("backbone", "last"), [("resnet18", "bn2"), ("resnet50", "bn3")])
def test_zero_init_is_of_the_last_gamma_of_every_branch_in_every_arm(
    squeeze: str, seed: int | None, backbone: str, last: str
) -> None:
    model = create_model(backbone, squeeze, seed=seed, zero_init_gamma=True, **SMALL)
    zeros = {name for name, p in model.named_parameters() if p.ndim == 1 and "weight" in name and not p.any()}
    assert zeros == {name for name, _ in model.named_parameters() if name.endswith(f"{last}.weight")}
    assert len(zeros) == len(last_norms_of(model)) == sum(catalog.BACKBONES[backbone].depths)


def test_drawing_again_resets_everything_whatever_came_before() -> None:
    fresh = create_model("resnet18", "SP", seed=3, **SMALL)
    used = create_model("resnet18", "SP", seed=8, **SMALL)
    used(torch.randn(4, 3, 32, 32))
    draw_weights(used, 3)
    for (name, a), (_, b) in zip(fresh.state_dict().items(), used.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_a_float64_network_draws_the_same_values() -> None:
    single = create_model("resnet18", "RG", seed=3, **SMALL)
    double = create_model("resnet18", "RG", seed=0, **SMALL).double()
    draw_weights(double, 3)
    for a, b in zip(single.parameters(), double.parameters(), strict=True):
        assert torch.equal(a.double(), b)


def test_a_seed_leaves_torchs_generator_alone() -> None:
    before = torch.random.get_rng_state()
    create_model("resnet18", "random", seed=1, **SMALL)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_module_without_a_rule_is_an_error() -> None:
    with pytest.raises(TypeError, match="no rule for the weight of PReLU"):
        draw_weights(nn.PReLU(), 0)
