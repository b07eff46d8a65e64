"""`python -m sqzlab export CHECKPOINT --out FILE`: a network's weights for elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path

from sqzlab.commands.importing import check_not_same, described
from sqzlab.errors import ConfigError, choices

FORMATS = {
    "safetensors": "ours, with what is needed to use the network; its weights have torchvision's names",
    "pt": "the same as torch's zip",
    "timm": "a state dict for timm.create_model(...).load_state_dict(...), safetensors or torch's zip",
}
_SUFFIXES = {
    "safetensors": (".safetensors",),
    "pt": (".pt", ".pth"),
    "timm": (".safetensors", ".pt", ".pth"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="run id, run folder, or file of `import` or `export`")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".safetensors, .pt or .pth")
    formats = "; ".join(f"{name}: {what}" for name, what in FORMATS.items())
    parser.add_argument("--format", metavar="NAME", help=f"{formats} (default: ours, by the suffix)")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="where run ids are sought (results)"
    )


def run(arguments: argparse.Namespace) -> int:
    from sqzlab.inference.checkpoint import open_network
    from sqzlab.networks.files import check_suffix, save_network, save_safetensors, save_zip
    from sqzlab.networks.sources import for_timm

    out: Path = arguments.out
    name = arguments.format
    if name is not None and name not in FORMATS:
        raise ConfigError(f"--format: unknown name {name!r}; {choices(FORMATS, name)}")
    check_suffix(out, _SUFFIXES[name or "timm"])
    check_not_same(Path(arguments.checkpoint), out)
    network = open_network(arguments.checkpoint, arguments.results)
    if name != "timm":
        mean, std, names = network.mean, network.std, network.class_names
        save_network(out, network.model, network.config, mean=mean, std=std, class_names=names)
        print(f"{out}: {described(network.config)}")
        return 0
    timms, weights = for_timm(network.config, network.model.state_dict())
    weights = {key: tensor.cpu().contiguous() for key, tensor in weights.items()}
    if out.suffix == ".safetensors":
        save_safetensors(out, weights, {"format": "pt"})  # which other readers ask for
    else:
        save_zip(out, weights)
    classes = network.config.num_classes
    print(f"{out}: the state dict of timm.create_model({timms!r}, num_classes={classes})")
    return 0
