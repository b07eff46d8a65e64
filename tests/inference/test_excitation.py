from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sqzlab import catalog
from sqzlab.analysis.gates import HIGH, LOW, Gates
from sqzlab.catalog import SQUEEZES
from sqzlab.errors import ConfigError
from sqzlab.inference.checkpoint import Network
from sqzlab.inference.excitation import channel_gates, record_gates
from sqzlab.inference.images import ImageBatch
from sqzlab.inference.validation import Labelled
from sqzlab.networks.random_squeeze import set_random_keys
from sqzlab.networks.resnet import build
from sqzlab.resolving import model_config, sites_of
from sqzlab.training.trainer import VAL

LABELS = (3, 0, 0, 3, 1, 0, 3, 3, 0, 1, 0)  # of 5 classes, 2 and 4 without images
GATED = [name for name in SQUEEZES if name not in ("baseline", "GC")]
EXCITED = [name for name, row in SQUEEZES.items() if "gate" in row.arguments and not row.whole]


def network_of(squeeze: str, **given: Any) -> Network:
    """A small network whose gates differ between images."""
    options = {"reduction": 4} if "reduction" in SQUEEZES[squeeze].arguments else {}
    size = 56 if squeeze == "dct" else 32
    values = {"backbone": "resnet18", "stem": "small", "width": 0.125, "num_classes": 5, "image_size": size}
    config = model_config(**{**values, **options, **given}, squeeze=squeeze)
    model = build(config, seed=0).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "fc2" in name:
                parameter.mul_(8)
    return Network("a-run", model, config, 7, (0.5,) * 3, (0.25,) * 3, None, data="generated")


def images_of(network: Network, labels: tuple[int, ...] = LABELS, bad: int | None = None) -> Labelled:
    """Noise; image number `bad` cannot be read."""
    size = network.config.image_size
    pixels = torch.randint(0, 256, (len(labels), 3, size, size), generator=torch.Generator().manual_seed(0)).byte()
    for i, label in enumerate(labels):
        pixels[i] //= label + 1

    def batches(batch_size: int, told: Callable[[str], object]) -> Iterator[ImageBatch]:
        if bad is not None:
            told(f"image {bad}")
        index = [i for i in range(len(labels)) if i != bad]
        for start in range(0, len(index), batch_size):
            part = torch.tensor(index[start : start + batch_size])
            yield ImageBatch(pixels[part], part)

    return Labelled("generated", torch.tensor(labels), [str(i) for i in range(len(labels))], None, batches)


def factors_by_hand(network: Network, images: Labelled) -> dict[str, np.ndarray]:
    """The gates of every block, (n, C) in float64, by calling its squeeze and its excitation on what it was given."""
    given: dict[str, Tensor] = {}
    blocks = {n.removesuffix(".se"): m for n, m in network.model.named_modules() if n.endswith(".se")}
    hooks = [
        block.register_forward_pre_hook(lambda _, inputs, name=name: given.update({name: inputs[0].clone()}))
        for name, block in blocks.items()
    ]
    (batch,) = images.batches(len(images.labels), print)
    network.logits(batch.images, batch.index)
    for hook in hooks:
        hook.remove()
    set_random_keys(network.model, seed=network.seed, split=VAL, epoch=network.epoch, image_index=batch.index)
    with torch.no_grad():
        return {name: block.excitation(block.squeeze(given[name])).double().numpy() for name, block in blocks.items()}


def assert_same(gates: Gates, others: Gates, **tolerance: float) -> None:
    for one, other in zip(gates.blocks, others.blocks, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.images, other.images)
        for part in ("mean", "std", "low", "high"):
            np.testing.assert_allclose(getattr(one, part), getattr(other, part), **tolerance)


