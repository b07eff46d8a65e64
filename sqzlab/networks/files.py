"""Files of weights, ours and others', read without running anything that is in them.

Ours hold the network's configuration, the statistics that normalise its images and its class names beside the weights:
safetensors with one JSON string of metadata, or torch's zip `{"sqzlab": metadata, "weights": {name: tensor}}`. They are
whole or absent. Every file is told by its content, not by its suffix; pickles only ever pass torch's `weights_only`
reader. Each fault is one ConfigError line that names the file, what it is and what is valid.
"""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import re
import tempfile
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sqzlab.config import ModelConfig
from sqzlab.errors import ConfigError
from sqzlab.networks.resnet import SqueezeResNet
from sqzlab.resolving import complete

FORMAT = 1
"""Raised when a reader of the formats before could misread a file."""

ZIP_SUFFIXES = (".pt", ".pth")
SUFFIXES = (".safetensors", *ZIP_SUFFIXES)


@dataclass(frozen=True)
class Saved:
    """What a file of ours holds. `mean` and `std` are of red, green and blue, for images divided by 255."""

    config: ModelConfig
    weights: dict[str, Tensor]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    class_names: tuple[str, ...] | None


# ---- writing -----------------------------------------------------------------------------------


def save_network(
    path: Path,
    model: nn.Module,
    config: ModelConfig,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    class_names: Sequence[str] | None,
) -> None:
    """Writes a network in our format, by the suffix as safetensors or as torch's zip; folders are made."""
    if class_names is not None and len(class_names) != config.num_classes:
        raise ConfigError(f"{path}: {len(class_names)} class names for a network of {config.num_classes} classes")
    metadata = {
        "format": FORMAT,
        "model": config.model_dump(mode="json"),
        "mean": list(mean),
        "std": list(std),
        "class_names": None if class_names is None else list(class_names),
    }
    check_suffix(path)
    weights = model.state_dict()
    if path.suffix == ".safetensors":
        save_safetensors(path, weights, {"sqzlab": json.dumps(metadata)})
    else:
        save_zip(path, {"sqzlab": metadata, "weights": _plain(weights)})


