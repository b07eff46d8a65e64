"""What is compiled beforehand is what a run compiles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_runs import SMALL

from sqzlab.config import Config
from sqzlab.data.open import open_data
from sqzlab.resolving import resolve
from sqzlab.training.trainer import Trainer
from sqzlab.training.warm_up import compile_graphs

CPU = torch.device("cpu")
Graph = tuple[str, tuple[Any, ...], bool, bool]  # code, inputs, with gradients, under autocast


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> set[Graph]:
    """Every graph that reaches the compiler, which is switched off."""
    found: set[Graph] = set()

    def compiler(graph: torch.fx.GraphModule, inputs: list[Any], **_: Any) -> Any:
        given = [(tuple(x.shape), x.stride(), x.dtype) if isinstance(x, torch.Tensor) else x for x in inputs]
        found.add((graph.code, tuple(given), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        return graph.forward

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", compiler)
    return found


@pytest.mark.parametrize(("form", "squeeze"), [("plain", "random"), ("folded", "gap")])
def test_what_is_compiled_beforehand_is_what_a_run_compiles(seen: set[Graph], form: str, squeeze: str) -> None:
    values = {"model.squeeze": squeeze, "model.reduction": 4, "train.block_form": form}
    config = resolve({**SMALL, **values, "train.compile": True, "train.precision": "bf16"}, 0)
    assert isinstance(config, Config), config
    config = config.model_copy(update={"train": config.train.model_copy(update={"limit_batches": None})})
    compile_graphs(config, CPU)
    beforehand = seen.copy()
    assert len(beforehand) == 2, "one of the training step, one of the evaluation"

    seen.clear()
    data = open_data(config.data, batch_size=config.train.batch_size, seed=0)
    assert data.val_images % config.train.batch_size, "the last validation batch is a short one"
    trainer = Trainer(config, data, CPU)
    steps = trainer.train_epoch()
    next(steps), next(steps)
    steps.close()
    trainer.evaluate()
    torch.compiler.reset()
    assert seen == beforehand