@pytest.mark.parametrize("squeeze", EXCITED)
def test_means_spreads_and_saturation_are_those_of_loops_over_the_gates(squeeze: str) -> None:
    network = network_of(squeeze)
    images = images_of(network)
    gates = record_gates(network, images, batch_size=4)
    by_hand = factors_by_hand(network, images)
    assert [block.name for block in gates.blocks] == list(by_hand)
    for block in gates.blocks:
        x = by_hand[block.name]
        assert block.low is not None
        assert block.high is not None
        for k in range(5):
            own = [x[i] for i, label in enumerate(LABELS) if label == k]
            assert block.images[k] == len(own)
            if not own:
                assert np.isnan(block.mean[k]).all()
                assert np.isnan(block.std[k]).all()
                continue
            mean = sum(own) / len(own)
            np.testing.assert_allclose(block.mean[k], mean, atol=1e-6)
            std = np.sqrt(sum((gate - mean) ** 2 for gate in own) / len(own))
            np.testing.assert_allclose(block.std[k], std, atol=1e-6)
            np.testing.assert_allclose(
                block.low[k], sum((gate < LOW).astype(float) for gate in own) / len(own), atol=1e-6
            )
            np.testing.assert_allclose(
                block.high[k], sum((gate > HIGH).astype(float) for gate in own) / len(own), atol=1e-6
            )


@pytest.mark.parametrize("squeeze", GATED)
def test_one_gate_of_every_block_is_recorded_and_is_what_scales_its_maps(squeeze: str) -> None:
    network = network_of(squeeze)
    images = images_of(network, labels=(0, 1, 2, 3, 4))  # an image a class: its mean is its gate
    given: dict[str, np.ndarray] = {}
    scaled: dict[str, np.ndarray] = {}
    for name in channel_gates(network.model):
        block = network.model.get_submodule(f"{name}.se")
        after = block.get_submodule("spatial") if squeeze == "CBAM" else None  # CBAM's other gate is not on channels
        block.register_forward_pre_hook(lambda _, x, name=name: given.update({name: x[0].double().numpy()}))
        if after is None:
            block.register_forward_hook(lambda _, __, y, name=name: scaled.update({name: y.double().numpy()}))
        else:
            after.register_forward_pre_hook(lambda _, x, name=name: scaled.update({name: x[0].double().numpy()}))
    gates = record_gates(network, images)
    sites = sites_of(network.config)
    assert [block.name for block in gates.blocks] == [f"layer{site.stage + 1}.{site.index}" for site in sites]
    assert [block.channels for block in gates.blocks] == [site.channels for site in sites]
    for block in gates.blocks:
        assert block.std.max() == 0
        if squeeze != "no_squeeze":
            wanted = given[block.name] * block.mean[:, :, None, None]
            np.testing.assert_allclose(scaled[block.name], wanted, atol=1e-5, rtol=1e-5)


def test_gates_of_pixels_are_averaged_over_each_map_and_saturate_one_by_one() -> None:
    network = network_of("no_squeeze")
    outputs: dict[str, np.ndarray] = {}
    for name, gate in channel_gates(network.model).items():
        gate.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output.double().numpy()}))
    gates = record_gates(network, images_of(network))
    for block in gates.blocks:
        x = outputs[block.name]  # (N, C, H, W)
        own = x[np.array(LABELS) == 3]
        np.testing.assert_allclose(block.mean[3], own.mean(axis=(0, 2, 3)), rtol=1e-9)
        np.testing.assert_allclose(block.std[3], own.mean(axis=(2, 3)).std(axis=0), atol=1e-7)
        assert block.low is not None
        np.testing.assert_allclose(block.low[3], (own < LOW).mean(axis=(0, 2, 3)), atol=1e-6)


@pytest.mark.parametrize("squeeze", ["gap", "SP", "random", "no_squeeze"])
def test_the_size_of_batches_changes_nothing(squeeze: str) -> None:
    network = network_of(squeeze)
    images = images_of(network)
    whole = record_gates(network, images, batch_size=64)
    for size in (1, 4):
        assert_same(record_gates(network, images, batch_size=size), whole, atol=1e-6)


@pytest.mark.parametrize(("bias", "saturated"), [(10.0, (0.0, 1.0)), (-10.0, (1.0, 0.0)), (0.5, (0.0, 0.0))])
def test_a_gate_that_was_set_by_hand_shows_it_everywhere(bias: float, saturated: tuple[float, float]) -> None:
    network = network_of("gap", fc_bias=True)
    with torch.no_grad():
        for name, parameter in network.model.named_parameters():
            if ".fc2." in name:
                parameter.fill_(bias if name.endswith("bias") else 0)
    gates = record_gates(network, images_of(network), batch_size=3)
    for block in gates.blocks:
        np.testing.assert_allclose(block.mean[[0, 1, 3]], 1 / (1 + math.exp(-bias)), rtol=1e-6)
        assert block.std[[0, 1, 3]].max() == 0
        assert block.saturated() == saturated
        assert block.share is None


