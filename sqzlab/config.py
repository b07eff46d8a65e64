"""The resolved configuration of one run: three frozen sections and a seed, validated, without importing torch.

A study's values travel as a flat mapping from dotted key to value (`{"model.squeeze": "gap"}`); `resolve` turns
it into a `Config` or reports every fault with its key. Defaults live here and in `recipes.py`, nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sqzlab import catalog
from sqzlab.catalog import BACKBONES, DATASETS, SQUEEZES
from sqzlab.errors import ConfigError, choices
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
    *("data.lists_digest", "train.pretrained_digest"),
)
"""Fields that come from the data set or a file's content, never from a study."""
HOST_KEYS = (
    *("data.root", "data.train_list", "data.val_list", "data.workers"),
    *("train.pretrained", "train.checkpoint_s", "train.checkpoint_steps"),
)
ADDED_KEYS: dict[str, tuple[object, ...]] = {
    "model.gate": (None, "sigmoid"),
    "model.width_rule": (None, "floor"),
    "model.placement": (None, "standard"),
    "model.stages": (None, "all"),
    "model.stride": (None, "v1.5"),
    "data.lists_digest": (None,),
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


# ---- which keys apply --------------------------------------------------------------------------

BLOCK_KEYS = tuple(f"model.{name}" for name in ("reduction", "fc_bias", "gate", "width_rule", "placement", "stages"))
"""What may be chosen of a block, where its row in `catalog.SQUEEZES` says so."""


def why_not(key: str, values: Mapping[str, Any]) -> str | None:
    """Why `key` cannot be set beside `values` (an arm's flat mapping), or None where it applies."""
    name = key.rpartition(".")[2]
    chosen = values.get("model.squeeze", "baseline")
    if key in BLOCK_KEYS and (squeeze := SQUEEZES.get(chosen)) is not None and name not in squeeze.arguments:
        able = ", ".join(n for n, row in SQUEEZES.items() if name in row.arguments)
        return f"does not apply to squeeze {chosen!r}; it applies to {able}"
    backbone = BACKBONES.get(values.get("model.backbone", ""))
    if key == "model.stride" and backbone is not None and backbone.block != "bottleneck":
        able = ", ".join(n for n, row in BACKBONES.items() if row.block == "bottleneck")
        return f"does not apply to backbone {values['model.backbone']!r}; it applies to {able}"
    if key in ("data.train_list", "data.val_list") and values.get("data.name", "imagelist") != "imagelist":
        return f"does not apply to the data set {values['data.name']!r}; it applies to 'imagelist'"
    if key == "train.lrp" and values.get("train.pretrained") is None:
        return "applies only beside train.pretrained"
    if key in ("train.milestones", "train.gamma"):
        recipe = RECIPES.get(values.get("train.recipe", ""))
        schedule = values.get("train.schedule", recipe.train["schedule"] if recipe else "step")
        if schedule != "step":
            return f"does not apply to the schedule {schedule!r}; it applies to 'step'"
    if key == "data.root":
        row = DATASETS.get(values.get("data.name", ""))
        if row is not None and not row.needs_root:
            return f"does not apply to the data set {values['data.name']!r}, which is embedded"
    return None


# ---- resolving ---------------------------------------------------------------------------------

Fault = tuple[str, str]
"""(dotted key, what is wrong; what is valid)."""


def resolve(
    values: Mapping[str, Any],
    seed: int,
    counts: tuple[int, int, int] | None = None,
    digests: Mapping[str, str] | None = None,
) -> Config | list[Fault]:
    """The run that `values` describe, or all their faults.

    `counts` are the classes, training and validation images found in the data set; None takes the catalog's, or
    ImageNet-1k's own where the catalog has none (enough to validate a study on a machine without the data).
    `digests` has `data.lists_digest` and `train.pretrained_digest`, where those files were read.
    """
    faults = [(key, f"unknown key; {choices(KEYS, key)}") for key in values if key not in KEYS]
    faults += [(key, reason) for key in values if key in KEYS and (reason := why_not(key, values))]
    if faults:
        return faults
    parts: dict[str, dict[str, Any]] = {"model": {}, "data": {}, "train": {}}
    for key, value in {**values, **(digests or {})}.items():
        section, name = key.split(".")
        parts[section][name] = value
    model, data, train = parts["model"], parts["data"], parts["train"]

    if dataset := DATASETS.get(data.get("name", "")):
        data.setdefault("image_size", dataset.native_size)
        data["classes"], data["train_images"], data["val_images"] = (
            counts or dataset.counts or (1000, 1_281_167, 50_000)
        )
        model["num_classes"], model["image_size"] = data["classes"], data["image_size"]
    if recipe := RECIPES.get(train.get("recipe", "")):
        model.setdefault("zero_init_gamma", recipe.zero_init_gamma)
        inherited = dict(recipe.train)
        if train.get("schedule", inherited["schedule"]) != "step":
            inherited["milestones"] = inherited["gamma"] = None
        if inherited["milestones"] and "epochs" in train and isinstance(train["epochs"], int):
            inherited["milestones"] = tuple(m for m in inherited["milestones"] if m < train["epochs"])
        train = {**inherited, **train}

    sections: dict[str, Any] = {}
    for section, given in (("model", model), ("data", data), ("train", train)):
        try:
            sections[section] = SECTIONS[section].model_validate(given)
        except ValidationError as error:
            faults += [(f"{section}.{key}", text) for key, text in _told(error) if f"{section}.{key}" not in COUNTED]
    if text := wrong_seed(seed):
        faults.append(("seed", text))
    if "model" in sections:
        found = complete(sections["model"])
        if isinstance(found, ModelConfig):
            sections["model"] = found
        else:
            faults += [("data.image_size" if k == "model.image_size" else k, text) for k, text in found]
    faults += _inconsistent(sections.get("data"), sections.get("train"))
    return faults or Config(**sections, seed=seed)


def complete(model: ModelConfig) -> ModelConfig | list[Fault]:
    """The network with its squeeze's defaults filled in, or why it cannot be built."""
    row, backbone = SQUEEZES[model.squeeze], BACKBONES[model.backbone]
    faults: list[Fault] = []
    around = {"model.squeeze": model.squeeze, "model.backbone": model.backbone}
    for key in (*BLOCK_KEYS, "model.stride"):
        if getattr(model, key.removeprefix("model.")) is not None and (reason := why_not(key, around)):
            faults.append((key, reason))
    if model.placement == "3x3" and backbone.block != "bottleneck":
        able = ", ".join(name for name in catalog.PLACEMENTS if name != "3x3")
        text = f"'3x3' is for the 3x3 convolution of a Bottleneck, which {model.backbone!r} has not; valid: {able}"
        faults.append(("model.placement", text))
    if 64 * model.width != int(64 * model.width):
        faults.append(("model.width", f"{model.width!r} makes 64 * width = {64 * model.width:g}, which is not whole"))
        return faults
    if int(64 * model.width * backbone.group_width / 64) < 1:
        smallest = 1 / backbone.group_width
        faults.append(("model.width", f"{model.width!r} leaves no channel in a group; valid: {smallest:g} and more"))
        return faults
    sizes = catalog.stage_sizes(model.image_size, model.stem)
    if sizes[0] < 1:
        text = f"{model.image_size!r} leaves the {model.stem} stem's pooling no window; valid: at least 3"
        faults.append(("model.image_size", text))
    if faults:
        return faults
    absent = {
        "reduction": catalog.DEFAULT_REDUCTION,
        "fc_bias": row.fc_bias,
        "gate": "sigmoid",
        "width_rule": "floor",
        "placement": "standard",
        "stages": "all",
    }
    filled = {key: value for key, value in absent.items() if key in row.arguments and getattr(model, key) is None}
    if backbone.block == "bottleneck" and model.stride is None:
        filled["stride"] = "v1.5"
    model = model.model_copy(update=filled)
    if not row.arguments:
        return model
    placed = sites_of(model)
    if model.reduction is not None and model.width_rule is not None:
        narrowest = min(placed, key=lambda site: site.channels)
        hidden = catalog.hidden_width(narrowest.channels, model.reduction, model.width_rule)
        if hidden < row.least_hidden:
            left = f"{hidden or 'no'} hidden unit for the {narrowest.channels} channels of stage {narrowest.stage + 1}"
            needed = f", squeeze {model.squeeze!r} needs {row.least_hidden}" if row.least_hidden > 1 else ""
            valid = f"valid: 1 to {narrowest.channels // row.least_hidden}"
            faults.append(("model.reduction", f"{model.reduction!r} leaves {left}{needed}; {valid}"))
    for site in placed:
        if reason := row.undefined_on(site.size, sizes[3]):
            maps = ", ".join(f"{s}x{s}" for s in sizes)
            text = f"{model.image_size!r} with the {model.stem} stem gives maps of {maps}: squeeze {model.squeeze!r} "
            faults.append(("model.image_size", f"{text}is not defined there ({reason} of stage {site.stage + 1})"))
            break
    return faults or model


def wrong_seed(seed: object) -> str | None:
    """Why it is no seed, or None."""
    if isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**31:
        return None
    return f"{seed!r} is no seed; valid: whole numbers from 0 to 2147483647"


def sites_of(model: ModelConfig) -> tuple[catalog.Site, ...]:
    """Where a complete configuration's network has its blocks."""
    if model.placement is None or model.stages is None:
        return ()
    return catalog.sites(
        model.backbone,
        width=model.width,
        image_size=model.image_size,
        stem=model.stem,
        placement=model.placement,
        stages=model.stages,
    )


def model_config(**given: Any) -> ModelConfig:
    """A complete ModelConfig from keyword arguments.

    Raises ConfigError, one line a fault, where a value is wrong or an argument does not apply.
    """
    try:
        found = complete(ModelConfig.model_validate(given))
    except ValidationError as error:
        raise ConfigError(f"{key}: {text}" for key, text in _told(error)) from None
    if isinstance(found, list):
        raise ConfigError(f"{key.removeprefix('model.')}: {text}" for key, text in found)
    return found


def _inconsistent(data: DataConfig | None, train: TrainConfig | None) -> list[Fault]:
    """Faults between keys that are each valid alone."""
    faults: list[Fault] = []
    if data is not None and DATASETS[data.name].fixed_size and data.image_size != DATASETS[data.name].native_size:
        faults.append(("data.image_size", f"{data.image_size!r}; {data.name} is {DATASETS[data.name].native_size}"))
    if train is None:
        return faults
    if train.batch_size % train.world_size:
        text = f"{train.batch_size!r} cannot be shared equally by {train.world_size} processes"
        faults.append(("train.batch_size", text))
    if train.sync_batch_norm and train.world_size == 1:
        faults.append(("train.sync_batch_norm", "true needs train.world_size above 1"))
    if train.cuda_graphs and not (train.compile and train.device == "cuda"):
        lacking = "without train.compile: true" if not train.compile else f"to the device {train.device!r}"
        faults.append(("train.cuda_graphs", f"true does not apply {lacking}; valid: false, or compile true on 'cuda'"))
    if train.nesterov and train.momentum == 0:
        faults.append(("train.nesterov", "true needs train.momentum above 0"))
    if train.schedule == "step" and (train.milestones is None or train.gamma is None):
        faults.append(("train.schedule", "'step' needs train.milestones and train.gamma"))
    if train.milestones is not None and list(train.milestones) != sorted({m for m in train.milestones if m > 0}):
        faults.append(("train.milestones", f"{list(train.milestones)!r}; valid: rising epochs above 0"))
    elif train.milestones and train.milestones[-1] >= train.epochs:
        faults.append(("train.milestones", f"{train.milestones[-1]!r} is not reached in {train.epochs} epochs"))
    if train.warmup_epochs >= train.epochs:
        faults.append(("train.warmup_epochs", f"{train.warmup_epochs!r} leaves nothing of {train.epochs} epochs"))
    if data is not None and train.batch_size > data.train_images:
        faults.append(
            ("train.batch_size", f"{train.batch_size!r} is more than the {data.train_images} training images")
        )
    return faults


def _told(error: ValidationError) -> list[Fault]:
    """pydantic's findings in our words: (field, what is wrong; what is valid)."""
    told = []
    for found in error.errors():
        key, given, kind, limits = (
            ".".join(map(str, found["loc"][:1])),
            found["input"],
            found["type"],
            found.get("ctx", {}),
        )
        if kind == "missing":
            text = "is missing"
        elif kind == "extra_forbidden":
            text = "unknown key"
        elif kind == "value_error":
            text = str(limits["error"])
        elif kind in _LIMITS:
            text = f"{given!r} is out of range; valid: {_LIMITS[kind]} {next(iter(limits.values()))}"
        else:
            wanted = _WANTED.get(kind, found["msg"].lower())
            what = "" if given is None else f"{given!r} "
            text = f"{what}is {_KINDS.get(type(given), 'of the wrong kind')}; {wanted}"
        told.append((key, text))
    return told


_LIMITS = {
    "greater_than": "above",
    "greater_than_equal": "at least",
    "less_than": "below",
    "less_than_equal": "at most",
}
_KINDS = {str: "text", bool: "true/false", int: "a whole number", float: "a number", list: "a list", dict: "a mapping"}
_KINDS |= {type(None): "empty"}
_WANTED = {
    "int_type": "valid: a whole number",
    "float_type": "valid: a number",
    "bool_type": "write true or false",
    "string_type": "valid: text",
    "tuple_type": "valid: a list",
    "finite_number": "valid: a finite number",
}
