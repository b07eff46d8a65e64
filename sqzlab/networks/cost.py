"""Parameters and operations of a network, counted on the meta device: nothing is allocated or computed.

`python -m sqzlab.networks.cost` reads a JSON list of ModelConfig dumps and writes a JSON list of their costs.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.resnet import BasicBlock, Bottleneck

from sqzlab.config import ModelConfig
from sqzlab.networks.gsop import GSoP
from sqzlab.networks.resnet import build
from sqzlab.networks.se_block import SEBlock
from sqzlab.networks.squeezes import Fusion
from sqzlab.networks.weights import weight_rules
from sqzlab.resolving import model_config


@dataclass(frozen=True)
class Cost:
    """What one image costs, in two conventions, and how every parameter starts.

    `macs` are the multiply-accumulates of convolutions, in one dimension or two, and linear layers, without their
    biases; other products of tensors (a covariance, a sum weighted by attention), elementwise work, normalisation and
    pooling count nothing. `paper_ops` is what the GFLOPs of residual networks and their blocks are in print: `macs`
    plus one operation an element for each residual addition and each pass of a block over maps of its full size, to
    pool or to scale, plus the products of GSoP's covariance; the pooling of the stem and before the classifier counts
    nothing there either.

    `parameters` maps each name to its shape and the rule by which it starts.
    """

    params: int
    macs: int
    paper_ops: int
    parameters: dict[str, tuple[list[int], str]]


def measure(config: ModelConfig) -> Cost:
    """The cost of a complete configuration's network."""
    with torch.device("meta"):
        model = build(config).eval()
        image = torch.empty(1, 3, config.image_size, config.image_size)
    elementwise = _ElementwiseCounter(model)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    flops = counter.get_flop_counts()
    macs = sum(flops["Global"].get(operator, 0) for operator in _COUNTED) // 2
    macs += sum(module.weight.numel() for module in model.modules() if isinstance(module, Fusion))  # one MAC a weight
    rules = weight_rules(model, zero_init_gamma=config.zero_init_gamma)
    parameters = {name: (list(p.shape), str(rules[name])) for name, p in model.named_parameters()}
    params = sum(p.numel() for p in model.parameters())
    paths = [f"{type(model).__name__}.{path}" for path, module in model.named_modules() if isinstance(module, GSoP)]
    covariances = sum(flops[path][torch.ops.aten.bmm] for path in paths) // 2
    return Cost(params, macs, macs + elementwise.count + covariances, parameters)


_COUNTED = (torch.ops.aten.convolution, torch.ops.aten.addmm, torch.ops.aten.mm)
"""What convolutions and linear layers call; the pyramid's pooling matrix is a bmm and is not counted."""


class _ElementwiseCounter:
    """Counts, by hooks that see the actual shapes, one operation an element of every addition and every pass."""

    def __init__(self, model: nn.Module) -> None:
        self.count = 0
        for module in model.modules():
            if isinstance(module, BasicBlock | Bottleneck):
                module.register_forward_hook(self._added)
                if hasattr(module, "se"):
                    module.se.register_forward_hook(self._passed)

    def _added(self, _block: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.count += output.numel()

    def _passed(self, block: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        self.count += _passes(block) * inputs[0].numel()


def _passes(block: Any) -> int:
    """Passes over the maps: those of its squeeze and one to scale, or what a block of its own says."""
    passes: int = block.squeeze.passes + 1 if isinstance(block, SEBlock) else block.passes
    return passes


def main() -> None:
    configs = [model_config(**values) for values in json.load(sys.stdin)]
    json.dump([asdict(measure(config)) for config in configs], sys.stdout)


if __name__ == "__main__":
    main()
