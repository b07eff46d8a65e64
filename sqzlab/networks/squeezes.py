"""What an SE block may squeeze: every operator turns (N, C, H, W) into one number an image and channel, (N, C).

Contract: statistics are float32 whatever the input's half type and whether or not autocast is on; float64 stays
float64. Every operator is built as `SQUEEZES[name](channels, size, last_size)`, where maps are size x size here and
last_size x last_size in the network's last stage. The input is the output of a residual branch's last BatchNorm:
signed, before the addition.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sqzlab.networks.random_squeeze import UniformNoise


class Squeeze(nn.Module, ABC):
    """(N, C, H, W) -> (N, C), in float32 or float64; a subclass gives `statistic`."""

    def __init__(self, channels: int, size: int, last_size: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype in (torch.float16, torch.bfloat16):
            x = x.float()  # sums of squares overflow float16 from |x| of 200 on
        if x.is_meta or not torch.is_autocast_enabled(x.device.type):  # the meta device knows no autocast
            return self.statistic(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.statistic(x)

    @abstractmethod
    def statistic(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C), both float32 or both float64."""


class Gap(Squeeze):
    """Spatial mean. arXiv:1709.01507 eq. 2."""

    def statistic(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))  # (N, C)


class Gmp(Squeeze):
    """Spatial maximum. arXiv:1709.01507 table 11.

    Ties: the first pixel in row-major order receives the whole gradient, in every memory format and on every device.
    """

    def statistic(self, x: Tensor) -> Tensor:
        if x.is_cuda:  # adaptive_max_pool2d runs one thread a map there and its backward is not deterministic
            return x.flatten(2).max(dim=2).values
        return F.adaptive_max_pool2d(x, 1).flatten(1)  # with its backward, a sixth of amax's time in channels_last


class Std(Squeeze):
    """Spatial standard deviation, unbiased (divided by H*W - 1), nothing added. SsENet.PyTorch.

    Its gradient is 0 where a map is constant. Raises ValueError on 1x1 maps, where it is not defined.
    """

    def statistic(self, x: Tensor) -> Tensor:
        return mean_and_std(x)[1]


class GapXStd(Squeeze):
    """Product of spatial mean and unbiased standard deviation; the sign is the mean's. SsENet.PyTorch."""

    def statistic(self, x: Tensor) -> Tensor:
        mean, std = mean_and_std(x)
        return mean * std


class Random(Squeeze):
    """Uniform noise in [0, 1) instead of a statistic, new for every image, also at evaluation. SsENet.PyTorch.

    Differs: there, one generator a process; here, a value depends on what `set_random_keys` is given and no more.
    """

    def __init__(self, channels: int, size: int, last_size: int) -> None:
        super().__init__(channels, size, last_size)
        self.noise = UniformNoise(channels)

    def statistic(self, x: Tensor) -> Tensor:
        noise: Tensor = self.noise(x.shape[0], x.device)
        return noise.to(x.dtype)  # (N, C)


