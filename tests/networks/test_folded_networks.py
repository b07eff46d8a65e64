"""Networks in the folded form against the plain ones, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqzlab import catalog, create_model
from sqzlab.errors import ConfigError
from sqzlab.networks.random_squeeze import set_random_keys
from sqzlab.networks.resnet import build
from sqzlab.networks.se_block import Gate
from sqzlab.resolving import model_config

SMALL: dict[str, Any] = {"num_classes": 10, "image_size": 56, "stem": "small", "width": 0.125, "zero_init_gamma": False}
"""Maps of 56, 28, 14 and 7 pixels, as of images of 224 with the usual stem."""
PLACED = [
    (backbone, placement)
    for backbone in ("resnet18", "resnet50")
    for placement in catalog.PLACEMENTS
    if placement != "3x3" or backbone == "resnet50"
]


def both(**given: Any) -> tuple[nn.Module, nn.Module]:
    """A plain network and a folded one with its weights, in float64, with gammas and biases that are not trivial."""
    if "reduction" in catalog.SQUEEZES[given["squeeze"]].arguments:
        given["reduction"] = 4
    config = model_config(**SMALL | given)
    plain, fold = (build(config, seed=3, block_form=form).double() for form in ("plain", "folded"))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, value in plain.state_dict().items():
            if value.ndim == 1 and value.is_floating_point():
                low = 0.5 if name.endswith(("weight", "running_var")) else -0.5
                value.copy_(torch.rand(value.shape, generator=generator) + low)
    fold.load_state_dict(plain.state_dict())
    return plain, fold


def step(model: nn.Module) -> dict[str, Tensor]:
    """Logits, gradients and buffers of one training step, then the logits of evaluation."""
    images = torch.randn(6, 3, 56, 56, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    index = torch.arange(6)
    set_random_keys(model, seed=0, split=0, epoch=0, image_index=index)
    logits = model.train()(images)
    F.cross_entropy(logits, index % 10).backward()  # type: ignore[no-untyped-call]
    found = {"logits": logits.detach()}
    found |= {f"grad of {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    found |= dict(model.named_buffers())
    set_random_keys(model, seed=0, split=1, epoch=0, image_index=index)
    with torch.no_grad():
        found["evaluated"] = model.eval()(images)
    return {name: value.double() for name, value in found.items()}


def assert_equal(plain: nn.Module, fold: nn.Module) -> None:
    wanted, found = step(plain), step(fold)
    assert found.keys() == wanted.keys()
    greatest = max(float(value.abs().max()) for name, value in wanted.items() if name.startswith("grad of "))
    for name, value in wanted.items():
        scale = greatest if name.startswith("grad of ") else max(1.0, float(value.abs().max()))
        assert float((found[name] - value).abs().max()) < 1e-10 * scale, name


@pytest.mark.parametrize("squeeze", catalog.SQUEEZES)
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_a_folded_network_is_the_plain_one(backbone: str, squeeze: str) -> None:
    assert_equal(*both(backbone=backbone, squeeze=squeeze))


@pytest.mark.parametrize("squeeze", ["gmp", "random", "CBAM"])
@pytest.mark.parametrize(("backbone", "placement"), PLACED)
def test_so_it_is_wherever_the_block_stands(backbone: str, placement: str, squeeze: str) -> None:
    assert_equal(*both(backbone=backbone, squeeze=squeeze, placement=placement))


@pytest.mark.parametrize("squeeze", ["std", "RG"])
@pytest.mark.parametrize("stages", ["conv2", "conv3+conv5"])
def test_so_it_is_where_only_some_stages_have_a_block(stages: str, squeeze: str) -> None:
    assert_equal(*both(backbone="resnet18", squeeze=squeeze, stages=stages))


@pytest.mark.parametrize("squeeze", ["baseline", "SP"])
def test_a_zero_initialised_network_begins_alike_in_both_forms(squeeze: str) -> None:
    config = model_config(**SMALL | {"backbone": "resnet50", "squeeze": squeeze, "zero_init_gamma": True})
    assert_equal(*(build(config, seed=3, block_form=form).double() for form in ("plain", "folded")))


@pytest.mark.parametrize("squeeze", catalog.SQUEEZES)
def test_names_and_weights_do_not_depend_on_the_form(squeeze: str) -> None:
    given: dict[str, Any] = {"num_classes": 10, "image_size": 224, "width": 0.25, "seed": 4}
    plain, fold = (create_model("resnet50", squeeze, **given, block_form=form) for form in catalog.BLOCK_FORMS)
    wanted, found = plain.state_dict(), fold.state_dict()
    assert list(found) == list(wanted)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.parametrize("squeeze", ["gap", "SP", "random", "GC", "CBAM"])
def test_a_hook_on_the_gates_sees_all_of_them_in_both_forms(squeeze: str) -> None:
    counts = []
    for model in both(backbone="resnet18", squeeze=squeeze):
        seen: list[Tensor] = []
        for gate in (module for module in model.modules() if isinstance(module, Gate)):
            gate.register_forward_hook(lambda _gate, _given, out, seen=seen: seen.append(out))
        with torch.no_grad():
            model.eval()(torch.zeros(2, 3, 56, 56, dtype=torch.float64))
        counts.append(len(seen))
    assert counts[0] == counts[1]


def test_an_unknown_form_is_told() -> None:
    with pytest.raises(ConfigError, match="block_form: unknown name 'fold'; did you mean 'folded'"):
        create_model("resnet18", block_form="fold")
