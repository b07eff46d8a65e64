"""Networks against torchvision, and what `create_model` refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck, ResNet

from sqzlab import catalog, create_model
from sqzlab.errors import ConfigError
from sqzlab.networks.random_squeeze import set_random_keys
from sqzlab.networks.se_block import Excitation, Gate, SEBlock
from sqzlab.networks.squeezes import SQUEEZES

SMALL: dict[str, Any] = {"num_classes": 10, "image_size": 32, "stem": "small", "width": 0.25}
BLOCKED = [name for name, row in catalog.SQUEEZES.items() if row.arguments]


def small(squeeze: str) -> dict[str, Any]:
    """The frequencies of `dct` need maps of a multiple of 7, the LayerNorm of `GC` two hidden units."""
    return SMALL | {"dct": {"image_size": 56}, "GC": {"reduction": 8}}.get(squeeze, {})


def images(count: int, size: int) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def same_state(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return list(left) == list(right) and all(torch.equal(left[key], right[key]) for key in left)


def torchvisions(backbone: str, num_classes: int) -> nn.Module:
    if backbone == "resnext101_32x4d":  # torchvision names only its 32x8d and 64x4d
        return ResNet(Bottleneck, [3, 4, 23, 3], num_classes, groups=32, width_per_group=4)  # type: ignore[no-any-return]
    return torchvision.models.get_model(backbone, num_classes=num_classes)  # type: ignore[no-any-return]


# ---- oracles -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", catalog.BACKBONES)
def test_baseline_equals_torchvision_bit_for_bit(backbone: str) -> None:
    torch.manual_seed(3)
    ours = create_model(backbone, num_classes=7)
    torch.manual_seed(3)
    theirs = torchvisions(backbone, 7)
    assert same_state(ours, theirs)
    x = images(2, 64)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_baseline_with_zero_init_equals_torchvision_in_training() -> None:
    torch.manual_seed(3)
    ours = create_model("resnet50", zero_init_gamma=True)
    torch.manual_seed(3)
    theirs = torchvision.models.resnet50(zero_init_residual=True)
    assert same_state(ours, theirs)
    x = images(4, 64)
    assert torch.equal(ours(x), theirs(x))
    assert same_state(ours, theirs)  # running statistics


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "resnext50_32x4d"])
@pytest.mark.parametrize("gate", catalog.GATES)
def test_open_gates_leave_torchvisions_network(gate: str, backbone: str) -> None:
    theirs = torchvisions(backbone, 10).eval()
    ours = create_model(backbone, "gap", num_classes=10, fc_bias=True, gate=gate).eval()
    load_backbone(ours, theirs)
    for module in ours.modules():
        if isinstance(module, Excitation):  # sigmoid and tanh of 1000 are exactly 1
            nn.init.zeros_(module.fc2.weight)
            nn.init.constant_(module.fc2.bias, 1.0 if gate == "relu" else 1000.0)
    x = images(2, 64)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("squeeze", [name for name in BLOCKED if name not in ("CBAM", "GC")])
def test_gates_of_one_leave_the_baseline(squeeze: str) -> None:
    """All but CBAM, which gates pixels too, and GC, which adds, act through their `Gate`s alone."""
    plain = create_model("resnet18", seed=0, **small("dct"))
    gated = create_model("resnet18", squeeze, seed=0, **small("dct"))
    seen: list[tuple[int, ...]] = []

    def open_gate(module: nn.Module, args: tuple[Tensor, ...], gate: Tensor) -> Tensor:
        seen.append(tuple(gate.shape))
        return torch.ones_like(gate)

    for module in gated.modules():
        if isinstance(module, Gate):
            module.register_forward_hook(open_gate)
    x = images(2, 56)
    with torch.no_grad():
        assert torch.equal(gated(x), plain(x))
    maps = [(2, 16, 56, 56), (2, 32, 28, 28), (2, 64, 14, 14), (2, 128, 7, 7)]
    assert seen == [shape if squeeze == "no_squeeze" else shape[:2] for shape in maps for _ in range(2)]


def load_backbone(ours: nn.Module, theirs: nn.Module) -> None:
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not unexpected
    assert all(".se." in name for name in missing)


@pytest.mark.parametrize("kind", catalog.GATES)
def test_a_gate_is_torchs_function_of_that_name(kind: str) -> None:
    z = torch.linspace(-9, 9, 37, dtype=torch.float64).view(1, -1)
    assert torch.equal(Gate(kind)(z), getattr(torch, kind)(z))
    assert kind in repr(Gate(kind))


@pytest.mark.parametrize("gate", catalog.GATES)
@pytest.mark.parametrize("bias", [False, True])
def test_an_excitation_is_two_linear_layers(bias: bool, gate: str) -> None:
    ours = Excitation(12, 5, bias=bias, gate=gate).double()
    state = ours.state_dict()
    z = torch.randn(7, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first = z @ state["fc1.weight"].T + state.get("fc1.bias", 0)
    expected = getattr(torch, gate)(first.clamp(min=0) @ state["fc2.weight"].T + state.get("fc2.bias", 0))
    torch.testing.assert_close(ours(z), expected)
    assert state["fc1.weight"].shape == (5, 12)


@pytest.mark.parametrize("backbone", ["resnet50", "resnext50_32x4d"])
def test_v1_moves_the_stride_to_the_first_convolution_and_changes_no_weight(backbone: str) -> None:
    models = [create_model(backbone, "gap", stride=stride, seed=0, **SMALL) for stride in catalog.STRIDES]
    assert same_state(*models)
    for model, strides in zip(models, ([(1, 1), (2, 2)], [(2, 2), (1, 1)]), strict=True):
        for number in (2, 3, 4):
            first, second = model.get_submodule(f"layer{number}")[:2]  # type: ignore[index]
            assert [first.conv1.stride, first.conv2.stride] == strides
            assert {second.conv1.stride, second.conv2.stride} == {(1, 1)}


# ---- every squeeze in a network ----------------------------------------------------------------


def loss_and_gradients(model: nn.Module, x: Tensor, precision: torch.dtype | None = None) -> list[Tensor]:
    set_random_keys(model, seed=0, split=0, epoch=0, image_index=torch.arange(len(x)))
    with torch.autocast("cpu", precision, enabled=precision is not None):
        loss = F.cross_entropy(model(x), torch.arange(len(x)))
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("squeeze", catalog.SQUEEZES)
def test_every_parameter_has_a_finite_gradient_at_the_first_step_with_zero_init(squeeze: str) -> None:
    model = create_model("resnet18", squeeze, zero_init_gamma=True, seed=0, **small(squeeze))
    found = loss_and_gradients(model, images(8, small(squeeze)["image_size"]))
    assert len(found) == 1 + len(list(model.parameters()))
    assert all(tensor.isfinite().all() for tensor in found)


@pytest.mark.parametrize("squeeze", catalog.SQUEEZES)
def test_channels_last_gives_the_same_loss_and_gradients(squeeze: str) -> None:
    x = images(8, small(squeeze)["image_size"]).double()
    plain = create_model("resnet18", squeeze, seed=0, **small(squeeze)).double()
    last = create_model("resnet18", squeeze, seed=0, **small(squeeze)).double().to(memory_format=torch.channels_last)
    pairs = zip(
        loss_and_gradients(plain, x),
        loss_and_gradients(last, x.to(memory_format=torch.channels_last)),
        strict=True,
    )
    for a, b in pairs:
        torch.testing.assert_close(a, b.contiguous(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("squeeze", SQUEEZES)
def test_bf16_autocast_keeps_the_statistics_in_float32_and_the_maps_in_bf16(squeeze: str) -> None:
    model = create_model("resnet18", squeeze, seed=0, **small(squeeze))
    seen: list[tuple[torch.dtype, torch.dtype]] = []
    blocks = [module for module in model.modules() if isinstance(module, SEBlock)]
    for block in blocks:
        block.squeeze.register_forward_hook(lambda _m, args, z: seen.append((args[0].dtype, z.dtype)))
        block.register_forward_hook(lambda _m, args, out: seen.append((args[0].dtype, out.dtype)))
    found = loss_and_gradients(model, images(8, small(squeeze)["image_size"]), torch.bfloat16)
    assert all(tensor.isfinite().all() for tensor in found)
    assert seen == [(torch.bfloat16, torch.float32), (torch.bfloat16, torch.bfloat16)] * len(blocks)


@pytest.mark.parametrize(
    ("squeeze", "image_size", "stem"),
    [
        (squeeze, image_size, stem)
        for squeeze in catalog.SQUEEZES
        for image_size, stem in [(224, "imagenet"), (192, "imagenet"), (160, "imagenet"), (32, "small")]
        if squeeze != "dct" or image_size == 224  # its maps are multiples of 7
    ],
)
def test_every_squeeze_runs_at_common_image_sizes(squeeze: str, image_size: int, stem: str) -> None:
    reduction = 8 if "reduction" in catalog.SQUEEZES[squeeze].arguments else None
    model = create_model(
        "resnet18", squeeze, reduction=reduction, image_size=image_size, stem=stem, width=0.25, num_classes=5
    )
    assert model(images(2, image_size)).shape == (2, 5)


@pytest.mark.parametrize("squeeze", catalog.SQUEEZES)
def test_a_network_of_a_half_type_computes(squeeze: str) -> None:
    model = create_model("resnet18", squeeze, **small(squeeze), seed=0).bfloat16().eval()
    logits = model(images(2, small(squeeze)["image_size"]).bfloat16())
    assert logits.dtype is torch.bfloat16
    assert logits.isfinite().all()


@pytest.mark.parametrize("backbone", catalog.BACKBONES)
def test_width_scales_every_stage(backbone: str) -> None:
    model = create_model(backbone, "gap", width=0.25, image_size=64)
    row = catalog.BACKBONES[backbone]
    assert [block.excitation.fc1.in_features for block in model.modules() if isinstance(block, SEBlock)] == [
        channels for channels, depth in zip(row.channels(0.25), row.depths, strict=True) for _ in range(depth)
    ]


def test_network_with_noise_is_compiled_once_to_one_graph() -> None:
    model = create_model("resnet18", "random", seed=0, **SMALL).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = images(4, 32)
    for epoch in (1, 2, 3):
        torch.compiler.set_stance("default" if epoch == 1 else "fail_on_recompile")
        outputs = []
        for network in (model, compiled):
            set_random_keys(model, seed=0, split=1, epoch=epoch, image_index=torch.arange(4))
            with torch.no_grad():
                outputs.append(network(x))
        torch.testing.assert_close(*outputs)
    torch.compiler.set_stance("default")


@pytest.mark.parametrize("squeeze", SQUEEZES)
def test_every_squeeze_compiles_to_one_graph(squeeze: str) -> None:
    torch.compiler.reset()
    block = SEBlock(SQUEEZES[squeeze](16, 14, 7), Excitation(16, 2, bias=True, gate="sigmoid"))
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    results = []
    for module in (block, compiled):
        set_random_keys(block, seed=0, split=0, epoch=0, image_index=torch.arange(4))
        x = torch.randn(4, 16, 14, 14, generator=torch.Generator().manual_seed(0)).requires_grad_()
        module(x).square().sum().backward()
        results.append(x.grad)
    torch.testing.assert_close(*results)


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"backbone": "resnet20"}, "backbone: unknown name 'resnet20'; did you mean 'resnet"),
        ({"squeeze": "gaps"}, "squeeze: unknown name 'gaps'; did you mean 'gap'?"),
        ({"fc_bias": True}, "fc_bias: does not apply to squeeze 'baseline'"),
        ({"reduction": 16}, "reduction: does not apply to squeeze 'baseline'"),
        ({"squeeze": "gap", "width": 0.125}, "reduction: 16 leaves no hidden unit for the 8 channels of stage 1"),
        ({"squeeze": "gap", "gate": "softmax"}, "gate: unknown name 'softmax'; valid: sigmoid, tanh, relu"),
        ({"squeeze": "CBAM", "gate": "tanh"}, "gate: does not apply to squeeze 'CBAM'; it applies to gap"),
        ({"squeeze": "ECA", "reduction": 8}, "reduction: does not apply to squeeze 'ECA'"),
        ({"placement": "pre"}, "placement: does not apply to squeeze 'baseline'"),
        ({"stages": "conv2"}, "stages: does not apply to squeeze 'baseline'"),
        ({"squeeze": "gap", "placement": "before"}, "placement: unknown name 'before'; valid: standard, pre"),
        ({"squeeze": "gap", "placement": "3x3"}, "placement: '3x3' is for the 3x3 convolution of a Bottleneck"),
        ({"squeeze": "gap", "stages": "conv1"}, "stages: unknown name 'conv1'; did you mean 'conv"),
        ({"squeeze": "gap", "width_rule": "ceil"}, "width_rule: unknown name 'ceil'"),
        ({"stride": "v1"}, "stride: does not apply to backbone 'resnet18'; it applies to resnet50"),
        ({"squeeze": "RG", "image_size": 176}, "windows of 6x6"),
        ({"squeeze": "SP", "image_size": 96}, "the 4x4 level of the pyramid would repeat pixels of the 3x3 maps"),
        ({"squeeze": "std", "image_size": 32}, "not defined on the 1x1 maps of stage 4"),
        ({"squeeze": "gap", "width": 0.3}, "width: 0.3 makes 64 * width = 19.2, which is not whole"),
        ({"backbone": "resnext50_32x4d", "width": 0.125}, "width: 0.125 leaves no channel in a group"),
        ({"num_classes": 0}, "num_classes: 0 is out of range; valid: at least 1"),
        ({"init": "xavier"}, "init: unknown name 'xavier'; valid: torchvision, zero_bias"),
        ({"seed": -1}, "seed: -1 is no seed; valid: whole numbers from 0 to 2147483647"),
        ({"seed": 1.5}, "seed: 1.5 is no seed"),
        ({"seed": True}, "seed: True is no seed"),
    ],
)
@pytest.mark.parametrize("seed", [None, 0])
def test_arguments_that_cannot_be_are_refused(given: dict[str, Any], told: str, seed: int | None) -> None:
    with pytest.raises(ConfigError) as caught:
        create_model(**{"backbone": "resnet18", "seed": seed, **given})
    assert told in str(caught.value)
