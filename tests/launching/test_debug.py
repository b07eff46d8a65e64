"""`--debug` tries the real study's configuration on this machine: every arm, a step, a resume and an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from launching.conftest import Launch
from PIL import Image

from sqzlab.runs.files import read_json

STUDY = "experiments/squeeze_ablation.yaml"
ARMS = 16


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """1,000 class folders with one small JPEG each for training and validation."""
    generator = np.random.default_rng(0)
    root = tmp_path / "imagenet"
    for part in ("train", "val"):
        for number in range(1000):
            folder = root / part / f"n{number:08}"
            folder.mkdir(parents=True)
            pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{part}_{number}.JPEG")
    return root


def assert_every_arm_was_tried(folder: Path, data: str) -> None:
    runs = [path.parent for path in folder.glob("*/metrics.json")]
    assert len(runs) == ARMS
    arms = set()
    for run in runs:
        config = read_json(run / "config.json")["config"]
        arms.add((config["model"]["backbone"], config["model"]["squeeze"]))
        assert config["model"]["num_classes"] == 1000
        assert config["data"]["image_size"] == 224
        assert config["train"]["precision"] == "bf16"
        assert (config["train"]["compile"], config["train"]["block_form"]) == (False, "folded")
        assert config["data"]["name"] == data
        first, second = read_json(run / "provenance.json")["segments"]
        assert (first["first_step"], first["last_step"]) == (0, 1)
        assert first["why"] == "interrupted: after 1 steps, as asked"
        assert (second["first_step"], second["last_step"], second["why"]) == (1, 2, "done")
        metrics = read_json(run / "metrics.json")
        assert 0 < metrics["val_loss"] < 100
    assert len(arms) == ARMS


def test_the_imagenet_profile_on_a_tree_of_jpeg_files(launch: Launch, imagenet: Path, tmp_path: Path) -> None:
    narrow = ("--set", "model.width=0.25")  # the same blocks at the same sizes, in a third of the time
    done = launch(STUDY, "--profile", "imagenet", "--debug", *narrow, IMAGENET_DIR=str(imagenet))
    assert done.returncode == 0, done.stdout + done.stderr
    assert_every_arm_was_tried(tmp_path / "results" / "squeeze_ablation-debug", "imagenet")


def test_without_a_data_set_the_images_are_generated(launch: Launch, tmp_path: Path) -> None:
    done = launch(STUDY, "--profile", "imagenet", "--debug", "--only", "backbone=resnet18", "--only", "squeeze=SP,RG")
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [path.parent for path in (tmp_path / "results" / "squeeze_ablation-debug").glob("*/metrics.json")]
    assert sorted(read_json(run / "metrics.json")["squeeze"] for run in runs) == ["RG", "SP"]
    assert {read_json(run / "metrics.json")["data"] for run in runs} == {"generated"}
