"""What an SE block may squeeze: every operator turns (N, C, H, W) into one number an image and channel, (N, C).

Contract: statistics are float32 whatever the input's half type and whether or not autocast is on; float64 stays
float64. Every operator is built as `SQUEEZES[name](channels, size, last_size)`, where maps are size x size here and
last_size x last_size in the network's last stage. It takes maps of other sizes, too, where its class says nothing else.
In the standard placement the input is the output of a residual branch's last BatchNorm: signed, before the addition.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqzlab.networks.moments import Moments, Sums
from sqzlab.networks.random_squeeze import FrozenNoise, TrainingNoise, UniformNoise
from sqzlab.networks.statistics import Squeeze as Squeeze
from sqzlab.networks.statistics import maximum, mean_and_std


class Gap(Squeeze):
    """Spatial mean. arXiv:1709.01507 eq. 2."""

    passes = 1
    sums = Sums()

    def statistic(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))  # (N, C)

    def of_moments(self, moments: Moments) -> Tensor:
        return moments.mean


class Gmp(Squeeze):
    """Spatial maximum; of tied pixels the first receives the gradient. arXiv:1709.01507 table 11."""

    passes = 1
    sums = Sums(extreme=True)

    def statistic(self, x: Tensor) -> Tensor:
        return maximum(x)

    def of_moments(self, moments: Moments) -> Tensor:
        assert moments.extreme is not None
        return moments.extreme


class Std(Squeeze):
    """Spatial standard deviation, unbiased (divided by H*W - 1), nothing added. SsENet.PyTorch.

    Its gradient is 0 where a map is constant. Raises ValueError on 1x1 maps, where it is not defined.
    """

    passes = 1
    sums = Sums()

    def statistic(self, x: Tensor) -> Tensor:
        return mean_and_std(x)[1]

    def of_moments(self, moments: Moments) -> Tensor:
        return moments.std


class GapXStd(Squeeze):
    """Product of spatial mean and unbiased standard deviation; the sign is the mean's. SsENet.PyTorch."""

    passes = 2
    sums = Sums()

    def statistic(self, x: Tensor) -> Tensor:
        mean, std = mean_and_std(x)
        return mean * std

    def of_moments(self, moments: Moments) -> Tensor:
        return moments.mean * moments.std


class Rms(Squeeze):
    """Root of the mean square, 1e-5 added under it; a negative pixel counts as its magnitude.

    Differs: the 'lp' pooling of Jongchan/attention-module is the root of the sum, and has no gradient at 0.
    """

    passes = 1
    sums = Sums()

    def statistic(self, x: Tensor) -> Tensor:
        return (x.square().mean(dim=(2, 3)) + 1e-5).sqrt()  # (N, C)

    def of_moments(self, moments: Moments) -> Tensor:
        return (moments.squares / moments.pixels + moments.mean.square() + 1e-5).sqrt()


class GeM(Squeeze):
    """Generalised mean, mean(x^p)^(1/p), with a learned exponent a block that starts at 3. arXiv:1711.02512.

    As in filipradenovic/cnnimageretrieval-pytorch, x is at least 1e-6: negative pixels are discarded, and have no
    gradient. Computed in logarithms, so that no x^p leaves float32's range.
    """

    passes = 1
    initial: ClassVar[Mapping[str, float]] = {"p": 3.0}

    def __init__(self, channels: int, size: int, last_size: int) -> None:
        super().__init__(channels, size, last_size)
        self.p = nn.Parameter(torch.full((1,), 3.0))

    def statistic(self, x: Tensor) -> Tensor:
        total = (self.p * x.clamp(min=1e-6).log()).logsumexp(dim=(2, 3))  # (N, C)
        return ((total - math.log(x.shape[2] * x.shape[3])) / self.p).exp()


class AvgMax(Squeeze):
    """Half the mean plus half the maximum, whose ties are resolved as gmp's. timm, `add_maxpool` of its squeezes."""

    passes = 2
    sums = Sums(extreme=True)

    def statistic(self, x: Tensor) -> Tensor:
        return 0.5 * x.mean(dim=(2, 3)) + 0.5 * maximum(x)

    def of_moments(self, moments: Moments) -> Tensor:
        assert moments.extreme is not None
        return 0.5 * moments.mean + 0.5 * moments.extreme


