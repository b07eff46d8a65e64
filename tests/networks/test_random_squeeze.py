"""The noise of the `random` squeeze: uniform, independent, and a function of its keys alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from sqzlab import create_model
from sqzlab.networks.random_squeeze import UniformNoise, _fold, set_random_keys
from sqzlab.networks.squeezes import Random


def network(squeeze: str = "random", seed: int = 0) -> nn.Module:
    return create_model("resnet18", squeeze, num_classes=10, image_size=32, stem="small", width=0.25, seed=seed)


def noise(model: nn.Module, images: Tensor, *, seed: int = 1, split: int = 0, epoch: int = 3) -> list[Tensor]:
    """What each block of the model would use, (N, C) each."""
    set_random_keys(model, seed=seed, split=split, epoch=epoch, image_index=images)
    values = [module.values for module in model.modules() if isinstance(module, UniformNoise)]
    assert all(value is not None for value in values)
    return [value for value in values if value is not None]


def test_generator_is_splitmix64() -> None:
    outputs = _fold(torch.tensor(1234567), torch.arange(5))
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [int(v) % 2**64 for v in outputs] == published


def test_values_are_uniform_in_0_to_1() -> None:
    values = torch.cat(noise(network(), torch.arange(500)), dim=1).double().flatten().numpy()
    assert values.min() >= 0
    assert values.max() < 1
    assert values.mean() == pytest.approx(1 / 2, abs=4 * (1 / 12 / values.size) ** 0.5)
    assert values.var() == pytest.approx(1 / 12, abs=4 * (1 / 180 / values.size) ** 0.5)
    assert stats.kstest(values, "uniform").pvalue > 0.001


def test_values_of_one_channel_are_uniform_over_images() -> None:
    for value in noise(network(), torch.arange(20_000)):
        assert stats.kstest(value[:, 0].double().numpy(), "uniform").pvalue > 0.001


@pytest.mark.parametrize("key", ["seed", "split", "epoch", "image", "channel", "block"])
def test_neighbouring_keys_give_uncorrelated_values(key: str) -> None:
    model, images = network(), torch.arange(2000)
    first = noise(model, images)
    if key in ("seed", "split", "epoch"):
        second = noise(model, images, **{key: {"seed": 2, "split": 1, "epoch": 4}[key]})
        pair = torch.cat(first, 1), torch.cat(second, 1)
    elif key == "image":
        pair = torch.cat(first, 1)[:-1], torch.cat(first, 1)[1:]
    elif key == "channel":
        pair = first[-1][:, :-1], first[-1][:, 1:]
    else:
        pair = first[-2], first[-1]
    a, b = (values.double().flatten().numpy() for values in pair)
    assert not np.array_equal(a, b)
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / a.size**0.5


def test_values_do_not_depend_on_how_images_are_split_into_batches() -> None:
    images = torch.tensor([5, 900, 31, 0, 1_281_166, 7])
    whole = noise(network(seed=1), images)
    parts = [noise(network(seed=2), part) for part in images.split([1, 3, 2])]
    for block, values in enumerate(whole):
        assert torch.equal(values, torch.cat([part[block] for part in parts]))


def test_image_index_may_be_of_any_integer_type() -> None:
    images = torch.arange(6)
    for wide, narrow in zip(noise(network(), images), noise(network(), images.int()), strict=True):
        assert torch.equal(wide, narrow)


def test_each_forward_uses_the_values_set_for_it_once() -> None:
    model, x = network().eval(), torch.ones(4, 3, 32, 32)

    def outputs(epoch: int) -> Tensor:
        set_random_keys(model, seed=0, split=1, epoch=epoch, image_index=torch.arange(4))
        with torch.no_grad():
            return model(x)  # type: ignore[no-any-return]

    first, other, again = outputs(1), outputs(2), outputs(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with torch.no_grad():
        assert not torch.equal(model(x), again)  # no keys: neither the last values nor an error


def test_without_keys_every_forward_draws_anew_but_a_new_network_repeats_it() -> None:
    x = torch.ones(4, 3, 32, 32)
    with torch.no_grad():
        model = network(seed=5).eval()
        first, second = model(x), model(x)
        assert not torch.equal(first, second)
        assert torch.equal(network(seed=5).eval()(x), first)


def test_blocks_without_keys_draw_different_values() -> None:
    model = network().eval()
    sources = [module for module in model.modules() if isinstance(module, UniformNoise)]
    drawn = [source(4, torch.device("cpu"))[:, :16] for source in sources]
    assert len({tuple(values.flatten().tolist()) for values in drawn}) == len(sources)


def test_keys_for_another_number_of_images_are_refused() -> None:
    model = network()
    set_random_keys(model, seed=0, split=0, epoch=0, image_index=torch.arange(3))
    with pytest.raises(ValueError, match="set for 3 images, but this forward has 4"):
        model(torch.zeros(4, 3, 32, 32))


def test_keys_change_nothing_where_no_squeeze_is_random() -> None:
    model = network("gap")
    before = torch.random.get_rng_state()
    set_random_keys(model, seed=0, split=0, epoch=0, image_index=torch.arange(3))
    assert torch.equal(torch.random.get_rng_state(), before)
    model(torch.zeros(4, 3, 32, 32))


def test_noise_is_not_part_of_the_state_dict() -> None:
    model = network()
    before = set(model.state_dict())
    set_random_keys(model, seed=0, split=0, epoch=0, image_index=torch.arange(3))
    assert set(model.state_dict()) == before == set(network("gap").state_dict())


def test_no_gradient_flows_to_the_input() -> None:
    squeeze, x = Random(3, 4, 4), torch.zeros(2, 3, 4, 4, requires_grad=True)
    assert not squeeze(x).requires_grad
