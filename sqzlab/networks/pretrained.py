"""Trained weights as the start of a network with other blocks or classes.

The backbone is loaded whole. A block that the file has not starts as near to the identity as its design allows: its
gate becomes a constant, and where that is a power of two and a layer stands before the block whose scale can take it
back, the network computes bit for bit what the loaded one did. `STARTS` says which blocks can.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sqzlab.config import ModelConfig
from sqzlab.errors import ConfigError
from sqzlab.networks.files import Saved, read_any
from sqzlab.networks.sources import SOURCES, recognised
from sqzlab.resolving import sites_of


class PretrainedWarning(UserWarning):
    """What a network did not get from a file."""


@dataclass(frozen=True)
class Loaded:
    """What became of the names of network and file. `notes` say in words what did not come from the file."""

    loaded: tuple[str, ...]  # of the network, filled from the file
    missing: tuple[str, ...]  # of the network, not in the file
    unexpected: tuple[str, ...]  # of the file, without a place in the network
    notes: tuple[str, ...]


def load_pretrained(model: nn.Module, config: ModelConfig, path: Path | str, *, warn: bool = True) -> Loaded:
    """Puts the weights of a file into the network of `config`, in place.

    The file holds a network of ours or the state dict of a torchvision ResNet or ResNeXt. Its classifier is left out
    where the number of classes differs, its blocks where they are other blocks; a state dict does not say what its
    blocks squeeze, there names and shapes decide. With `warn`, what was left out and how the blocks start is told in a
    PretrainedWarning. Raises ConfigError, and changes nothing, where the backbone differs.
    """
    path = Path(path)
    weights, saved = read_any(path)
    if saved is not None:
        _check_same_backbone(saved.config, config, path)
    own = model.state_dict()
    for name in own:
        if name.endswith(".num_batches_tracked") and name.replace("num_batches_tracked", "running_mean") in weights:
            weights.setdefault(name, torch.tensor(0))  # which torch 0.3 did not count
    _check_fits(own, weights, path)

    chosen = {name for name in own if not _is_block(name) and not name.startswith("fc.")}
    same_classes = own["fc.weight"].shape == weights["fc.weight"].shape
    if same_classes:
        chosen |= {"fc.weight", "fc.bias"}
    sites = [f"layer{site.stage + 1}.{site.index}" for site in sites_of(config)]
    fresh = [site for site in sites if not _same_block(f"{site}.se.", own, weights, config, saved)]
    chosen |= {name for name in own if _is_block(name) and name.split(".se.")[0] not in fresh}
    model.load_state_dict({name: weights[name] for name in chosen}, strict=False)
    factors = [_start(model.get_submodule(site), config) for site in fresh]

    notes = [] if same_classes else [f"the classifier ({len(weights['fc.weight'])} classes, not {config.num_classes})"]
    if fresh:
        notes.append(f"{len(fresh)} blocks {config.squeeze!r}, {_told(factors)}")
    unexpected = tuple(name for name in weights if _is_block(name) and name not in chosen)
    if unexpected:
        notes.append(f"{len(unexpected)} tensors of its own blocks")
    if notes and warn:
        warnings.warn(f"{path}: not loaded: {'; '.join(notes)}", PretrainedWarning, stacklevel=2)
    missing = tuple(name for name in own if name not in chosen)
    return Loaded(tuple(name for name in own if name in chosen), missing, unexpected, tuple(notes))


# ---- what fits ---------------------------------------------------------------------------------


def _check_same_backbone(theirs: ModelConfig, ours: ModelConfig, path: Path) -> None:
    """Also in what leaves no trace in shapes."""
    for key in ("backbone", "width", "stem", "stride"):
        found, wanted = getattr(theirs, key), getattr(ours, key)
        if found != wanted:
            raise ConfigError(f"{path}: is of a network with {key} {found!r}; valid: {wanted!r}")


def _check_fits(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: Path) -> None:
    """Raises ConfigError unless the file has the network's backbone, no less and no more."""
    names = [name for name in own if not _is_block(name)]
    others = [name for name in weights if not _is_block(name) and name not in own]
    source = recognised(weights)
    if source is None or SOURCES[source].renames:
        told = f"those of {SOURCES[source].summary}" if source else "unknown"
        valid = "torchvision's or ours, as `python -m sqzlab import` writes them"
        raise ConfigError(f"{path}: its names are {told}; valid: {valid}")
    classes = weights["fc.weight"].shape[:1] if "fc.weight" in weights else ()  # any number
    for name in [*names, *others]:
        if name not in weights:
            raise ConfigError(f"{path}: is of another backbone: it has no {name!r}")
        if name not in own:
            raise ConfigError(f"{path}: is of another backbone: it has {name!r}, which the network has not")
        wanted = tuple(own[name].shape)
        if name in ("fc.weight", "fc.bias"):
            wanted = (*classes, *wanted[1:])
        if (found := tuple(weights[name].shape)) != wanted:
            raise ConfigError(f"{path}: is of another backbone: {name!r} has shape {found}, not {wanted}")


