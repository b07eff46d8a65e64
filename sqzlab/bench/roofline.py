"""Bounds of a backbone: what its plain network moves and computes, at the ceilings of a machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from sqzlab.bench.outcome import Bound
from sqzlab.bench.plan import Settings
from sqzlab.bench.traffic import Work, bound_s, step_work
from sqzlab.networks.resnet import create_model

Counted = dict[tuple[str, str, str], Sequence[Work]]  # backbone, kind, accounting


def counted(settings: Settings, wanted: Iterable[tuple[str, str]]) -> Counted:
    """The work of a step of each (backbone, kind), at this batch, size and precision."""
    found: Counted = {}
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    for backbone, kind in wanted:
        with torch.device("meta"):
            model = create_model(backbone, image_size=settings.size).to(dtype)
            images = torch.empty(settings.batch, 3, settings.size, settings.size, dtype=dtype)
        for accounting, work in step_work(model, images, kind).items():
            found[backbone, kind, accounting] = work
    return found


def bounds(found: Counted, batch: int, flops_per_s: float, bytes_per_s: float) -> list[Bound]:
    """Images a second that these ceilings allow, with FLOP and bytes an image."""
    return [
        Bound(
            *key,
            flops=sum(part.flops for part in work) / batch,
            bytes=sum(part.bytes for part in work) / batch,
            images_per_s=batch / bound_s(work, flops_per_s, bytes_per_s),
        )
        for key, work in found.items()
    ]
