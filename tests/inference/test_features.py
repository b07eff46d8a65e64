"""Features are what the network computes on its way to the classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inference_networks import network, photo, trained
from torchvision.models.feature_extraction import create_feature_extractor

import sqzlab
from sqzlab.catalog import SQUEEZES
from sqzlab.errors import ConfigError
from sqzlab.inference.checkpoint import open_network
from sqzlab.inference.images import image_batches
from sqzlab.inference.predict import GIVEN

IMAGES = [photo(seed) for seed in range(5)]


def forward_input() -> torch.Tensor:
    """What the untrained networks make of IMAGES, normalised."""
    net = network()
    (batch,) = image_batches(IMAGES, net.data, 32, 5, bad=pytest.fail)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (net.mean, net.std))
    return (batch.images / 255 - mean) / std


def test_torchvision_extracts_the_same() -> None:
    net = network("baseline")
    nodes = {"layer1": "conv2", "layer2": "conv3", "layer3": "conv4", "layer4": "conv5", "flatten": "pooled"}
    with torch.no_grad():
        expected = create_feature_extractor(net.model, nodes)(forward_input())
    found = sqzlab.extract_features(net, IMAGES, stages=True, batch_size=2)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        pooled = value if name == "pooled" else value.mean((2, 3))
        assert found[name].shape == pooled.shape
        assert np.allclose(found[name], pooled, atol=1e-5), name


@pytest.mark.parametrize("squeeze", ["gap", "SP"])
def test_a_stage_gives_the_mean_of_the_network_cut_off_behind_it(squeeze: str) -> None:
    net, x = network(squeeze), forward_input()
    found = sqzlab.extract_features(net, IMAGES, stages=True)
    children = list(net.model.children())  # conv1, bn1, relu, maxpool, layer1, ...
    for stage in range(4):
        with torch.no_grad():
            maps = torch.nn.Sequential(*children[: 5 + stage])(x)
        assert np.allclose(found[f"conv{2 + stage}"], maps.mean((2, 3)), atol=1e-5)


@pytest.mark.parametrize("squeeze", SQUEEZES)
def test_the_classifier_makes_the_logits_of_the_pooled_features(squeeze: str) -> None:
    net = network(squeeze, size=56)  # at which every squeeze is defined in every stage
    found = sqzlab.extract_features(net, IMAGES[:2], stages=True)
    (batch,) = image_batches(IMAGES[:2], net.data, 56, 2, bad=pytest.fail)
    with torch.no_grad():
        logits = net.model.get_submodule("fc")(torch.from_numpy(found["pooled"]))
    assert torch.allclose(logits, net.logits(batch.images, batch.index, split=GIVEN), atol=1e-4)
    assert np.allclose(found["conv5"], found["pooled"], atol=1e-6)


def test_without_stages_there_is_the_pooled_vector_alone() -> None:
    found = sqzlab.extract_features(open_network(str(trained())), IMAGES)
    assert {name: value.shape for name, value in found.items()} == {"pooled": (5, 64)}
    assert found["pooled"].dtype == np.float32


def test_the_batch_size_changes_nothing() -> None:
    net = open_network(str(trained("random")))
    one, three = (sqzlab.extract_features(net, IMAGES, stages=True, batch_size=size) for size in (1, 3))
    for name in one:
        assert np.allclose(one[name], three[name], atol=1e-5), name


def test_the_network_is_left_without_hooks() -> None:
    net = network()
    sqzlab.extract_features(net, IMAGES[:1], stages=True)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.model.modules())


def test_no_image_has_no_features() -> None:
    with pytest.raises(ConfigError, match=r"^images: there are none; valid: at least one$"):
        sqzlab.extract_features(network(), [])
