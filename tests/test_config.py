"""What stands in a run's configuration and what of it makes its identity."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import make_divisible

from sqzlab import catalog
from sqzlab.config import ADDED_KEYS, HOST_KEYS, KEYS, Config, ModelConfig
from sqzlab.errors import ConfigError
from sqzlab.resolving import BLOCK_KEYS, model_config, resolve, sites_of

GIVEN = {
    "model.backbone": "resnet18",
    "model.stem": "small",
    "data.name": "digits",
    "train.recipe": "digits",
    "train.batch_size": 32,
}


def config(**train: Any) -> Config:
    return resolved({f"train.{name}": value for name, value in train.items()})


def resolved(values: dict[str, Any], digests: dict[str, str] | None = None) -> Config:
    found = resolve(GIVEN | values, seed=0, digests=digests)
    assert isinstance(found, Config), found
    return found


# ---- identity ----------------------------------------------------------------------------------

SE50 = {"model.backbone": "resnet50", "model.squeeze": "gap"}
YOUNG: list[tuple[str, list[Any]]] = [  # a key that a study sets, with values that compute something new
    ("model.gate", ["tanh", "relu"]),
    ("model.width_rule", ["divisible8"]),
    ("model.placement", ["pre", "post", "identity", "3x3"]),
    ("model.stages", ["conv2", "conv3+conv4+conv5"]),
    ("model.stride", ["v1"]),
    ("train.world_size", [2]),
    ("train.sync_batch_norm", [True]),
    ("train.block_form", ["folded"]),
    ("train.cuda_graphs", [True]),
]


BESIDE: dict[str, dict[str, Any]] = {
    "train.sync_batch_norm": {"train.world_size": 2},
    "train.cuda_graphs": {"train.compile": True, "train.device": "cuda"},
}
"""Values without which a young key does not apply."""


def test_keys_younger_than_the_first_results_are_in_the_identity_only_where_they_say_something_new() -> None:
    for values in ({}, SE50):
        plain = resolved(values).identity()
        assert not [key for key in ADDED_KEYS if key.partition(".")[2] in plain[key.partition(".")[0]]]


@pytest.mark.parametrize(("key", "values"), YOUNG)
def test_a_young_key_makes_another_run_with_every_value_but_the_old_one(key: str, values: list[Any]) -> None:
    around = SE50 | BESIDE.get(key, {})
    plain = resolved(around)
    before = [value for value in ADDED_KEYS[key] if value is not None]
    assert all(resolved(around | {key: value}).digest() == plain.digest() for value in before)
    assert len({plain.digest(), *(resolved(around | {key: value}).digest() for value in values)}) == 1 + len(values)


def test_files_of_weights_and_lists_are_known_by_their_content_and_not_by_their_path() -> None:
    given = {"data.name": "imagelist", "data.train_list": "train.txt", "data.val_list": "val.txt"}
    given |= {"data.root": "here", "train.pretrained": "weights.pt"}
    plain = resolved(given)
    moved = resolved(given | {"data.train_list": "a/train.txt", "data.root": "there", "train.pretrained": "w.pt"})
    assert moved.digest() == plain.digest()
    digests = {"data.lists_digest": "aa", "train.pretrained_digest": "bb"}
    found = resolved(given, digests)
    assert found.identity()["data"]["lists_digest"] == "aa"
    assert found.identity()["train"]["pretrained_digest"] == "bb"
    others = [digests | {key: "cc"} for key in digests]
    runs = [plain, found, *(resolved(given, other) for other in others), resolved(given | {"train.lrp": 0.1}, digests)]
    assert len({run.digest() for run in runs}) == len(runs)


def test_every_key_is_in_the_identity_unless_it_is_the_hosts_or_says_nothing_new() -> None:
    identity = resolved(SE50).identity()
    absent = {key for key in KEYS if key.partition(".")[2] not in identity[key.partition(".")[0]]}
    assert absent == {key for key in KEYS if key in HOST_KEYS or key in ADDED_KEYS}


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


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ({}, "true does not apply without train.compile: true"),
        ({"device": "cuda"}, "true does not apply without train.compile: true"),
        ({"compile": True}, "true does not apply to the device 'cpu'"),
    ],
)
def test_cuda_graphs_are_for_compiled_networks_on_gpus(train: dict[str, Any], told: str) -> None:
    values = {f"train.{name}": value for name, value in {**train, "cuda_graphs": True}.items()}
    told += "; valid: false, or compile true on 'cuda'"
    assert resolve(GIVEN | values, seed=0) == [("train.cuda_graphs", told)]
    assert not config(**train, cuda_graphs=False).train.cuda_graphs
    assert config(compile=True, device="cuda", cuda_graphs=True).train.cuda_graphs


@pytest.mark.parametrize("world_size", [1, 2, 4, 8, 16])
def test_every_divisor_of_the_batch_is_a_world_size(world_size: int) -> None:
    assert config(world_size=world_size).train.world_size == world_size


# ---- networks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("squeeze", catalog.SQUEEZES)
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_a_complete_network_says_all_that_applies_to_it_and_nothing_else(backbone: str, squeeze: str) -> None:
    defaults = {
        "reduction": 16,
        "fc_bias": squeeze == "CBAM",
        "gate": "sigmoid",
        "width_rule": "floor",
        "placement": "standard",
        "stages": "all",
    }
    found = model_config(backbone=backbone, squeeze=squeeze)
    applying = catalog.SQUEEZES[squeeze].arguments
    for name, value in defaults.items():
        assert getattr(found, name) == (value if name in applying else None)
    assert found.stride == (None if backbone == "resnet18" else "v1.5")
    assert len(sites_of(found)) == (sum(catalog.BACKBONES[backbone].depths) if applying else 0)


@pytest.mark.parametrize("squeeze", catalog.SQUEEZES)
@pytest.mark.parametrize("key", BLOCK_KEYS)
def test_an_argument_that_does_not_apply_is_a_fault_that_names_where_it_does(key: str, squeeze: str) -> None:
    name = key.removeprefix("model.")
    value = {"reduction": 8, "fc_bias": False, "gate": "tanh", "width_rule": "divisible8", "placement": "post"}
    given = {"backbone": "resnet18", "squeeze": squeeze, name: value.get(name, "conv3")}
    if name in catalog.SQUEEZES[squeeze].arguments:
        assert getattr(model_config(**given), name) == given[name]
    else:
        with pytest.raises(
            ConfigError, match=f"^{name}: does not apply to squeeze '{squeeze}'; it applies to "
        ) as caught:
            model_config(**given)
        able = str(caught.value).rpartition(" applies to ")[2].split(", ")
        assert able == [other for other, row in catalog.SQUEEZES.items() if name in row.arguments]


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"model.stride": "v1"}, ("model.stride", "does not apply to backbone 'resnet18'; it applies to resnet50")),
        (
            {"model.squeeze": "gap", "model.placement": "3x3"},
            (
                "model.placement",
                "'3x3' is for the 3x3 convolution of a Bottleneck, which 'resnet18' has not; "
                "valid: standard, pre, post, identity",
            ),
        ),
        ({"data.train_list": "a.txt"}, ("data.train_list", "does not apply to the data set 'digits'; it applies to")),
        ({"train.lrp": 0.1}, ("train.lrp", "applies only beside train.pretrained")),
        ({"train.pretrained": "w.pt", "train.lrp": -1.0}, ("train.lrp", "-1.0 is out of range; valid: at least 0")),
        (
            {"model.squeeze": "dct"},
            ("data.image_size", "32 with the small stem gives maps of 32x32, 16x16, 8x8, 4x4: squeeze 'dct' is not"),
        ),
        (
            {"model.squeeze": "gap", "model.reduction": 128, "model.stages": "conv2+conv5"},
            ("model.reduction", "128 leaves no hidden unit for the 64 channels of stage 1; valid: 1 to 64"),
        ),
        (
            {"model.squeeze": "GC", "model.reduction": 64},
            (
                "model.reduction",
                "64 leaves 1 hidden unit for the 64 channels of stage 1, squeeze 'GC' needs 2; valid: 1 to 32",
            ),
        ),
    ],
)
def test_a_value_that_cannot_be_is_one_fault_at_its_key(values: dict[str, Any], fault: tuple[str, str]) -> None:
    found = resolve(GIVEN | values, seed=0)
    assert isinstance(found, list)
    assert [key for key, _ in found] == [fault[0]]
    assert found[0][1].startswith(fault[1])


def test_what_is_not_defined_in_one_stage_is_no_fault_of_blocks_elsewhere() -> None:
    given: dict[str, Any] = {"backbone": "resnet50", "squeeze": "std", "image_size": 32}  # maps of 8, 4, 2 and 1
    with pytest.raises(ConfigError, match="not defined on the 1x1 maps of stage 4"):
        model_config(**given)
    assert isinstance(model_config(stages="conv2+conv3+conv4", **given), ModelConfig)
    with pytest.raises(ConfigError, match="not defined on the 1x1 maps of stage 4"):
        model_config(stages="conv5", placement="pre", **given)  # its second block


@pytest.mark.parametrize("squeeze", ["baseline", "gap"])
@pytest.mark.parametrize("image_size", [1, 2])
def test_images_too_small_for_caffes_pooling_are_a_fault(image_size: int, squeeze: str) -> None:
    given: dict[str, Any] = {"backbone": "resnet18", "squeeze": squeeze, "stem": "caffe"}
    with pytest.raises(ConfigError, match=f"^image_size: {image_size} leaves the caffe stem's pooling no window"):
        model_config(image_size=image_size, **given)
    assert model_config(image_size=3, **given).image_size == 3


@settings(max_examples=300, deadline=None)
@given(channels=st.integers(1, 4096), reduction=st.integers(1, 64))
def test_hidden_widths_are_those_of_the_layers_they_are_named_after(channels: int, reduction: int) -> None:
    assert catalog.hidden_width(channels, reduction, "floor") == channels // reduction
    assert catalog.hidden_width(channels, reduction, "divisible8") == make_divisible(channels / reduction, 8)


# ---- sizes of training crops -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "key", "words"),
    [
        ({"train.train_sizes": [160]}, "", ""),
        ({"train.train_sizes": [160, 192], "train.size_milestones": [4]}, "", ""),
        ({"train.size_milestones": [4]}, "train.size_milestones", "applies only beside train.train_sizes"),
        ({"train.train_sizes": [160, 192]}, "train.size_milestones", "valid: 1 epochs, one for each of"),
        ({"train.train_sizes": [160, 192], "train.size_milestones": [0]}, "train.size_milestones", "rising epochs"),
        ({"train.train_sizes": [160, 192], "train.size_milestones": [100]}, "train.size_milestones", "below 100"),
        ({"train.train_sizes": [4]}, "train.train_sizes", "4 is out of range; valid: 8 to 1024"),
        ({"model.squeeze": "SP", "train.train_sizes": [96]}, "train.train_sizes", "4x4 level of the pyramid"),
        ({"model.squeeze": "RG", "train.train_sizes": [160]}, "", ""),
        ({"model.squeeze": "RG", "train.train_sizes": [176]}, "train.train_sizes", "windows of 6x6"),
        ({"model.squeeze": "RG", "train.train_sizes": [8]}, "train.train_sizes", "8x8 windows does not divide the 2x2"),
        ({"model.squeeze": "dct", "train.train_sizes": [160]}, "train.train_sizes", "frequencies are those of a 7x7"),
        ({"model.squeeze": "dct", "train.train_sizes": [448]}, "train.train_sizes", "made for 56x56 maps, not"),
        ({"data.name": "digits", "train.train_sizes": [160]}, "train.train_sizes", "does not apply to the data set"),
    ],
)
def test_sizes_that_cannot_be_are_faults_of_the_plan(given: dict[str, Any], key: str, words: str) -> None:
    around = {"model.backbone": "resnet18", "data.name": "imagenet", "train.recipe": "sprg"}
    found = resolve(around | given, seed=0)
    if not key:
        assert isinstance(found, Config)
        return
    assert isinstance(found, list)
    assert [name for name, _ in found] == [key]
    assert words in found[0][1]


def test_the_sizes_of_a_recipe_follow_fewer_epochs_and_are_left_out_where_images_have_one_size() -> None:
    fast = {"model.backbone": "resnet18", "data.name": "imagenet", "train.recipe": "fast16"}
    cut, digits = (resolve(fast | more, seed=0) for more in ({"train.epochs": 8}, {"data.name": "digits"}))
    assert isinstance(cut, Config)
    assert isinstance(digits, Config)
    assert (cut.train.train_sizes, cut.train.size_milestones) == ((160,), ())
    assert (digits.train.train_sizes, digits.train.size_milestones) == (None, None)
