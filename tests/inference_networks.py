"""Small trained networks for the tests of inference: true runs on digits, made once a session, and files of weights."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from sqzlab.catalog import SQUEEZES
from sqzlab.config import Config
from sqzlab.data.source import IMAGENET_MEAN, IMAGENET_STD
from sqzlab.inference.checkpoint import Network
from sqzlab.networks.files import save_network
from sqzlab.networks.resnet import build
from sqzlab.resolving import model_config, resolve
from sqzlab.run import CONFIG, Run
from sqzlab.runs.execute import execute
from sqzlab.runs.files import write_json

TINY = {
    "model.backbone": "resnet18",
    "model.stem": "small",
    "model.width": 0.125,
    "data.name": "digits",
    "data.image_size": 16,
    "train.recipe": "digits",
    "train.epochs": 2,
    "train.batch_size": 128,  # does not divide the 450 validation images
}


def planned(results: Path, squeeze: str = "gap", study: str = "mini", **values: Any) -> Path:
    """The folder of a run that is not trained yet. Keyword `train__lr=1` sets `train.lr`."""
    given = {**TINY, "model.squeeze": squeeze, **{key.replace("__", "."): value for key, value in values.items()}}
    if squeeze != "baseline":
        given["model.reduction"] = 4
    config = resolve(given, 0)
    assert isinstance(config, Config), config
    run = Run(study, None, {"model.backbone": "resnet18", "model.squeeze": squeeze}, config)
    folder = results / study / run.run_id
    folder.mkdir(parents=True)
    write_json(folder / CONFIG, run.to_json())
    return folder


_trained: dict[str, Path] = {}  # finished runs, made once a session and only read
_kept = tempfile.TemporaryDirectory(prefix="sqzlab-tests-")
atexit.register(_kept.cleanup)


def trained(squeeze: str = "gap", **values: Any) -> Path:
    """The folder of a finished run, not to be changed: `results/mini/<run id>`."""
    key = repr((squeeze, sorted(values.items())))
    if key not in _trained:
        folder = planned(Path(_kept.name) / "results", squeeze, **values)
        assert execute(folder) == "done"
        _trained[key] = folder
    return _trained[key]


def network(squeeze: str = "gap", classes: int = 10, size: int = 32, **values: Any) -> Network:
    """An untrained network whose classes lie far apart, for images like ImageNet's."""
    given = {"backbone": "resnet18", "stem": "small", "width": 0.125, **values}
    if "reduction" in SQUEEZES[squeeze].arguments:
        given.setdefault("reduction", 4)
    config = model_config(squeeze=squeeze, num_classes=classes, image_size=size, **given)
    model = spread(build(config, seed=0), size)
    return Network("tiny", model.eval(), config, 0, IMAGENET_MEAN, IMAGENET_STD, None)


def spread(model: nn.Module, size: int) -> nn.Module:
    """With running statistics and a classifier that make the classes of different images differ."""
    generator = torch.Generator().manual_seed(0)
    model.train()
    with torch.no_grad():
        for _ in range(4):
            model(torch.randn(8, 3, size, size, generator=generator))
        model.fc.weight.mul_(20)
    return model


def saved(path: Path, made: Network, class_names: list[str] | None = None) -> Path:
    """A file of ours with this network."""
    save_network(path, made.model, made.config, mean=made.mean, std=made.std, class_names=class_names)
    return path


def photo(seed: int = 0, width: int = 50, height: int = 40) -> Image.Image:
    """Coloured noise, smooth enough for JPEG."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def class_folders(root: Path, classes: list[str], images: int = 3) -> Path:
    """`root/val/<class>/<number>.png`; there is no training part."""
    for label, name in enumerate(classes):
        folder = root / "val" / name
        folder.mkdir(parents=True)
        for number in range(images):
            photo(100 * label + number).save(folder / f"{number}.png")
    return root
