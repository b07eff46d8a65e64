"""The names a study may use and which arguments apply to each, without importing torch.

Validation, planning and the command line read these tables; the classes behind the names stand in
`sqzlab.networks` and `sqzlab.data`, and a test says that both agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

STAGE_PLANES = (64, 128, 256, 512)
"""Planes of the four stages at width 1 (arXiv:1512.03385, table 1)."""


@dataclass(frozen=True)
class Backbone:
    block: str  # "basic" or "bottleneck"
    depths: tuple[int, int, int, int]  # residual blocks a stage
    groups: int = 1
    group_width: int = 64

    @property
    def expansion(self) -> int:
        return 4 if self.block == "bottleneck" else 1

    def channels(self, width: float) -> tuple[int, ...]:
        """C of each stage's residual block output."""
        return tuple(int(planes * width) * self.expansion for planes in STAGE_PLANES)


BACKBONES = {
    "resnet18": Backbone("basic", (2, 2, 2, 2)),
    "resnet34": Backbone("basic", (3, 4, 6, 3)),
    "resnet50": Backbone("bottleneck", (3, 4, 6, 3)),
    "resnet101": Backbone("bottleneck", (3, 4, 23, 3)),
    "resnet152": Backbone("bottleneck", (3, 8, 36, 3)),
    "resnext50_32x4d": Backbone("bottleneck", (3, 4, 6, 3), groups=32, group_width=4),
    "resnext101_32x4d": Backbone("bottleneck", (3, 4, 23, 3), groups=32, group_width=4),
}

STEMS = {
    "imagenet": "7x7 convolution with stride 2, then 3x3 max-pool with stride 2",
    "small": "3x3 convolution with stride 1, no pooling (CIFAR and other small images)",
}


def stage_sizes(image_size: int, stem: str) -> tuple[int, int, int, int]:
    """H = W of the maps in the four stages: each stride of 2 halves, rounding up."""
    size = image_size if stem == "small" else -(-image_size // 4)
    sizes = [size]
    for _ in range(3):
        sizes.append(-(-sizes[-1] // 2))
    return (sizes[0], sizes[1], sizes[2], sizes[3])


# ---- squeezes ----------------------------------------------------------------------------------


def _anywhere(_sizes: tuple[int, ...]) -> None:
    return None


def _std_defined(sizes: tuple[int, ...]) -> str | None:
    for stage, size in enumerate(sizes, start=1):
        if size < 2:
            return f"the unbiased standard deviation is not defined on the 1x1 maps of stage {stage}"
    return None


def _pyramid_defined(sizes: tuple[int, ...]) -> str | None:
    for stage, size in enumerate(sizes, start=1):
        if size < 4:
            return f"the 4x4 level of the pyramid would repeat pixels of the {size}x{size} maps of stage {stage}"
    return None


def _windows_defined(sizes: tuple[int, ...]) -> str | None:
    window = sizes[3]
    for stage, grid in enumerate((8, 4, 2), start=1):
        if sizes[stage - 1] != window * grid:
            return (
                f"windows of {window}x{window} (the size of the last stage) do not tile the "
                f"{sizes[stage - 1]}x{sizes[stage - 1]} maps of stage {stage} in {grid}x{grid} cells"
            )
    return None


@dataclass(frozen=True)
class Squeeze:
    summary: str
    source: str
    arguments: frozenset[str] = frozenset({"reduction", "fc_bias"})
    undefined_on: Callable[[tuple[int, ...]], str | None] = _anywhere
    """Why it is not defined on maps of these sizes (H = W of stages 1 to 4), or None."""


SQUEEZES = {
    "baseline": Squeeze("no block at all", "torchvision", arguments=frozenset()),
    "gap": Squeeze("spatial mean", "arXiv:1709.01507 eq. 2"),
    "gmp": Squeeze("spatial maximum", "arXiv:1709.01507 table 11; SsENet.PyTorch"),
    "std": Squeeze("spatial standard deviation, unbiased", "SsENet.PyTorch", undefined_on=_std_defined),
    "gapXstd": Squeeze("product of mean and standard deviation", "SsENet.PyTorch", undefined_on=_std_defined),
    "random": Squeeze("uniform noise instead of a statistic", "SsENet.PyTorch"),
    "SP": Squeeze(
        "spatial pyramid of means over 1x1, 2x2 and 4x4 cells, fused depthwise",
        "doi:10.1016/j.patcog.2021.108159",
        undefined_on=_pyramid_defined,
    ),
    "RG": Squeeze(
        "means over windows of the last stage's size, fused depthwise",
        "doi:10.1016/j.patcog.2021.108159",
        undefined_on=_windows_defined,
    ),
}

DEFAULT_REDUCTION = 16
DEFAULT_FC_BIAS = False


# ---- data sets ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataSet:
    summary: str
    counts: tuple[int, int, int] | None  # classes, training images, validation images; None: they are counted
    native_size: int  # data.image_size where the study names none
    fixed_size: bool = False
    needs_root: bool = False


DATASETS = {
    "digits": DataSet("scikit-learn's handwritten digits, embedded", (10, 1347, 450), 32),
    "imagenet": DataSet("ImageNet-1k as class folders: train/ and val/", None, 224, needs_root=True),
    "imagefolder": DataSet("any class folders: train/ and val/", None, 224, needs_root=True),
    "cifar10": DataSet("CIFAR-10, python version", (10, 50_000, 10_000), 32, fixed_size=True, needs_root=True),
    "cifar100": DataSet("CIFAR-100, python version", (100, 50_000, 10_000), 32, fixed_size=True, needs_root=True),
    "generated": DataSet("noise that stands in for ImageNet in --debug", (1000, 1024, 512), 224),
}

PRECISIONS = {
    "fp32": "float32 everywhere",
    "bf16": "bfloat16 autocast, squeeze statistics in float32",
    "fp64": "float64 everywhere, to compare sums",
}
SCHEDULES = {"step": "multiplied by gamma at each milestone", "cosine": "half a cosine to zero, by step"}
INITS = {
    "torchvision": "kaiming_normal fan_out for convolutions, torch's defaults for linear and fusion layers",
    "zero_bias": "the same with every bias 0 (released SP/RG code)",
}
DEVICES = {"cpu": "the processor", "cuda": "one GPU; its absence is an error"}
