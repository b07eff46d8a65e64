from __future__ import annotations

import time

import pytest
import torch

from sqzlab.bench.clock import Ceilings
from sqzlab.bench.measure import COPY, MATMUL, measure, open_outcome
from sqzlab.bench.outcome import Outcome
from sqzlab.bench.plan import EAGER, INFERENCE, KINDS, OURS, TORCHVISION, TRAINING, Contender, Entry, Settings, entries
from sqzlab.bench.step import Inputs, make_step
from sqzlab.errors import UnavailableError
from sqzlab.networks.resnet import create_model

SMALL = Settings("cpu", batch=2, size=32, precision="fp32", threads=1, rounds=2, steps=1)
Said = list[tuple[str, int, int]]


def measured(deadline: float | None = None) -> tuple[Outcome, Said]:
    outcome = open_outcome(entries(["resnet18"], ["gap"], ["plain"], ["torchvision"], [EAGER], KINDS, 32), SMALL)
    said: Said = []
    measure(outcome, lambda *what: said.append(what), deadline)
    return outcome, said


@pytest.fixture(scope="module")
def found() -> tuple[Outcome, Said]:
    return measured()


def test_every_row_has_a_turn_in_every_round(found: tuple[Outcome, Said]) -> None:
    outcome, said = found
    assert outcome.complete
    assert [len(row.measured) for row in outcome.rows] == [2] * 6
    assert not outcome.failures
    assert [what for what in said if what[0] == "round"] == [("round", 1, 2), ("round", 2, 2)]


def test_bounds_follow_from_the_ceilings_measured_in_the_rounds(found: tuple[Outcome, Said]) -> None:
    outcome, _ = found
    assert [len(outcome.ceilings[name]) for name in (COPY, MATMUL)] == [2, 2]
    assert {(bound.kind, bound.accounting) for bound in outcome.bounds} == {(k, a) for k in KINDS for a in RULES}
    for row in outcome.rows:
        bound = outcome.bound(row.entry)
        assert bound is not None
        assert bound.images_per_s <= max(outcome.ceilings[MATMUL]) / bound.flops * 1.0001
        assert bound.images_per_s <= max(outcome.ceilings[COPY]) / bound.bytes * 1.0001


RULES = ("eager", "fused")


def test_after_the_deadline_nothing_is_prepared_and_every_row_says_so() -> None:
    outcome, said = measured(time.monotonic())
    assert {row.failure for row in outcome.rows} == {"no time was left to prepare it"}
    assert not said
    assert not outcome.complete


# ---- a step ------------------------------------------------------------------------------------


def model_of(squeeze: str) -> torch.nn.Module:
    return create_model("resnet18", squeeze, image_size=32, seed=0)


def test_training_steps_descend_as_plain_torch_does() -> None:
    inputs, ours = Inputs.of(SMALL), model_of("gap")
    step = make_step(ours, Entry(Contender(OURS, "resnet18", "gap"), EAGER, TRAINING), SMALL, inputs)
    step()
    step()
    theirs = model_of("gap").to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(theirs(inputs.images), inputs.labels).backward()
        optimizer.step()
    for found, value in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-6)


def test_inference_steps_change_nothing() -> None:
    model = model_of("random")
    step = make_step(model, Entry(Contender(OURS, "resnet18", "random"), EAGER, INFERENCE), SMALL, Inputs.of(SMALL))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_inputs_are_the_same_for_all_and_in_the_format_that_was_asked_for() -> None:
    a, b = Inputs.of(SMALL), Inputs.of(SMALL)
    assert torch.equal(a.images, b.images)
    assert a.images.is_contiguous(memory_format=torch.channels_last)
    assert Inputs.of(Settings("cpu", 2, 32, "fp32", channels_last=False)).images.is_contiguous()


def test_ceilings_are_rates_in_bf16_too() -> None:
    ceilings = Ceilings(torch.device("cpu"), "bf16")
    assert ceilings.bytes_per_s() > 1e8
    assert ceilings.flops_per_s() > 1e8


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the GPU whose absence is tested")
def test_a_gpu_that_is_not_there_is_said_before_anything_is_built() -> None:
    with pytest.raises(UnavailableError, match=r"--device cuda: .* has no GPU that can be used"):
        open_outcome([Entry(Contender(TORCHVISION, "resnet18"), EAGER, TRAINING)], Settings("cuda", 2, 32, "fp32"))
