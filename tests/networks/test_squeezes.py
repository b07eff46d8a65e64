"""Every squeeze against loops written from its definition, in float64, and where it is at an edge."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sqzlab import catalog
from sqzlab.networks.squeezes import SQUEEZES, Fusion, Gmp, ResolutionGuided, SpatialPyramid, Squeeze

Array = NDArray[np.float64]
STATISTICS = [name for name in SQUEEZES if name not in ("constant", "frozen_random", "random_train", "random")]
SIZES = [(8, 4), (7, 7), (14, 7), (16, 8), (5, 5), (10, 5), (4, 4)]  # size here, size in the last stage
TOP16 = (
    (0, 0, 6, 0, 0, 1, 1, 4, 5, 1, 3, 0, 0, 0, 3, 2),
    (0, 1, 0, 5, 2, 0, 2, 0, 0, 6, 0, 4, 6, 3, 5, 2),
)  # down and across, as cfzd/FcaNet lists them


def defined(names: list[str], sizes: list[tuple[int, int]]) -> list[tuple[str, int, int]]:
    """Each name with each size on which it is defined."""
    return [(name, *size) for name in names for size in sizes if catalog.SQUEEZES[name].undefined_on(*size) is None]


def made(name: str, channels: int = 3, size: int = 8, last_size: int = 4) -> Squeeze:
    """A squeeze in float64 whose weights and running statistics are all different."""
    generator = torch.Generator().manual_seed(7)
    squeeze = SQUEEZES[name](channels, size, last_size).double()
    with torch.no_grad():
        for key, parameter in squeeze.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(2 + drawn.abs() if key == "p" else drawn)
        for key, buffer in squeeze.named_buffers():
            if key.startswith("norm.running"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator, dtype=torch.float64) + 0.5)
    return squeeze


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- the reference -----------------------------------------------------------------------------


def cell(x: Array, row: int, column: int, grid: int) -> float:
    """Mean over one cell of adaptive pooling to grid x grid: rows floor(i*H/grid) to ceil((i+1)*H/grid)."""
    height, width = x.shape
    top, bottom = math.floor(row * height / grid), math.ceil((row + 1) * height / grid)
    left, right = math.floor(column * width / grid), math.ceil((column + 1) * width / grid)
    pixels = [x[i, j] for i in range(top, bottom) for j in range(left, right)]
    return sum(pixels) / len(pixels)


def fused(x: Array, weight: Array, bias: float) -> float:
    grid = weight.shape[0]
    return bias + sum(weight[i, j] * cell(x, i, j, grid) for i in range(grid) for j in range(grid))


def statistic(name: str, x: Array, weights: dict[str, Array], c: int) -> float:
    """What one map of channel c gives, before BatchNorm where there is one."""
    pixels = [float(v) for v in x.ravel()]
    mean = sum(pixels) / len(pixels)
    if name == "gap":
        return mean
    if name == "gmp":
        return max(pixels)
    if name == "avgmax":
        return (mean + max(pixels)) / 2
    if name == "rms":
        return math.sqrt(sum(v * v for v in pixels) / len(pixels) + 1e-5)
    if name == "gem":
        p = float(weights["p"][0])
        return (sum(max(v, 1e-6) ** p for v in pixels) / len(pixels)) ** (1 / p)
    if name == "SP":
        levels = [(weights[f"fusions.{i}.weight"][c, 0], float(weights[f"fusions.{i}.bias"][c])) for i in range(3)]
        return sum(fused(x, weight, bias) for weight, bias in levels)
    if name == "RG":
        return fused(x, weights["fusion.weight"][c, 0], 0.0) if "fusion.weight" in weights else mean
    std = math.sqrt(sum((v - mean) ** 2 for v in pixels) / (len(pixels) - 1))
    return std if name == "std" else mean * std


def coefficient(x: Array, c: int, channels: int) -> float:
    """Inner product of channel c's map with FcaNet's filter of its group, equations 3 and 9 of arXiv:2012.11879."""
    size, group = len(x), c * 16 // channels
    down, across = (indices[group] * (size // 7) for indices in TOP16)

    def wave(frequency: int, position: int) -> float:
        scale = math.sqrt((1 if frequency == 0 else 2) / size)
        return scale * math.cos(math.pi * frequency * (position + 0.5) / size)

    return sum(x[i, j] * wave(down, i) * wave(across, j) for i in range(size) for j in range(size))


def attended(x: Array, weights: dict[str, Array]) -> Array:
    """One image's pixels, (C, H, W), weighted by a softmax over their scores."""
    pixels = [x[:, i, j] for i in range(x.shape[1]) for j in range(x.shape[2])]
    scores = [math.exp(weights["score.weight"][0, :, 0, 0] @ pixel + weights["score.bias"][0]) for pixel in pixels]
    return sum((score * pixel for score, pixel in zip(scores, pixels, strict=True)), np.zeros(len(x))) / sum(scores)


