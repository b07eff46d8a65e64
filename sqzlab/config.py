"""The resolved configuration of one run: three frozen sections and a seed, validated, without importing torch.

A study's values travel as a flat mapping from dotted key to value (`{"model.squeeze": "gap"}`); `resolve` turns
it into a `Config` or reports every fault with its key. Defaults live here and in `recipes.py`, nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sqzlab import catalog
from sqzlab.catalog import BACKBONES, DATASETS, SQUEEZES
from sqzlab.errors import choices
from sqzlab.recipes import RECIPES

RESULT_VERSION = 1
"""Raised when a change of code changes what the same configuration computes; it is part of every run's identity."""


def _named(table: Iterable[str]) -> Any:
    """A string that must be one of the table's names."""
    names: list[Any] = list(table)

    def check(value: str) -> str:
        if value not in names:
            raise ValueError(f"unknown name {value!r}; {choices(names, value)}")
        return value

    return Annotated[str, AfterValidator(check), Field(json_schema_extra={"enum": names})]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=(), allow_inf_nan=False)


class ModelConfig(_Section):
    """A network. What does not apply to its squeeze or backbone is None."""

    backbone: _named(BACKBONES) = Field(description="residual network")  # type: ignore[valid-type]
    squeeze: _named(SQUEEZES) = Field("baseline", description="what the SE block squeezes")  # type: ignore[valid-type]
    reduction: int | None = Field(None, ge=1, description="C divided by the excitation's hidden width; 16 if absent")
    fc_bias: bool | None = Field(
        None, description="whether the excitation's layers have biases; false if absent, true for CBAM"
    )
    gate: _named(catalog.GATES) | None = Field(  # type: ignore[valid-type]
        None, description="what turns the excitation into the gate; sigmoid if absent"
    )
    width_rule: _named(catalog.WIDTH_RULES) | None = Field(  # type: ignore[valid-type]
        None, description="how the reduction makes the hidden width; floor if absent"
    )
    placement: _named(catalog.PLACEMENTS) | None = Field(  # type: ignore[valid-type]
        None, description="where in its residual block the block stands; standard if absent"
    )
    stages: _named(catalog.STAGES) | None = Field(  # type: ignore[valid-type]
        None, description="stages that have the block; all if absent"
    )
    stride: _named(catalog.STRIDES) | None = Field(  # type: ignore[valid-type]
        None, description="where a Bottleneck has its stride; v1.5 if absent"
    )
    stem: _named(catalog.STEMS) = Field("imagenet", description="first layers")  # type: ignore[valid-type]
    width: float = Field(1.0, gt=0, le=8, description="factor on the planes of every stage; 64 * width is whole")
    zero_init_gamma: bool = Field(False, description="start the last BatchNorm of every residual branch at 0")
    num_classes: int = Field(1000, ge=1, le=2**24)
    image_size: int = Field(224, ge=1, le=2**16)


class DataConfig(_Section):
    """A data set and what was counted in it."""

    name: _named(DATASETS) = Field(description="data set")  # type: ignore[valid-type]
    root: str | None = Field(None, description="folder of the data set; not part of a run's identity")
    train_list: str | None = Field(None, description="text file of training images; not part of the identity")
    val_list: str | None = Field(None, description="text file of validation images; not part of the identity")
    lists_digest: str | None = Field(None, description="of both lists' content")
    tier: _named(catalog.TIERS) | None = Field(  # type: ignore[valid-type]
        None, description="how images get from files to the network; pil if absent"
    )
    store: str | None = Field(
        None, description="folder that `prepare` made; not part of the identity, but its content is"
    )
    store_digest: str | None = Field(None, description="of the prepared stores' content")
    image_size: int = Field(
        ge=8, le=1024, description="side of the square crop in pixels; the data set's own if absent"
    )
    workers: int = Field(4, ge=0, description="loader processes where files are decoded; not part of the identity")
    classes: int = Field(ge=1)
    train_images: int = Field(ge=1)
    val_images: int = Field(ge=1)


