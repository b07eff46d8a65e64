"""Checkpoints of other projects as networks of ours, and ours as timm's: names by table, the rest from the shapes.

Each source is a row of renames. Backbone, block, width, classes, excitation and stem follow from the shapes; what
leaves no trace in weights (where a Bottleneck has its stride, how the stem pools, what a plain excitation squeezes) is
as the source builds it or has to be said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from sqzlab import catalog
from sqzlab.config import ModelConfig
from sqzlab.errors import ConfigError, choices
from sqzlab.resolving import model_config, sites_of


@dataclass(frozen=True)
class Source:
    """A project's names and what they do not say.

    `mark` matches `name:dimensions` of a tensor that, of the sources below it, only its checkpoints have.
    """

    summary: str
    mark: str
    renames: tuple[tuple[str, str], ...]  # regular expressions and their replacements, applied in this order
    squeezes: tuple[str, ...] = ("gap",)  # what blocks may be; several where the names do not say which
    stem: str = "imagenet"
    stride: str = "v1.5"
    grouped_stride: str = "v1.5"  # of ResNeXt
    refused_block: tuple[str, str] | None = None  # a kind of residual block that is none of ours, and why


@dataclass(frozen=True)
class Imported:
    source: str
    config: ModelConfig
    weights: dict[str, Tensor]


def translate(
    weights: Mapping[str, Tensor],
    path: Path,
    *,
    source: str | None = None,
    squeeze: str | None = None,
    image_size: int | None = None,
) -> Imported:
    """The network that another project's weights are of, and the weights by our names.

    `source` is recognised by its names unless given, `squeeze` is needed where the source does not say it. `image_size`
    is 224, or 32 with a 3x3 stem, where absent. `path` is named in errors. Whether every tensor fits says
    `files.load_weights`. Raises ConfigError, one line each.
    """
    if source is None:
        source = recognised(weights)
        if source is None:
            some = ", ".join(map(repr, list(weights)[:3]))
            raise ConfigError(f"{path}: its names ({some}, ...) are of no known source; {choices(SOURCES)}")
    elif source not in SOURCES:
        raise ConfigError(f"source: unknown name {source!r}; {choices(SOURCES, source)}")
    row = SOURCES[source]
    renamed: dict[str, Tensor] = {}
    for old, tensor in weights.items():
        name = old
        for pattern, replacement in row.renames:
            name = re.sub(pattern, replacement, name)
        linear = tensor.ndim == 4 and re.search(r"\.excitation\.fc[12]\.weight$", name)  # told as a 1x1 convolution
        renamed[name] = tensor.flatten(1) if linear else tensor
    for name in [name for name in renamed if name.endswith(".running_mean")]:  # torch 0.3 counted no batches
        renamed.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    try:
        config = _described(renamed, row, squeeze, image_size)
    except KeyError as error:
        raise ConfigError(f"{path}: is no {source} checkpoint: it has no {error.args[0]!r}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {line}" for line in error.faults) from None
    return Imported(source, config, renamed)


def recognised(weights: Mapping[str, Tensor]) -> str | None:
    """The source that has such names."""
    for source, row in SOURCES.items():
        if any(re.search(row.mark, f"{name}:{tensor.ndim}") for name, tensor in weights.items()):
            return source
    return None


# ---- what the shapes tell ----------------------------------------------------------------------


def _described(weights: Mapping[str, Tensor], row: Source, squeeze: str | None, image_size: int | None) -> ModelConfig:
    """Raises KeyError with the name of a tensor that every network has."""
    first = _shape(weights, "conv1.weight", 4)
    stem = "small" if first[-1] == 3 else row.stem
    width = first[0] / catalog.STAGE_PLANES[0]
    backbone = _backbone(weights, width)
    kind, groups = catalog.BACKBONES[backbone].block, catalog.BACKBONES[backbone].groups
    if row.refused_block is not None and row.refused_block[0] == kind:
        raise ConfigError(f"{backbone}: {row.refused_block[1]}")
    options = {"squeeze": "baseline", **_block(weights, row, squeeze)}
    if image_size is None:
        image_size = 32 if stem == "small" else 224
    return model_config(
        backbone=backbone,
        stem=stem,
        stride=None if kind == "basic" else row.stride if groups == 1 else row.grouped_stride,
        width=width,
        num_classes=_shape(weights, "fc.weight", 2)[0],
        image_size=image_size,
        **options,
    )


def _backbone(weights: Mapping[str, Tensor], width: float) -> str:
    block = "bottleneck" if "layer1.0.conv3.weight" in weights else "basic"
    inner = _shape(weights, "layer1.0.conv2.weight", 4)
    outer = _shape(weights, "layer1.0.conv3.weight", 4)[0] if block == "bottleneck" else inner[0]
    groups = _shape(weights, "layer1.0.conv1.weight", 4)[0] // max(inner[1], 1)
    depths = tuple(_count(weights, rf"layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
    for name, row in catalog.BACKBONES.items():
        if (row.block, row.depths, row.groups) != (block, depths, groups):
            continue
        if (row.inner_channels(width)[0], row.channels(width)[0]) == (inner[0], outer):
            return name
    text = f"{block} blocks {'-'.join(map(str, depths))} in {groups} groups, {inner[0]} to {outer} channels"
    raise ConfigError(f"its {text} are no backbone known here; {choices(catalog.BACKBONES)}")


def _block(weights: Mapping[str, Tensor], row: Source, squeeze: str | None) -> dict[str, object]:
    """Arguments of the configuration that say which blocks the network has, empty where it has none."""
    stages = tuple(stage for stage in range(4) if _count(weights, rf"layer{stage + 1}\.(\d+)\.se\."))
    if not stages:
        if squeeze not in (None, "baseline"):
            raise ConfigError(f"has no blocks; squeeze: {squeeze!r} does not apply")
        return {}
    if not row.squeezes:
        raise ConfigError(f"has blocks, which {row.summary} have not; {choices(SOURCES)}")
    if squeeze is None and len(row.squeezes) > 1:
        raise ConfigError(f"its names do not say what its blocks squeeze; say one of {', '.join(row.squeezes)}")
    if squeeze is not None and squeeze not in row.squeezes:
        raise ConfigError(f"squeeze: {squeeze!r} is not what its blocks are; {choices(row.squeezes, squeeze)}")
    name = squeeze or row.squeezes[0]
    found: dict[str, object] = {"squeeze": name}
    if stages != catalog.STAGES["all"]:
        found["stages"] = next(text for text, numbers in catalog.STAGES.items() if numbers == stages)
    if "reduction" in catalog.SQUEEZES[name].arguments:
        layers = [_shape(weights, f"layer{stage + 1}.0.se.excitation.fc1.weight", 2) for stage in stages]
        found["width_rule"], found["reduction"] = _reduction(layers)
        found["fc_bias"] = f"layer{stages[0] + 1}.0.se.excitation.fc1.bias" in weights
    return found


def _reduction(shapes: Iterable[tuple[int, ...]]) -> tuple[str, int]:
    """The width rule and reduction that make (hidden, C) in every stage; the usual ones where several do."""
    layers = list(shapes)
    for rule in catalog.WIDTH_RULES:
        for reduction in (catalog.DEFAULT_REDUCTION, *range(1, layers[0][1] + 1)):
            if all(catalog.hidden_width(channels, reduction, rule) == hidden for hidden, channels in layers):
                return rule, reduction
    text = ", ".join(f"{hidden} of {channels}" for hidden, channels in layers)
    raise ConfigError(f"its hidden units ({text} channels) follow no rule; {choices(catalog.WIDTH_RULES)}")


def _shape(weights: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    """Raises KeyError where there is no such tensor, ConfigError where it has other dimensions."""
    shape = tuple(weights[name].shape)
    if len(shape) != dimensions:
        raise ConfigError(f"{name!r} has shape {shape}; valid: {dimensions} dimensions")
    return shape


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    return len({found[1] for name in weights if (found := re.match(pattern, name))})


# ---- for timm ----------------------------------------------------------------------------------


def for_timm(config: ModelConfig, weights: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """timm's name of the network that computes the same, and its weights by timm's names.

    timm's excitations have biases and at least 8 hidden units; what is absent here is 0 there. Raises ConfigError with
    the reason where timm has no such network.
    """
    if reason := _not_in_timm(config):
        raise ConfigError(f"timm has no such network: {reason}")
    if config.squeeze == "baseline":
        return config.backbone, dict(weights)
    legacy = config.stem == "caffe"
    rule, module = ("floor", "se_module") if legacy else ("divisible8", "se")
    found = {}
    for name, tensor in weights.items():
        found[_LEGACY.get(name, _LEGACY_STEM.sub("layer0.bn1", name)) if legacy else name] = tensor
    for site in sites_of(config):
        place = f"layer{site.stage + 1}.{site.index}"
        hidden = catalog.hidden_width(site.channels, catalog.DEFAULT_REDUCTION, rule)
        for layer, outputs, inputs in (("fc1", hidden, site.channels), ("fc2", site.channels, hidden)):
            weight = found.pop(f"{place}.se.excitation.{layer}.weight")
            bias = found.pop(f"{place}.se.excitation.{layer}.bias", weight.new_zeros(len(weight)))
            if weight.shape[0] > outputs or weight.shape[1] > inputs:
                text = f"{weight.shape[0]} hidden units for {site.channels} channels, more than its {hidden}"
                raise ConfigError(f"timm has no such network: {text}")
            padded = F.pad(weight, (0, inputs - weight.shape[1], 0, outputs - weight.shape[0]))
            found[f"{place}.{module}.{layer}.weight"] = padded[:, :, None, None]
            found[f"{place}.{module}.{layer}.bias"] = F.pad(bias, (0, outputs - len(bias)))
    return f"legacy_se{config.backbone}" if legacy else f"se{config.backbone}", found


def _not_in_timm(config: ModelConfig) -> str | None:
    row = catalog.BACKBONES[config.backbone]
    if config.squeeze not in ("baseline", "gap"):
        return f"squeeze {config.squeeze!r}; valid: baseline, gap"
    if config.width != 1:
        return f"width {config.width:g}; valid: 1"
    if config.squeeze == "gap":
        for key, valid in (("gate", "sigmoid"), ("placement", "standard"), ("stages", "all")):
            if (value := getattr(config, key)) != valid:
                return f"{key} {value!r}; valid: {valid!r}"
    if config.stem == "small" or (config.stem == "caffe" and config.squeeze == "baseline"):
        return f"the {config.stem} stem"
    if config.stem == "caffe" and row.block == "basic":
        return _LEGACY_BASIC
    stride = "v1" if config.stem == "caffe" and row.groups == 1 else "v1.5"
    if row.block == "bottleneck" and config.stride != stride:
        return f"stride {config.stride!r} with the {config.stem} stem; valid: {stride!r}"
    return None


# ---- tables ------------------------------------------------------------------------------------

_LEGACY_BASIC = "timm's legacy basic blocks have a ReLU before the squeeze, which ours have not"
_LEGACY = {"conv1.weight": "layer0.conv1.weight", "fc.weight": "last_linear.weight", "fc.bias": "last_linear.bias"}
_LEGACY_STEM = re.compile(r"^bn1")

_RELEASED = (  # megvii-research/RG-SENet_SP-SENet
    (r"^(layer\d)\.layer\d_block_(\d+)\.", r"\1.\2."),
    (r"\.conv_conv(\d)\.", r".conv\1."),
    (r"\.bn_bn(\d)\.", r".bn\1."),
    (r"\.shortcut\.shortcut_conv\.", ".downsample.0."),
    (r"\.shortcut\.shortcut_bn\.", ".downsample.1."),
    (r"\.fc_reduction\.", ".se.excitation.fc1."),
    (r"\.fc_extention\.", ".se.excitation.fc2."),
)

SOURCES = {
    "rgse": Source(
        "RG-SENet of megvii-research/RG-SENet_SP-SENet",
        r"\.fc_spatial\.fc_spatial\.",
        (
            *_RELEASED,
            (r"\.fc_spatial\.fc_spatial\.", ".se.squeeze.fusion."),
            (r"\.fc_spatial\.bn_spatial\.", ".se.squeeze.norm."),
        ),
        ("RG",),
    ),
    "spse": Source(
        "SP-SENet of megvii-research/RG-SENet_SP-SENet",
        r"\.fc_spatial4\.",
        (
            *_RELEASED,
            (r"\.fc_spatial1\.", ".se.squeeze.fusions.0."),
            (r"\.fc_spatial2\.", ".se.squeeze.fusions.1."),
            (r"\.fc_spatial4\.", ".se.squeeze.fusions.2."),
            (r"\.fc_bn\.", ".se.squeeze.norm."),
        ),
        ("SP",),
    ),
    "cbam": Source(
        "CBAM of Jongchan/attention-module",
        r"\.cbam\.",
        (
            (r"\.cbam\.ChannelGate\.mlp\.1\.", ".se.excitation.fc1."),
            (r"\.cbam\.ChannelGate\.mlp\.3\.", ".se.excitation.fc2."),
            (r"\.cbam\.SpatialGate\.spatial\.conv\.", ".se.spatial.conv."),
            (r"\.cbam\.SpatialGate\.spatial\.bn\.", ".se.spatial.norm."),
        ),
        ("CBAM",),
    ),
    "moskomule": Source(
        "SENet of moskomule/senet.pytorch",
        r"\.se\.fc\.[02]\.",
        ((r"\.se\.fc\.0\.", ".se.excitation.fc1."), (r"\.se\.fc\.2\.", ".se.excitation.fc2.")),
    ),
    "ssenet": Source(
        "Ootzk/SsENet.PyTorch",
        r"\.se\.excitation\.[02]\.",
        ((r"\.se\.excitation\.0\.", ".se.excitation.fc1."), (r"\.se\.excitation\.2\.", ".se.excitation.fc2.")),
        ("gap", "gmp", "std", "gapXstd", "random"),
    ),
    "mmpretrain": Source(
        "ResNet and SEResNet of open-mmlab/mmpretrain",
        r"^backbone\.",
        (
            (r"^backbone\.", ""),
            (r"^head\.fc\.", "fc."),
            (r"\.se_layer\.conv([12])\.conv\.", r".se.excitation.fc\1."),
        ),
    ),
    "timm_legacy": Source(
        "legacy_seresnet and legacy_seresnext of timm, the Caffe models' port",
        r"^layer0\.conv1\.",
        (
            (r"^layer0\.", ""),
            (r"^last_linear\.", "fc."),
            (r"\.se_module\.(fc[12])\.", r".se.excitation.\1."),
        ),
        stem="caffe",
        stride="v1",
        refused_block=("basic", _LEGACY_BASIC),
    ),
    "timm": Source(
        "seresnet and seresnext of timm, and its plain networks",
        r"\.se\.fc1\.weight:4$",
        ((r"\.se\.(fc[12])\.", r".se.excitation.\1."),),
    ),
    "timm_eca": Source("ecaresnet of timm, with a plain stem", r"\.se\.conv\.weight:3$", (), ("ECA",)),
    "torchvision": Source("resnet and resnext of torchvision", r"^conv1\.weight:4$", (), ()),
}
"""In the order in which they are tried: the last has names that others have too."""
