"""Bytes that one compiled block moves beyond the block without a squeeze: `python -m benchmarks.folded_bytes`.

Inductor's own count, forward and backward, of a 1x1 convolution, BatchNorm, squeeze and gate, addition and ReLU at the
shapes of ResNet-50's stages, with 64 images in channels_last; then of the forward alone with running statistics, as at
inference. In passes: bytes over those of one map of full size. `maps` are those of full-size maps, `rest` all else:
N x C numbers, grids of cells, weights. Takes about 20 minutes on one core, `inference` alone 3; the figures do not
depend on its speed, but on torch's version and, in the choice of loops, on the processor.
"""

from __future__ import annotations

import argparse
import platform

import torch

from sqzlab.bench.inductor_bytes import block_passes

IMAGES = 64
STAGES = ((256, 56), (512, 28), (1024, 14), (2048, 7))
NAMES = ("none", "gap", "gmp", "std", "gapXstd", "random", "SP", "RG")
KINDS = {"training": (torch.float32, torch.bfloat16), "inference": (torch.bfloat16,)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kinds", nargs="*", default=[*KINDS], metavar="KIND", help=f"of {', '.join(KINDS)}")
    for kind in parser.parse_args().kinds:
        about = "passes beyond the block without a squeeze"
        print(f"torch {torch.__version__}, {platform.machine()}, {IMAGES} images, {kind}; {about}")
        for dtype in KINDS[kind]:
            for channels, size in STAGES:
                _show(channels, size, dtype, training=kind == "training")


def _show(channels: int, size: int, dtype: torch.dtype, *, training: bool) -> None:
    none = block_passes("none", channels, size, dtype, fold=False, images=IMAGES, training=training)
    without = f"without one {none.maps:.2f} of maps, {none.rest:.2f} of the rest"
    print(f"\n{dtype}, {channels} x {size} x {size}: {without}")
    print(f"{'':10}{'plain: maps':>14}{'rest':>8}{'folded: maps':>16}{'rest':>8}", flush=True)
    for name in NAMES:
        shown = []
        for fold in (False, True):
            found = block_passes(name, channels, size, dtype, fold=fold, images=IMAGES, training=training)
            shown += [found.maps - none.maps, found.rest - none.rest]
        print(f"{name:10}{shown[0]:14.2f}{shown[1]:8.2f}{shown[2]:16.3f}{shown[3]:8.2f}", flush=True)


if __name__ == "__main__":
    main()
