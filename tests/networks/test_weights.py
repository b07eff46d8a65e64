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
from sqzlab.networks.blocks import BLOCKS
from sqzlab.networks.squeezes import SQUEEZES, Fusion
from sqzlab.networks.weights import draw_weights, last_norms_of, weight_rules

SMALL: dict[str, Any] = {"num_classes": 10, "image_size": 56, "stem": "small", "width": 0.5}
CONSTANTS = {  # what starts at a constant besides norms, by the end of its name
    "gem": {"se.squeeze.p": 3.0},
    "attention": {"se.squeeze.score.bias": 0.0},
    "CBAM": {"se.spatial.norm.weight": 0.0},
    "SRM": {"se.weight": 0.0},
    "GCT": {"se.alpha": 1.0, "se.gamma": 0.0, "se.beta": 0.0},
    "GC": {"se.squeeze.score.bias": 0.0, "se.fc2.weight": 0.0, "se.fc2.bias": 0.0},
}


def weights(squeeze: str, seed: int = 0, backbone: str = "resnet18", **given: Any) -> dict[str, Tensor]:
    model = create_model(backbone, squeeze, seed=seed, **{**SMALL, **given})
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def biases(squeeze: str) -> bool | None:
    """`fc_bias` true, where it applies."""
    return True if "fc_bias" in catalog.SQUEEZES[squeeze].arguments else None


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_all_arms_start_equal_in_every_parameter_that_they_share(backbone: str) -> None:
    arms = {squeeze: weights(squeeze, backbone=backbone) for squeeze in catalog.SQUEEZES}
    for a, b in itertools.combinations(arms.values(), 2):
        shared = {name for name in a.keys() & b.keys() if a[name].shape == b[name].shape}
        assert arms["baseline"].keys() <= shared
        assert all(torch.equal(a[name], b[name]) for name in shared)


@pytest.mark.parametrize("stages", ["all", "conv4"])
@pytest.mark.parametrize("placement", ["pre", "post", "identity", "3x3"])
def test_placements_start_equal_in_every_parameter_of_the_same_shape(placement: str, stages: str) -> None:
    standard = weights("SP", backbone="resnet50", fc_bias=True)
    placed = weights("SP", backbone="resnet50", fc_bias=True, placement=placement, stages=stages)
    assert placed.keys() == {name for name in standard if stages == "all" or ".se." not in name or "layer3" in name}
    same = {name for name in placed if placed[name].shape == standard[name].shape}
    assert all(torch.equal(placed[name], standard[name]) for name in same)
    others = placed.keys() - same
    if placement == "3x3":
        assert others == {name for name in placed if ".se." in name}
    elif placement == "pre":
        assert others == {name for name in placed if ".0.se." in name}
    else:
        assert not others


def test_excitations_are_shared_by_all_squeezes_and_fusions_by_none() -> None:
    plain = set(weights("baseline"))
    arms = {squeeze: set(weights(squeeze)) - plain for squeeze in SQUEEZES}
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
    given: dict[str, Any] = {**SMALL, "num_classes": 100, "width": 0.5, "fc_bias": biases(squeeze)}
    model = create_model("resnet50", squeeze, seed=4, **given)
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
    given: dict[str, Any] = {**SMALL, "num_classes": 100, "width": 0.5, "fc_bias": biases(squeeze)}
    model = create_model("resnet18", squeeze, **given)  # no seed: their code
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
@pytest.mark.parametrize("squeeze", catalog.SQUEEZES)
def test_zero_bias_starts_every_bias_at_0_and_changes_nothing_else(squeeze: str, seed: int | None) -> None:
    models = []
    for init in ("torchvision", "zero_bias"):
        torch.manual_seed(0)
        models.append(create_model("resnet18", squeeze, seed=seed, init=init, fc_bias=biases(squeeze), **SMALL))
    for (name, usual), (_, zeroed) in zip(models[0].named_parameters(), models[1].named_parameters(), strict=True):
        assert torch.equal(zeroed, torch.zeros_like(usual) if name.endswith("bias") else usual)


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("squeeze", catalog.SQUEEZES)
@pytest.mark.parametrize(("backbone", "last"), [("resnet18", "bn2"), ("resnet50", "bn3")])
def test_zero_init_is_of_the_last_gamma_of_every_branch_in_every_arm(
    squeeze: str, seed: int | None, backbone: str, last: str
) -> None:
    model = create_model(backbone, squeeze, seed=seed, zero_init_gamma=True, **SMALL)
    gammas = {name for name, p in model.named_parameters() if p.ndim == 1 and "weight" in name and ".se." not in name}
    zeros = {name for name in gammas if not model.get_parameter(name).any()}
    assert zeros == {name for name, _ in model.named_parameters() if name.endswith(f"{last}.weight")}
    assert len(zeros) == len(last_norms_of(model)) == sum(catalog.BACKBONES[backbone].depths)


@pytest.mark.parametrize("init", catalog.INITS)
@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("squeeze", CONSTANTS)
def test_what_a_block_says_of_its_start_holds(squeeze: str, seed: int | None, init: str) -> None:
    model = create_model("resnet18", squeeze, seed=seed, init=init, **SMALL)
    for name, constant in CONSTANTS[squeeze].items():
        found = [value for key, value in model.named_parameters() if key.endswith(f".{name}")]
        assert len(found) == sum(catalog.BACKBONES["resnet18"].depths)
        assert all(torch.equal(value, torch.full_like(value, constant)) for value in found)


@pytest.mark.parametrize("squeeze", [name for name, row in catalog.SQUEEZES.items() if row.arguments])
def test_what_a_block_says_of_its_start_names_parameters(squeeze: str) -> None:
    model = create_model("resnet18", squeeze, **SMALL)
    said = {f"{path}.{name}" for path, module in model.named_modules() for name in getattr(type(module), "initial", {})}
    assert said <= {name for name, _ in model.named_parameters()}
    assert {f"se.{name.partition('.se.')[2]}" for name in said} == set(CONSTANTS.get(squeeze, ()))


def test_every_block_of_the_catalog_has_a_class() -> None:
    whole = [name for name, row in catalog.SQUEEZES.items() if row.whole]
    assert whole == list(BLOCKS)
    assert ["baseline", *SQUEEZES, *BLOCKS] == list(catalog.SQUEEZES)


def test_drawing_again_resets_everything_whatever_came_before() -> None:
    fresh = create_model("resnet18", "SP", seed=3, **SMALL)
    used = create_model("resnet18", "SP", seed=8, **SMALL)
    used(torch.randn(4, 3, 56, 56))
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