class TrainConfig(_Section):
    """Everything that decides the weights, given network, data and seed."""

    recipe: _named(RECIPES) = Field(description="published recipe that sets what is absent here")  # type: ignore[valid-type]
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2, description="images a step")
    lr: float = Field(gt=0, description="peak learning rate; not scaled with the batch size")
    momentum: float = Field(ge=0, lt=1)
    nesterov: bool
    weight_decay: float = Field(ge=0)
    decay_norm_and_bias: bool = Field(description="whether weight decay also acts on BatchNorm and biases")
    schedule: _named(catalog.SCHEDULES)  # type: ignore[valid-type]
    milestones: Annotated[tuple[int, ...], Field(strict=False)] | None = Field(None, description="epochs of the steps")
    gamma: float | None = Field(None, gt=0, lt=1, description="factor at each milestone")
    warmup_epochs: int = Field(ge=0, description="epochs over which the rate rises from 0, step by step")
    label_smoothing: float = Field(ge=0, lt=1)
    train_sizes: Annotated[tuple[int, ...], Field(strict=False)] | None = Field(
        None, description="sides of the training crops in pixels, one after another; data.image_size if absent"
    )
    size_milestones: Annotated[tuple[int, ...], Field(strict=False)] | None = Field(
        None, description="epochs at which the next of train_sizes begins"
    )
    trivial_augment: bool = Field(False, description="TrivialAugmentWide, arXiv:2103.10158, after crop and flip")
    random_erasing: float = Field(0.0, ge=0, le=1, description="probability of erasing a part, arXiv:1708.04896")
    mixup_alpha: float | None = Field(None, gt=0, description="of its beta distribution, arXiv:1710.09412; absent: off")
    cutmix_alpha: float | None = Field(
        None, gt=0, description="of its beta distribution, arXiv:1905.04899; absent: off. With mixup, either at random"
    )
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient; no clipping if absent")
    init: _named(catalog.INITS)  # type: ignore[valid-type]
    precision: _named(catalog.PRECISIONS) = "fp32"  # type: ignore[valid-type]
    compile: bool = Field(False, description="torch.compile the network")
    cuda_graphs: bool = Field(False, description="replay the compiled network as CUDA graphs; needs compile and cuda")
    block_form: _named(catalog.BLOCK_FORMS) = Field(  # type: ignore[valid-type]
        "plain", description="how residual blocks are computed; one form a study"
    )
    channels_last: bool = Field(True, description="memory format of maps and convolutions")
    deterministic: bool = Field(False, description="bit-for-bit repeatable on CUDA; the CPU always is")
    device: _named(catalog.DEVICES) = "cpu"  # type: ignore[valid-type]
    threads: int = Field(1, ge=1, description="CPU threads of one run; sums differ in the last bits with it")
    world_size: int = Field(1, ge=1, le=16, description="processes with one device each that share every batch")
    sync_batch_norm: bool = Field(False, description="BatchNorm statistics over the whole batch, not a process's part")
    pretrained: str | None = Field(
        None, description="file of weights to start from; not part of the identity, but its content is"
    )
    pretrained_digest: str | None = Field(None, description="of that file's content")
    lrp: float | None = Field(None, ge=0, description="factor on the rate of the layers that came pretrained")
    limit_batches: int | None = Field(None, ge=1, description="cuts every epoch and evaluation to so many batches")
    checkpoint_s: float = Field(300.0, gt=0, description="seconds between checkpoints; not part of the identity")
    checkpoint_steps: int | None = Field(None, ge=1, description="steps between checkpoints; not part of the identity")


class Config(_Section):
    """One run, fully resolved."""

    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    seed: int = Field(ge=0, lt=2**31)

    def identity(self) -> dict[str, Any]:
        """What can change the result, as plain JSON values: no path, no worker count, nothing of the host."""
        values = self.model_dump(mode="json")
        for key in HOST_KEYS:
            section, name = key.split(".")
            del values[section][name]
        for key, as_before in ADDED_KEYS.items():
            section, name = key.split(".")
            if values[section][name] in as_before:
                del values[section][name]
        return {"result_version": RESULT_VERSION, **values}

    def digest(self) -> str:
        """Eight hexadecimal digits of the identity's SHA-256."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:8]


SECTIONS: dict[str, type[_Section]] = {"model": ModelConfig, "data": DataConfig, "train": TrainConfig}
COUNTED = (
    *("model.num_classes", "model.image_size", "data.classes", "data.train_images", "data.val_images"),
    *("data.lists_digest", "data.store_digest", "train.pretrained_digest"),
)
"""Fields that come from the data set or a file's content, never from a study."""
HOST_KEYS = (
    *("data.root", "data.train_list", "data.val_list", "data.store", "data.workers"),
    *("train.pretrained", "train.checkpoint_s", "train.checkpoint_steps"),
)
ADDED_KEYS: dict[str, tuple[object, ...]] = {
    "model.gate": (None, "sigmoid"),
    "model.width_rule": (None, "floor"),
    "model.placement": (None, "standard"),
    "model.stages": (None, "all"),
    "model.stride": (None, "v1.5"),
    "data.lists_digest": (None,),
    "data.tier": (None, "pil"),
    "data.store_digest": (None,),
    "train.train_sizes": (None,),
    "train.size_milestones": (None,),
    "train.trivial_augment": (False,),
    "train.random_erasing": (0.0,),
    "train.mixup_alpha": (None,),
    "train.cutmix_alpha": (None,),
    "train.pretrained_digest": (None,),
    "train.lrp": (None,),
    "train.world_size": (1,),
    "train.sync_batch_norm": (False,),
    "train.block_form": ("plain",),
    "train.cuda_graphs": (False,),
}
"""Keys younger than the first results, with the values that compute what was computed without them.

Those values are left out of the identity, so that results keep their names. They are facts about the past: a change
of a key's default never changes them.
"""
KEYS = tuple(
    key
    for section, cls in SECTIONS.items()
    for key in (f"{section}.{name}" for name in cls.model_fields)
    if key not in COUNTED
)
"""Every key that a study may set, besides `seed`."""