def test_only_the_first_images_of_each_class_count() -> None:
    network = network_of("random")
    few = record_gates(network, images_of(network), images_per_class=2, batch_size=3)
    assert few.blocks[0].images.tolist() == [2, 2, 0, 2, 0]
    kept = [1, 2, 4, 9, 0, 3]
    by_hand = factors_by_hand(network, images_of(network))
    for block in few.blocks:
        np.testing.assert_allclose(block.overall, by_hand[block.name][kept].mean(axis=0), atol=1e-6)


def test_an_image_that_cannot_be_read_is_told_and_left_out() -> None:
    network, told = network_of("gap"), []
    gates = record_gates(network, images_of(network, bad=4), bad=told.append)
    assert told == ["image 4"]
    assert gates.blocks[0].images.tolist() == [5, 1, 0, 4, 0]


def test_it_is_told_how_many_images_are_done() -> None:
    network, done = network_of("gap"), []
    record_gates(network, images_of(network), images_per_class=1, batch_size=4, done=done.append)
    assert done == [4, 4, 3]


def test_blocks_without_a_gate_are_named() -> None:
    network = network_of("gap", stages="conv3+conv5")
    gates = record_gates(network, images_of(network))
    assert [block.name for block in gates.blocks] == ["layer2.0", "layer2.1", "layer4.0", "layer4.1"]
    assert gates.without == ("layer1.0", "layer1.1", "layer3.0", "layer3.1")


@pytest.mark.parametrize("placement", catalog.PLACEMENTS)
def test_gates_are_found_wherever_the_block_stands(placement: str) -> None:
    network = network_of("gap", backbone="resnet50", placement=placement)
    gates = record_gates(network, images_of(network, labels=(0, 1)))
    assert [block.channels for block in gates.blocks] == [site.channels for site in sites_of(network.config)]
    assert gates.without == ()


@pytest.mark.parametrize("gate", ["tanh", "relu"])
def test_a_gate_without_bounds_does_not_saturate(gate: str) -> None:
    network = network_of("gap", gate=gate)
    assert {block.saturated() for block in record_gates(network, images_of(network)).blocks} == {None}


@pytest.mark.parametrize("squeeze", ["baseline", "GC"])
def test_a_network_without_gates_of_channels_is_refused(squeeze: str) -> None:
    network = network_of(squeeze)
    with pytest.raises(ConfigError, match=f"^a-run: squeeze '{squeeze}' has no gates of channels to record$"):
        record_gates(network, images_of(network))


def test_gates_that_are_not_finite_are_refused() -> None:
    network = network_of("gap")
    with torch.no_grad():
        network.model.get_parameter("layer2.0.se.excitation.fc2.weight").fill_(math.nan)
    with pytest.raises(ConfigError, match=r"^a-run: the gates of layer2\.0 are not finite$"):
        record_gates(network, images_of(network))


def test_a_data_set_without_images_is_refused() -> None:
    network = network_of("gap")
    with pytest.raises(ConfigError, match=r"^a-run: no image to record gates of$"):
        record_gates(network, images_of(network, labels=(0,), bad=0))


def test_the_network_is_left_as_it_was() -> None:
    network = network_of("random")
    images = images_of(network)
    before = {name: value.clone() for name, value in network.model.state_dict().items()}
    record_gates(network, images)
    assert not any(module._forward_hooks for module in network.model.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.model.state_dict().items())


@pytest.mark.parametrize(
    ("start", "names"), [("n", ("goldfish", "pug")), ("class", ("class00000001", "class00000254"))]
)
def test_imagenets_folders_have_english_names_and_others_their_own(start: str, names: tuple[str, str]) -> None:
    network = network_of("gap")
    folders = tuple(f"{start}{number:08}" for number in range(1000))
    images = Labelled("imagenet", torch.tensor([1, 254]), ["a", "b"], folders, images_of(network, (0, 1)).batches)
    gates = record_gates(network, images)
    assert (gates.classes[1], gates.classes[254], len(gates.classes)) == (*names, 1000)
    assert np.flatnonzero(gates.blocks[0].images).tolist() == [1, 254]
