"""Residual networks with a chosen squeeze or block, on torchvision's ResNet.

Contract: `baseline` is torchvision's network exactly, in names, weights (without `seed`) and outputs. With a squeeze,
the backbone's parameter names stay torchvision's; the block is the child `se` of its residual block, and a residual
block without one is torchvision's own; in the folded form it is a block of ours whose `se` is an Identity, with the
same names and weights. With a `seed`, two networks start with equal values wherever they have
parameters of one name and shape, whatever their squeezes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from sqzlab.catalog import BACKBONES, BLOCK_FORMS, STAGE_PLANES, STAGES, stage_sizes
from sqzlab.config import ModelConfig
from sqzlab.errors import ConfigError, choices
from sqzlab.networks.blocks import make_block
from sqzlab.networks.folded import folded, folds
from sqzlab.networks.random_squeeze import seed_noise
from sqzlab.networks.weights import draw_weights, start_as_torchvision
from sqzlab.resolving import model_config, sites_of, wrong_seed


def create_model(
    backbone: str,
    squeeze: str = "baseline",
    *,
    num_classes: int = 1000,
    image_size: int = 224,
    reduction: int | None = None,
    fc_bias: bool | None = None,
    gate: str | None = None,
    width_rule: str | None = None,
    placement: str | None = None,
    stages: str | None = None,
    stride: str | None = None,
    stem: str = "imagenet",
    width: float = 1.0,
    zero_init_gamma: bool = False,
    seed: int | None = None,
    init: str = "torchvision",
    block_form: str = "plain",
    pretrained: str | Path | None = None,
) -> nn.Module:
    """A network, (N, 3, image_size, image_size) -> (N, num_classes) logits.

    None means the default: `reduction` 16, `fc_bias` False (True for CBAM), `gate` "sigmoid", `width_rule` "floor",
    `placement` "standard", `stages` "all", as far as each applies to the squeeze, and `stride` "v1.5" of backbones
    with Bottlenecks; the names stand in `sqzlab.catalog`. `width` scales the planes of every stage. `seed` draws
    every weight by its name; without it they come from torch's global generator. `pretrained` is a file of weights
    that then replace those drawn. `block_form` "folded" computes the end of every residual block as one function (see
    `folded.py`): the same network to rounding, with the same names and weights. Raises ConfigError where a value is
    wrong, an argument does not apply or the squeeze is not defined on maps of these sizes.
    """
    config = model_config(
        backbone=backbone,
        squeeze=squeeze,
        num_classes=num_classes,
        image_size=image_size,
        reduction=reduction,
        fc_bias=fc_bias,
        gate=gate,
        width_rule=width_rule,
        placement=placement,
        stages=stages,
        stride=stride,
        stem=stem,
        width=width,
        zero_init_gamma=zero_init_gamma,
    )
    if seed is not None and (text := wrong_seed(seed)):
        raise ConfigError(f"seed: {text}")
    if block_form not in BLOCK_FORMS:
        raise ConfigError(f"block_form: unknown name {block_form!r}; {choices(BLOCK_FORMS, block_form)}")
    model = build(config, seed=seed, init=init, block_form=block_form)
    if pretrained is not None:
        from sqzlab.networks.pretrained import load_pretrained

        load_pretrained(model, config, pretrained)
    return model


def build(
    config: ModelConfig, *, seed: int | None = None, init: str = "torchvision", block_form: str = "plain"
) -> nn.Module:
    """The network of a complete configuration; see `create_model`. With a seed, torch's generators are left alone."""
    if seed is None:
        model = SqueezeResNet(config, block_form)
        start_as_torchvision(model, init=init, zero_init_gamma=config.zero_init_gamma)
    else:
        with torch.random.fork_rng(devices=[]):
            model = SqueezeResNet(config, block_form)
        draw_weights(model, seed, init=init, zero_init_gamma=config.zero_init_gamma)
    seed_noise(model, seed or 0)
    return model


# ---- residual blocks ---------------------------------------------------------------------------


