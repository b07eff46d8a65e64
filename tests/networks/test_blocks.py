"""Every whole block against its definition in NumPy at float64, its gates, and how it starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_blocks import made, maps
from torch import Tensor, nn

from sqzlab import catalog, create_model
from sqzlab.networks.blocks import BLOCKS, BlockOptions
from sqzlab.networks.gsop import covariance
from sqzlab.networks.se_block import Excitation, Gate, SEBlock
from sqzlab.networks.squeezes import SQUEEZES

Array = NDArray[np.float64]
Weights = dict[str, Array]
SCALED = ["SRM", "ECA", "GCT", "GSoP"]


# ---- the reference -----------------------------------------------------------------------------


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def normed(z: Array, weights: Weights, name: str, training: bool) -> Array:
    """BatchNorm over every axis but the second."""
    axes = (0, *range(2, z.ndim))
    shape = (1, -1, *[1] * (z.ndim - 2))
    mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    if training:
        mean, var = z.mean(axis=axes), z.var(axis=axes)
    scale = weights[f"{name}.weight"] / np.sqrt(var + 1e-5)
    return (z - mean.reshape(shape)) * scale.reshape(shape) + weights[f"{name}.bias"].reshape(shape)


def layers(z: Array, weights: Weights) -> Array:
    hidden = np.maximum(weights["excitation.fc1.weight"] @ z + weights["excitation.fc1.bias"], 0)
    return weights["excitation.fc2.weight"] @ hidden + weights["excitation.fc2.bias"]


def no_squeeze(x: Array, weights: Weights, training: bool) -> Array:
    out = np.empty_like(x)
    for n, i, j in np.ndindex(x.shape[0], x.shape[2], x.shape[3]):
        out[n, :, i, j] = x[n, :, i, j] * sigmoid(layers(x[n, :, i, j], weights))
    return out


def cbam(x: Array, weights: Weights, training: bool) -> Array:
    size = x.shape[2]
    gates = [sigmoid(layers(v.mean(axis=(1, 2)), weights) + layers(v.max(axis=(1, 2)), weights)) for v in x]
    x = x * np.array(gates)[:, :, None, None]
    planes = np.pad(np.stack([x.max(axis=1), x.mean(axis=1)], axis=1), [(0, 0), (0, 0), (3, 3), (3, 3)])
    z = np.zeros((len(x), 1, size, size))
    for n, i, j in np.ndindex(len(x), size, size):
        z[n, 0, i, j] = (planes[n, :, i : i + 7, j : j + 7] * weights["spatial.conv.weight"][0]).sum()
    return x * sigmoid(normed(z, weights, "spatial.norm", training))


def srm(x: Array, weights: Weights, training: bool) -> Array:
    style = np.stack([x.mean(axis=(2, 3)), np.sqrt(x.var(axis=(2, 3), ddof=1) + 1e-5)], axis=2)
    z = normed((style * weights["weight"]).sum(axis=2), weights, "norm", training)
    return x * sigmoid(z)[:, :, None, None]


def eca(x: Array, weights: Weights, training: bool) -> Array:
    kernel = weights["conv.weight"][0, 0]
    beside = len(kernel) // 2
    mean = np.pad(x.mean(axis=(2, 3)), [(0, 0), (beside, beside)])
    z = np.array([[mean[n, c : c + len(kernel)] @ kernel for c in range(x.shape[1])] for n in range(len(x))])
    return x * sigmoid(z)[:, :, None, None]


def gct(x: Array, weights: Weights, training: bool) -> Array:
    out = np.empty_like(x)
    for n, image in enumerate(x):
        embedding = [a * math.sqrt((v**2).sum() + 1e-5) for a, v in zip(weights["alpha"], image, strict=True)]
        over_channels = math.sqrt(sum(e * e for e in embedding) / len(embedding) + 1e-5)
        for c, e in enumerate(embedding):
            out[n, c] = image[c] * (1 + math.tanh(weights["gamma"][c] * e / over_channels + weights["beta"][c]))
    return out


def gsop(x: Array, weights: Weights, training: bool) -> Array:
    def convolved(z: Array, name: str) -> Array:
        kernel = weights[f"{name}.weight"].reshape(-1, z.shape[1])
        bias = weights[f"{name}.bias"].reshape(-1, *[1] * (z.ndim - 2))
        return np.einsum("oc,nc...->no...", kernel, z) + bias

    reduced = np.maximum(normed(convolved(np.maximum(x, 0), "reduce"), weights, "norm", training), 0)
    pixels = reduced.reshape(len(x), 128, -1)
    rows = normed(np.array([np.cov(image, bias=True) for image in pixels]), weights, "row_norm", training)
    kernels, bias = weights["rows.weight"].reshape(128, 4, 128), weights["rows.bias"]
    z = np.array([[kernels[k] @ image[k] for k in range(128)] for image in rows]).reshape(len(x), 512) + bias
    return x * sigmoid(convolved(z, "expand"))[:, :, None, None]


def gc(x: Array, weights: Weights, training: bool) -> Array:
    out = np.empty_like(x)
    for n, image in enumerate(x):
        score = np.exp(np.einsum("c,chw->hw", weights["squeeze.score.weight"][0, :, 0, 0], image))
        context = (image * score).sum(axis=(1, 2)) / score.sum()
        z = weights["fc1.weight"] @ context + weights["fc1.bias"]
        z = (z - z.mean()) / np.sqrt(z.var() + 1e-5) * weights["norm.weight"] + weights["norm.bias"]
        out[n] = image + (weights["fc2.weight"] @ np.maximum(z, 0) + weights["fc2.bias"])[:, None, None]
    return out


REFERENCES: dict[str, Callable[[Array, Weights, bool], Array]] = {
    "no_squeeze": no_squeeze,
    "CBAM": cbam,
    "SRM": srm,
    "ECA": eca,
    "GCT": gct,
    "GSoP": gsop,
    "GC": gc,
}


# ---- values and gradients ----------------------------------------------------------------------


def test_names_are_those_of_the_catalog_that_are_whole_blocks() -> None:
    assert set(BLOCKS) == {name for name, row in catalog.SQUEEZES.items() if row.whole}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("channels", "size"), [(6, 5), (8, 8)])
@pytest.mark.parametrize("name", BLOCKS)
def test_block_equals_its_definition(name: str, channels: int, size: int, training: bool) -> None:
    block, x = made(name, channels, size).train(training), maps(4, channels, size, size)
    weights = {key: value.numpy().copy() for key, value in block.state_dict().items()}
    expected = REFERENCES[name](x.numpy(), weights, training)
    np.testing.assert_allclose(block(x).detach().numpy(), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_equal_finite_differences(name: str) -> None:
    block = made(name, 4, 3, hidden=2)
    parameters = dict(block.named_parameters())

    def output(x: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(block, given, (x,))  # type: ignore[no-any-return]

    x = maps(3, 4, 3, 3, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(output, (x, *parameters.values()), fast_mode=True)


@pytest.mark.parametrize("name", BLOCKS)
def test_channels_last_gives_the_same_values_and_gradients_and_is_kept(name: str) -> None:
    block, plain = made(name).eval(), maps(4, 6, 5, 5).requires_grad_()
    last = plain.detach().to(memory_format=torch.channels_last).requires_grad_()
    block(plain).square().sum().backward()
    out = block(last)
    out.square().sum().backward()
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, block(plain), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(last.grad, plain.grad, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, -1e-20, 2.0, -3.0])
@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_of_constant_maps_are_finite(name: str, value: float) -> None:
    block, x = made(name).float(), torch.full((2, 6, 5, 5), value, requires_grad=True)
    out = block(x)
    out.square().sum().backward()
    found = [out, x.grad, *(parameter.grad for parameter in block.parameters())]
    assert all(tensor is not None and tensor.isfinite().all() for tensor in found)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_autocast_keeps_the_maps_type_and_large_values(name: str, dtype: torch.dtype) -> None:
    block, x = made(name).float().eval(), (300 * maps(4, 6, 5, 5)).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        out = block(x)
    expected = block.double()(x.double())
    assert out.dtype == dtype
    assert (out - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("name", ["SRM", "ECA", "GCT"])
def test_gates_from_sums_are_float32_under_autocast(name: str) -> None:
    block, x = made(name).float().eval(), (100 + maps(4, 6, 5, 5)).float()
    with torch.autocast("cpu", torch.bfloat16):
        out = block(x)
    torch.testing.assert_close(out.double(), block.double()(x.double()), rtol=1e-5, atol=1e-5)


def test_covariances_are_float32_under_autocast() -> None:
    block, seen = made("GSoP").float(), []
    block.get_submodule("row_norm").register_forward_hook(lambda _m, args, _out: seen.append(args[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        block(maps(4, 6, 5, 5).bfloat16())
    assert seen == [torch.float32]


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_compiles_to_one_graph(name: str) -> None:
    torch.compiler.reset()
    block = made(name).eval()
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    results = []
    for module in (block, compiled):
        x = maps(4, 6, 5, 5).requires_grad_()
        module(x).square().sum().backward()
        results.append(x.grad)
    torch.testing.assert_close(*results)


# ---- gates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BLOCKS)
def test_hooks_on_gates_see_the_factors_on_the_channels(name: str) -> None:
    block, x = made(name).eval(), maps(4, 6, 5, 5)
    seen: list[Tensor] = []
    for module in block.modules():
        if isinstance(module, Gate):
            module.register_forward_hook(lambda _m, _args, out: seen.append(out))
    out = block(x)
    shapes = {"GC": [], "no_squeeze": [(4, 6, 5, 5)]}
    assert [tuple(gate.shape) for gate in seen] == shapes.get(name, [(4, 6)])
    if name in SCALED:
        torch.testing.assert_close(out, x * seen[0][:, :, None, None], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["GCT", "GC"])
@pytest.mark.parametrize("seed", [None, 0])
def test_blocks_that_start_as_the_identity_leave_torchvisions_network(name: str, seed: int | None) -> None:
    small: dict[str, Any] = {"num_classes": 5, "image_size": 32, "stem": "small", "width": 0.5}
    plain = create_model("resnet18", seed=0, **small).eval()
    model = create_model("resnet18", name, seed=seed, **small).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x), plain(x), rtol=0, atol=0)


@pytest.mark.parametrize("seed", [None, 0])
def test_styles_start_as_a_gate_of_a_half(seed: int | None) -> None:
    x, block = torch.randn(4, 16, 8, 8), started("SRM", seed)
    assert torch.equal(block(x), x / 2)


@pytest.mark.parametrize("seed", [None, 0])
def test_the_spatial_gate_of_cbam_starts_at_a_half(seed: int | None) -> None:
    x, block = torch.randn(4, 16, 8, 8), started("CBAM", seed)
    assert torch.equal(block.get_submodule("spatial")(x), x / 2)


def started(name: str, seed: int | None) -> nn.Module:
    """The first block of a network as it starts."""
    reduction = 8 if "reduction" in catalog.SQUEEZES[name].arguments else None
    small: dict[str, Any] = {"num_classes": 5, "image_size": 32, "stem": "small", "width": 0.25}
    model = create_model("resnet18", name, reduction=reduction, seed=seed, **small)
    return model.get_submodule("layer1.0.se")


@pytest.mark.parametrize("fc_bias", [True, False])
def test_no_squeeze_is_an_se_block_of_every_pixel_with_the_same_names(fc_bias: bool) -> None:
    block, x = made("no_squeeze", fc_bias=fc_bias), maps(3, 6, 4, 4)
    pixelwise = SEBlock(SQUEEZES["gap"](6, 1, 1), Excitation(6, 3, bias=fc_bias, gate="sigmoid")).double()
    pixelwise.load_state_dict(block.state_dict())
    rows = [torch.cat([pixelwise(x[:, :, i : i + 1, j : j + 1]) for j in range(4)], dim=3) for i in range(4)]
    torch.testing.assert_close(block(x), torch.cat(rows, dim=2))


@pytest.mark.parametrize("gate", catalog.GATES)
def test_no_squeeze_takes_every_gate(gate: str) -> None:
    block, x = BLOCKS["no_squeeze"](6, 4, BlockOptions(2, False, gate)), torch.randn(2, 6, 4, 4)
    fc1, fc2 = (block.get_parameter(f"excitation.{name}.weight") for name in ("fc1", "fc2"))
    z = torch.einsum("oh,nhij->noij", fc2, torch.einsum("hc,ncij->nhij", fc1, x).relu())
    torch.testing.assert_close(block(x), x * getattr(torch, gate)(z))


def test_equal_maximum_channels_give_the_gradient_to_one() -> None:
    block, x = made("CBAM").eval(), torch.ones(1, 6, 5, 5, dtype=torch.float64, requires_grad=True)
    block.spatial(x).sum().backward()  # type: ignore[operator,union-attr]
    assert x.grad is not None
    assert len(torch.unique(x.grad[0, :, 2, 2])) == 2


def test_covariance_is_numpys() -> None:
    x = maps(2, 4, 3, 3)
    expected = np.stack([np.cov(image.reshape(4, 9).numpy(), bias=True) for image in x])
    np.testing.assert_allclose(covariance(x).numpy(), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("channels", "kernel"), [(2, 1), (8, 3), (64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)]
)
def test_neighbourhood_grows_with_the_channels_by_the_papers_rule(channels: int, kernel: int) -> None:
    assert made("ECA", channels).get_parameter("conv.weight").shape == (1, 1, kernel)


def test_styles_of_1x1_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="not defined on 1x1 maps"):
        made("SRM")(maps(2, 6, 1, 1))
