"""Erasing and mixing of batches against torchvision's transforms, and training with all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from shared_runs import together, trained
from small_runs import SMALL
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from sqzlab.config import ADDED_KEYS, Config
from sqzlab.data.open import Data, open_data
from sqzlab.data.order import mix_seed
from sqzlab.resolving import resolve
from sqzlab.runs.graphs import graph_of
from sqzlab.study.study import load_study
from sqzlab.training.augment import erase, erased_boxes, mix, mixing
from sqzlab.training.trainer import Trainer

CPU = torch.device("cpu")
ALL = {"trivial_augment": True, "random_erasing": 0.5, "mixup_alpha": 0.2, "cutmix_alpha": 1.0}


def normalised(n: int, height: int = 16, width: int = 16) -> Tensor:
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(n)) + 9  # nowhere 0


def mixed(images: Tensor, labels: Tensor, step: int = 0, mixup: float | None = 0.2, cutmix: float | None = 1.0) -> Any:
    return mix(images, labels, 10, mixup, cutmix, 3, 4, step)


# ---- random erasing ----------------------------------------------------------------------------


def test_what_is_erased_is_what_torchvision_erases_with_the_same_box() -> None:
    images, index = normalised(40, 20, 30), np.arange(40)
    boxes = erased_boxes(0.6, 20, 30, 1, 2, index)
    for image, ours, (top, left, h, w) in zip(images, erase(images, 0.6, 1, 2, index), boxes.tolist(), strict=True):
        expected = v2.functional.erase(image, top, left, h, w, torch.zeros(3, 1, 1)) if h else image
        assert torch.equal(ours, expected)
    assert 0 < (boxes[:, 2] == 0).sum() < 40


def test_boxes_are_distributed_as_torchvisions() -> None:
    boxes = erased_boxes(1.0, 90, 120, 0, 0, np.arange(3000))
    law, image = v2.RandomErasing(p=1.0), [torch.empty(3, 90, 120, device="meta")]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        theirs = np.array([[params[key] for key in "ijhw"] for params in (law.make_params(image) for _ in range(3000))])
    for of in (lambda b: b[:, 2] * b[:, 3], lambda b: b[:, 2] / b[:, 3], lambda b: b[:, 0], lambda b: b[:, 1]):
        assert stats.ks_2samp(of(boxes), of(theirs)).pvalue > 0.01


def test_an_erased_part_is_within_the_image_and_as_likely_as_asked_for() -> None:
    boxes = erased_boxes(0.25, 8, 8, 0, 0, np.arange(4000))
    erased = boxes[boxes[:, 2] > 0]
    assert stats.binomtest(len(erased), 4000, 0.25).pvalue > 0.01
    assert erased.min(0).tolist() == [0, 0, 1, 1]
    assert (erased[:, :2] + erased[:, 2:]).max() == 8
    assert erased[:, 2:].max() == 7  # a part is smaller than the image both ways, as torchvision's


def test_erasing_depends_neither_on_the_batch_nor_on_the_place_there() -> None:
    images, index = normalised(30), np.arange(30)
    alone = torch.cat([erase(images[i : i + 1], 0.5, 0, 0, index[i : i + 1]) for i in range(30)])
    order = np.random.default_rng(0).permutation(30)
    assert torch.equal(erase(images[order], 0.5, 0, 0, order), alone[order])
    for seed, epoch in ((1, 0), (0, 1)):
        assert not torch.equal(erase(images, 0.5, seed, epoch, index), alone)


# ---- mixup and cutmix --------------------------------------------------------------------------


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, None), (None, 1.0), (0.2, 1.0)])
def test_a_pair_is_mixed_as_by_torchvision_with_the_same_seed(mixup: float | None, cutmix: float | None) -> None:
    laws = [v2.MixUp(alpha=mixup or 1.0, num_classes=10), v2.CutMix(alpha=cutmix or 1.0, num_classes=10)]
    given = [law for law, alpha in zip(laws, (mixup, cutmix), strict=True) if alpha is not None]
    law = v2.RandomChoice(given) if len(given) == 2 else given[0]
    images, labels = normalised(6, 20, 30), torch.tensor([3, 1, 4, 1, 5, 5])
    for step in range(12):
        ours, shares = mixed(images, labels, step, mixup, cutmix)
        for pair in (slice(0, 2), slice(2, 4), slice(4, 6)):
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(mix_seed(3, 4, step))
                theirs, expected = law(images[pair], labels[pair])
            assert torch.equal(ours[pair], theirs)
            assert torch.equal(shares[pair], expected)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_the_share_of_an_image_is_of_the_beta_distribution(alpha: float) -> None:
    shares = [mixing(alpha, None, torch.Size((8, 8)), 0, 0, step)[1]["lam"] for step in range(1500)]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_with_both_either_is_as_likely_each_step() -> None:
    names = [mixing(0.2, 1.0, torch.Size((8, 8)), 0, 0, step)[0] for step in range(1000)]
    assert stats.binomtest(names.count("mixup"), 1000).pvalue > 0.01


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_shares_are_of_the_images_own_classes_and_sum_to_1(n: int) -> None:
    images, labels = normalised(n), torch.arange(n)
    partner = torch.tensor([0 if i ^ 1 == n else i ^ 1 for i in range(n)])
    for step in range(6):
        made, shares = mixed(images, labels, step)
        torch.testing.assert_close(shares.sum(1), torch.ones(n))
        own = shares[torch.arange(n), labels]
        torch.testing.assert_close(own + shares[torch.arange(n), partner] * (partner != labels), torch.ones(n))
        pixels = own[:, None, None, None] * images + (1 - own)[:, None, None, None] * images[partner]
        torch.testing.assert_close(made.mean((1, 2, 3)), pixels.mean((1, 2, 3)), rtol=0.05, atol=0)


def test_even_parts_of_a_batch_are_mixed_as_the_whole_is() -> None:
    images, labels = normalised(8), torch.arange(8)
    for step in range(6):
        whole = mixed(images, labels, step)
        parts = [mixed(images[part], labels[part], step) for part in (slice(0, 2), slice(2, 8))]
        for expected, *found in zip(whole, *parts, strict=True):
            assert torch.equal(torch.cat(found), expected)


def test_steps_epochs_and_seeds_mix_differently_whatever_the_global_generators_have_drawn() -> None:
    images, labels = normalised(4), torch.arange(4)
    first, _ = mixed(images, labels)
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert torch.equal(mixed(images, labels)[0], first)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    for place in ((4, 4, 0), (3, 5, 0), (3, 4, 1)):
        assert not torch.equal(mix(images, labels, 10, 0.2, 1.0, *place)[0], first)


def test_no_value_on_the_device_is_waited_for() -> None:
    images = torch.empty(7, 3, 16, 16, device="meta")  # which has no values
    labels = torch.empty(7, dtype=torch.int64, device="meta")
    assert erase(images, 0.5, 0, 0, np.arange(7)).shape == images.shape
    for step in range(4):  # both ways to mix
        assert [made.shape for made in mixed(images, labels, step)] == [images.shape, (7, 10)]


# ---- training ----------------------------------------------------------------------------------


def configured(**train: Any) -> Config:
    given = {"batch_size": 16, "limit_batches": 4, "epochs": 2, "warmup_epochs": 0, **train}
    config = resolve({**SMALL, **{f"train.{key}": value for key, value in given.items()}}, 0)
    assert isinstance(config, Config), config
    return config


def opened(config: Config) -> Data:
    train = config.train
    return open_data(config.data, batch_size=train.batch_size, seed=0, trivial_augment=train.trivial_augment)


def test_the_loss_of_a_mixed_batch_is_torchvisions_and_correct_is_what_meets_the_images_own_label() -> None:
    config = configured(mixup_alpha=1.0, label_smoothing=0.1, batch_size=2, channels_last=False)
    data = opened(config)
    trainer = Trainer(config, data, CPU)
    batch = next(data.train_batches(0))
    images = (batch.images.float() - trainer.mean) / trainer.std
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(mix_seed(0, 0, 0))
        images, shares = v2.MixUp(alpha=1.0, num_classes=10)(images, batch.labels)
    trainer.model.train()
    logits = trainer.model(images)
    expected = F.cross_entropy(logits, shares, label_smoothing=0.1)
    next(trainer.train_epoch())
    loss, correct = trainer.sums.tolist()
    assert loss == pytest.approx(2 * float(expected.detach()), rel=1e-6)
    assert correct == int((logits.argmax(1) == batch.labels).sum())


def test_every_augmentation_matters_and_none_disturbs_an_evaluation() -> None:
    ends, before = [], []
    for train in ({}, *({key: value} for key, value in ALL.items()), ALL):
        config = configured(**train)
        trainer = Trainer(config, opened(config), CPU)
        before.append(trainer.evaluate().loss)
        for _ in trainer.train_epoch():
            pass
        ends.append(trainer.model.state_dict()["fc.weight"])
    assert len(set(before)) == 1
    for number, end in enumerate(ends):
        assert not any(torch.equal(end, other) for other in ends[:number])


def test_a_run_with_all_of_them_that_is_resumed_in_an_epoch_ends_with_the_same_bits() -> None:
    config = configured(**ALL)
    whole, first = (Trainer(config, opened(config), CPU) for _ in range(2))
    for _ in range(2):
        for _ in whole.train_epoch():
            pass
        closed = whole.close_epoch()

    for _ in zip(range(3), first.train_epoch(), strict=False):
        pass
    torch.manual_seed(99)  # whatever the new process draws
    resumed = Trainer(config, opened(config), CPU)
    resumed.load_state(first.state())
    for _ in range(2):
        for _ in resumed.train_epoch():
            pass
        again = resumed.close_epoch()
    assert again == closed
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_two_processes_with_even_parts_end_as_one_does() -> None:
    asked = {name: ALL[name] for name in ("random_erasing", "mixup_alpha", "cutmix_alpha")} | {"precision": "fp64"}
    config = configured(**asked)
    alone = Trainer(config, opened(config), CPU)
    for _ in alone.train_epoch():
        pass
    closed = alone.close_epoch()
    together_config = configured(**asked, world_size=2, sync_batch_norm=True)
    for found in together(trained, [(together_config, 1)] * 2):
        assert found["closed"] == [pytest.approx(closed, rel=1e-9)]
        for name, value in alone.model.state_dict().items():
            np.testing.assert_allclose(found["model"][name], value.numpy(), atol=1e-9, err_msg=name)


def test_a_study_may_vary_each_of_them_and_a_run_without_them_keeps_its_name(tmp_path: Path) -> None:
    axes = {f"train.{key}": [ADDED_KEYS[f"train.{key}"][0], value] for key, value in ALL.items()}
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps({"matrix": axes, "seeds": [0], "defaults": SMALL}))  # which YAML contains
    runs = load_study(path).runs
    plain = resolve(SMALL, 0)
    assert isinstance(plain, Config)
    assert len({run.config.digest() for run in runs}) == 2 ** len(ALL)
    assert plain.digest() in {run.config.digest() for run in runs}
    assert not ALL.keys() & plain.identity()["train"].keys()
    assert len({graph_of(run.config) for run in runs}) == 1  # nothing of it is compiled


def test_mixing_needs_two_images_in_each_process() -> None:
    given = {**SMALL, "train.batch_size": 4, "train.world_size": 4, "train.mixup_alpha": 0.2}
    text = "0.2 needs two images to mix; every process has one of train.batch_size"
    assert resolve(given, 0) == [("train.mixup_alpha", text)]