class Fusion(nn.Conv2d):
    """Depthwise convolution whose kernel covers its whole input, (N, C, g, g) -> (N, C).

    Computed as products and sums: a third of the time of a grouped convolution, and never rounded to TF32.
    """

    def __init__(self, channels: int, grid: int, *, bias: bool) -> None:
        super().__init__(channels, channels, grid, groups=channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        fused = (x * self.weight[:, 0]).sum(dim=(2, 3))  # (N, C)
        return fused if self.bias is None else fused + self.bias


class SpatialPyramid(Squeeze):
    """Means over 1x1, 2x2 and 4x4 cells, each level fused depthwise, summed, BatchNorm, ReLU.

    doi:10.1016/j.patcog.2021.108159, as in megvii-research/RG-SENet_SP-SENet: cells as adaptive pooling makes them,
    which overlap where 2 or 4 does not divide the size. Raises ValueError on maps of a size it was not built for.
    """

    cells: Tensor

    def __init__(self, channels: int, size: int, last_size: int) -> None:
        super().__init__(channels, size, last_size)
        self.size = size
        self.fusions = nn.ModuleList(Fusion(channels, grid, bias=True) for grid in (1, 2, 4))
        self.norm = nn.BatchNorm1d(channels)
        if size % 4:
            self.register_buffer("cells", _cells(size), persistent=False)

    def statistic(self, x: Tensor) -> Tensor:
        _check_size(self, x, self.size)
        levels = self._levels(x) if self.size % 4 else self._nested_levels(x)
        fused = torch.stack([fusion(level) for fusion, level in zip(self.fusions, levels, strict=True)])
        return F.relu(self.norm(fused.sum(dim=0)))  # (N, C)

    def _nested_levels(self, x: Tensor) -> tuple[Tensor, ...]:
        """Where 4 divides the size, a coarse cell is the mean of four fine ones."""
        fine = F.avg_pool2d(x, self.size // 4)
        middle = F.avg_pool2d(fine, 2)
        return F.avg_pool2d(middle, 2), middle, fine

    def _levels(self, x: Tensor) -> tuple[Tensor, ...]:
        """By matrix, because the backward of adaptive_avg_pool2d is not deterministic on CUDA."""
        cells = self.cells.to(x.dtype)  # 0 and 1: exact in any type
        means = torch.bmm(x.flatten(2), cells.expand(len(x), -1, -1)) / cells.sum(dim=0)  # (N, C, 21)
        one, two, four = torch.split(means, [1, 4, 16], dim=2)
        return one.reshape(*one.shape[:2], 1, 1), two.reshape(*two.shape[:2], 2, 2), four.reshape(*four.shape[:2], 4, 4)


class ResolutionGuided(Squeeze):
    """Means over windows of the last stage's size, fused depthwise, BatchNorm, ReLU; in the last stage ReLU(mean).

    doi:10.1016/j.patcog.2021.108159, as in megvii-research/RG-SENet_SP-SENet: windows of 7x7 at 224 pixels, so grids
    of 8x8, 4x4, 2x2 and a last stage without fusion. Raises ValueError on maps that the windows do not tile.
    """

    def __init__(self, channels: int, size: int, last_size: int) -> None:
        super().__init__(channels, size, last_size)
        grid, rest = divmod(size, last_size)
        if rest:
            raise ValueError(f"windows of {last_size}x{last_size} do not tile maps of {size}x{size}")
        self.size, self.window = size, last_size
        self.fusion = nn.Identity() if grid == 1 else Fusion(channels, grid, bias=False)
        self.norm = nn.Identity() if grid == 1 else nn.BatchNorm1d(channels)

    def statistic(self, x: Tensor) -> Tensor:
        _check_size(self, x, self.size)
        if self.size == self.window:
            return F.relu(x.mean(dim=(2, 3)))
        windows = F.avg_pool2d(x, self.window)  # (N, C, grid, grid)
        return F.relu(self.norm(self.fusion(windows)))  # (N, C)


SQUEEZES: dict[str, type[Squeeze]] = {
    "gap": Gap,
    "gmp": Gmp,
    "std": Std,
    "gapXstd": GapXStd,
    "random": Random,
    "SP": SpatialPyramid,
    "RG": ResolutionGuided,
}


# ---- mean and standard deviation ---------------------------------------------------------------


def mean_and_std(x: Tensor) -> tuple[Tensor, Tensor]:
    """Spatial mean and unbiased standard deviation, each (N, C); the latter has gradient 0 where it is 0.

    Raises ValueError on 1x1 maps.
    """
    if x.shape[2] * x.shape[3] < 2:
        raise ValueError("the unbiased standard deviation is not defined on 1x1 maps")
    mean, std = _MeanAndStd.apply(x)
    return mean.flatten(1), std.flatten(1)


class _MeanAndStd(torch.autograd.Function):
    """Two passes and a closed-form gradient: a third of the time of torch.std, which is scalar code on the CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.is_cuda:  # one pass, and exact on constant maps as well
            var, mean = torch.var_mean(x, dim=(2, 3), keepdim=True)
        else:
            origin = x[:, :, :1, :1]  # a constant map less its first pixel is exactly 0, and so is its deviation
            deviation = x - origin
            offset = deviation.mean(dim=(2, 3), keepdim=True)
            mean = origin + offset
            var = deviation.sub_(offset).square_().sum(dim=(2, 3), keepdim=True) / (x.shape[2] * x.shape[3] - 1)
        std = var.sqrt()
        ctx.save_for_backward(x, mean, std)
        return mean, std  # (N, C, 1, 1) each

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_std: Tensor) -> Tensor:
        x, mean, std = ctx.saved_tensors
        pixels = x.shape[2] * x.shape[3]
        slope = grad_std / ((pixels - 1) * std).masked_fill(std == 0, torch.inf)  # 0 on constant maps
        return torch.addcmul(grad_mean / pixels, x - mean, slope)


# ---- cells -------------------------------------------------------------------------------------


def _cells(size: int) -> Tensor:
    """Which pixels are in the pyramid's 21 cells, (size * size, 21) of 0 and 1.

    Cell i of k holds rows (and columns) from floor(i * size / k) up to, not including, ceil((i + 1) * size / k).
    """
    columns = []
    for grid in (1, 2, 4):
        rows = torch.zeros(grid, size)
        for i in range(grid):
            rows[i, i * size // grid : -(-(i + 1) * size // grid)] = 1
        columns.append(torch.einsum("ih,jw->hwij", rows, rows).reshape(size * size, grid * grid))
    return torch.cat(columns, dim=1)


def _check_size(squeeze: Squeeze, x: Tensor, size: int) -> None:
    if x.shape[2:] != (size, size):
        maps = "x".join(map(str, x.shape[2:]))
        raise ValueError(f"{type(squeeze).__name__} was built for maps of {size}x{size}, not {maps}")