def save_safetensors(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """The same bytes every time if the metadata has one key: the library writes several in any order."""
    check_suffix(path, (".safetensors",))
    _write_whole(path, safetensors.torch.save(_plain(weights), dict(metadata)))


def save_zip(path: Path, content: Mapping[str, Any]) -> None:
    check_suffix(path, ZIP_SUFFIXES)
    buffer = io.BytesIO()  # torch.save hides what a file object raises: a full disk should be told as one
    torch.save(dict(content), buffer)
    _write_whole(path, buffer.getvalue())


def check_suffix(path: Path, valid: Sequence[str] = SUFFIXES) -> None:
    """Raises ConfigError where the name does not end as its format needs."""
    if path.suffix not in valid:
        raise ConfigError(f"{str(path)!r} ends in {path.suffix!r}; valid: {', '.join(valid)}")


def _plain(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, each in memory of its own, whatever device and memory format the network has."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}


def _write_whole(path: Path, content: bytes) -> None:
    """Writes aside and renames, so that the name never stands for a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.chmod(0o644)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


# ---- reading -----------------------------------------------------------------------------------


def read_network(path: Path) -> Saved:
    """A file in our format, whose weights are those of its configuration."""
    content, told = _read(path)
    if told is None:
        text = "holds weights, but not of which network; valid: a file of `python -m sqzlab import` or `export`"
        raise ConfigError(f"{path}: {text}")
    return _saved(content, told, path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights by name of any safetensors or torch file, bare or under one of `WRAPPERS`, on the CPU.

    Prefixes that wrappers put before every name (`module.` of DataParallel, `_orig_mod.` of torch.compile) are left
    out.
    """
    return _weights(_read(path)[0], path)


def read_any(path: Path) -> tuple[dict[str, Tensor], Saved | None]:
    """The weights of any file, as `read_weights`, and what else it holds where it is ours."""
    content, told = _read(path)
    if told is None:
        return _weights(content, path), None
    saved = _saved(content, told, path)
    return saved.weights, saved


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path, config: ModelConfig) -> None:
    """Puts the weights into the network of `config`.

    Raises ConfigError, and changes nothing, unless all names and shapes are the network's.
    """
    _check_fits(model, weights, path, config)
    model.load_state_dict(dict(weights))


WRAPPERS = ("weights", "state_dict", "model", "model_state_dict", "net")
"""Keys under which checkpoints hold their weights: ours, and what other projects' training scripts write."""

_PREFIXES = ("module.", "_orig_mod.")

Names = Mapping[Any, Any]


def _read(path: Path) -> tuple[Names, object]:
    """The mapping that the file holds, and our metadata if it has any."""
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; valid: a safetensors or torch file")
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    if start[:2] == b"PK":
        content = _read_torch(path, zipped=True)
    elif start[8:9] == b"{":
        return _read_safetensors(path)
    elif start[:1] == b"\x80":
        content = _read_torch(path, zipped=False)
    else:
        what = f"starts with {start!r}" if start else "is empty"
        raise ConfigError(f"{path}: is no checkpoint, it {what}; valid: a safetensors or torch file")
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds {_a(content)}, no weights by name; valid: a state dict")
    return content, content.get("sqzlab")


def _read_safetensors(path: Path) -> tuple[Names, object]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata.get("sqzlab")  # noqa: SIM118
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{path}: is damaged or cut off ({_first_line(error)}); valid: a whole file") from None


def _read_torch(path: Path, *, zipped: bool) -> object:
    try:
        if zipped:
            with zipfile.ZipFile(path) as archive:  # torch.load does not check the checksums
                damaged = archive.testzip()
            if damaged is not None:
                raise ConfigError(f"{path}: is damaged (in {damaged!r}); valid: a whole file")
        # a Namespace of settings beside the weights, as timm's training script writes it, only gets attributes
        allowed = torch.serialization.safe_globals([Namespace])
        with path.open("rb") as file, warnings.catch_warnings(), allowed:  # by its name torch would choose a reader
            warnings.simplefilter("ignore")  # about how old the file's format is
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            text = f"holds Python code to be run ({named[1]}), which is not loaded; valid: a state dict alone"
            raise ConfigError(f"{path}: {text}, as torch.save(model.state_dict(), ...) writes it") from None
        raise ConfigError(f"{path}: is damaged or no file of torch; valid: a safetensors or torch file") from None
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise ConfigError(f"{path}: is a TorchScript program; valid: a state dict") from None
        raise ConfigError(
            f"{path}: is damaged or no file of torch ({_first_line(error)}); valid: a whole file"
        ) from None
    except _DAMAGED as error:
        raise ConfigError(f"{path}: is damaged or cut off ({_first_line(error)}); valid: a whole file") from None


_DAMAGED: tuple[type[Exception], ...] = (
    *(ValueError, EOFError, KeyError, IndexError, TypeError, AttributeError, AssertionError, OverflowError),
    *(zipfile.BadZipFile, NotImplementedError, MemoryError, RecursionError),
)
"""What unpickling bytes that no pickler wrote can raise."""


def _saved(content: Names, told: object, path: Path) -> Saved:
    if isinstance(told, str):
        try:
            told = json.loads(told)
        except (ValueError, RecursionError):
            raise ConfigError(f"{path}: is damaged: its metadata is no JSON; valid: a whole file") from None
    if not isinstance(told, dict):
        raise ConfigError(f"{path}: is damaged: its metadata is {_a(told)}; valid: a whole file")
    if told.get("format") != FORMAT:
        raise ConfigError(f"{path}: is of format {told.get('format')!r}; valid with this version: {FORMAT}")
    try:
        config = complete(ModelConfig.model_validate(told.get("model")))
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"])) or "model"
        raise ConfigError(f"{path}: describes a network that this version does not know: {key}") from None
    if isinstance(config, list):
        raise ConfigError(f"{path}: describes a network that cannot be built: {config[0][0]}: {config[0][1]}")
    mean, std = _colours(told, "mean", path), _colours(told, "std", path)
    names = told.get("class_names")
    if names is not None and (
        not isinstance(names, list) or len(names) != config.num_classes or not all(isinstance(n, str) for n in names)
    ):
        raise ConfigError(f"{path}: is damaged: its class names are not {config.num_classes} texts")
    weights = _weights(content, path)
    with torch.device("meta"):  # before anybody makes room for whatever it claims to be
        _check_fits(SqueezeResNet(config), weights, path, config)
    return Saved(config, weights, mean, std, None if names is None else tuple(names))


def _check_fits(model: nn.Module, weights: Mapping[str, Tensor], path: Path, config: ModelConfig) -> None:
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = [name for name in own if found.get(name) != own[name]] + [name for name in found if name not in own]
    if wrong:
        network = f"{config.backbone} with squeeze {config.squeeze!r}"
        if set(wrong) <= {"fc.weight", "fc.bias"} and all(name in found for name in wrong):
            classes = found[wrong[0]][0] if found[wrong[0]] else 0
            text = f"{path}: has {classes} classes, not {config.num_classes}"
            raise ConfigError(f"{text}; valid: weights of {network} and {config.num_classes} classes")
        name = wrong[0]
        if name not in found:
            text = f"has no {name!r}"
        elif name not in own:
            text = f"has {name!r}, which that network has not"
        else:
            text = f"{name!r} has shape {found[name]}, not {own[name]}"
        raise ConfigError(f"{path}: is not of {network}: {text} ({len(wrong)} of its {len(own)} tensors do not fit)")


def _weights(content: Names, path: Path) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(inner := content.get(wrapper), dict):
            content = inner
            break
    if not content or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        keys = ", ".join(map(repr, list(content)[:5])) or "nothing"
        raise ConfigError(f"{path}: holds no weights by name but {keys}; valid: a state dict, bare or as 'state_dict'")
    if odd := [name for name, tensor in content.items() if not _is_dense(tensor)]:
        raise ConfigError(f"{path}: {odd[0]!r} is no dense tensor of real numbers; valid: a state dict of those")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in content):
            content = {name.removeprefix(prefix): tensor for name, tensor in content.items()}
    return dict(content)


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not (tensor.is_meta or tensor.is_quantized or tensor.is_complex())


def _colours(told: Mapping[str, Any], key: str, path: Path) -> tuple[float, float, float]:
    values = told.get(key)
    if (
        not isinstance(values, list)
        or len(values) != 3
        or not all(isinstance(v, int | float) and math.isfinite(v) and (v > 0 or key == "mean") for v in values)
    ):
        raise ConfigError(f"{path}: is damaged: its {key} is {values!r}; valid: three finite numbers, std above 0")
    red, green, blue = map(float, values)
    return red, green, blue


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(". ").lower() or type(error).__name__


def _a(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
