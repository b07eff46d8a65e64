"""The sources of published.csv as literal tables: what each variant is in our names, and which caveats it has.

Only facts: `published.py` reads the file, `beside.py` puts our arms beside its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqzlab.catalog import DEFAULT_REDUCTION, SQUEEZES

Settings = Mapping[str, Any]  # our keys; those without a section are the model's


@dataclass(frozen=True)
class Source:
    """Tables that share a recipe and a baseline, so that differences within them mean something."""

    short: str
    tables: tuple[tuple[str, str], ...]  # (source, table) of published.csv
    variants: Mapping[str, Settings | str]
    """What a variant says of its network beyond DEFAULTS, or why no arm of ours is it."""
    baseline: frozenset[str] = frozenset()  # its variants; empty where it printed none of the same training
    known: Settings = field(default_factory=dict)
    """What else is known of its networks. An arm must agree only where its study varies that key."""
    stride: str | None = None  # of its ResNets, where known
    notes: tuple[str, ...] = ()  # of every row, by their names in caveats.NOTES
    row_notes: tuple[tuple[str | None, str | None, str], ...] = ()  # (backbone, variant, note); None: any
    labels: Mapping[str, str] = field(default_factory=dict)  # what tells variants apart that are one arm of ours


# ---- what variants are -------------------------------------------------------------------------

DEFAULTS: Settings = {
    **{"reduction": DEFAULT_REDUCTION, "gate": "sigmoid", "width_rule": "floor"},
    **{"placement": "standard", "stages": "all"},
}
"""What a published block is where its variant says nothing else."""

BLOCKS: Mapping[str, Settings] = {name: {"squeeze": name} for name in SQUEEZES}
BASE, SE = BLOCKS["baseline"], BLOCKS["gap"]
NO_BLOCK = "no block of ours is {}"
NO_STRIDE_1 = "its last stage has stride 1 (maps of 14x14), as no backbone of ours has"

BACKBONE_NAMES = {
    **{f"ResNet-{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)},
    **{f"ResNeXt-{depth}": f"resnext{depth}_32x4d" for depth in (50, 101)},
}
OTHER_BACKBONES = (
    *("VGG-16", "BN-Inception", "Inception-V3", "Inception-ResNet-v2", "MobileNet", "ShuffleNet", "MobileNetV2-1.0"),
    *("ResNet-110 @CIFAR-10", "ResNet-164 @CIFAR-10", "WRN-16-8 @CIFAR-10", "Shake-Shake 26 2x96d + Cutout @CIFAR-10"),
    *("ResNet-110 @CIFAR-100", "ResNet-164 @CIFAR-100", "WRN-16-8 @CIFAR-100"),
    "Shake-Even 29 2x4x64d + Cutout @CIFAR-100",
)
"""Published networks that no backbone of ours is."""

# ---- the sources -------------------------------------------------------------------------------

_SENET, _ECA = "SENet TPAMI arXiv:1709.01507", "ECA-Net arXiv:1910.03151"
_MM = "Image Classification on ImageNet-1k"

SSENET = Source(
    "SsENet.PyTorch",
    (("SsENet.PyTorch README", "Experimental Results"),),
    {"baseline": BASE, "gap": SE, **{name: BLOCKS[name] for name in ("gmp", "std", "gapXstd", "random")}},
    frozenset({"baseline"}),
    {"fc_bias": False, "train.recipe": "ssenet"},
    stride="v1.5",
    notes=("ssenet",),
    row_notes=(
        *(("ResNet-50", name, "mislabelled") for name in ("gap", "gmp", "std", "gapXstd", "random")),
        ("ResNet-50", "baseline", "which_resnet50"),
        ("ResNet-18", None, "zero_init"),
    ),
)
SPRG = Source(
    "SP/RG",
    (("SP/RG README (Jin et al. 2022)", "Key Results"),),
    {"base": BASE, "SE": SE, "CBAM": BLOCKS["CBAM"], "SPSE": BLOCKS["SP"], "RGSE": BLOCKS["RG"]},
    frozenset({"base"}),
    {"fc_bias": True, "zero_init_gamma": False, "train.recipe": "sprg"},
    notes=("best_epoch",),
    row_notes=tuple((f"ResNeXt-{depth}", None, "unexplained_gflops") for depth in (50, 101)),
)
SENET_ABLATION = Source(
    "SENet",
    tuple((_SENET, f"Table {number}") for number in range(10, 17)),
    {
        **{"base": BASE, "base (original)": BASE, "SE": SE, "SE All": SE},
        **{f"SE r={r}": {**SE, "reduction": r} for r in (2, 4, 8, 16, 32)},
        **{"squeeze=Avg": SE, "squeeze=Max": BLOCKS["gmp"]},
        **{f"excitation={name}": {**SE, "gate": name.lower()} for name in ("ReLU", "Tanh", "Sigmoid")},
        **{f"SE Stage {n}": {**SE, "stages": f"conv{n}"} for n in (2, 3, 4)},
        **{f"SE-{name}": {**SE, "placement": name.lower()} for name in ("PRE", "POST", "Identity")},
        **{"SE 3x3": {**SE, "placement": "3x3"}, "NoSqueeze": BLOCKS["no_squeeze"]},
    },
    frozenset({"base", "base (original)"}),
    {"fc_bias": False},
    stride="v1",
    notes=("senet_ablation",),
    row_notes=tuple(
        (None, variant, "other_table")
        for variant in (
            "squeeze=Max",
            "excitation=ReLU",
            "excitation=Tanh",
            "SE-PRE",
            "SE-POST",
            "SE-Identity",
            "SE 3x3",
        )
    ),
)
_CAFFE = "SE (released caffe, bs256 lr0.1 more epochs)"
_ECA_QUOTES = ("base", "SE", "CBAM")
_TIMM = {
    **{f"SE (legacy_seresnet{depth}.in1k)": SE for depth in (18, 34, 50, 101, 152)},
    **{f"SE (seresnet50.{recipe}_in1k)": SE for recipe in ("ra2", "a3")},
    **{f"base (resnet{depth}.tv_in1k)": {**BASE, "train.recipe": "torchvision"} for depth in (18, 34, 50, 101)},
}

SOURCES = (
    SSENET,
    SPRG,
    Source(
        "SENet",
        ((_SENET, "Table 2"),),
        {"base (re-implementation)": BASE, "base (original paper)": BASE, "SE": SE},
        frozenset({"base (re-implementation)"}),
        {"train.recipe": "senet2018"},
        stride="v1",
        row_notes=(
            (None, "base (original paper)", "original_paper"),
            *((None, variant, "senet_table_2") for variant in ("base (re-implementation)", "SE")),
        ),
        labels={"base (original paper)": "original"},
    ),
    Source("SENet", tuple((_SENET, f"Table {number}") for number in (3, 4, 5)), {"base": BASE, "SE": SE}),
    SENET_ABLATION,
    Source(
        "SENet, footnote 2",
        ((_SENET, "footnote 2 (270 ep: 125/200/250)"),),
        {"base": BASE, "SE": SE},
        frozenset({"base"}),
        {"train.recipe": "senet270"},
        stride="v1",
        notes=("senet_270",),
    ),
    Source(
        "SENet README",
        (("hujie-frank/SENet README", "Table 1"),),
        {_CAFFE: SE},
        known={"fc_bias": True},
        stride="v1",
        notes=("caffe", "no_baseline"),
    ),
    Source(
        "CBAM",
        (("CBAM ECCV 2018", "Table 4"),),
        {"CBAM": BLOCKS["CBAM"]},
        known={"fc_bias": True, "zero_init_gamma": False, "train.recipe": "cbam"},
        notes=("cbam", "no_baseline"),
    ),
    Source(
        "CBAM, checkpoint",
        (("Jongchan/attention-module README", "released checkpoint"),),
        {"CBAM": BLOCKS["CBAM"], "BAM": NO_BLOCK.format("BAM")},
        known={"fc_bias": True, "zero_init_gamma": False},
        stride="v1.5",
        notes=("checkpoint", "no_baseline"),
    ),
    Source(
        "ECA-Net",
        ((_ECA, "Table 2"), (_ECA, "Table 3")),
        {
            **{"base": BASE, "SE": SE, "CBAM": BLOCKS["CBAM"], "GCNet": BLOCKS["GC"], "ECA": BLOCKS["ECA"]},
            **{
                f"SE-Var{name}": NO_BLOCK.format("this excitation")
                for name in ("1 sigma(y)", "2 sigma(w*y)", "3 sigma(Wy)")
            },
            **{f"SE-GC{groups}": NO_BLOCK.format("an excitation in groups") for groups in (1, 2, 3)},
            **{"ECA-NS": NO_BLOCK.format("ECA without shared weights")},
            **{"ECA k=3": "our ECA takes its kernel from the number of channels, as the paper's final one does"},
            **{name: NO_BLOCK.format(name) for name in ("A2-Nets", "AA-Net")},
            **{"GSoP-Net1": NO_STRIDE_1},
        },
        frozenset({"base"}),
        row_notes=(
            *((None, variant, "quoted") for variant in _ECA_QUOTES),
            (None, "GCNet", "gcnet"),
            ("ResNet-50", "base", "eca_top5"),
            *((None, variant, "quoted_baseline") for variant in ("CBAM", "GCNet", "ECA")),
            (None, None, "units_2_30"),
        ),
    ),
    Source(
        "ECANet README",
        (("BangguWu/ECANet README", "ImageNet"),),
        {"ECA": BLOCKS["ECA"]},
        notes=("no_baseline", "units_2_30"),
    ),
    Source(
        "SRM",
        (("SRM README figures/imagenet.png", "ImageNet table"),),
        {
            **{"base": BASE, "SE": SE, "SRM (mean+std)": BLOCKS["SRM"]},
            "GE (theta, global)": NO_BLOCK.format("gather-excite"),
        },
        frozenset({"base"}),
        {"fc_bias": True, "zero_init_gamma": False, "train.recipe": "srm"},
        notes=("srm",),
    ),
    Source(
        "GCT",
        (("z-x-yang/GCT TensorFlow README", "Performance"),),
        {
            "base": BASE,
            "GCT (no WD on beta)": "weight decay cannot spare beta alone here",
            "GCT (WD on beta)": {"squeeze": "GCT", "train.decay_norm_and_bias": True},
        },
        frozenset({"base"}),
        row_notes=((None, "GCT (WD on beta)", "gct"),),
    ),
    Source(
        "FcaNet",
        (("cfzd/FcaNet README", "Models (reported)"), ("cfzd/FcaNet README", "FAQ")),
        {
            **{"FcaNet top16": BLOCKS["dct"], "fixed DCT (FcaNet)": BLOCKS["dct"]},
            **{f"learnable tensor {init} init": NO_BLOCK.format("a learned transform") for init in ("random", "DCT")},
            "fixed tensor random init": NO_BLOCK.format("a fixed random transform"),
        },
        known={"fc_bias": False, "zero_init_gamma": False, "train.recipe": "fcanet"},
        notes=("fcanet", "no_baseline"),
        labels={"fixed DCT (FcaNet)": "FAQ"},
    ),
    Source(
        "GSoP",
        (("ZilinGao GSoP README", "ImageNet-1K"),),
        {"GSoP-Net1": NO_STRIDE_1, "GSoP-Net2": NO_BLOCK.format("GSoP-Net2")},
    ),
    Source(
        "CoordAttention",
        (("houqb/CoordAttention README", "ImageNet"),),
        {"base": BASE, "SE": SE, "CBAM": BLOCKS["CBAM"], "CA": NO_BLOCK.format("coordinate attention")},
    ),
    Source(
        "timm",
        (("timm results-imagenet.csv (224px)", "results-imagenet.csv"),),
        _TIMM,
        known={"fc_bias": True},
        notes=("no_baseline",),
        row_notes=(
            *((None, f"SE (legacy_seresnet{depth}.in1k)", "legacy") for depth in (18, 34, 50, 101, 152)),
            *((None, f"SE (legacy_seresnet{depth}.in1k)", "relu_before_squeeze") for depth in (18, 34)),
            *((None, f"SE (seresnet50.{recipe}_in1k)", "timm_recipe") for recipe in ("ra2", "a3")),
        ),
        labels={
            name: name.partition("(")[2].removesuffix(")").removesuffix("_in1k").removesuffix(".in1k") for name in _TIMM
        },
    ),
    Source(
        "moskomule",
        (("moskomule/senet.pytorch README", "Results"),),
        {"SE (no bias)": SE},
        known={"fc_bias": False, "zero_init_gamma": False, "train.recipe": "moskomule"},
        stride="v1.5",
        notes=("moskomule", "no_baseline"),
    ),
    Source(
        "mmpretrain",
        (("mmpretrain configs/seresnet", _MM), ("mmpretrain configs/resnet/README.md", _MM)),
        {
            "base": {**BASE, "train.recipe": "mmpretrain101"},
            "SE (seresnet50_8xb32_in1k)": {**SE, "train.recipe": "mmpretrain"},
            "SE (seresnet101_8xb32_in1k)": {**SE, "train.recipe": "mmpretrain101"},
        },
        frozenset({"base"}),
        {"fc_bias": True, "zero_init_gamma": True, "width_rule": "divisible8"},
        stride="v1.5",
        row_notes=(
            (None, "SE (seresnet50_8xb32_in1k)", "unequal_epochs"),
            (None, "SE (seresnet101_8xb32_in1k)", "other_page"),
            ("ResNet-34", "base", "typo"),
        ),
    ),
)
