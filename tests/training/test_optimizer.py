"""Which parameters decay, recipe by recipe."""

from __future__ import annotations

import pytest

from sqzlab import create_model
from sqzlab.config import Config
from sqzlab.recipes import RECIPES
from sqzlab.resolving import resolve
from sqzlab.training.optimizer import make_optimizer


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_decay_groups_are_the_recipes(recipe: str) -> None:
    config = resolve({"model.backbone": "resnet18", "data.name": "imagenet", "train.recipe": recipe}, seed=0)
    assert isinstance(config, Config)
    model = create_model("resnet18", "SP", fc_bias=True, width=0.25)
    optimizer = make_optimizer(model, config.train)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert set(decay) == set(names.values())
    for name, value in decay.items():
        norm_or_bias = name.endswith("bias") or "bn" in name or "norm" in name or "downsample.1" in name
        exempt = norm_or_bias and not config.train.decay_norm_and_bias
        assert value == (0.0 if exempt else config.train.weight_decay), name
    assert {group["momentum"] for group in optimizer.param_groups} == {0.9}
    assert {group["nesterov"] for group in optimizer.param_groups} == {config.train.nesterov}


def test_the_published_recipes_decay_everything() -> None:
    assert all(RECIPES[name].train["decay_norm_and_bias"] for name in ("ssenet", "senet2018", "sprg", "mmpretrain"))
