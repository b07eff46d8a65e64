"""Opens a trained network by what a user calls it: a run's id, a run's folder or a file of weights."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sqzlab.config import ModelConfig
from sqzlab.data.source import Statistic
from sqzlab.errors import ConfigError, UnavailableError
from sqzlab.inference.classes import class_names_of
from sqzlab.inference.images import STATISTICS, data_set_of
from sqzlab.networks.files import load_weights, read_network, read_weights
from sqzlab.networks.random_squeeze import set_random_keys
from sqzlab.networks.resnet import build
from sqzlab.resolving import complete
from sqzlab.run import CHECKPOINT, CONFIG, METRICS, PREVIOUS_CHECKPOINT, Run
from sqzlab.runs.files import read_json
from sqzlab.training.trainer import VAL


@dataclass(frozen=True)
class Network:
    """A trained network in evaluation mode. `mean` and `std` are for images divided by 255."""

    name: str
    model: nn.Module
    config: ModelConfig
    seed: int
    mean: Statistic
    std: Statistic
    class_names: tuple[str, ...] | None  # None where nobody knows them
    data: str = "imagenet"  # the data set whose validation images are prepared as this network's are
    run: Run | None = None
    folder: Path | None = None  # of the run
    epoch: int = 0  # epochs that its weights were trained for

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for every class: its number where there is none."""
        return self.class_names or tuple(map(str, range(self.config.num_classes)))

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def logits(self, images: Tensor, index: Tensor, *, split: int = VAL, bf16: bool = False) -> Tensor:
        """uint8 (N, 3, H, W) -> (N, classes) in float32 (float64 of networks trained so), as in its training.

        `index` (N,), each image's place in its `split`, is what the noise of `random` squeezes depends on.
        """
        weight = next(self.model.parameters())
        mean, std = (
            255 * torch.tensor(values, dtype=weight.dtype, device=weight.device).view(1, 3, 1, 1)
            for values in (self.mean, self.std)
        )
        x = (images.to(weight.device, non_blocking=True).to(weight.dtype) - mean) / std
        if self.run is None or self.run.config.train.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        set_random_keys(self.model, seed=self.seed, split=split, epoch=self.epoch, image_index=index)
        with torch.autocast(weight.device.type, torch.bfloat16, enabled=bf16):
            logits: Tensor = self.model(x)
        return logits.to(weight.dtype)


def open_network(
    text: str,
    results: Path = Path("results"),
    device: str | None = "cpu",
    *,
    image_size: int | None = None,
) -> Network:
    """The network of a run's id (sought in the studies under `results`), a run's folder or a file of ours.

    `device` is `cpu` or `cuda`; None is the GPU where one can be used, but not for a run that was trained on the CPU.
    On a GPU, TF32 is switched off for the whole process. `image_size` builds the network for images of another size
    than its own. Raises ConfigError where `text` names no network, UnavailableError where a run has left no weights.
    """
    path = Path(text)
    if path.is_dir():
        network = _of_run(path, image_size)
    elif path.exists():
        in_run = path.name in (CHECKPOINT, PREVIOUS_CHECKPOINT) and (path.parent / CONFIG).exists()
        network = _of_run(path.parent, image_size, path) if in_run else _of_file(path, image_size)
    else:
        network = _of_run(_folder_of(text, results), image_size)
    chosen = _device(device, network.run)
    if chosen == "cuda":  # torch computes convolutions in TF32 unless told otherwise
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.fp32_precision = "ieee"
    network.model.to(chosen)
    return network


# ---- a run -------------------------------------------------------------------------------------


def _folder_of(run_id: str, results: Path) -> Path:
    """The folder of the run with this id. Of several, the one that has weights."""
    found = [folder for folder in _run_folders(results) if folder.name == run_id]
    with_weights = [folder for folder in found if (folder / CHECKPOINT).exists()]
    if len(with_weights) > 1:
        raise ConfigError(f"{run_id!r}: several runs have this id; valid: {' or '.join(map(str, with_weights))}")
    if found:
        return (with_weights or found)[0]
    ids = sorted({folder.name for folder in _run_folders(results)})
    close = [name for name in ids if run_id and name.startswith(run_id)] or difflib.get_close_matches(run_id, ids)
    hint = f"did you mean {' or '.join(map(repr, close[:3]))}? " if close else ""
    text = f"no run under {str(results)!r}, folder or file of this name"
    raise ConfigError(f"{run_id!r}: {text}; {hint}valid: a run's id, its folder or a file of `import` or `export`")


def _run_folders(results: Path) -> Iterator[Path]:
    if results.is_dir():
        yield from sorted(config.parent for config in results.glob(f"*/*/{CONFIG}"))