def _same_block(
    prefix: str, own: Mapping[str, Tensor], weights: Mapping[str, Tensor], config: ModelConfig, saved: Saved | None
) -> bool:
    """Whether the file has this block: by names and shapes, and by configuration where it has one."""
    if saved is not None:
        for key in ("squeeze", "placement", "gate"):
            if getattr(saved.config, key) != getattr(config, key):
                return False
    found = {name: tensor.shape for name, tensor in weights.items() if name.startswith(prefix)}
    return found == {name: tensor.shape for name, tensor in own.items() if name.startswith(prefix)}


def _is_block(name: str) -> bool:
    return re.match(r"layer\d\.\d+\.se\.", name) is not None


# ---- near the identity -------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """Constants of a block by parameter, and the factor that its gate is with them, whatever the input.

    `alone` has them for a place where no layer can take the factor back. A factor of None: the block is left as drawn.
    """

    constants: Mapping[str, float]
    factor: float | None
    alone: Start | None = None


_W, _B = "excitation.fc2.weight", "excitation.fc2.bias"
_NEAR, _NEAR_TANH = 4.0, 2.0
"""Biases at which sigmoid (0.982) and tanh (0.964) are near 1 and still have a gradient."""
_PIXELS = {"spatial.norm.weight": 0.0, "spatial.norm.bias": 0.0}
_PIXELS_NEAR = {"spatial.norm.weight": 0.0, "spatial.norm.bias": _NEAR}


def _sigmoid(bias: float) -> float:
    return 1 / (1 + math.exp(-bias))


STARTS: dict[tuple[str, bool | None], Start] = {
    # excitations, by gate and fc_bias
    ("sigmoid", True): Start({_W: 0, _B: 0}, 0.5, Start({_W: 0, _B: _NEAR}, _sigmoid(_NEAR))),
    ("sigmoid", False): Start({_W: 0}, 0.5),
    ("relu", True): Start({_W: 0, _B: 1}, 1.0),
    ("relu", False): Start({}, None),  # a gate of 0 would never learn: ReLU has no gradient there
    ("tanh", True): Start({_W: 0, _B: math.atanh(0.5)}, 0.5, Start({_W: 0, _B: _NEAR_TANH}, math.tanh(_NEAR_TANH))),
    ("tanh", False): Start({}, None),  # without bias and weights it is 0, which drops what it scales
    # whole blocks, by squeeze and fc_bias
    ("CBAM", True): Start(
        {_W: 0, _B: 0, **_PIXELS}, 0.25, Start({_W: 0, _B: _NEAR / 2, **_PIXELS_NEAR}, _sigmoid(_NEAR) ** 2)
    ),  # its two means and maxima add the bias twice
    ("CBAM", False): Start({_W: 0, **_PIXELS}, 0.25, Start({_W: 0, **_PIXELS_NEAR}, _sigmoid(_NEAR) / 2)),
    ("SRM", None): Start({"weight": 0, "norm.bias": 0}, 0.5, Start({"weight": 0, "norm.bias": _NEAR}, _sigmoid(_NEAR))),
    ("ECA", None): Start({"conv.weight": 0}, 0.5),
    ("GSoP", None): Start(
        {"expand.weight": 0, "expand.bias": 0}, 0.5, Start({"expand.weight": 0, "expand.bias": _NEAR}, _sigmoid(_NEAR))
    ),
    ("GCT", None): Start({"gamma": 0, "beta": 0}, 1.0),
    ("GC", None): Start({"fc2.weight": 0, "fc2.bias": 0}, 1.0),
}


@torch.no_grad()
def _start(residual: nn.Module, config: ModelConfig) -> float | None:
    """Sets a residual block's `se` near the identity.

    Returns the factor between what is computed with it and without: 1 where it is the identity, None where it is not
    constant.
    """
    assert config.placement is not None
    start = STARTS[config.gate or config.squeeze, config.fc_bias]
    before = _before(residual, config.placement)
    if not before and start.alone is not None:
        start = start.alone
    block = residual.get_submodule("se")
    for name, value in start.constants.items():
        block.get_parameter(name).fill_(value)
    if not before or start.factor is None:
        return start.factor
    for parameter in before:
        parameter.mul_(1 / start.factor)
    return 1.0


def _before(residual: nn.Module, placement: str) -> list[nn.Parameter]:
    """Parameters whose scale is that of what the block sees or, before a branch, of what becomes of it."""
    last = "bn3" if hasattr(residual, "bn3") else "bn2"
    norm = {"standard": last, "3x3": "bn2", "identity": "downsample.1"}.get(placement)
    if placement == "pre":
        return [residual.get_parameter("conv1.weight")]
    if norm is None or (placement == "identity" and residual.downsample is None):
        return []
    return [residual.get_parameter(f"{norm}.weight"), residual.get_parameter(f"{norm}.bias")]


def _told(factors: list[float | None]) -> str:
    told = []
    for factor in dict.fromkeys(factors):
        if factor is None:
            text = "start as drawn, far from the identity (no bias can hold their gate at 1)"
        else:
            text = "start as the identity" if factor == 1 else f"start as a factor of {factor:.3g} each"
        told.append(f"{factors.count(factor)} {text}" if len(set(factors)) > 1 else text)
    return f"{'of which ' if len(told) > 1 else 'which '}{' and '.join(told)}"