class SEBasicBlock(BasicBlock):  # type: ignore[misc]
    """torchvision's BasicBlock with `se` at its `placement`, which is one of `catalog.PLACEMENTS` but 3x3.

    The placements are those of arXiv:1709.01507, figure 5, drawn there for ResNet-50; see `SEBottleneck`.
    """

    se: nn.Module
    placement: str

    def forward(self, x: Tensor) -> Tensor:
        shortcut = _shortcut(self, x)
        if self.placement == "pre":
            x = self.se(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return _joined(self, self.bn2(self.conv2(x)), shortcut)


class SEBottleneck(Bottleneck):  # type: ignore[misc]
    """torchvision's Bottleneck with `se` at its `placement`, one of `catalog.PLACEMENTS`.

    From arXiv:1709.01507, figure 5 and tables 14 and 15: SE before the addition (standard), before the residual unit
    (pre), after the addition and its ReLU (post), on the identity branch (identity), after the 3x3 convolution (3x3).

    Our reading, where the paper leaves it open:
    - pre scales the input of the residual branch only; the shortcut, with its projection, sees it unscaled.
    - identity takes the shortcut after its projection, so that C is the same in all blocks of a stage.
    - 3x3 stands between the BatchNorm after that convolution and its ReLU: the paper does not say on which side of
      the ReLU. There the squeeze sees signed values, as in the standard placement; a gate that is not negative
      (sigmoid, ReLU) could be applied after the ReLU with the same result.
    """

    se: nn.Module
    placement: str

    def forward(self, x: Tensor) -> Tensor:
        shortcut = _shortcut(self, x)
        if self.placement == "pre":
            x = self.se(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        if self.placement == "3x3":
            x = self.se(x)
        x = self.relu(x)
        return _joined(self, self.bn3(self.conv3(x)), shortcut)


class FoldedBasicBlock(SEBasicBlock):
    """SEBasicBlock, also without `se`, whose end is one function where it can be; see `folded.py`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.se, self.placement = nn.Identity(), "standard"

    def forward(self, x: Tensor) -> Tensor:
        shortcut = _shortcut(self, x)
        if self.placement == "pre":
            x = self.se(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return _folded_end(self, self.conv2(x), self.bn2, shortcut)


class FoldedBottleneck(SEBottleneck):
    """SEBottleneck, also without `se`, whose end (and with the placement 3x3, whose middle) is one function."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.se, self.placement = nn.Identity(), "standard"

    def forward(self, x: Tensor) -> Tensor:
        shortcut = _shortcut(self, x)
        if self.placement == "pre":
            x = self.se(x)
        x = self.conv2(self.relu(self.bn1(self.conv1(x))))
        if self.placement == "3x3":
            x = folded(x, self.bn2, self.se) if folds(self.se) else self.relu(self.se(self.bn2(x)))
        else:
            x = self.relu(self.bn2(x))
        return _folded_end(self, self.conv3(x), self.bn3, shortcut)


def _folded_end(
    block: FoldedBasicBlock | FoldedBottleneck, y: Tensor, norm: nn.BatchNorm2d, shortcut: Tensor
) -> Tensor:
    """The output, from what the branch's last convolution gives and the shortcut."""
    se = block.se if block.placement == "standard" else nn.Identity()
    if not folds(se):
        return _joined(block, norm(y), shortcut)
    x = folded(y, norm, se, shortcut)
    return block.se(x) if block.placement == "post" else x


def _shortcut(block: SEBasicBlock | SEBottleneck, x: Tensor) -> Tensor:
    """What is added to the branch; it may be `x` itself, which nothing may then change in place."""
    if block.downsample is not None:
        x = block.downsample(x)
    return block.se(x) if block.placement == "identity" else x


def _joined(block: SEBasicBlock | SEBottleneck, branch: Tensor, shortcut: Tensor) -> Tensor:
    """The output, from the branch's last BatchNorm and the shortcut."""
    if block.placement == "standard":
        branch = block.se(branch)
    x: Tensor = block.relu(branch.add_(shortcut))
    return block.se(x) if block.placement == "post" else x


RESIDUAL_BLOCKS = {
    ("basic", "plain"): (BasicBlock, SEBasicBlock),
    ("bottleneck", "plain"): (Bottleneck, SEBottleneck),
    ("basic", "folded"): (FoldedBasicBlock, FoldedBasicBlock),
    ("bottleneck", "folded"): (FoldedBottleneck, FoldedBottleneck),
}
"""A backbone's residual block in one of `catalog.BLOCK_FORMS`, without and with `se`."""


# ---- network -----------------------------------------------------------------------------------


class SqueezeResNet(ResNet):  # type: ignore[misc]
    """torchvision's ResNet with a choice of squeeze, stem, stride and width; its forward is inherited."""

    def __init__(self, config: ModelConfig, block_form: str = "plain") -> None:
        nn.Module.__init__(self)  # ResNet's own would build the stem and stages at width 1
        backbone = BACKBONES[config.backbone]
        self._norm_layer = nn.BatchNorm2d
        self.dilation = 1
        self.groups, self.base_width = backbone.groups, backbone.group_width
        planes = [int(planes * config.width) for planes in STAGE_PLANES]
        self.inplanes = planes[0]

        small = config.stem == "small"
        self.conv1 = nn.Conv2d(
            3, planes[0], 3 if small else 7, stride=1 if small else 2, padding=1 if small else 3, bias=False
        )
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = POOLS[config.stem]()
        plain, squeezed = RESIDUAL_BLOCKS[backbone.block, block_form]
        with_se = STAGES[config.stages] if config.stages is not None else ()
        blocks = [squeezed if stage in with_se else plain for stage in range(4)]
        self.layer1 = self._make_layer(blocks[0], planes[0], backbone.depths[0])
        self.layer2 = self._make_layer(blocks[1], planes[1], backbone.depths[1], stride=2)
        self.layer3 = self._make_layer(blocks[2], planes[2], backbone.depths[2], stride=2)
        self.layer4 = self._make_layer(blocks[3], planes[3], backbone.depths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(planes[3] * backbone.expansion, config.num_classes)
        if config.stride == "v1":
            for layer in (self.layer2, self.layer3, self.layer4):
                layer[0].conv1.stride, layer[0].conv2.stride = layer[0].conv2.stride, layer[0].conv1.stride
        self._add_se(config)

    def _add_se(self, config: ModelConfig) -> None:
        layers = (self.layer1, self.layer2, self.layer3, self.layer4)
        last_size = stage_sizes(config.image_size, config.stem)[-1]
        for site in sites_of(config):
            block = layers[site.stage][site.index]
            block.se = make_block(config, site, last_size)
            block.placement = config.placement


POOLS: dict[str, Callable[[], nn.Module]] = {
    "imagenet": lambda: nn.MaxPool2d(3, stride=2, padding=1),
    "caffe": lambda: nn.MaxPool2d(3, stride=2, ceil_mode=True),
    "small": nn.Identity,
}
"""What follows the first convolution of each of `catalog.STEMS`."""