def _of_run(folder: Path, image_size: int | None, path: Path | None = None) -> Network:
    """The network of a run's newest state, or of the state in `path`."""
    run = _run(folder)
    path = path or next((p for n in (CHECKPOINT, PREVIOUS_CHECKPOINT) if (p := folder / n).exists()), None)
    if path is None:
        raise UnavailableError(_to_make_again(run, folder))
    weights = read_weights(path)
    config, data, train = run.config.model, run.config.data, run.config.train
    model = _built(_resized(config, image_size), run.config.seed, channels_last=train.channels_last)
    if train.precision == "fp64":
        model.double()
    load_weights(model, weights, path, config)
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # maps the weights without reading them
    if state.get("digest") != run.config.digest():
        raise ConfigError(f"{path}: belongs to another configuration than {CONFIG} beside it")
    steps = min(data.train_images // train.batch_size, train.limit_batches or data.train_images)
    return Network(
        run.run_id,
        model,
        _resized(config, image_size),
        run.config.seed,
        *STATISTICS[data.name],
        class_names_of(data),
        data=data.name,
        run=run,
        folder=folder,
        epoch=state["step"] // steps,
    )


def _run(folder: Path) -> Run:
    try:
        return Run.from_json(read_json(folder / CONFIG) or {})
    except (LookupError, ValueError):
        pass
    if (folder / CONFIG).exists():
        raise ConfigError(f"{folder / CONFIG}: damaged, or of another version")
    runs = [config.parent.name for config in sorted(folder.glob(f"*/{CONFIG}"))]
    inside = f"; its {len(runs)} runs: {', '.join(runs[:3])}{', ...' if len(runs) > 3 else ''}" if runs else ""
    raise ConfigError(f"{str(folder)!r}: is no run's folder, it has no {CONFIG}{inside}; valid: results/STUDY/RUN_ID")


def _to_make_again(run: Run, folder: Path) -> str:
    """What to do where a run's weights are not there: they are never committed."""
    done = (folder / METRICS).exists()
    what = "results are kept without weights" if done else "it has not been trained yet"
    lacking = f"{run.run_id}: no {CHECKPOINT} in {str(folder)!r}: {what}"
    if run.study == "train":  # made by the command of that name
        return f"{lacking}; to make it: {_train_command(run, 'again' if done else folder.parent)}" + (
            f", then name {str(Path('again', run.run_id))!r}" if done else ""
        )
    command = ["python", "launch.py", f"experiments/{run.study}.yaml"]
    if run.profile is not None:
        command += ["--profile", run.profile]
    for key, value in [*run.cell.items(), ("seed", run.config.seed)]:
        command += ["--only", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    then = ""
    if done:  # a launch never repeats what is done
        command += ["--results", "again"]
        then = f", then name {str(Path('again', folder.absolute().parent.name, run.run_id))!r}"
    return f"{lacking}; to make it: {shlex.join(command)}{then}"


def _train_command(run: Run, out: str | Path) -> str:
    """The `train` that makes the same run: what it was given, and what its cell does not tell."""
    data, train = run.config.data, run.config.train
    values: dict[str, Any] = {**run.cell, "data.name": data.name, "data.root": data.root}
    values |= {"data.train_list": data.train_list, "data.val_list": data.val_list, "data.store": data.store}
    values |= {"train.pretrained": train.pretrained}
    values = {key: value for key, value in values.items() if value is not None or key in run.cell}
    if train.milestones is not None:
        values["train.milestones"] = train.milestones
    command = ["python", "-m", "sqzlab", "train", "--seed", str(run.config.seed), "--out", str(out)]
    for key, value in values.items():
        command += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(command)


# ---- a file ------------------------------------------------------------------------------------


def _of_file(path: Path, image_size: int | None) -> Network:
    saved = read_network(path)
    config = _resized(saved.config, image_size)
    model = _built(config, 0, channels_last=True)
    load_weights(model, saved.weights, path, saved.config)
    data = data_set_of(saved.mean, saved.std)
    return Network(path.name, model, config, 0, saved.mean, saved.std, saved.class_names, data=data)


def _built(config: ModelConfig, seed: int, *, channels_last: bool) -> nn.Module:
    """Built with a seed, which leaves torch's generators alone."""
    model = build(config, seed=seed).eval()
    return model.to(memory_format=torch.channels_last) if channels_last else model


def _resized(config: ModelConfig, image_size: int | None) -> ModelConfig:
    """The configuration for images of another size."""
    if image_size in (None, config.image_size):
        return config
    found = complete(config.model_copy(update={"image_size": image_size}))
    if isinstance(found, list):
        raise ConfigError(f"image size {text}" for _, text in found)
    return found


def _device(name: str | None, run: Run | None) -> str:
    usable = torch.cuda.is_available()
    if name == "cuda" and not usable:
        raise UnavailableError("device 'cuda': this machine has no GPU that can be used; valid here: cpu")
    if name is not None:
        return name
    return "cuda" if usable and not (run and run.config.train.device == "cpu") else "cpu"
