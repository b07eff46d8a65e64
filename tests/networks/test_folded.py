"""The folded end of a residual block against the plain one: values, gradients and running statistics."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from statistics import median

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqzlab.networks.folded import folded, folds
from sqzlab.networks.random_squeeze import set_random_keys
from sqzlab.networks.se_block import Excitation, SEBlock
from sqzlab.networks.squeezes import SQUEEZES


class End(nn.Module):
    """relu(se(norm(y)) + shortcut), layer by layer or folded."""

    def __init__(self, squeeze: str, channels: int, size: int, last_size: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.se = None
        if squeeze != "none":
            hidden = channels // 4
            excitation = Excitation(channels, hidden, bias=True, gate="sigmoid")
            self.se = SEBlock(SQUEEZES[squeeze](channels, size, last_size), excitation)

    def forward(self, y: Tensor, shortcut: Tensor | None, *, fold: bool) -> Tensor:
        if fold:
            return folded(y, self.norm, self.se, shortcut)
        u = self.norm(y)
        u = u if self.se is None else self.se(u)
        return F.relu(u if shortcut is None else u + shortcut)


def folding(name: str) -> bool:
    return folds(SEBlock(SQUEEZES[name](16, 14, 7), Excitation(16, 4, bias=False, gate="sigmoid")))


GRAD = "grad of "
FOLDING = ("none", *(name for name in SQUEEZES if folding(name)))
SIZES = [(56, 7), (28, 7), (14, 7), (7, 7), (12, 3), (6, 3), (5, 5), (10, 5), (4, 4)]
"""Maps here and in the last stage: where cells tile them and where they overlap, odd and even."""


def ends(squeeze: str, channels: int, size: int, last: int, dtype: torch.dtype = torch.float64) -> End:
    """With weights that are all different, gammas of both signs."""
    end = End(squeeze, channels, size, last)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in end.parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn / math.sqrt(max(parameter[0].numel(), 1)) + (parameter.ndim == 1) * 0.1)
    return end.to(dtype)


def outcome(end: End, y: Tensor, shortcut: Tensor | None, *, fold: bool, bf16: bool = False) -> dict[str, Tensor]:
    """Output, gradients and buffers, by name, in float64."""
    end = copy.deepcopy(end)
    y = y.clone().requires_grad_()
    shortcut = None if shortcut is None else shortcut.clone().requires_grad_()
    set_random_keys(end, seed=1, split=0, epoch=0, image_index=torch.arange(len(y)))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = end(y, shortcut, fold=fold)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    (out.double() * weights).sum().backward()  # type: ignore[no-untyped-call]
    assert y.grad is not None
    found = {"out": out, "y": y.grad}
    if shortcut is not None:
        assert shortcut.grad is not None
        found["shortcut"] = shortcut.grad
    found |= {GRAD + name: p.grad for name, p in end.named_parameters() if p.grad is not None}
    return {name: value.detach().double() for name, value in (found | dict(end.named_buffers())).items()}


def scaled_alone(end: End, y: Tensor) -> Tensor:
    """What the end computes with its gate held fixed: all that is left of the gradient is the squeeze's."""
    u = end.norm(y)
    assert end.se is not None
    gate = end.se.excitation(end.se.squeeze(u)).detach()
    return F.relu(u * gate[:, :, None, None])


