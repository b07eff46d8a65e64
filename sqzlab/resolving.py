"""Values by dotted key to a validated `Config`, or every fault with its key; which keys apply to which runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from sqzlab import catalog
from sqzlab.catalog import BACKBONES, DATASETS, SQUEEZES
from sqzlab.config import COUNTED, KEYS, SECTIONS, Config, DataConfig, ModelConfig, TrainConfig
from sqzlab.errors import ConfigError, choices
from sqzlab.recipes import RECIPES

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
    if key in ("data.train_list", "data.val_list") and values.get("data.tier") in catalog.STORED:
        return f"does not apply to data.tier {values['data.tier']!r}, whose stores hold the images of lists"
    dataset = DATASETS.get(values.get("data.name", ""))
    if key == "data.tier" and dataset is not None and not dataset.tiers:
        return _of_other_data(values["data.name"], lambda row: row.tiers)
    if key == "data.store" and values.get("data.tier") not in catalog.STORED:
        return f"applies only beside data.tier {' or '.join(catalog.STORED)}"
    if key in ("train.train_sizes", "train.size_milestones") and dataset is not None and not dataset.sizes:
        return _of_other_data(values["data.name"], lambda row: row.sizes)
    if key == "train.lrp" and values.get("train.pretrained") is None:
        return "applies only beside train.pretrained"
    if key in ("train.milestones", "train.gamma"):
        recipe = RECIPES.get(values.get("train.recipe", ""))
        schedule = values.get("train.schedule", recipe.train["schedule"] if recipe else "step")
        if schedule != "step":
            return f"does not apply to the schedule {schedule!r}; it applies to 'step'"
    if key == "data.root" and dataset is not None and not dataset.needs_root:
        return f"does not apply to the data set {values['data.name']!r}, which is embedded"
    return None


def _of_other_data(name: str, able: Callable[[catalog.DataSet], bool]) -> str:
    return (
        f"does not apply to the data set {name!r}; it applies to {', '.join(n for n in DATASETS if able(DATASETS[n]))}"
    )


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
        if dataset.tiers and data.get("tier") is None:
            data["tier"] = "pil"
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
        sizes, begin = inherited.get("train_sizes"), inherited.get("size_milestones")
        if sizes and ("train_sizes" in train or "size_milestones" in train or (dataset and not dataset.sizes)):
            inherited["train_sizes"] = inherited["size_milestones"] = None
        elif sizes and begin and isinstance(epochs := train.get("epochs", inherited["epochs"]), int):
            inherited["size_milestones"] = begin = tuple(m for m in begin if m < epochs)
            inherited["train_sizes"] = sizes[: len(begin) + 1]
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
    if "model" in sections and "train" in sections:
        faults += wrong_sizes(sections["model"], sections["train"])
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
    if data is not None and data.tier in catalog.STORED and data.store is None:
        faults.append(("data.store", f"is missing: the tier {data.tier!r} reads a folder that `prepare` made"))
    if train is None:
        return faults
    if train.batch_size % train.world_size:
        text = f"{train.batch_size!r} cannot be shared equally by {train.world_size} processes"
        faults.append(("train.batch_size", text))
    for key, alpha in (("train.mixup_alpha", train.mixup_alpha), ("train.cutmix_alpha", train.cutmix_alpha)):
        if alpha is not None and train.batch_size // train.world_size == 1:
            faults.append((key, f"{alpha!r} needs two images to mix; every process has one of train.batch_size"))
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


def wrong_sizes(model: ModelConfig, train: TrainConfig) -> list[Fault]:
    """Faults of progressive resizing."""
    sizes, milestones = train.train_sizes, train.size_milestones or ()
    if sizes is None:
        text = f"{list(milestones)!r} applies only beside train.train_sizes"
        return [("train.size_milestones", text)] if train.size_milestones is not None else []
    if len(sizes) != len(milestones) + 1:
        text = (
            f"{list(milestones)!r}; valid: {len(sizes) - 1} epochs, one for each of train.train_sizes after the first"
        )
        return [("train.size_milestones", text)]
    faults: list[Fault] = []
    if list(milestones) != sorted({m for m in milestones if 0 < m < train.epochs}):
        text = f"{list(milestones)!r}; valid: rising epochs above 0 and below {train.epochs}"
        faults.append(("train.size_milestones", text))
    for size in dict.fromkeys(sizes):
        if not 8 <= size <= 1024:
            faults.append(("train.train_sizes", f"{size!r} is out of range; valid: 8 to 1024"))
        elif isinstance(found := complete(model.model_copy(update={"image_size": size})), list):
            faults += [("train.train_sizes", text) for key, text in found if key == "model.image_size"]
        elif reason := _not_rebuilt(model, found):
            faults.append(("train.train_sizes", f"{size!r} beside data.image_size {model.image_size}: {reason}"))
    return faults


def _not_rebuilt(model: ModelConfig, other: ModelConfig) -> str | None:
    """Why the blocks of one image size cannot have the maps of another, or None."""
    last_size = catalog.stage_sizes(model.image_size, model.stem)[3]
    for site, moved in zip(sites_of(model), sites_of(other), strict=True):
        if reason := SQUEEZES[model.squeeze].built_for(site.size, last_size, moved.size):
            return f"squeeze {model.squeeze!r} cannot change to it ({reason} of stage {site.stage + 1})"
    return None


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
