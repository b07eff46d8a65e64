"""What the folded end costs: the bytes of one compiled block, forward and backward, at ResNet-50's stages."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from sqzlab.bench.inductor_bytes import Passes, block_passes, bytes_moved

IMAGES = 16  # from 9 on: sums over fewer images are unrolled, which is another schedule
STAGES = [(256, 56), (512, 28), (1024, 14), (2048, 7)]  # channels and size of ResNet-50's stages
CASES = [(*stage, torch.bfloat16) for stage in STAGES] + [(*stage, torch.float32) for stage in (STAGES[0], STAGES[-1])]
MOST = {"none": 0.1, "gap": 0.1, "gmp": 0.1, "std": 0.1, "gapXstd": 0.1, "random": 0.1, "SP": 1.5, "RG": 1.5}
"""Passes over full-size maps that a block may make beyond the one without a squeeze."""


@cache
def plain_without_squeeze(channels: int, size: int, dtype: torch.dtype) -> Passes:
    return block_passes("none", channels, size, dtype, fold=False, images=IMAGES)


@pytest.mark.parametrize(("channels", "size", "dtype"), CASES)
@pytest.mark.parametrize("squeeze", MOST)
def test_a_folded_block_moves_its_maps_as_often_as_one_without_a_squeeze(
    squeeze: str, channels: int, size: int, dtype: torch.dtype
) -> None:
    folded = block_passes(squeeze, channels, size, dtype, fold=True, images=IMAGES)
    assert folded.maps - plain_without_squeeze(channels, size, dtype).maps <= MOST[squeeze]


@pytest.mark.parametrize("squeeze", ["gap", "SP"])
def test_the_plain_block_would_fail_that(squeeze: str) -> None:
    """So that the count above is known to see what it is there for."""
    plain = block_passes(squeeze, 512, 28, torch.float32, fold=False, images=IMAGES)
    assert plain.maps - plain_without_squeeze(512, 28, torch.float32).maps > 4.5


def test_a_pass_over_known_maps_is_counted_as_it_is() -> None:
    x = torch.zeros(4, 8, 16, 16)
    assert bytes_moved(lambda x: x * 2 + 1, x) == {x.numel(): 2 * 4 * x.numel()}
