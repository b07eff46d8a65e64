"""The accounting against counts by hand, torch's own flop counter, and figures derived independently of this code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from sqzlab.bench.plan import INFERENCE, KINDS, TRAINING, Settings
from sqzlab.bench.roofline import bounds, counted
from sqzlab.bench.traffic import Work, bound_s, step_work
from sqzlab.networks.resnet import create_model

N, C, SIZE = 8, 64, 128
MAP = N * C * SIZE * SIZE * 4  # bytes of one pass over float32 maps
SMALL = 0.02 * MAP  # room for weights, logits and numbers a channel


class Part(nn.Module):
    """A convolution, the part in question, then another convolution and a classifier; all maps are of one size."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.second = (nn.Conv2d(C, C, 1, bias=False) for _ in range(2))
        self.norm, self.fc = nn.BatchNorm2d(C), nn.Linear(C, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = shortcut = self.first(x)
        if self.kind != "nothing":
            y = self.norm(self.second(y))
        if self.kind == "shortcut":
            y = y.add_(shortcut)
        if self.kind in ("relu", "shortcut"):
            y = F.relu_(y)
        return self.fc(self.second(y)[:, :, 0, 0])


def passes(kind: str, step: str) -> dict[str, float]:
    with torch.device("meta"):
        work = step_work(Part(kind), torch.empty(N, C, SIZE, SIZE), step)
    return {rule: sum(part.bytes for part in parts) / MAP for rule, parts in work.items()}


# A convolution: 2 forward; 2 for each gradient. BatchNorm: 3 and 5 (fused 1 + 2 and 2 + 3, where the second of each
# takes what follows with it). ReLU: 2 and 3. Addition: 3, and 3 where the gradients of both its ways meet.
ADDED = {
    ("norm", TRAINING): (6 + 3 + 5, 6 + 3 + 5),
    ("relu", TRAINING): (6 + 8 + 2 + 3, 6 + 3 + 7),
    ("shortcut", TRAINING): (6 + 8 + 5 + 3 + 3, 6 + (1 + 3) + 7 + 3),
    ("norm", INFERENCE): (2 + 2, 2 + 2),
    ("relu", INFERENCE): (2 + 2 + 2, 2 + 2),
    ("shortcut", INFERENCE): (2 + 2 + 2 + 3, 2 + 3),
}


@pytest.mark.parametrize(("part", "added"), ADDED.items(), ids=lambda value: "-".join(map(str, value)))
def test_a_part_adds_the_passes_that_its_formulas_make(part: tuple[str, str], added: tuple[int, int]) -> None:
    kind, step = part
    alone, found = passes("nothing", step), passes(kind, step)
    counted_passes = [found[rule] - alone[rule] for rule in ("eager", "fused")]
    assert counted_passes == pytest.approx(added, abs=0.02)


def test_the_shortcuts_gradient_is_written_or_computed_again_whichever_moves_less() -> None:
    """One reader more of a value of three sources: writing it is 3 + 1, reading it 1 each, against 3 each."""
    fused = passes("shortcut", TRAINING)["fused"] - passes("relu", TRAINING)["fused"]
    assert 3 < fused < 5


@pytest.mark.parametrize("step", KINDS)
@pytest.mark.parametrize("squeeze", ["baseline", "gap", "SP"])
def test_the_flops_are_those_of_torchs_own_counter(squeeze: str, step: str) -> None:
    with torch.device("meta"):
        model = create_model("resnet18", squeeze, image_size=128)
        images = torch.empty(4, 3, 128, 128)
        work = step_work(model, images, step)
        with FlopCounterMode(display=False) as counter:
            logits = model(images)
            if step == TRAINING:
                F.cross_entropy(logits, torch.empty(4, dtype=torch.int64)).backward()
    for parts in work.values():
        assert sum(part.flops for part in parts) == counter.get_total_flops()


H200 = {"bytes_per_s": 4.3e12, "flops_per_s": 790e12}
# Megabytes an image and images a second of one training step at 224 px, batch 256, bf16: derived by hand, tensor by
# tensor, from the passes above. The fused rule here also takes a projection's BatchNorm into the addition and may
# write the gradient of a shortcut with the sums, so that it is a little stricter.
DERIVED = {
    ("resnet50", "eager"): (476, 8121, 0.02),
    ("resnet50", "fused"): (383, 9874, 0.04),
    ("resnet18", "eager"): (105, 30200, 0.04),
    ("resnet18", "fused"): (84, 35600, 0.03),
}


@pytest.mark.parametrize("backbone", ["resnet50", "resnet18"])
def test_bounds_agree_with_those_derived_by_hand(backbone: str) -> None:
    work = counted(Settings("cpu", 256, 224, "bf16"), [(backbone, TRAINING)])
    for bound in bounds(work, 256, **H200):
        megabytes, speed, room = DERIVED[backbone, bound.accounting]
        assert bound.bytes / 1e6 == pytest.approx(megabytes, rel=room)
        assert bound.images_per_s == pytest.approx(speed, rel=room)


def test_float32_moves_twice_the_bytes_of_bf16_but_for_weights_and_places() -> None:
    wanted = [("resnet18", TRAINING)]
    full, half = (bounds(counted(Settings("cpu", 64, 224, precision), wanted), 64, **H200) for precision in PRECISIONS)
    assert [a.bytes / b.bytes for a, b in zip(full, half, strict=True)] == pytest.approx([2, 2], rel=0.06)
    assert [a.flops for a in full] == [b.flops for b in half]


PRECISIONS = ("fp32", "bf16")


def test_a_bound_takes_the_slower_of_arithmetic_and_memory_of_each_kernel() -> None:
    assert bound_s([Work(100, 10), Work(10, 100)], flops_per_s=10, bytes_per_s=10) == 20
