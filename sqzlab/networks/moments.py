"""Sums over maps that a squeeze can be computed from, each taken in the passes over the maps that BatchNorm makes.

All sums are of what a map differs from its own first pixel by, in float32 or float64: a map at any level keeps its
digits, and a constant one has a variance of exactly 0. They are written so that torch.compile needs one pass over the
maps forward, and none of its own backward; without it every line is a pass. What keeps it so, found with Inductor's
count of bytes:
- no map is converted to float32, only promoted where it is used: a conversion that forward and backward share would
  be stored between them;
- no index of a maximum is taken: backward finds the first tied pixel in a pass that reads the maps anyway;
- small coefficients are stored before they are spread over a map: else they would be spread in a pass of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sums:
    """What a squeeze reads of a map, besides its mean and its squares.

    `grids` are the sides of no grid of cells, of one that divides the maps' size, or of two, the coarse one first.
    The two are adaptive pooling's: cell i of k holds rows from floor(i * size / k) up to, not including,
    ceil((i + 1) * size / k), so that neighbours overlap where k does not divide the size.
    """

    extreme: bool = False
    grids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Moments:
    """Of maps of `pixels` pixels; float32 or float64."""

    pixels: int
    mean: Tensor  # (N, C)
    squares: Tensor  # (N, C), the sum of the squared deviations from the mean
    extreme: Tensor | None  # (N, C), the greatest pixel
    cells: tuple[Tensor, ...]  # means over the cells of each grid, (N, C, g, g)

    def scaled(self, scale: Tensor, origin: Tensor, shift: Tensor) -> Moments:
        """Of scale * (map - origin) + shift, each (C,).

        Where the scale is negative, `extreme` must have been the least pixel, and where it is 0 the first.
        """

        def at(values: Tensor) -> Tensor:
            shape = (-1, *(1,) * (values.ndim - 2))
            return (values - origin.view(shape)) * scale.view(shape) + shift.view(shape)

        extreme = None if self.extreme is None else at(self.extreme)
        return Moments(self.pixels, at(self.mean), self.squares * scale.square(), extreme, tuple(map(at, self.cells)))

    @property
    def std(self) -> Tensor:
        """Unbiased, (N, C); its gradient is 0 where it is 0. Raises ValueError on 1x1 maps."""
        if self.pixels < 2:
            raise ValueError("the unbiased standard deviation is not defined on 1x1 maps")
        varies = self.squares > 0
        return torch.where(varies, self.squares, 1).div(self.pixels - 1).sqrt() * varies


def moments(y: Tensor, sums: Sums, sign: Tensor) -> Moments:
    """Of y (N, C, H, W), where `sign` (C,) is 1 for the greatest pixel, -1 for the least and 0 for the first.

    Of tied pixels the first in row-major order is the extreme and receives the whole gradient.
    """
    mean, squares, *more = _Moments.apply(y, sums, sign)
    extreme = more.pop(0) if sums.extreme else None
    return Moments(y.shape[2] * y.shape[3], mean, squares, extreme, tuple(more))


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, sums: Sums, sign: Tensor) -> tuple[Tensor, ...]:
        pixels = y.shape[2] * y.shape[3]
        first = stored(exact(y[:, :, 0, 0]))  # (N, C)
        d = y - first[:, :, None, None]
        if len(sums.grids) == 1:
            (grid,) = sums.grids
            tiles = _tiles(d, grid)
            parts, squared = tiles.sum(dim=(3, 5)), tiles.square().sum(dim=(3, 5))  # (N, C, g, g)
            total, squares = parts.sum(dim=(2, 3)), squared.sum(dim=(2, 3))
            cells = [parts * (grid**2 / pixels)]
        else:
            total, squares = d.sum(dim=(2, 3)), d.square().sum(dim=(2, 3))
            cells = [_windows(d, grid) for grid in sums.grids]
        offset = total / pixels
        found = [first + offset, (squares - offset * total).clamp(min=0)]
        top = None
        if sums.extreme:
            top = _key(y, sign).amax(dim=(2, 3))  # (N, C), of y's type
            found.append(torch.where(sign == 0, top, top * sign).to(d.dtype))
        found += [cell + first[:, :, None, None] for cell in cells]
        ctx.save_for_backward(y, found[0], sign, top)
        ctx.sums = sums
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_squares: Tensor, *more: Tensor) -> tuple[Tensor | None, ...]:
        y, mean, sign, top = ctx.saved_tensors
        sums: Sums = ctx.sums
        pixels = y.shape[2] * y.shape[3]
        slope = 2 * grad_squares
        level = grad_mean / pixels  # (N, C)
        if not sums.grids:
            grad = level[:, :, None, None]
        elif len(sums.grids) == 1:
            grad = _spread(level[:, :, None, None] + more[-1] * (sums.grids[0] ** 2 / pixels), y)
        else:
            coarse, fine = (g / _cell_sizes(g.shape[2], y) for g in more[-2:])
            grad = _spread_two(level, coarse, fine, y)
        grad = grad + (y - mean[:, :, None, None]) * slope[:, :, None, None]
        if sums.extreme:
            here = _places(y)
            tied = _key(y, sign) == top[:, :, None, None]
            first = torch.where(tied, here, pixels).amin(dim=(2, 3), keepdim=True)
            grad = grad + torch.where(here == first, more[0][:, :, None, None], 0)
        return grad.to(y.dtype), None, None


def exact(x: Tensor) -> Tensor:
    """Of a half type in float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def stored(x: Tensor) -> Tensor:
    """x itself; a compiler keeps it in memory, rather than compute it again for every pixel that needs it."""
    x = x.contiguous()
    return x.as_strided(x.shape, x.stride())


