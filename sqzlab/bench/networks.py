"""The networks of a benchmark: ours, timm's and torchvision's."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from importlib.util import find_spec

import torchvision
from torch import nn

from sqzlab.bench.plan import OURS, TIMM, Contender
from sqzlab.networks.resnet import create_model


def network(contender: Contender, size: int) -> nn.Module:
    """With random weights, for images of size x size and 1000 classes."""
    if contender.source == OURS:
        return create_model(contender.backbone, contender.squeeze, image_size=size, seed=0, block_form=contender.form)
    if contender.source == TIMM:
        import timm

        theirs: nn.Module = timm.create_model(_timm_name(contender))
        return theirs
    theirs = torchvision.models.get_model(contender.backbone, weights=None)
    return theirs


def absent(contenders: Iterable[Contender]) -> dict[Contender, str]:
    """Peers' networks that are not to be had here, each with why."""
    found = {}
    for contender in contenders:
        if why := _why_absent(contender):
            found[contender] = why
    return found


def peer_versions() -> dict[str, str | None]:
    return {TIMM: version(TIMM) if find_spec(TIMM) else None}


def _why_absent(contender: Contender) -> str | None:
    if contender.source == TIMM:
        if find_spec(TIMM) is None:
            return "timm is not installed (pip install 'sqzlab[bench]')"
        import timm

        name = _timm_name(contender)
        return None if timm.is_model(name) else f"timm has no {name}"
    if contender.source != OURS and contender.backbone not in torchvision.models.list_models():
        return f"torchvision has no {contender.backbone}"
    return None


def _timm_name(contender: Contender) -> str:
    return contender.backbone if contender.squeeze == "baseline" else f"se{contender.backbone}"
