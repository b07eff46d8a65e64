"""What stands in a run's configuration and what of it makes its identity."""

from __future__ import annotations

from typing import Any

import pytest

from sqzlab.config import ADDED_KEYS, Config, resolve

GIVEN = {
    "model.backbone": "resnet18",
    "model.stem": "small",
    "data.name": "digits",
    "train.recipe": "digits",
    "train.batch_size": 32,
}


def config(**train: Any) -> Config:
    found = resolve(GIVEN | {f"train.{name}": value for name, value in train.items()}, seed=0)
    assert isinstance(found, Config), found
    return found


def test_keys_younger_than_the_first_results_are_in_the_identity_only_where_they_say_something_new() -> None:
    assert config(world_size=1, sync_batch_norm=False).digest() == config().digest()
    train = config().identity()["train"]
    assert all(key.removeprefix("train.") not in train for key in ADDED_KEYS)


def test_the_number_of_processes_and_the_kind_of_batch_norm_make_other_runs() -> None:
    runs = [
        config(),
        config(world_size=2),
        config(world_size=4),
        config(world_size=2, sync_batch_norm=True),
    ]
    assert len({run.digest() for run in runs}) == len(runs)
    assert runs[1].identity()["train"]["world_size"] == 2


@pytest.mark.parametrize(
    ("train", "fault"),
    [
        ({"world_size": 3}, ("train.batch_size", "32 cannot be shared equally by 3 processes")),
        ({"sync_batch_norm": True}, ("train.sync_batch_norm", "true needs train.world_size above 1")),
        ({"world_size": 0}, ("train.world_size", "0 is out of range; valid: at least 1")),
        ({"world_size": 17}, ("train.world_size", "17 is out of range; valid: at most 16")),
        ({"world_size": True}, ("train.world_size", "True is true/false; valid: a whole number")),
    ],
)
def test_a_world_size_that_cannot_be_is_a_fault(train: dict[str, Any], fault: tuple[str, str]) -> None:
    found = resolve(GIVEN | {f"train.{name}": value for name, value in train.items()}, seed=0)
    assert found == [fault]


@pytest.mark.parametrize("world_size", [1, 2, 4, 8, 16])
def test_every_divisor_of_the_batch_is_a_world_size(world_size: int) -> None:
    assert config(world_size=world_size).train.world_size == world_size