class Attention(Squeeze):
    """Mean weighted by a softmax over the pixels of one learned score a pixel, the same for all channels.

    The context modelling of arXiv:1904.11492, as a squeeze alone.
    """

    passes = 1
    initial: ClassVar[Mapping[str, float]] = {"score.bias": 0.0}

    def __init__(self, channels: int, size: int, last_size: int) -> None:
        super().__init__(channels, size, last_size)
        self.score = FanInConv(channels, 1, 1)

    def statistic(self, x: Tensor) -> Tensor:
        scores = self.score(x.to(self.score.weight.dtype)).to(x.dtype)  # (N, 1, H, W)
        weights = scores.flatten(2).softmax(dim=2)  # (N, 1, H * W)
        return torch.bmm(x.flatten(2), weights.transpose(1, 2)).squeeze(2)  # (N, C)


class FanInConv(nn.Conv2d):
    """A convolution that starts by kaiming_normal of its fan in, as xvjiarui/GCNet's does: its fan out is 1."""


class Dct(Squeeze):
    """One coefficient of the two-dimensional cosine transform a channel, orthonormal. arXiv:2012.11879.

    The first of 16 equal groups of channels takes the mean's frequency (0, 0), the others those that the released
    FcaNet names top16, in a 7x7 space: at 56x56 they are 8 times as high. Channel c is of group c * 16 // C, so where
    16 divides C this is FcaNet's layer. Raises ValueError on maps of a size it was not built for, or that 7 does not
    divide.
    """

    passes = 1
    basis: Tensor
    group: Tensor

    def __init__(self, channels: int, size: int, last_size: int) -> None:
        super().__init__(channels, size, last_size)
        if size % 7:
            raise ValueError(f"frequencies of a 7x7 grid are not those of maps of {size}x{size}")
        self.size = size
        self.register_buffer("basis", _cosines(size), persistent=False)
        self.register_buffer("group", torch.arange(channels) * 16 // channels, persistent=False)

    def statistic(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (self.size, self.size):
            raise ValueError(f"Dct was built for maps of {self.size}x{self.size}, not {_shown(x)}")
        basis = self.basis.to(x.dtype)[self.group]  # (C, H, W)
        return (x * basis).sum(dim=(2, 3))  # (N, C)


class Random(Squeeze):
    """Uniform noise in [0, 1) instead of a statistic, new for every image, also at evaluation. SsENet.PyTorch.

    Differs: there, one generator a process; here, a value depends on what `set_random_keys` is given and no more.
    """

    passes = 0

    def __init__(self, channels: int, size: int, last_size: int) -> None:
        super().__init__(channels, size, last_size)
        self.noise = UniformNoise(channels)

    def statistic(self, x: Tensor) -> Tensor:
        noise: Tensor = self.noise(x.shape[0], x.device)
        return noise.to(x.dtype)  # (N, C)


class RandomTrain(Squeeze):
    """The noise of `random` while training, keyed in the same way; at evaluation its mean, 0.5."""

    passes = 0

    def __init__(self, channels: int, size: int, last_size: int) -> None:
        super().__init__(channels, size, last_size)
        self.noise = TrainingNoise(channels)

    def statistic(self, x: Tensor) -> Tensor:
        noise: Tensor = self.noise(x.shape[0], x.device)
        return noise.to(x.dtype)  # (N, C)


class FrozenRandom(Squeeze):
    """Noise drawn once a channel by the network's seed: the same for every image, while training and at evaluation."""

    passes = 0

    def __init__(self, channels: int, size: int, last_size: int) -> None:
        super().__init__(channels, size, last_size)
        self.noise = FrozenNoise(channels)

    def statistic(self, x: Tensor) -> Tensor:
        noise: Tensor = self.noise(x.shape[0])
        return noise.to(x.dtype)  # (N, C)


class Constant(Squeeze):
    """Ones: the excitation learns a gate that no image changes."""

    passes = 0

    def statistic(self, x: Tensor) -> Tensor:
        return x.new_ones(x.shape[:2])  # (N, C)


class Fusion(nn.Conv2d):
    """Depthwise convolution whose kernel covers its whole input, (N, C, g, g) -> (N, C).

    Computed as products and sums: a third of the time of a grouped convolution, and never rounded to TF32.
    """

    def __init__(self, channels: int, grid: int, *, bias: bool) -> None:
        super().__init__(channels, channels, grid, groups=channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        fused = (x * self.weight[:, 0]).sum(dim=(2, 3)).to(self.weight.dtype)  # (N, C)
        return fused if self.bias is None else fused + self.bias


class SpatialPyramid(Squeeze):
    """Means over 1x1, 2x2 and 4x4 cells, each level fused depthwise, summed, BatchNorm, ReLU.

    doi:10.1016/j.patcog.2021.108159, as in megvii-research/RG-SENet_SP-SENet: cells as adaptive pooling makes them,
    which overlap where 2 or 4 does not divide the size. Raises ValueError on maps that are not square, or of less than
    4x4.
    """

    passes = 3
    sums = Sums(grids=(2, 4))
    cells: Tensor

    def __init__(self, channels: int, size: int, last_size: int) -> None:
        super().__init__(channels, size, last_size)
        self.size = size
        self.fusions = nn.ModuleList(Fusion(channels, grid, bias=True) for grid in (1, 2, 4))
        self.norm = nn.BatchNorm1d(channels)
        if size % 4:
            self.register_buffer("cells", _cells(size), persistent=False)

    def check(self, x: Tensor) -> None:
        _check_square(self, x)
        if x.shape[2] < 4:
            raise ValueError(f"a grid of 4x4 cells would repeat pixels of maps of {_shown(x)}")

    def sums_of(self, x: Tensor) -> Sums:
        return Sums(grids=(2, 4) if x.shape[2] % 4 else (4,))

    def statistic(self, x: Tensor) -> Tensor:
        self.check(x)
        return self._fused(self._levels(x) if x.shape[2] % 4 else self._nested_levels(x))

    def _fused(self, levels: tuple[Tensor, ...]) -> Tensor:
        """(N, C, 1, 1), (N, C, 2, 2) and (N, C, 4, 4) -> (N, C)."""
        fused = torch.stack([fusion(level) for fusion, level in zip(self.fusions, levels, strict=True)])
        return F.relu(self.norm(fused.sum(dim=0)))

    def _nested_levels(self, x: Tensor) -> tuple[Tensor, ...]:
        """Where 4 divides the size, a coarse cell is the mean of four fine ones."""
        fine = F.avg_pool2d(x, x.shape[2] // 4)
        middle = F.avg_pool2d(fine, 2)
        return F.avg_pool2d(middle, 2), middle, fine

    def _levels(self, x: Tensor) -> tuple[Tensor, ...]:
        """By matrix, because the backward of adaptive_avg_pool2d is not deterministic on CUDA."""
        cells = self.cells if x.shape[2] == self.size else _cells(x.shape[2], x.device)
        cells = cells.to(x.dtype)  # 0 and 1: exact in any type
        means = torch.bmm(x.flatten(2), cells.expand(len(x), -1, -1)) / cells.sum(dim=0)  # (N, C, 21)
        one, two, four = torch.split(means, [1, 4, 16], dim=2)
        return one.reshape(*one.shape[:2], 1, 1), two.reshape(*two.shape[:2], 2, 2), four.reshape(*four.shape[:2], 4, 4)

    def of_moments(self, moments: Moments) -> Tensor:
        *middle, fine = moments.cells
        one = moments.mean[:, :, None, None]
        return self._fused((one, *(middle or [F.avg_pool2d(fine, 2)]), fine))


class ResolutionGuided(Squeeze):
    """Means over windows of the last stage's size, fused depthwise, BatchNorm, ReLU; in the last stage ReLU(mean).

    doi:10.1016/j.patcog.2021.108159, as in megvii-research/RG-SENet_SP-SENet: windows of 7x7 at 224 pixels, so grids
    of 8x8, 4x4, 2x2 and a last stage without fusion. On maps of another size the grid stays and the windows follow, as
    they have at 160 or 192 pixels. Raises ValueError on maps that are not square, or that the grid does not divide.
    """

    passes = 1

    def __init__(self, channels: int, size: int, last_size: int) -> None:
        super().__init__(channels, size, last_size)
        grid, rest = divmod(size, last_size)
        if rest:
            raise ValueError(f"windows of {last_size}x{last_size} do not tile maps of {size}x{size}")
        self.grid = grid
        self.fusion = nn.Identity() if grid == 1 else Fusion(channels, grid, bias=False)
        self.norm = nn.Identity() if grid == 1 else nn.BatchNorm1d(channels)
        self.sums = Sums(grids=() if grid == 1 else (grid,))

    def check(self, x: Tensor) -> None:
        _check_square(self, x)
        if x.shape[2] % self.grid:
            raise ValueError(f"a grid of {self.grid}x{self.grid} windows does not divide maps of {_shown(x)}")

    def statistic(self, x: Tensor) -> Tensor:
        self.check(x)
        if self.grid == 1:
            return F.relu(x.mean(dim=(2, 3)))
        windows = F.avg_pool2d(x, x.shape[2] // self.grid)  # (N, C, grid, grid)
        return F.relu(self.norm(self.fusion(windows)))  # (N, C)

    def of_moments(self, moments: Moments) -> Tensor:
        if self.grid == 1:
            return F.relu(moments.mean)
        return F.relu(self.norm(self.fusion(moments.cells[0])))


SQUEEZES: dict[str, type[Squeeze]] = {
    "gap": Gap,
    "gmp": Gmp,
    "std": Std,
    "gapXstd": GapXStd,
    "random": Random,
    "SP": SpatialPyramid,
    "RG": ResolutionGuided,
    "rms": Rms,
    "gem": GeM,
    "avgmax": AvgMax,
    "attention": Attention,
    "dct": Dct,
    "constant": Constant,
    "frozen_random": FrozenRandom,
    "random_train": RandomTrain,
}


# ---- cells and frequencies ---------------------------------------------------------------------


def _cells(size: int, device: torch.device | None = None) -> Tensor:
    """Which pixels are in the pyramid's 21 cells, (size * size, 21) of 0 and 1.

    Cell i of k holds rows (and columns) from floor(i * size / k) up to, not including, ceil((i + 1) * size / k).
    """
    columns = []
    places = torch.arange(size, device=device)
    for grid in (1, 2, 4):
        i = torch.arange(grid, device=device)[:, None]
        rows = ((places >= i * size // grid) & (places < -(-(i + 1) * size // grid))).float()  # (grid, size)
        columns.append(torch.einsum("ih,jw->hwij", rows, rows).reshape(size * size, grid * grid))
    return torch.cat(columns, dim=1)


_TOP16 = (
    *((0, 0), (0, 1), (6, 0), (0, 5), (0, 2), (1, 0), (1, 2), (4, 0)),
    *((5, 0), (1, 6), (3, 0), (0, 4), (0, 6), (0, 3), (3, 5), (2, 2)),
)
"""FcaNet's frequencies (down, across) in a 7x7 space, best alone first (cfzd/FcaNet)."""


def _cosines(size: int) -> Tensor:
    """The basis of each of `_TOP16` on maps of size x size, (16, size, size), in float64."""
    frequencies = torch.tensor(_TOP16, dtype=torch.float64) * (size // 7)  # (16, 2)
    positions = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    waves = torch.cos(math.pi * frequencies[:, :, None] * positions)  # (16, 2, size)
    waves = waves * ((2 - (frequencies == 0).double()) / size).sqrt()[:, :, None]
    return torch.einsum("kh,kw->khw", waves[:, 0], waves[:, 1])


def _check_square(squeeze: Squeeze, x: Tensor) -> None:
    if x.shape[2] != x.shape[3]:
        raise ValueError(f"{type(squeeze).__name__} is defined on square maps only, not on maps of {_shown(x)}")


def _shown(x: Tensor) -> str:
    return f"{x.shape[2]}x{x.shape[3]}"
