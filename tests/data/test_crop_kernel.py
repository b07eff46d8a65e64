"""The kernel for GPUs where there is none: run by Triton's interpreter on the CPU, and compiled."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from sqzlab.errors import UnavailableError

pytest.importorskip("triton", reason="no Triton: it comes with torch for GPUs")

SIDE = 64
BOXES = [
    (0, 0, 64, 64),
    (3, 5, 40, 31),
    (0, 0, 64, 17),
    (50, 2, 9, 60),
    (10, 20, 32, 32),
    (63, 63, 1, 1),
    (7, 0, 1, 64),
    (24, 14, 40, 50),
]
INTERPRETED = """
import sys, numpy as np, torch
from sqzlab.data.crop_kernel import crop
given = {name: torch.from_numpy(value) for name, value in np.load(sys.argv[1]).items()}
made = {}
for size in map(int, sys.argv[3:]):
    made[str(size)] = np.full((len(given["boxes"]), size, size, 3), 77, np.uint8)
    crop(given["images"], given["rows"], given["boxes"], torch.from_numpy(made[str(size)]))
np.savez(sys.argv[2], **made)
"""


def test_by_the_interpreter_parts_have_torchvisions_pixels(tmp_path):
    """On lines and values that fill the programs' tiles, or do not; parts enlarged, reduced, both, as they are."""
    rng = np.random.default_rng(0)
    sizes = (20, 50)
    flips = [0, 1] * (len(BOXES) // 2)
    given = {
        "images": rng.integers(0, 256, (len(BOXES) + 2, SIDE, SIDE, 3), dtype=np.uint8),
        "rows": rng.permutation(len(BOXES) + 2)[: len(BOXES)],
        "boxes": np.array([(*box, flip) for box, flip in zip(BOXES, flips, strict=True)], dtype=np.int32),
    }
    np.savez(tmp_path / "given.npz", **given)
    words = [sys.executable, "-c", INTERPRETED, *map(str, (tmp_path / "given.npz", tmp_path / "made.npz", *sizes))]
    subprocess.run(words, check=True, env={**os.environ, "TRITON_INTERPRET": "1"})
    for name, made in np.load(tmp_path / "made.npz").items():
        for ours, row, box, flip in zip(made, given["rows"], BOXES, flips, strict=True):
            picture = torch.from_numpy(given["images"][row]).permute(2, 0, 1).double()
            exact = functional.resized_crop(picture, *box, [int(name)] * 2, antialias=True)
            exact = functional.horizontal_flip(exact) if flip else exact
            assert np.abs(ours - exact.permute(1, 2, 0).numpy()).max() <= 0.501, (name, box)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU, where it can be launched")
def test_where_it_cannot_be_launched_it_says_what_it_needs():
    from sqzlab.data.crop_kernel import check_kernel

    with pytest.raises(UnavailableError, match=r"crops on a GPU need a C compiler, .*; valid: .* data.tier 'jpeg'"):
        check_kernel(torch.device("cpu"))


@pytest.mark.parametrize("capability", [80, 90])
def test_it_compiles_for_gpus_of_nvidia(capability):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from sqzlab.data import crop_kernel

    names = dict(images="*u8", rows="*i64", boxes="*i32", made="*u8", side="i32", size="i32")
    tile = dict(LINES=crop_kernel.LINES, VALUES=crop_kernel.VALUES)
    source = ASTSource(crop_kernel._crop, names | dict.fromkeys(tile, "constexpr"), tile)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=crop_kernel.OPTIONS)
    assert made.asm["cubin"]
    assert made.metadata.num_warps == crop_kernel.WARPS
