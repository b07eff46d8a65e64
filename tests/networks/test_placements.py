"""Where a block stands in its residual block, against the definitions written out as plain functions in float64."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqzlab import catalog, create_model
from sqzlab.config import ModelConfig
from sqzlab.networks.resnet import build
from sqzlab.networks.se_block import Gate
from sqzlab.resolving import model_config, sites_of

SMALL: dict[str, Any] = {"num_classes": 10, "image_size": 32, "stem": "small", "width": 0.25}
PLACED = [
    (backbone, placement)
    for backbone, placement in product(["resnet18", "resnet50", "resnext50_32x4d"], catalog.PLACEMENTS)
    if placement != "3x3" or catalog.BACKBONES[backbone].block == "bottleneck"
]
IN_BLOCKS = [(backbone, placement) for backbone, placement in PLACED if backbone != "resnext50_32x4d"]


def images(count: int, size: int) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def scrambled(config: ModelConfig) -> nn.Module:
    """A float64 network in which no norm and no running statistic is trivial."""
    model = build(config, seed=5).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.ndim == 1 and value.is_floating_point():
                low = 0.5 if name.endswith(("weight", "running_var")) else -0.5
                value.copy_(torch.rand(value.shape, generator=generator) + low)
    return model


# ---- the reference -----------------------------------------------------------------------------


@dataclass
class Reference:
    """ResNet with SE (gap) from its definition, on a state dict."""

    config: ModelConfig
    state: dict[str, Tensor]
    training: bool

    def conv(self, name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias, mean, var = (
            self.state[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        if self.training:
            mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), unbiased=False)
        scaled = (x - mean.view(1, -1, 1, 1)) / (var.view(1, -1, 1, 1) + 1e-5).sqrt()
        return scaled * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)

    def se(self, name: str, x: Tensor) -> Tensor:
        path = f"{name}.se.excitation"
        hidden = x.mean(dim=(2, 3)) @ self.state[f"{path}.fc1.weight"].T + self.state[f"{path}.fc1.bias"]
        z = hidden.clamp(min=0) @ self.state[f"{path}.fc2.weight"].T + self.state[f"{path}.fc2.bias"]
        gate = {"sigmoid": 1 / (1 + (-z).exp()), "tanh": z.tanh(), "relu": z.clamp(min=0)}[str(self.config.gate)]
        return x * gate.view(*gate.shape, 1, 1)

    def block(self, name: str, x: Tensor, stride: int, placement: str | None) -> Tensor:
        shortcut = x
        if f"{name}.downsample.0.weight" in self.state:
            shortcut = self.norm(f"{name}.downsample.1", self.conv(f"{name}.downsample.0", x, stride))
        if placement == "identity":
            shortcut = self.se(name, shortcut)
        branch = self.se(name, x) if placement == "pre" else x
        row = catalog.BACKBONES[self.config.backbone]
        if row.block == "basic":
            branch = self.norm(f"{name}.bn1", self.conv(f"{name}.conv1", branch, stride)).clamp(min=0)
            branch = self.norm(f"{name}.bn2", self.conv(f"{name}.conv2", branch))
        else:
            first, second = (stride, 1) if self.config.stride == "v1" else (1, stride)
            branch = self.norm(f"{name}.bn1", self.conv(f"{name}.conv1", branch, first)).clamp(min=0)
            branch = self.norm(f"{name}.bn2", self.conv(f"{name}.conv2", branch, second, row.groups))
            branch = (self.se(name, branch) if placement == "3x3" else branch).clamp(min=0)
            branch = self.norm(f"{name}.bn3", self.conv(f"{name}.conv3", branch))
        if placement == "standard":
            branch = self.se(name, branch)
        x = (branch + shortcut).clamp(min=0)
        return self.se(name, x) if placement == "post" else x

    def __call__(self, x: Tensor) -> Tensor:
        x = self.norm("bn1", self.conv("conv1", x)).clamp(min=0)  # the small stem
        for stage, depth in enumerate(catalog.BACKBONES[self.config.backbone].depths):
            with_se = stage in catalog.STAGES[str(self.config.stages)]
            for index in range(depth):
                stride = 2 if stage and index == 0 else 1
                x = self.block(f"layer{stage + 1}.{index}", x, stride, self.config.placement if with_se else None)
        return x.mean(dim=(2, 3)) @ self.state["fc.weight"].T + self.state["fc.bias"]


def agree_with_the_reference(config: ModelConfig, training: bool) -> None:
    model = scrambled(config).train(training)
    reference = Reference(config, {name: value.clone() for name, value in model.state_dict().items()}, training)
    results = []
    for network in (model, reference):
        x = images(3, 32).double().requires_grad_()
        logits = network(x)
        logits.square().sum().backward()
        results.append((logits, x.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-8, atol=1e-9 * float(results[1][1].abs().max()))


# ---- placements --------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("backbone", "placement"), PLACED)
def test_a_placement_computes_what_its_definition_says(backbone: str, placement: str, training: bool) -> None:
    given: dict[str, Any] = {"backbone": backbone, "placement": placement, "fc_bias": True, **SMALL}
    agree_with_the_reference(model_config(squeeze="gap", **given), training)


@pytest.mark.parametrize("gate", catalog.GATES)
@pytest.mark.parametrize("placement", catalog.PLACEMENTS)
def test_every_gate_acts_in_every_placement(gate: str, placement: str) -> None:
    given: dict[str, Any] = {"placement": placement, "gate": gate, "stages": "conv2+conv4", "fc_bias": True, **SMALL}
    agree_with_the_reference(model_config(backbone="resnet50", squeeze="gap", **given), training=True)


@pytest.mark.parametrize("placement", catalog.PLACEMENTS)
def test_a_stride_in_the_first_convolution_moves_no_block(placement: str) -> None:
    given: dict[str, Any] = {"placement": placement, "stride": "v1", "fc_bias": True, **SMALL}
    agree_with_the_reference(model_config(backbone="resnet50", squeeze="gap", **given), training=False)


@pytest.mark.parametrize(("backbone", "placement"), PLACED)
def test_gates_of_one_leave_the_baseline_in_every_placement(backbone: str, placement: str) -> None:
    plain = create_model(backbone, seed=0, **SMALL)
    gated = create_model(backbone, "gap", placement=placement, seed=0, **SMALL)
    for module in gated.modules():
        if isinstance(module, Gate):
            module.register_forward_hook(lambda _module, _args, gate: torch.ones_like(gate))
    x = images(2, 32)
    assert torch.equal(gated(x), plain(x))


@pytest.mark.parametrize(("backbone", "placement"), IN_BLOCKS)
def test_a_residual_block_leaves_its_input_as_it_was(backbone: str, placement: str) -> None:
    model = create_model(backbone, "gap", placement=placement, seed=0, **SMALL)
    for block in layers(model)[1][:2]:  # with a projection, and with its input as its shortcut
        x = torch.randn(2, block.conv1.in_channels, 8, 8, generator=torch.Generator().manual_seed(3))
        before = x.clone()
        block(x)
        assert torch.equal(x, before)


@pytest.mark.parametrize(("backbone", "placement"), IN_BLOCKS)
def test_a_residual_block_compiles_to_one_graph_in_every_placement(backbone: str, placement: str) -> None:
    torch.compiler.reset()
    model = create_model(backbone, "gap", placement=placement, seed=0, **SMALL)
    results = []
    for block in (model.layer2[0], torch.compile(model.layer2[0], fullgraph=True, backend="aot_eager")):
        x = torch.randn(2, model.layer2[0].conv1.in_channels, 8, 8, generator=torch.Generator().manual_seed(3))
        x.requires_grad_()
        block(x).square().sum().backward()
        results.append(x.grad)
    torch.testing.assert_close(*results)


# ---- sites -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stem", "stride", "image_size"),
    [("imagenet", "v1.5", 75), ("caffe", "v1", 75), ("caffe", "v1.5", 64), ("small", "v1", 33)],
)
@pytest.mark.parametrize("placement", catalog.PLACEMENTS)
def test_every_block_meets_the_maps_of_its_site(placement: str, stem: str, stride: str, image_size: int) -> None:
    given: dict[str, Any] = {"placement": placement, "stem": stem, "stride": stride, "image_size": image_size}
    config = model_config(backbone="resnet50", squeeze="gap", width=0.25, num_classes=10, **given)
    with torch.device("meta"):
        model = build(config).eval()
        seen: list[tuple[str, torch.Size]] = []
        for name, module in model.named_modules():
            if name.endswith(".se"):
                module.register_forward_hook(lambda _m, args, _out, name=name: seen.append((name, args[0].shape)))
        model(torch.empty(2, 3, image_size, image_size))
    assert seen == [
        (f"layer{site.stage + 1}.{site.index}.se", torch.Size((2, site.channels, site.size, site.size)))
        for site in sites_of(config)
    ]


@pytest.mark.parametrize("stages", catalog.STAGES)
def test_only_the_chosen_stages_have_blocks(stages: str) -> None:
    model = create_model("resnet18", "gap", stages=stages, seed=0, **SMALL)
    plain = create_model("resnet18", seed=0, **SMALL)
    for stage, (with_se, without) in enumerate(zip(layers(model), layers(plain), strict=True)):
        chosen = stage in catalog.STAGES[stages]
        assert all(hasattr(block, "se") == chosen for block in with_se)
        if not chosen:
            assert [type(block) for block in with_se] == [type(block) for block in without]
            assert list(with_se.state_dict()) == list(without.state_dict())


def layers(model: nn.Module) -> list[nn.Sequential]:
    return [model.get_submodule(f"layer{number}") for number in (1, 2, 3, 4)]  # type: ignore[misc]


@pytest.mark.parametrize("placement", ["pre", "post", "identity", "3x3"])
@pytest.mark.parametrize("squeeze", [name for name, row in catalog.SQUEEZES.items() if row.arguments])
def test_every_block_trains_in_every_placement(squeeze: str, placement: str) -> None:
    backbone = "resnet50" if placement == "3x3" else "resnet18"
    size = 56 if squeeze == "dct" else 32
    small = SMALL | {"image_size": size, "width": 0.5 if squeeze == "GC" else 0.25}
    model = create_model(backbone, squeeze, placement=placement, seed=0, **small)
    F.cross_entropy(model(images(2, size)), torch.arange(2)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
