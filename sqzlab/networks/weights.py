"""Initial weights drawn by parameter name, so that networks which share a parameter share its value.

Each parameter has its own generator, keyed by SHA-256 of (seed, name): neither other parameters, nor the order of
modules, nor device or dtype change what it draws.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.resnet import BasicBlock, Bottleneck

from sqzlab.catalog import INITS
from sqzlab.errors import ConfigError, choices
from sqzlab.networks.squeezes import FanInConv, Fusion


@dataclass(frozen=True)
class Rule:
    """How a parameter starts: `normal` with a standard deviation, `uniform` within a bound, or `constant`."""

    distribution: str
    scale: float

    def __str__(self) -> str:
        return f"{self.distribution}({self.scale:.9g})"

    def draw(self, shape: torch.Size, seed: int, name: str) -> Tensor:
        """A float32 tensor on the CPU."""
        if self.distribution == "constant":
            return torch.full(shape, self.scale)
        key = hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16]
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
        if self.distribution == "normal":
            return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32)) * self.scale
        return (torch.from_numpy(generator.random(shape, dtype=np.float32)) * 2 - 1) * self.scale


def draw_weights(model: nn.Module, seed: int, *, init: str = "torchvision", zero_init_gamma: bool = False) -> None:
    """Draws every parameter anew and resets every running statistic.

    Raises ConfigError where `init` is none of `sqzlab.catalog.INITS`.
    """
    rules = weight_rules(model, init=init, zero_init_gamma=zero_init_gamma)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(rules[name].draw(parameter.shape, seed, name))
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()


def start_as_torchvision(model: nn.Module, *, init: str = "torchvision", zero_init_gamma: bool = False) -> None:
    """Draws a network that was just made again from torch's global generator, in the order in which torchvision does.

    What starts by PyTorch's default was drawn when its module was made.
    """
    rules = weight_rules(model, init=init, zero_init_gamma=zero_init_gamma)
    parameters = dict(model.named_parameters())
    for name, rule in rules.items():
        if rule.distribution == "normal":
            owner = model.get_submodule(name.rpartition(".")[0])
            mode: Literal["fan_in", "fan_out"] = "fan_in" if isinstance(owner, FanInConv) else "fan_out"
            nn.init.kaiming_normal_(parameters[name], mode=mode, nonlinearity="relu")
    for name, rule in rules.items():
        if rule.distribution == "constant":
            nn.init.constant_(parameters[name], rule.scale)


def weight_rules(model: nn.Module, *, init: str = "torchvision", zero_init_gamma: bool = False) -> dict[str, Rule]:
    """The rule of every parameter, by name.

    Convolutions: kaiming_normal, fan out (a FanInConv: fan in), ReLU. Norms: 1 and 0. Linear layers, convolutions
    along the channels, the squeezes' fusions and every other bias: PyTorch's default, uniform within 1/sqrt(fan in).
    What a module names in its `initial`: the constant given there. `zero_bias`: the same with every bias 0. With
    `zero_init_gamma` the last BatchNorm of every residual branch starts at 0 (arXiv:1706.02677).
    """
    if init not in INITS:
        raise ConfigError(f"init: unknown name {init!r}; {choices(INITS, init)}")
    last_norms = {id(norm) for norm in last_norms_of(model)} if zero_init_gamma else set()
    constants = _initial_constants(model)
    rules = {}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            role = name.rpartition(".")[2]
            if name in constants:
                rules[name] = Rule("constant", constants[name])
            elif init == "zero_bias" if role == "bias" else id(module) in last_norms:
                rules[name] = Rule("constant", 0.0)
            else:
                rules[name] = _rule(module, role, parameter)
    return rules


def last_norms_of(model: nn.Module) -> list[nn.Module]:
    """The last BatchNorm of every residual branch, in order."""
    blocks = [module for module in model.modules() if isinstance(module, BasicBlock | Bottleneck)]
    return [block.bn3 if isinstance(block, Bottleneck) else block.bn2 for block in blocks]


def _initial_constants(model: nn.Module) -> dict[str, float]:
    """What the modules' class attribute `initial` says: dotted name of a parameter in the module -> its constant."""
    constants: dict[str, float] = {}
    for path, module in model.named_modules():
        initial: Mapping[str, float] = getattr(type(module), "initial", {})
        constants |= {f"{path}.{name}" if path else name: value for name, value in initial.items()}
    return constants


def _rule(module: nn.Module, role: str, parameter: Tensor) -> Rule:
    if isinstance(module, _BatchNorm | nn.LayerNorm):
        return Rule("constant", 1.0 if role == "weight" else 0.0)
    if isinstance(module, Fusion | nn.Linear | nn.Conv1d) or (isinstance(module, nn.Conv2d) and role == "bias"):
        return Rule("uniform", 1 / math.sqrt(module.weight[0].numel()))
    if isinstance(module, nn.Conv2d):
        fan = parameter[0].numel() if isinstance(module, FanInConv) else len(parameter) * parameter[0, 0].numel()
        return Rule("normal", math.sqrt(2 / fan))
    raise TypeError(f"no rule for the {role} of {type(module).__name__}")
