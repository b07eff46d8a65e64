"""Residual networks with a chosen squeeze, on torchvision's ResNet.

Contract: `baseline` is torchvision's network exactly, in names, weights (without `seed`) and outputs. With a squeeze,
the backbone's parameter names stay torchvision's; the SE block is the child `se` of its residual block, between the
last BatchNorm and the addition, in every block of all four stages (arXiv:1709.01507 fig. 3). With a `seed`, two
networks start with equal values wherever they share a parameter's name, whatever their squeezes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from sqzlab.catalog import BACKBONES, STAGE_PLANES, stage_sizes
from sqzlab.config import ModelConfig, model_config
from sqzlab.networks.random_squeeze import number_sources
from sqzlab.networks.se_block import SEBlock
from sqzlab.networks.squeezes import SQUEEZES, Fusion
from sqzlab.networks.weights import draw_weights, weight_rules


def create_model(
    backbone: str,
    squeeze: str = "baseline",
    *,
    num_classes: int = 1000,
    image_size: int = 224,
    reduction: int | None = None,
    fc_bias: bool | None = None,
    stem: str = "imagenet",
    width: float = 1.0,
    zero_init_gamma: bool = False,
    seed: int | None = None,
    init: str = "torchvision",
) -> nn.Module:
    """A network, (N, 3, image_size, image_size) -> (N, num_classes) logits.

    `reduction` (16) and `fc_bias` (False) apply to squeezes with an excitation, `width` scales the planes of every
    stage. `seed` draws every weight by its name; without it they come from torch's global generator. Raises ConfigError
    where a value is wrong, an argument does not apply or the squeeze is not defined on maps of these sizes.
    """
    config = model_config(
        backbone=backbone,
        squeeze=squeeze,
        num_classes=num_classes,
        image_size=image_size,
        reduction=reduction,
        fc_bias=fc_bias,
        stem=stem,
        width=width,
        zero_init_gamma=zero_init_gamma,
    )
    return build(config, seed=seed, init=init)


def build(config: ModelConfig, *, seed: int | None = None, init: str = "torchvision") -> nn.Module:
    """The network of a complete configuration; see `create_model`. With a seed, torch's generators are left alone."""
    if seed is None:
        model = SqueezeResNet(config)
        _start_as_torchvision(model, config, init)
    else:
        with torch.random.fork_rng(devices=[]):
            model = SqueezeResNet(config)
        draw_weights(model, seed, init=init, zero_init_gamma=config.zero_init_gamma)
    for source in number_sources(model):
        source.seed = seed or 0
    return model


class SEBasicBlock(BasicBlock):  # type: ignore[misc]
    """torchvision's BasicBlock with `se` before the addition."""

    se: SEBlock

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.se(self.bn2(self.conv2(x)))
        return self.relu(x.add_(identity))  # type: ignore[no-any-return]


class SEBottleneck(Bottleneck):  # type: ignore[misc]
    """torchvision's Bottleneck (stride in the 3x3 convolution) with `se` before the addition."""

    se: SEBlock

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.se(self.bn3(self.conv3(x)))
        return self.relu(x.add_(identity))  # type: ignore[no-any-return]


BLOCKS = {
    "basic": (BasicBlock, SEBasicBlock),
    "bottleneck": (Bottleneck, SEBottleneck),
}
"""A backbone's residual block without and with `se`."""


class SqueezeResNet(ResNet):  # type: ignore[misc]
    """torchvision's ResNet with a choice of squeeze, stem and width; its forward is inherited."""

    def __init__(self, config: ModelConfig) -> None:
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
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        block = BLOCKS[backbone.block][config.squeeze != "baseline"]
        self.layer1 = self._make_layer(block, planes[0], backbone.depths[0])
        self.layer2 = self._make_layer(block, planes[1], backbone.depths[1], stride=2)
        self.layer3 = self._make_layer(block, planes[2], backbone.depths[2], stride=2)
        self.layer4 = self._make_layer(block, planes[3], backbone.depths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(planes[3] * backbone.expansion, config.num_classes)
        if config.squeeze != "baseline":
            self._add_se(config)

    def _add_se(self, config: ModelConfig) -> None:
        assert config.reduction is not None
        assert config.fc_bias is not None
        channels = BACKBONES[config.backbone].channels(config.width)
        sizes = stage_sizes(config.image_size, config.stem)
        layers = (self.layer1, self.layer2, self.layer3, self.layer4)
        for layer, stage_channels, size in zip(layers, channels, sizes, strict=True):
            for block in layer:
                squeeze = SQUEEZES[config.squeeze](stage_channels, size, sizes[-1])
                block.se = SEBlock(squeeze, stage_channels, config.reduction, fc_bias=config.fc_bias)


def _start_as_torchvision(model: nn.Module, config: ModelConfig, init: str) -> None:
    """Draws from torch's global generator in the order in which torchvision does."""
    rules = weight_rules(model, init=init, zero_init_gamma=config.zero_init_gamma)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and not isinstance(module, Fusion):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    for name, parameter in model.named_parameters():
        if rules[name].distribution == "constant":
            nn.init.constant_(parameter, rules[name].scale)