def _places(y: Tensor) -> Tensor:
    """Each pixel's number in row-major order, (H, W)."""
    return torch.arange(y.shape[2] * y.shape[3], device=y.device).view(y.shape[2:])


def _key(y: Tensor, sign: Tensor) -> Tensor:
    """sign * y; where the sign is 0, y at the first pixel and nothing elsewhere."""
    s = sign.to(y.dtype).view(-1, 1, 1)
    return torch.where(s == 0, torch.where(_places(y) == 0, y, -torch.inf), y * s)


# ---- cells -------------------------------------------------------------------------------------


def _tiles(x: Tensor, grid: int) -> Tensor:
    """(N, C, H, W) -> (N, C, grid, H / grid, grid, W / grid)."""
    n, c, height, width = x.shape
    return x.view(n, c, grid, height // grid, grid, width // grid)


def _windows(d: Tensor, grid: int) -> Tensor:
    """Means over cells that may overlap, (N, C, grid, grid), each a sum of its own in one pass over all."""
    height, width = d.shape[2:]
    flat, places = d.flatten(2), torch.arange(height * width, device=d.device)  # of one dimension, as other sums are
    rows = [_within(places // width, i, grid, height) for i in range(grid)]
    columns = [_within(places % width, j, grid, width) for j in range(grid)]
    found = [torch.where(row & column, flat, 0).sum(dim=2) for row in rows for column in columns]
    return torch.stack(found, dim=2).view(*d.shape[:2], grid, grid) / _cell_sizes(grid, d)


def _within(places: Tensor, i: int, grid: int, size: int) -> Tensor:
    return (places >= i * size // grid) & (places < -(-(i + 1) * size // grid))


def _cell_sizes(grid: int, y: Tensor) -> Tensor:
    """Pixels of each cell, (grid, grid)."""
    cells = torch.arange(grid, device=y.device)
    height, width = (-(-(cells + 1) * size // grid) - cells * size // grid for size in y.shape[2:])
    return height[:, None] * width


def _spread(cells: Tensor, y: Tensor) -> Tensor:
    """(N, C, g, g) -> (N, C, H, W), where the cells tile the maps."""
    rows, columns = (torch.arange(size, device=y.device) // (size // cells.shape[2]) for size in y.shape[2:])
    return stored(cells)[:, :, rows[:, None], columns]


def _spread_two(level: Tensor, coarse: Tensor, fine: Tensor, y: Tensor) -> Tensor:
    """level (N, C) and the cells of two grids -> (N, C, H, W): each pixel the sum over the cells that it is in.

    What several cells give is added in small tables, so that a pixel reads three numbers: a compiler that finds too
    many reads in one place stores what it has so far, in full size.
    """
    table = stored(_atoms(_atoms(coarse, 2), 3) + level[:, :, None, None])
    down, across = (first + last for first, last in (_cells_of(size, coarse.shape[2], y) for size in y.shape[2:]))
    spread = table[:, :, down[:, None], across]
    rows = stored(_atoms(fine, 2))
    (top, bottom), (left, right) = (_cells_of(size, fine.shape[2], y) for size in y.shape[2:])
    down = (top + bottom)[:, None]
    return spread + rows[:, :, down, left] + torch.where(right > left, rows[:, :, down, right], 0)


def _atoms(cells: Tensor, dim: int) -> Tensor:
    """Along one dimension of g cells: these and, between each two, their sum (g + g - 1 in all)."""
    atoms = torch.arange(2 * cells.shape[dim] - 1, device=cells.device)
    first, last = atoms // 2, (atoms + 1) // 2
    shape = [-1 if d == dim else 1 for d in range(4)]
    both = (last > first).view(shape)
    return cells.index_select(dim, first) + torch.where(both, cells.index_select(dim, last), 0)


def _cells_of(size: int, grid: int, y: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the last cell that each row is in, (size,) each; equal, or neighbours."""
    rows = torch.arange(size, device=y.device)
    return rows * grid // size, ((rows + 1) * grid - 1) // size
