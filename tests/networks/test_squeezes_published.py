"""Squeezes against torch's, timm's and SciPy's own: rms, gem, avgmax, dct, attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from timm.layers.adaptive_avgmax_pool import FastAdaptiveAvgMaxPool
from torch import Tensor
from torch.nn import functional as F

from sqzlab.networks.squeezes import SQUEEZES
from sqzlab.networks.weights import weight_rules

TOP16 = (
    (0, 0, 6, 0, 0, 1, 1, 4, 5, 1, 3, 0, 0, 0, 3, 2),
    (0, 1, 0, 5, 2, 0, 2, 0, 0, 6, 0, 4, 6, 3, 5, 2),
)  # down and across, as cfzd/FcaNet lists them


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rms_equals_torchs_l2_pooling_averaged() -> None:
    x = maps(3, 4, 6, 6)
    expected = (F.lp_pool2d(x, 2.0, 6).flatten(1).square() / 36 + 1e-5).sqrt()
    torch.testing.assert_close(SQUEEZES["rms"](4, 6, 6)(x), expected)


def test_rms_takes_negative_pixels_by_their_magnitude() -> None:
    x = maps(2, 3, 5, 5)
    squeeze = SQUEEZES["rms"](3, 5, 5)
    torch.testing.assert_close(squeeze(x.abs()), squeeze(x), rtol=0, atol=0)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 4.5])
def test_gem_equals_torchs_power_pooling_of_the_positive_pixels(p: float) -> None:
    x, squeeze = maps(3, 4, 6, 6), SQUEEZES["gem"](4, 6, 6).double()
    torch.nn.init.constant_(squeeze.get_parameter("p"), p)
    expected = F.lp_pool2d(x.clamp(min=1e-6), p, 6).flatten(1) / 36 ** (1 / p)
    torch.testing.assert_close(squeeze(x), expected)


@pytest.mark.parametrize("p", [0.1, 3.0, 60.0])
def test_gem_stays_finite_where_powers_leave_float32(p: float) -> None:
    squeeze, x = SQUEEZES["gem"](4, 6, 6), torch.cat([maps(2, 4, 6, 6).float() * s for s in (1e-8, 1.0, 1e4)])
    torch.nn.init.constant_(squeeze.get_parameter("p"), p)
    x.requires_grad_()
    z = squeeze(x)
    z.sum().backward()
    assert x.grad is not None
    assert squeeze.get_parameter("p").grad is not None
    assert all(tensor.isfinite().all() for tensor in (z, x.grad, squeeze.get_parameter("p").grad))
    assert (z <= x.detach().clamp(min=1e-6).amax(dim=(2, 3)) * 1.001).all()


def test_gem_gives_discarded_pixels_no_gradient() -> None:
    x = maps(2, 3, 5, 5).requires_grad_()
    SQUEEZES["gem"](3, 5, 5).double()(x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad > 0, x > 0)


def test_avgmax_equals_timms_pooling() -> None:
    x = maps(3, 4, 6, 6)
    torch.testing.assert_close(SQUEEZES["avgmax"](4, 6, 6)(x), FastAdaptiveAvgMaxPool(flatten=True)(x))


@pytest.mark.parametrize("channels", [16, 32, 20, 5])
@pytest.mark.parametrize("size", [7, 14, 28])
def test_cosine_coefficients_are_scipys_of_a_7x7_space(size: int, channels: int) -> None:
    x = maps(2, channels, size, size)
    z = SQUEEZES["dct"](channels, size, 7)(x)
    transformed = dctn(x.numpy(), axes=(2, 3), norm="ortho")[:, :, :: size // 7, :: size // 7]  # (N, C, 7, 7)
    for c in range(channels):
        down, across = (indices[c * 16 // channels] for indices in TOP16)
        np.testing.assert_allclose(z[:, c].numpy(), transformed[:, c, down, across], rtol=1e-10, atol=1e-11)


def test_first_cosine_is_the_mean_times_the_size() -> None:
    x = maps(2, 16, 14, 14)
    torch.testing.assert_close(SQUEEZES["dct"](16, 14, 7)(x)[:, 0], 14 * x[:, 0].mean(dim=(1, 2)))


def test_cosines_are_not_part_of_the_state_dict() -> None:
    assert not SQUEEZES["dct"](16, 7, 7).state_dict()


def test_frequencies_of_maps_that_7_does_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="frequencies of a 7x7 grid are not those of maps of 8x8"):
        SQUEEZES["dct"](16, 8, 8)


def test_attention_starts_by_its_fan_in() -> None:
    rules = weight_rules(SQUEEZES["attention"](128, 7, 7))
    assert {name: str(rule) for name, rule in rules.items()} == {
        "score.weight": "normal(0.125)",
        "score.bias": "constant(0)",
    }


def test_attention_with_equal_scores_is_the_mean() -> None:
    squeeze, x = SQUEEZES["attention"](3, 5, 5).double(), maps(2, 3, 5, 5)
    torch.nn.init.zeros_(squeeze.get_parameter("score.weight"))
    torch.testing.assert_close(squeeze(x), x.mean(dim=(2, 3)))
