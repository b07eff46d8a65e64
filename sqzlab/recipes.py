"""Published training recipes as data: `train.recipe: NAME` sets every value below that a study does not set.

`unstated` names what the source does not say, or what we do otherwise, and why we chose as we did; everything else was
read at the source.
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
    "senet270": Recipe(
        "arXiv:1709.01507, footnote 2: the fixed schedule that stands in for the ablations' plateau rule",
        {
            **_SGD,
            **{"epochs": 270, "batch_size": 256, "lr": 0.1, "milestones": (125, 200, 250)},
            "label_smoothing": 0.1,
        },
        zero_init_gamma=False,
        unstated={
            "batch_size": "the ablations say 8 GPUs only; 256 is that of the released models, trained at the same rate",
            "label_smoothing": "the ablations have it, its strength is not said",
            "weight_decay": "not in the paper; the author's answer is about the recipe of table 2",
            "zero_init_gamma": "not in the paper, which says only He initialisation",
        },
    ),
    "sprg": Recipe(
        "megvii-research/RG-SENet_SP-SENet, imagenet_train.py",
        {**_SGD, "epochs": 100, "batch_size": 256, "lr": 0.1, "milestones": (30, 60, 90), "init": "zero_bias"},
        zero_init_gamma=False,
    ),
    "cbam": Recipe(  # value by value that of sprg
        "Jongchan/attention-module, train_imagenet.py and MODELS/model_resnet.py; the script's default is 90 epochs",
        {**_SGD, "epochs": 100, "batch_size": 256, "lr": 0.1, "milestones": (30, 60, 90), "init": "zero_bias"},
        zero_init_gamma=False,
        unstated={"init": "the classifier's weights are kaiming_normal there and PyTorch's default here"},
    ),
    "mmpretrain": Recipe(
        "open-mmlab/mmpretrain, seresnet50_8xb32_in1k",
        {**_SGD, "epochs": 140, "batch_size": 256, "lr": 0.1, "milestones": (40, 80, 120)},
        zero_init_gamma=True,
    ),
    "mmpretrain101": Recipe(
        "open-mmlab/mmpretrain, seresnet101_8xb32_in1k (its metafile.yml says 140 epochs for the whole collection)",
        {**_SGD, "epochs": 100, "batch_size": 256, "lr": 0.1, "milestones": (30, 60, 90)},
        zero_init_gamma=True,
    ),
    "torchvision": Recipe(
        "pytorch/vision, defaults of references/classification/train.py on 8 GPUs",
        {**_SGD, "epochs": 90, "batch_size": 256, "lr": 0.1, "milestones": (30, 60)},
        zero_init_gamma=False,
    ),
    "moskomule": Recipe(
        "moskomule/senet.pytorch, imagenet.py: rate 0.6 / 1024 for each image of a batch",
        {**_SGD, "epochs": 90, "batch_size": 256, "lr": 0.15, "milestones": (50, 70)},
        zero_init_gamma=False,
        unstated={
            "batch_size": "the README says 8 GPUs and the script takes any batch; 256 is what the other recipes have",
            "lr": "by the script's rule for that batch",
        },
    ),
    "srm": Recipe(  # differs: the weights of its own style integration have no decay there
        "hyunjaelee410/style-based-recalibration-module, imagenet.py and models/resnet.py",
        {**_SGD, "epochs": 90, "batch_size": 256, "lr": 0.1, "milestones": (31, 61)},
        zero_init_gamma=False,
    ),
    "fcanet": Recipe(  # differs: crops there have 10 to 100 % of the area and aspects from 0.8 to 1.25
        "cfzd/FcaNet, main.py and launch_training_classification.sh: rate 0.1 for a batch of 256",
        {
            **_SGD,
            **{"schedule": "cosine", "gamma": None, "milestones": None, "warmup_epochs": 5, "label_smoothing": 0.1},
            **{"epochs": 100, "batch_size": 256, "lr": 0.1},
        },
        zero_init_gamma=False,
    ),
    "fast16": Recipe(  # differs: no blurring before convolutions with a stride; flips are not averaged in evaluation
        "libffcv/ffcv-imagenet, rn18_configs/rn18_16_epochs.yaml and train_imagenet.py: 66.9 % in 16 epochs",
        {
            **_SGD,
            **{"epochs": 16, "batch_size": 1024, "lr": 0.5, "weight_decay": 5e-5, "decay_norm_and_bias": False},
            **{"schedule": "linear", "gamma": None, "milestones": None, "warmup_epochs": 2, "label_smoothing": 0.1},
            **{"train_sizes": (160, 192), "size_milestones": (12,)},
        },
        zero_init_gamma=False,
        unstated={
            "decay_norm_and_bias": "there parameters with 'bn' in their name have no decay, so that the BatchNorms of "
            "shortcuts and the biases have; here none of them",
            "warmup_epochs": "there the rate rises from a ten-thousandth of its peak, here from one step above 0: a "
            "step earlier",
            "size_milestones": "their ramp from epoch 11 to 13, rounded to multiples of 32, has 192 pixels from 12 on",
            "train_sizes": "there evaluation is at 256 pixels; here at data.image_size, as under every recipe",
        },
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
