"""The names a study may use and which arguments apply to each, without importing torch.

Validation, planning and the command line read these tables; the classes behind the names stand in
`sqzlab.networks` and `sqzlab.data`, and a test says that both agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

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

    def inner_channels(self, width: float) -> tuple[int, ...]:
        """C after each stage's 3x3 convolutions."""
        return tuple(int(int(planes * width) * self.group_width / 64) * self.groups for planes in STAGE_PLANES)


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
    "caffe": "the same with a max-pool without padding that rounds up, as in the Caffe models and timm's legacy ones",
    "small": "3x3 convolution with stride 1, no pooling (CIFAR and other small images)",
}
STRIDES = {
    "v1.5": "a Bottleneck's stride is in its 3x3 convolution (torchvision, timm, mmpretrain)",
    "v1": "in its first 1x1 convolution (arXiv:1512.03385, the Caffe models)",
}


def stage_sizes(image_size: int, stem: str) -> tuple[int, int, int, int]:
    """H = W of the maps in the four stages: each stride of 2 halves, rounding up (Caffe's pooling: down)."""
    size = image_size if stem == "small" else -(-image_size // 2)
    if stem != "small":
        size = size // 2 if stem == "caffe" else -(-size // 2)
    sizes = [size]
    for _ in range(3):
        sizes.append(-(-sizes[-1] // 2))
    return (sizes[0], sizes[1], sizes[2], sizes[3])


# ---- where a block stands ----------------------------------------------------------------------

PLACEMENTS = {
    "standard": "on the residual branch, between its last BatchNorm and the addition",
    "pre": "on the residual branch, before its first convolution",
    "post": "after the addition and its ReLU",
    "identity": "on the shortcut, before the addition",
    "3x3": "inside a Bottleneck's branch, between the BatchNorm and the ReLU after its 3x3 convolution",
}
"""SE, SE-PRE, SE-POST, SE-Identity and SE_3x3 of arXiv:1709.01507, figure 5, tables 14 and 15."""

_CONV = ("conv2", "conv3", "conv4", "conv5")
STAGES = {"all": (0, 1, 2, 3)} | {
    "+".join(_CONV[i] for i in chosen): chosen for count in (1, 2, 3) for chosen in combinations(range(4), count)
}
"""Stages that have the block, counted from 0, by their names in arXiv:1512.03385, table 1 (conv2 is the first)."""


@dataclass(frozen=True)
class Site:
    """Where one block stands: maps (N, channels, size, size) of residual block `index` of a stage (both from 0)."""

    stage: int
    index: int
    channels: int
    size: int


def sites(
    backbone: str, *, width: float, image_size: int, stem: str, placement: str = "standard", stages: str = "all"
) -> tuple[Site, ...]:
    """Every place of a network that has the block, in order."""
    row, found = BACKBONES[backbone], []
    outputs, sizes = row.channels(width), stage_sizes(image_size, stem)
    for stage in STAGES[stages]:
        for index in range(row.depths[stage]):
            channels, size = outputs[stage], sizes[stage]
            if placement == "3x3":
                channels = row.inner_channels(width)[stage]
            elif placement == "pre" and index == 0:
                channels = outputs[stage - 1] if stage else int(STAGE_PLANES[0] * width)
                size = sizes[max(stage - 1, 0)]
            found.append(Site(stage, index, channels, size))
    return tuple(found)


# ---- excitation --------------------------------------------------------------------------------

GATES = {
    "sigmoid": "arXiv:1709.01507 eq. 3",
    "tanh": "arXiv:1709.01507 table 12",
    "relu": "arXiv:1709.01507 table 12",
}
WIDTH_RULES = {
    "floor": "C // reduction hidden units (SENet, SsENet.PyTorch, SP/RG)",
    "divisible8": "C / reduction rounded to a multiple of 8, at least 8 and nine tenths of C / reduction (mmpretrain)",
}


def hidden_width(channels: int, reduction: int, rule: str) -> int:
    """The excitation's hidden units; 0 where the reduction leaves none.

    timm's SE networks round without the rule of nine tenths, which is the same in all that it has.
    """
    if rule == "floor":
        return channels // reduction
    wanted = channels / reduction
    hidden = max(8, int(wanted + 4) // 8 * 8)
    return hidden + 8 if hidden < 0.9 * wanted else hidden


# ---- squeezes and blocks -----------------------------------------------------------------------


def _anywhere(_size: int, _last_size: int) -> None:
    return None


def _std_defined(size: int, _last_size: int) -> str | None:
    return f"the unbiased standard deviation is not defined on the {size}x{size} maps" if size < 2 else None


def _pyramid_defined(size: int, _last_size: int) -> str | None:
    return f"the 4x4 level of the pyramid would repeat pixels of the {size}x{size} maps" if size < 4 else None


def _windows_defined(size: int, last_size: int) -> str | None:
    if size in (last_size, 2 * last_size, 4 * last_size, 8 * last_size):
        return None
    return (
        f"windows of {last_size}x{last_size} (the size of the last stage) do not make 1, 2, 4 or 8 rows of the "
        f"{size}x{size} maps"
    )


def _frequencies_defined(size: int, _last_size: int) -> str | None:
    return (
        f"its frequencies are those of a 7x7 grid, which does not divide the {size}x{size} maps" if size % 7 else None
    )


def _of_any_size(_size: int, _last_size: int, _other: int) -> None:
    return None


def _grid_divides(size: int, last_size: int, other: int) -> str | None:
    grid = size // last_size
    return f"its grid of {grid}x{grid} windows does not divide the {other}x{other} maps" if other % grid else None


def _of_one_size(size: int, _last_size: int, other: int) -> str | None:
    return f"it is made for {size}x{size} maps, not for the {other}x{other} maps" if other != size else None


_PLACED = frozenset({"placement", "stages"})
_EXCITED = _PLACED | {"reduction", "fc_bias", "gate", "width_rule"}


@dataclass(frozen=True)
class Squeeze:
    """A statistic before the excitation of an SE block or, with `whole`, a block of its own."""

    summary: str
    source: str
    arguments: frozenset[str] = _EXCITED
    undefined_on: Callable[[int, int], str | None] = _anywhere
    """Why it is not defined on maps of (size, size in the last stage), ending in "... maps", or None."""
    built_for: Callable[[int, int, int], str | None] = _of_any_size
    """Why, made for maps of (size, size in the last stage), it takes none of another size, ending likewise, or None."""
    whole: bool = False
    fc_bias: bool = False  # what an absent fc_bias means
    least_hidden: int = 1
    """Hidden units that it needs."""


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
        built_for=_grid_divides,
    ),
    "rms": Squeeze("root of the mean square", "l2 pooling of Jongchan/attention-module, averaged"),
    "gem": Squeeze("generalised mean with a learned exponent", "arXiv:1711.02512"),
    "avgmax": Squeeze("half the mean plus half the maximum", "timm, add_maxpool of its squeezes"),
    "attention": Squeeze("mean weighted by a learned softmax over the pixels", "arXiv:1904.11492, as a squeeze alone"),
    "dct": Squeeze(
        "one of 16 cosine transform coefficients",
        "arXiv:2012.11879",
        undefined_on=_frequencies_defined,
        built_for=_of_one_size,
    ),
    "constant": Squeeze("ones instead of a statistic", "control for random"),
    "frozen_random": Squeeze("noise drawn once a channel instead of a statistic", "control for random"),
    "random_train": Squeeze("noise while training, its mean 0.5 at evaluation", "control for random"),
    "no_squeeze": Squeeze("excitation of every pixel by itself", "arXiv:1709.01507 table 16", whole=True),
    "CBAM": Squeeze(
        "gate by mean and maximum of each map, then gate by mean and maximum over the channels",
        "arXiv:1807.06521",
        arguments=_PLACED | {"reduction", "fc_bias", "width_rule"},
        whole=True,
        fc_bias=True,
    ),
    "SRM": Squeeze(
        "mean and standard deviation, no mixing of channels", "arXiv:1903.10829", _PLACED, _std_defined, whole=True
    ),
    "ECA": Squeeze("mean, mixed with its neighbouring channels only", "arXiv:1910.03151", _PLACED, whole=True),
    "GCT": Squeeze("competition between the channels' l2 norms", "arXiv:1909.11519", _PLACED, whole=True),
    "GSoP": Squeeze("covariance of 128 channels", "arXiv:1811.12006", _PLACED, whole=True),
    "GC": Squeeze(
        "attention pooling, transformed and added",
        "arXiv:1904.11492",
        _PLACED | {"reduction", "width_rule"},
        whole=True,
        least_hidden=2,  # LayerNorm makes a constant of one
    ),
}

DEFAULT_REDUCTION = 16


# ---- data sets ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataSet:
    summary: str
    counts: tuple[int, int, int] | None  # classes, training images, validation images; None: they are counted
    native_size: int  # data.image_size where the study names none
    fixed_size: bool = False
    needs_root: bool = False
    tiers: bool = False  # whether its images are files, which a study may read in several ways
    sizes: bool = False  # whether training images can be had at any size


DATASETS = {
    "digits": DataSet("scikit-learn's handwritten digits, embedded", (10, 1347, 450), 32),
    "imagenet": DataSet(
        "ImageNet-1k as class folders: train/ and val/", None, 224, needs_root=True, tiers=True, sizes=True
    ),
    "imagefolder": DataSet("any class folders: train/ and val/", None, 224, needs_root=True, tiers=True, sizes=True),
    "cifar10": DataSet("CIFAR-10, python version", (10, 50_000, 10_000), 32, fixed_size=True, needs_root=True),
    "cifar100": DataSet("CIFAR-100, python version", (100, 50_000, 10_000), 32, fixed_size=True, needs_root=True),
    "imagelist": DataSet(
        "images named in text files, `name label` a line", None, 224, needs_root=True, tiers=True, sizes=True
    ),
    "generated": DataSet("noise that stands in for ImageNet in --debug", (1000, 1024, 512), 224, sizes=True),
}

TIERS = {
    "pil": "image files, decoded and resized by Pillow's decoder and float-free torch code, as published pipelines do",
    "jpeg": "image files, decoded by torchvision's decode_jpeg",
    "store": "a prepared store, mapped into memory; crops on the GPU, or by processes of the CPU without one",
    "resident": "a prepared store, kept in the memory of the device as a whole",
}
"""How training images get to the network: one crop law, the same parts of the same images in each epoch."""
STORED = ("store", "resident")

PRECISIONS = {
    "fp32": "float32 everywhere",
    "bf16": "bfloat16 autocast, squeeze statistics in float32",
    "fp64": "float64 everywhere, to compare sums",
}
BLOCK_FORMS = {
    "plain": "a residual block layer by layer",
    "folded": "its last BatchNorm, squeeze, gate, addition and ReLU as one function; for compiled networks",
}
SCHEDULES = {
    "step": "multiplied by gamma at each milestone",
    "cosine": "half a cosine to zero, by step",
    "linear": "a straight line to zero, by step",
}
INITS = {
    "torchvision": "kaiming_normal fan_out for convolutions, torch's defaults for linear and fusion layers",
    "zero_bias": "the same with every bias 0 (released SP/RG code)",
}
DEVICES = {"cpu": "the processor", "cuda": "one GPU; its absence is an error"}
