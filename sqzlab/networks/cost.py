"""Parameters and multiply-accumulates of a network, counted on the meta device: nothing is allocated or computed.

`python -m sqzlab.networks.cost` reads a JSON list of ModelConfig dumps and writes a JSON list of their costs.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from sqzlab.config import ModelConfig, model_config
from sqzlab.networks.resnet import build
from sqzlab.networks.squeezes import Fusion
from sqzlab.networks.weights import weight_rules


@dataclass(frozen=True)
class Cost:
    """`macs` are those of convolutions and linear layers for one image; elementwise work and pooling count nothing.

    `parameters` maps each name to its shape and the rule by which it starts.
    """

    params: int
    macs: int
    parameters: dict[str, tuple[list[int], str]]


def measure(config: ModelConfig) -> Cost:
    """The cost of a complete configuration's network."""
    with torch.device("meta"):
        model = build(config).eval()
        image = torch.empty(1, 3, config.image_size, config.image_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    flops = counter.get_flop_counts()["Global"]
    macs = sum(flops.get(operator, 0) for operator in _COUNTED) // 2
    macs += sum(module.weight.numel() for module in model.modules() if isinstance(module, Fusion))  # one MAC a weight
    rules = weight_rules(model, zero_init_gamma=config.zero_init_gamma)
    parameters = {name: (list(p.shape), str(rules[name])) for name, p in model.named_parameters()}
    return Cost(sum(p.numel() for p in model.parameters()), macs, parameters)


_COUNTED = (torch.ops.aten.convolution, torch.ops.aten.addmm, torch.ops.aten.mm)
"""What convolutions and linear layers call; the pyramid's pooling matrix is a bmm and is not counted."""


def main() -> None:
    configs = [model_config(**values) for values in json.load(sys.stdin)]
    json.dump([asdict(measure(config)) for config in configs], sys.stdout)


if __name__ == "__main__":
    main()
