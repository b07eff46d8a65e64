"""`python -m sqzlab import FILE --out NAME.safetensors`: another project's checkpoint as a network of ours."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sqzlab.catalog import DATASETS
from sqzlab.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from sqzlab.config import ModelConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Sources: torchvision; timm (seresnet), timm_legacy (legacy_seresnet), timm_eca (ecaresnet with a plain stem); "
        "mmpretrain (ResNet, SEResNet); moskomule (senet.pytorch); ssenet (Ootzk/SsENet.PyTorch); spse and rgse (the "
        "released SP-SENet and RG-SENet); cbam (Jongchan/attention-module). Nothing in a checkpoint is run."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="safetensors or torch file, a state dict or around one")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".safetensors, .pt or .pth")
    parser.add_argument("--from", dest="source", metavar="SOURCE", help="default: recognised by its names")
    parser.add_argument("--squeeze", metavar="NAME", help="what the blocks squeeze, where the names do not say it")
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="default: 224, or 32 with a 3x3 stem")
    parser.add_argument(
        "--data",
        choices=tuple(DATASETS),
        default="imagenet",
        metavar="NAME",
        help=f"whose mean and deviation normalised the images: {', '.join(DATASETS)} (imagenet)",
    )
    parser.add_argument("--classes", type=Path, metavar="FILE", help="text file with the name of a class a line")


def run(arguments: argparse.Namespace) -> int:
    from sqzlab.inference.images import STATISTICS
    from sqzlab.networks.files import check_suffix, load_weights, read_any, save_network
    from sqzlab.networks.resnet import build
    from sqzlab.networks.sources import SOURCES, translate

    path: Path = arguments.file
    check_suffix(arguments.out)
    check_not_same(path, arguments.out)
    weights, ours = read_any(path)
    if ours is not None:
        raise ConfigError(f"{path}: is a file of ours already; valid: `python -m sqzlab export` to change its format")
    found = translate(
        weights, path, source=arguments.source, squeeze=arguments.squeeze, image_size=arguments.image_size
    )
    names = None if arguments.classes is None else class_names(arguments.classes, found.config.num_classes)
    model = build(found.config, seed=0)
    load_weights(model, found.weights, path, found.config)
    mean, std = STATISTICS[arguments.data]
    save_network(arguments.out, model, found.config, mean=mean, std=std, class_names=names)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{path}: {SOURCES[found.source].summary}")
    print(f"{arguments.out}: {described(found.config)}")
    print(f"{parameters:,} parameters, {found.config.num_classes} classes, images as those of {arguments.data}")
    return 0


def described(config: ModelConfig) -> str:
    """The network in a line, without what is as usual."""
    usual: dict[str, object] = {"gate": "sigmoid", "width_rule": "floor", "placement": "standard", "stages": "all"}
    usual |= {"width": 1.0, "stem": "imagenet", "zero_init_gamma": False}
    about = [f"{config.backbone}, squeeze {config.squeeze!r}"]
    for key, value in config.model_dump(exclude={"backbone", "squeeze", "num_classes"}).items():
        if value is not None and value != usual.get(key):
            about.append(f"{key} {str(value).lower() if isinstance(value, bool) else value}")
    return ", ".join(about)


def check_not_same(path: Path, out: Path) -> None:
    """Raises ConfigError where the output would replace the input."""
    if out.exists() and path.exists() and out.samefile(path):
        raise ConfigError(f"--out {str(out)!r} is the file to be read; valid: another name")


def class_names(path: Path, count: int) -> list[str]:
    """The lines of a text file, one for each class. Raises ConfigError where they are not `count` names."""
    try:
        names = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise ConfigError(f"--classes: {str(path)!r}: there is no such file") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise ConfigError(f"--classes: {str(path)!r}: is no UTF-8 text file") from None
    except OSError as error:
        raise UnavailableError(f"--classes: {str(path)!r}: {(error.strerror or str(error)).lower()}") from None
    while names and not names[-1].strip():
        names.pop()
    if empty := [number for number, name in enumerate(names, 1) if not name.strip()]:
        raise ConfigError(f"--classes: {str(path)!r}: line {empty[0]} is empty; valid: a name a line")
    if len(names) != count:
        raise ConfigError(
            f"--classes: {str(path)!r}: has {len(names)} names; valid: {count}, as the network has classes"
        )
    return [name.strip() for name in names]
