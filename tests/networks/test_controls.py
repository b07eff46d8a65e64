"""The controls of `random`: what the network learns where its squeeze knows nothing of the image."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from sqzlab import create_model
from sqzlab.networks.random_squeeze import FrozenNoise, seed_noise, set_random_keys
from sqzlab.networks.squeezes import SQUEEZES, Constant, FrozenRandom, Random, RandomTrain, Squeeze


def network(squeeze: str, seed: int = 0) -> nn.Module:
    return create_model("resnet18", squeeze, num_classes=10, image_size=32, stem="small", width=0.25, seed=seed)


def keyed(model: nn.Module, *, epoch: int = 3, images: int = 4) -> None:
    set_random_keys(model, seed=1, split=0, epoch=epoch, image_index=torch.arange(images))


def statistics(model: nn.Module, x: Tensor) -> list[Tensor]:
    """What each block's squeeze gives in one forward, in order."""
    seen: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _m, _args, z: seen.append(z))
        for module in model.modules()
        if isinstance(module, Squeeze)
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return seen


def images(seed: int = 0, count: int = 4) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["constant", "frozen_random", "random_train", "random"])
def test_no_control_sees_its_input(name: str) -> None:
    squeeze = SQUEEZES[name](3, 4, 4)
    x = torch.zeros(2, 3, 4, 4, requires_grad=True)
    assert not squeeze(x).requires_grad


@pytest.mark.parametrize("training", [True, False])
def test_constant_is_one_whatever_the_input(training: bool) -> None:
    squeeze = Constant(3, 4, 4).train(training)
    for x in (torch.zeros(2, 3, 4, 4), torch.randn(2, 3, 4, 4)):
        assert torch.equal(squeeze(x), torch.ones(2, 3))


def test_frozen_noise_is_the_same_for_every_image_batch_epoch_and_mode() -> None:
    model = network("frozen_random")
    first = statistics(model.train(), images())
    keyed(model, epoch=9)
    for found in (statistics(model.eval(), images(1, count=7)), statistics(model.eval(), images())):
        for a, b in zip(first, found, strict=True):
            assert torch.equal(a[:1].expand_as(b), b)


def test_frozen_noise_differs_between_seeds_blocks_and_channels() -> None:
    drawn = [
        tuple(module.values[:8].tolist())
        for seed in (0, 1, 2)
        for module in network("frozen_random", seed).modules()
        if isinstance(module, FrozenNoise)
    ]
    assert len(drawn) == 3 * 8
    assert len(set(drawn)) == len(drawn)
    assert all(len(set(values)) == 8 for values in drawn)


def test_frozen_noise_of_a_seed_is_always_the_same() -> None:
    x = images()
    for a, b in zip(
        statistics(network("frozen_random", 5), x), statistics(network("frozen_random", 5), x), strict=True
    ):
        assert torch.equal(a, b)


def test_frozen_noise_is_uniform() -> None:
    values = [FrozenNoise(20_000) for _ in range(2)]
    both = nn.ModuleList(values)
    seed_noise(both, 3)
    for noise in values:
        assert stats.kstest(noise.values.double().numpy(), "uniform").pvalue > 0.001
    assert not torch.equal(values[0].values, values[1].values)


def test_frozen_noise_is_part_of_the_state_and_comes_back_with_it() -> None:
    ours, other = network("frozen_random", 0), network("frozen_random", 1)
    assert "layer1.0.se.squeeze.noise.values" in ours.state_dict()
    other.load_state_dict(ours.state_dict())
    for a, b in zip(statistics(ours, images()), statistics(other, images()), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["constant", "random_train"])
def test_other_controls_add_nothing_to_the_state(name: str) -> None:
    assert set(network(name).state_dict()) == set(network("gap").state_dict())


def test_training_noise_is_the_random_squeezes_with_the_same_keys() -> None:
    always, training = network("random").train(), network("random_train").train()
    keyed(always)
    keyed(training)
    for a, b in zip(statistics(always, images()), statistics(training, images()), strict=True):
        assert torch.equal(a, b)


def test_training_noise_is_a_half_at_evaluation() -> None:
    model = network("random_train").eval()
    for z in statistics(model, images()):
        assert torch.equal(z, torch.full_like(z, 0.5))


def test_evaluation_with_training_noise_repeats_and_leaves_none_behind() -> None:
    model = network("random_train").eval()
    keyed(model, epoch=1)
    first = model(images())
    keyed(model, epoch=2)
    assert torch.equal(model(images()), first)
    model.train()
    model(images(count=7))  # takes no keys of the evaluation's 4 images


def test_modes_choose_between_noise_and_its_mean() -> None:
    squeeze, x = RandomTrain(8, 4, 4), torch.zeros(5, 8, 4, 4)
    noise = squeeze.train()(x)
    assert noise.std() > 0.1
    assert torch.equal(squeeze.eval()(x), torch.full((5, 8), 0.5))


@pytest.mark.parametrize("squeeze", [Random, RandomTrain, FrozenRandom, Constant])
def test_controls_of_equal_seeds_share_every_weight(squeeze: type[Squeeze]) -> None:
    name = next(name for name, cls in SQUEEZES.items() if cls is squeeze)
    ours, gap = dict(network(name).named_parameters()), dict(network("gap").named_parameters())
    assert ours.keys() == gap.keys()
    assert all(torch.equal(ours[key], gap[key]) for key in gap)