def reference(squeeze: Squeeze, name: str, x: Array) -> Array:
    weights = {key: value.numpy() for key, value in squeeze.state_dict().items()}
    if name == "attention":
        return np.array([attended(image, weights) for image in x])
    if name == "dct":
        return np.array([[coefficient(x[n, c], c, x.shape[1]) for c in range(x.shape[1])] for n in range(x.shape[0])])
    z = np.array([[statistic(name, x[n, c], weights, c) for c in range(x.shape[1])] for n in range(x.shape[0])])
    if "norm.weight" in weights:
        mean, var = weights["norm.running_mean"], weights["norm.running_var"]
        if squeeze.training:
            mean, var = z.mean(axis=0), z.var(axis=0)
        z = (z - mean) / np.sqrt(var + 1e-5) * weights["norm.weight"] + weights["norm.bias"]
    return np.maximum(z, 0) if name in ("SP", "RG") else z


# ---- values and gradients ----------------------------------------------------------------------


def test_names_are_those_of_the_catalog_that_are_not_whole_blocks() -> None:
    assert set(SQUEEZES) == {name for name, row in catalog.SQUEEZES.items() if not row.whole} - {"baseline"}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "size", "last_size"), defined(STATISTICS, SIZES))
def test_squeeze_equals_loops_over_its_definition(name: str, size: int, last_size: int, training: bool) -> None:
    squeeze, x = made(name, 3, size, last_size).train(training), maps(4, 3, size, size)
    expected = reference(squeeze, name, x.numpy())
    np.testing.assert_allclose(squeeze(x).detach().numpy(), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("name", "size", "last_size"), defined(STATISTICS, [(8, 4), (7, 7), (10, 5), (4, 4)]))