def maps(*shape: int, level: float = 0.0, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Of deviation 1 or so, where images differ in the level of each channel and channels by `level` or its negative.

    With images alike, the BatchNorm within SP and RG would divide rounding errors by a variance of next to nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    pixels, images, channels = (
        torch.randn(size, generator=generator, dtype=torch.float64)
        for size in (shape, (*shape[:2], 1, 1), (shape[1], 1, 1))
    )
    return (pixels + images + level * channels.sign()).to(dtype)


def distance(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """The greatest of all, as a fraction of the greatest number in its tensor, or of 1 where that is less.

    The gradients of parameters are one tensor: those of the biases before SP's BatchNorm are 0, but for rounding.
    """
    assert found.keys() == wanted.keys()
    size = {name: max(1.0, float(value.abs().max())) for name, value in wanted.items()}
    of_parameters = max(size[name] for name in size if name.startswith(GRAD))
    return max(
        float((found[name] - value).abs().max()) / (of_parameters if name.startswith(GRAD) else size[name])
        for name, value in wanted.items()
    )


# ---- float64 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("size", "last"), SIZES)
@pytest.mark.parametrize("squeeze", FOLDING)
def test_both_forms_are_equal_in_float64(squeeze: str, size: int, last: int, training: bool) -> None:
    end = ends(squeeze, 16, size, last).train(training)
    y, shortcut = maps(6, 16, size, size), maps(6, 16, size, size, seed=1)
    plain, fold = (outcome(end, y, shortcut, fold=form) for form in (False, True))
    assert distance(fold, plain) < 1e-12


@pytest.mark.parametrize("level", [3.0, 30.0])
@pytest.mark.parametrize("squeeze", FOLDING)
def test_a_level_far_above_the_deviation_costs_no_digits(squeeze: str, level: float) -> None:
    end = ends(squeeze, 16, 14, 7)
    y, shortcut = maps(6, 16, 14, 14, level=level), maps(6, 16, 14, 14, seed=1)
    plain, fold = (outcome(end, y, shortcut, fold=form) for form in (False, True))
    assert distance(fold, plain) < 1e-12


@pytest.mark.parametrize("squeeze", FOLDING)
def test_one_image_is_enough_where_the_squeeze_has_no_batch_norm(squeeze: str) -> None:
    end = ends(squeeze, 16, 8, 4)
    y = maps(1, 16, 8, 8)
    if squeeze in ("SP", "RG"):
        for form in (False, True):
            with pytest.raises(ValueError, match="more than 1 value per channel"):
                outcome(end, y, None, fold=form)
        return
    plain, fold = (outcome(end, y, None, fold=form) for form in (False, True))
    assert distance(fold, plain) < 1e-12


def test_a_single_pixel_a_channel_is_refused_in_training_as_batch_norm_does() -> None:
    end, y = ends("gap", 16, 1, 1), maps(1, 16, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        outcome(end, y, None, fold=False)
    with pytest.raises(ValueError, match="more than one pixel a channel"):
        outcome(end, y, None, fold=True)
    plain, fold = (outcome(end.eval(), y, None, fold=form) for form in (False, True))
    assert distance(fold, plain) < 1e-12


@pytest.mark.parametrize("squeeze", ["std", "gapXstd"])
def test_maps_of_one_pixel_have_no_deviation_in_either_form(squeeze: str) -> None:
    for form in (False, True):
        with pytest.raises(ValueError, match="not defined on 1x1 maps"):
            outcome(ends(squeeze, 16, 1, 1), maps(4, 16, 1, 1), None, fold=form)


OTHER_SIZES = [(56, 40), (28, 24), (14, 10), (14, 12), (7, 5), (7, 6), (7, 8)]
"""Built for maps of the first size, where the last stage has 7: what images of 160, 192 and 256 pixels give."""


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("built", "size"), OTHER_SIZES)
@pytest.mark.parametrize("squeeze", ["SP", "RG"])
def test_both_forms_are_equal_at_another_size_than_the_built_one(
    squeeze: str, built: int, size: int, training: bool
) -> None:
    end = ends(squeeze, 16, built, 7).train(training)
    y, shortcut = maps(6, 16, size, size), maps(6, 16, size, size, seed=1)
    plain, fold = (outcome(end, y, shortcut, fold=form) for form in (False, True))
    assert distance(fold, plain) < 1e-12


@pytest.mark.parametrize("form", [False, True])
@pytest.mark.parametrize(
    ("squeeze", "shape", "why"),
    [
        ("SP", (14, 28), "SpatialPyramid is defined on square maps only, not on maps of 14x28"),
        ("RG", (14, 28), "ResolutionGuided is defined on square maps only, not on maps of 14x28"),
        ("SP", (3, 3), "a grid of 4x4 cells would repeat pixels of maps of 3x3"),
        ("RG", (15, 15), "a grid of 2x2 windows does not divide maps of 15x15"),
    ],
)
def test_maps_that_the_grids_do_not_fit_are_refused_in_either_form(
    squeeze: str, shape: tuple[int, int], why: str, form: bool
) -> None:
    with pytest.raises(ValueError, match=why):
        outcome(ends(squeeze, 16, 14, 7), maps(4, 16, *shape), None, fold=form)


def test_what_does_not_fold_is_no_argument() -> None:
    end = ends("gem", 16, 14, 7)
    with pytest.raises(AssertionError):
        outcome(end, maps(4, 16, 14, 14), None, fold=True)


@pytest.mark.parametrize("spread", [0.1, 0.01, 0.001])
@pytest.mark.parametrize("squeeze", ["std", "gapXstd", "rms"])
def test_maps_that_hardly_vary_keep_their_digits_in_float32(squeeze: str, spread: float) -> None:
    end = ends(squeeze, 16, 14, 7)
    y = maps(6, 16, 14, 14, dtype=torch.float32)
    y = 30 + y.mean(dim=(2, 3), keepdim=True) + spread * (y - y.mean(dim=(2, 3), keepdim=True))
    exact = outcome(end, y.double(), None, fold=False)
    found = outcome(copy.deepcopy(end).float(), y, None, fold=True)
    rounding = torch.finfo(torch.float32).eps
    assert float((found["y"] - exact["y"]).norm() / exact["y"].norm()) < 30 / spread * 4 * rounding


# ---- where nothing varies ----------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 1.0, -1.0])
@pytest.mark.parametrize("constant", ["images", "all", "none"])
@pytest.mark.parametrize("squeeze", FOLDING)
def test_without_variance_everything_is_finite_and_near_the_plain_form(
    squeeze: str, constant: str, gamma: float
) -> None:
    """At most 2 sqrt(machine epsilon) apart; a gamma of 0 is how a zero-initialised network begins."""
    end = ends(squeeze, 16, 8, 4)
    nn.init.constant_(end.norm.weight, gamma)
    y = maps(6, 16, 8, 8)
    if constant != "none":
        y = y[:, :, :1, :1].expand_as(y)
    if constant == "all":
        y = y[:1].expand_as(y)
    plain, fold = (outcome(end, y.clone(), maps(6, 16, 8, 8, seed=1), fold=form) for form in (False, True))
    assert all(bool(value.isfinite().all()) for value in fold.values())
    assert distance(fold, plain) < 2 * math.sqrt(torch.finfo(torch.float64).eps)


@pytest.mark.parametrize("form", [False, True])
@pytest.mark.parametrize("gamma", [1.0, -1.0, 0.0])
def test_of_tied_maxima_the_first_in_row_major_order_has_the_gradient(gamma: float, form: bool) -> None:
    """BatchNorm's map is 1 at three places. The gradient less that with a fixed gate is the squeeze's alone."""
    end = ends("gmp", 16, 4, 4).eval()
    nn.init.constant_(end.norm.weight, gamma)
    nn.init.zeros_(end.norm.bias)
    y = torch.zeros(1, 16, 4, 4, dtype=torch.float64)
    y[:, :, 1, 2] = y[:, :, 2, 1] = y[:, :, 3, 3] = gamma
    y.requires_grad_()
    out = end(y, None, fold=form)
    apart = torch.autograd.grad(out.sum(), y)[0] - torch.autograd.grad(scaled_alone(end, y).sum(), y)[0]
    touched = apart.abs().amax(dim=(0, 1)) > 1e-12
    assert touched.nonzero().tolist() == ([] if gamma == 0 else [[1, 2]])


# ---- float32 and bfloat16 ----------------------------------------------------------------------


DRAWS = 36
OF_THE_STUDY = ("none", "gap", "gmp", "std", "gapXstd", "random", "SP", "RG")


@pytest.mark.parametrize("level", [0.0, 3.0, 30.0])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("squeeze", OF_THE_STUDY)
def test_in_low_precision_it_is_as_near_to_float64_as_the_plain_form(squeeze: str, bf16: bool, level: float) -> None:
    """The middle one of many draws: in each, single units of the excitation may fall on the other side of ReLU."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    end = ends(squeeze, 16, 14, 7)
    errors: dict[str, list[tuple[float, float]]] = {}
    for seed in range(DRAWS):
        y = maps(6, 16, 14, 14, level=level, seed=2 * seed, dtype=dtype).contiguous(memory_format=torch.channels_last)
        shortcut = maps(6, 16, 14, 14, seed=2 * seed + 1, dtype=dtype)
        exact = outcome(end, y.double(), shortcut.double(), fold=False)
        found = [outcome(copy.deepcopy(end).float(), y, shortcut, fold=form, bf16=bf16) for form in (False, True)]
        for name, value in exact.items():
            if "fusions" in name and name.endswith("bias"):
                continue  # before SP's BatchNorm: its gradient is 0, and all there is of it is rounding
            plain, fold = (float((values[name] - value).norm() / max(1.0, float(value.norm()))) for values in found)
            errors.setdefault(name, []).append((plain, fold))
    rounding = torch.finfo(torch.float32).eps
    for name, pairs in errors.items():
        plain, fold = (median(side) for side in zip(*pairs, strict=True))
        assert fold <= max(1.2 * plain, 4 * rounding), name
