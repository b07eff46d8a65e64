"""Published training recipes as data: `train.recipe: NAME` sets every value below that a study does not set.

`unstated` names what the source does not say and we chose; everything else was read at the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_SGD = {
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 1e-4,
    "decay_norm_and_bias": True,
    "schedule": "step",
    "gamma": 0.1,
    "warmup_epochs": 0,
    "label_smoothing": 0.0,
    "clip_norm": None,
    "init": "torchvision",
}


@dataclass(frozen=True)
class Recipe:
    source: str
    train: Mapping[str, Any]
    zero_init_gamma: bool
    unstated: Mapping[str, str] = field(default_factory=dict)  # key: why we chose what we chose


RECIPES = {
    "ssenet": Recipe(
        "Ootzk/SsENet.PyTorch, sample configurations",
        {**_SGD, "epochs": 90, "batch_size": 256, "lr": 0.01, "milestones": (30, 60)},
        zero_init_gamma=True,
        unstated={"epochs": "the sample says max_epochs 1; 90 gives the third step as long as the first two"},
    ),
    "senet2018": Recipe(
        "arXiv:1709.01507, table 2; weight decay from hujie-frank/SENet issue 37",
        {**_SGD, "epochs": 100, "batch_size": 1024, "lr": 0.6, "milestones": (30, 60, 90)},
        zero_init_gamma=False,
        unstated={"zero_init_gamma": "not in the paper, which says only He initialisation"},
    ),
    "sprg": Recipe(
        "megvii-research/RG-SENet_SP-SENet, imagenet_train.py",
        {**_SGD, "epochs": 100, "batch_size": 256, "lr": 0.1, "milestones": (30, 60, 90), "init": "zero_bias"},
        zero_init_gamma=False,
    ),
    "mmpretrain": Recipe(
        "open-mmlab/mmpretrain, seresnet50_8xb32_in1k",
        {**_SGD, "epochs": 140, "batch_size": 256, "lr": 0.1, "milestones": (40, 80, 120)},
        zero_init_gamma=True,
    ),
    "digits": Recipe(
        "ours: small networks on 1,347 images in seconds",
        {
            **_SGD,
            "nesterov": True,
            "weight_decay": 5e-4,
            "decay_norm_and_bias": False,
            "schedule": "cosine",
            "gamma": None,
            "milestones": None,
            "warmup_epochs": 1,
            "epochs": 10,
            "batch_size": 32,
            "lr": 0.1,
        },
        zero_init_gamma=True,
        unstated={"epochs": "everything here is our choice"},
    ),
}
