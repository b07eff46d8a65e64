"""Noise for the `random` squeezes that depends on (seed, split, epoch, image, block, channel) and on nothing else.

Values come from a counter-based generator (splitmix64, doi:10.1145/2660193.2660195) in integer arithmetic, so batch
size, rank, device and a resumed run do not change them. They are drawn outside the (compiled) graph, before the
forward pass that uses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn


class UniformNoise(nn.Module):
    """Source of (N, C) float32 values in [0, 1): those that `set_random_keys` left for one forward, else new ones.

    Without keys a forward counts itself and draws from `seed`, so that `model(x)` works wherever there is no epoch.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.seed = 0
        self.block = 0  # number of this source in its network
        self.draws = 0
        self.values: Tensor | None = None

    @property
    def in_use(self) -> bool:
        """Whether the next forward takes values from here."""
        return True

    def forward(self, images: int, device: torch.device) -> Tensor:
        values, self.values = self.values, None
        if values is None:
            self.draws += 1
            index = torch.arange(images, device=device)
            columns = _channel_keys([(self.block, self.channels)], device)
            return uniform(_image_keys(self.seed, _UNKEYED, self.draws, index), columns)
        if values.shape != (images, self.channels):
            raise ValueError(
                f"random keys were set for {len(values)} images, but this forward has {images}; "
                "call set_random_keys with this batch's image_index"
            )
        return values


class TrainingNoise(UniformNoise):
    """The same while training; at evaluation its mean, 0.5."""

    @property
    def in_use(self) -> bool:
        return self.training

    def forward(self, images: int, device: torch.device) -> Tensor:
        if self.training:
            return super().forward(images, device)
        return torch.full((images, self.channels), 0.5, device=device)


class FrozenNoise(nn.Module):
    """One value in [0, 1) a channel, (N, C), the same for every image; part of the state, so a loaded network keeps it.

    Drawn when it is made and again by `seed_noise`.
    """

    values: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.block = 0
        self.register_buffer("values", torch.empty(channels))
        self.draw(0)

    def draw(self, seed: int) -> None:
        image = torch.zeros(1, dtype=torch.int64)
        columns = _channel_keys([(self.block, self.channels)], image.device)
        values = uniform(_image_keys(seed, _FROZEN, 0, image), columns)[0]
        self.values.copy_(values)

    def forward(self, images: int) -> Tensor:
        return self.values.expand(images, -1)


def seed_noise(model: nn.Module, seed: int) -> None:
    """Tells every source of noise its number in `model` and the seed, and draws what is drawn once."""
    for source in number_sources(model):
        source.seed = seed
    frozen = [module for module in model.modules() if isinstance(module, FrozenNoise)]
    for block, noise in enumerate(frozen):
        noise.block = block
        noise.draw(seed)


Places = dict[tuple[int, int], Tensor]
"""By split and block where a network's noise is written, always the same memory."""


def set_random_keys(
    model: nn.Module, *, seed: int, split: int, epoch: int, image_index: Tensor, places: Places | None = None
) -> None:
    """Draws what every `random` squeeze of `model` will use in its next forward; nothing where there is none.

    `split` tells data splits apart (from 0); `image_index` (N,) holds each image's place in its split. `places`, empty
    at first, are for networks that run as CUDA graphs: a tensor that is an attribute of a module is taken to stay
    where it is, and elsewhere each step would record a graph.
    """
    sources = [source for source in number_sources(model) if source.in_use]
    if not sources:
        return
    device = next(model.parameters()).device
    images = _image_keys(seed, split, epoch, image_index.to(device, torch.int64))
    columns = _kept_channel_keys(tuple((source.block, source.channels) for source in sources), device)
    values = uniform(images, columns)  # (N, sum of C)
    for source, part in zip(sources, torch.split(values, [s.channels for s in sources], dim=1), strict=True):
        if places is not None:
            key = split, source.block
            if key not in places:
                places[key] = torch.empty_like(part)
            part = places[key].copy_(part)
        source.values = part


def number_sources(model: nn.Module) -> list[UniformNoise]:
    """The network's sources in order, each told its number."""
    sources = [module for module in model.modules() if isinstance(module, UniformNoise)]
    for block, source in enumerate(sources):
        source.block = block
    return sources


def uniform(row_keys: Tensor, column_keys: Tensor) -> Tensor:
    """(N,) and (C,) int64 keys -> (N, C) float32 in [0, 1), multiples of 2**-24."""
    bits = _mix(row_keys[:, None] + column_keys)
    return _shifted(bits, 40).to(torch.float32) * 2.0**-24


# ---- splitmix64 on int64 tensors, whose products and sums wrap around ----------------------------

_UNKEYED, _FROZEN = -1, -2  # the splits of draws without keys, and of those made once
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FACTORS = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


def _image_keys(seed: int, split: int, epoch: int, image_index: Tensor) -> Tensor:
    key = torch.tensor(0)  # of no dimension: a kernel takes it by value, and no host waits for a copy
    for part in (seed, split, epoch):
        key = _fold(key, torch.tensor(part))
    return _fold(key, image_index)  # (N,)


def _channel_keys(sources: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """(sum of C,) keys of every channel of sources (block, C)."""
    blocks = torch.cat([torch.full((channels,), block, device=device) for block, channels in sources])
    channel = torch.cat([torch.arange(channels, device=device) for _, channels in sources])
    return _fold(_fold(torch.tensor(-1), blocks), channel)


@lru_cache(maxsize=8)
def _kept_channel_keys(sources: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """They never change, and on a GPU are some sixty short kernels a step."""
    return _channel_keys(sources, device)


def _fold(key: Tensor, part: Tensor) -> Tensor:
    """The `part`-th output of a splitmix64 generator that starts at `key`."""
    return _mix(key + (part + 1) * _GOLDEN)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * _FACTORS[0]
    z = (z ^ _shifted(z, 27)) * _FACTORS[1]
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right."""
    return torch.bitwise_right_shift(z, bits).bitwise_and((1 << (64 - bits)) - 1)