def test_gradient_equals_finite_differences(name: str, size: int, last_size: int) -> None:
    x = maps(3, 2, size, size, seed=3).requires_grad_()
    squeeze = made(name, 2, size, last_size)
    parameters = dict(squeeze.named_parameters())

    def statistic(x: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(squeeze, given, (x,))  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(statistic, (x, *parameters.values()), fast_mode=size > 5)


@pytest.mark.parametrize("grid", [1, 2, 4])
@pytest.mark.parametrize("size", [4, 5, 6, 7, 10, 11, 14, 20, 28])
def test_pyramid_cells_equal_adaptive_pooling(size: int, grid: int) -> None:
    squeeze, x = SpatialPyramid(2, size, size), maps(2, 2, size, size)
    levels = squeeze._levels(x) if size % 4 else squeeze._nested_levels(x)
    torch.testing.assert_close(levels[(1, 2, 4).index(grid)], F.adaptive_avg_pool2d(x, grid), rtol=0, atol=1e-14)


@pytest.mark.parametrize("grid", [1, 2, 4, 8])
def test_fusion_equals_the_depthwise_convolution_that_it_is(grid: int) -> None:
    fusion, x = Fusion(3, grid, bias=True).double(), maps(2, 3, grid, grid)
    torch.testing.assert_close(fusion(x), F.conv2d(x, fusion.weight, fusion.bias, groups=3).flatten(1))


@pytest.mark.parametrize(("name", "size", "last_size"), defined(STATISTICS, [(8, 4), (7, 7)]))
def test_channels_last_gives_the_same_values_and_gradients(name: str, size: int, last_size: int) -> None:
    squeeze = made(name, 3, size, last_size)
    plain = maps(4, 3, size, size).requires_grad_()
    last = plain.detach().to(memory_format=torch.channels_last).requires_grad_()
    squeeze(plain).square().sum().backward()
    squeeze(last).square().sum().backward()
    torch.testing.assert_close(squeeze(last), squeeze(plain), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(last.grad, plain.grad, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", SQUEEZES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_statistics_are_float32_under_autocast_and_of_half_types(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    squeeze = SQUEEZES[name](4, 7, 7)
    x = (300 * maps(8, 4, 7, 7)).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        z = squeeze(x)
    assert z.dtype == torch.float32
    assert z.isfinite().all()
    if name not in ("random", "random_train"):
        exact = squeeze.double()(x.double()).float()
        rounding = 1e-5 * x.abs().max().item()  # weighted sums of both signs; bfloat16's would be 400 times as much
        torch.testing.assert_close(z, exact, rtol=1e-4, atol=rounding)


@pytest.mark.parametrize("name", SQUEEZES)
def test_float64_stays_float64(name: str) -> None:
    assert made(name, 3, 7, 7)(maps(4, 3, 7, 7)).dtype == torch.float64


@pytest.mark.parametrize("value", [0.0, -1e-20, 2.0, -3.0])
@pytest.mark.parametrize("name", SQUEEZES)
def test_gradients_of_constant_maps_are_finite(name: str, value: float) -> None:
    torch.manual_seed(0)
    squeeze, x = SQUEEZES[name](3, 7, 7).eval(), torch.full((2, 3, 7, 7), value, requires_grad=True)
    z = squeeze(x)
    if z.requires_grad:
        z.square().sum().backward()
    found = [z, x.grad, *(parameter.grad for parameter in squeeze.parameters())]
    assert all(tensor.isfinite().all() for tensor in found if tensor is not None)


@pytest.mark.parametrize("name", SQUEEZES)
def test_passes_are_those_of_reading_the_maps(name: str) -> None:
    expected = {"SP": 3, "gapXstd": 2, "avgmax": 2, "random": 0, "random_train": 0, "frozen_random": 0, "constant": 0}
    assert SQUEEZES[name].passes == expected.get(name, 1)


# ---- standard deviation ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["std", "gapXstd"])
@pytest.mark.parametrize("value", [0.0, 1 / 3, -1e-20, 12345.678])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_constant_maps_have_deviation_zero_with_gradient_zero(
    name: str, value: float, layout: torch.memory_format
) -> None:
    x = torch.full((2, 3, 7, 7), value).to(memory_format=layout).requires_grad_()
    z = SQUEEZES[name](3, 7, 7)(x)
    z.sum().backward()
    assert torch.equal(z, torch.zeros(2, 3))
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize(("mean", "tolerance"), [(0.0, 1e-6), (30.0, 1e-5), (1000.0, 1e-4)])
def test_deviation_keeps_its_precision_far_from_zero(mean: float, tolerance: float) -> None:
    x = (maps(4, 8, 14, 14) + mean).float()
    z = SQUEEZES["std"](8, 14, 14)(x)
    torch.testing.assert_close(z.double(), x.double().std(dim=(2, 3)), rtol=tolerance, atol=0)


def test_deviation_is_precise_where_the_first_pixel_is_an_outlier() -> None:
    x = maps(2, 2, 56, 56).float()
    x[:, :, 0, 0] = 1e4
    z = SQUEEZES["std"](2, 56, 56)(x)
    torch.testing.assert_close(z.double(), x.double().std(dim=(2, 3)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["std", "gapXstd"])
def test_deviation_of_1x1_maps_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not defined on 1x1 maps"):
        SQUEEZES[name](3, 1, 1)(torch.zeros(2, 3, 1, 1))


def test_second_derivatives_of_the_deviation_equal_finite_differences() -> None:
    assert torch.autograd.gradgradcheck(made("gapXstd"), (maps(1, 2, 3, 3).requires_grad_(),))


# ---- maximum, pyramid, windows -----------------------------------------------------------------


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_first_of_tied_maxima_gets_the_whole_gradient(layout: torch.memory_format) -> None:
    x = torch.zeros(2, 16, 6, 6)
    x[:, :, 2, 3] = x[:, :, 2, 5] = x[:, :, 4, 1] = 1
    x = x.to(memory_format=layout).requires_grad_()
    Gmp(16, 6, 6)(x).sum().backward()
    expected = torch.zeros(2, 16, 6, 6)
    expected[:, :, 2, 3] = 1
    assert x.grad is not None
    assert torch.equal(x.grad, expected)


def test_windows_that_do_not_tile_are_refused() -> None:
    with pytest.raises(ValueError, match="windows of 6x6 do not tile maps of 11x11"):
        ResolutionGuided(3, 11, 6)


def test_frequencies_are_those_of_the_size_that_they_were_made_for() -> None:
    for shape in ((14, 7), (14, 14)):
        with pytest.raises(ValueError, match=f"was built for maps of 7x7, not 14x{shape[1]}"):
            made("dct", 3, 7, 7)(maps(2, 3, *shape))


@pytest.mark.parametrize("size", [4, 5, 6, 7, 8, 10, 12, 20, 24, 40, 48, 56])
def test_the_pyramid_has_the_cells_of_adaptive_pooling_at_any_size(size: int) -> None:
    squeeze, x = made("SP", 3, 7, 7), maps(5, 3, size, size)
    assert isinstance(squeeze, SpatialPyramid)
    levels = tuple(F.adaptive_avg_pool2d(x, grid) for grid in (1, 2, 4))
    torch.testing.assert_close(squeeze(x), squeeze._fused(levels), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("built", "sizes"), [(56, (40, 48, 64)), (28, (20, 24)), (14, (10, 12)), (7, (5, 6, 8))])
def test_the_windows_follow_the_size_and_their_grid_stays(built: int, sizes: tuple[int, ...]) -> None:
    squeeze = made("RG", 3, built, 7)
    assert isinstance(squeeze, ResolutionGuided)
    for size in sizes:
        x = maps(5, 3, size, size)
        windows = F.avg_pool2d(x, size * 7 // built)  # a side of 5 at 160 pixels, where it is 7 at 224
        assert windows.shape[2:] == (built // 7, built // 7)
        wanted = F.relu(squeeze.norm(squeeze.fusion(windows)).flatten(1))
        torch.testing.assert_close(squeeze(x), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["SP", "RG"])
def test_other_sizes_leave_the_state_as_it_is(name: str) -> None:
    squeeze = made(name, 3, 14, 7).eval()
    before = {key: value.clone() for key, value in squeeze.state_dict().items()}
    names = [key for key, _ in squeeze.named_buffers()]
    squeeze(maps(5, 3, 10, 10))
    assert [key for key, _ in squeeze.named_buffers()] == names
    after = squeeze.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_last_stage_of_windows_has_no_parameters_and_clips_the_mean() -> None:
    squeeze, x = made("RG", 3, 7, 7), maps(5, 3, 7, 7)
    assert not list(squeeze.parameters())
    torch.testing.assert_close(squeeze(x), x.mean(dim=(2, 3)).relu())
