"""What speaks against a published number: footnotes, each with the cell that it belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from string import ascii_lowercase


@dataclass(frozen=True)
class Note:
    text: str
    on: str = "level"  # or "improved", or "counts" for what is printed in GFLOPs and parameters
    blank: bool = False  # whether it forbids to take an improvement


class Marks:
    """Letters for a table's footnotes, in the order in which they are first used."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}

    def of(self, texts: Iterable[str]) -> str:
        """The letters of these texts: "", "a" or "a,c"."""
        return ",".join(self._letters.setdefault(text, _letters(len(self._letters))) for text in texts)

    @property
    def notes(self) -> tuple[tuple[str, str], ...]:
        return tuple((letters, text) for text, letters in self._letters.items())


def texts(names: Iterable[str], on: str) -> list[str]:
    """What these notes say of one kind of cell."""
    return [NOTES[name].text for name in names if NOTES[name].on == on]


def sentence(name: str) -> str:
    """The note as a sentence of a caption."""
    text = NOTES[name].text
    return f"{text[0].upper()}{text[1:]}."


def _letters(number: int) -> str:
    """a to z, then aa, ab, ..."""
    rest, last = divmod(number, 26)
    return (_letters(rest - 1) if rest else "") + ascii_lowercase[last]


NOTES = {
    "mislabelled": Note(
        "labelled ResNet-50 by its source, but every version of its code builds the SE arms from basic blocks "
        "[3, 4, 6, 3]: SE-ResNet-34, 21.95 M parameters. The baseline was most likely a real ResNet-50 (25.56 M), "
        "so the difference says nothing about squeezes"
    ),
    "which_resnet50": Note(
        "most likely a real ResNet-50 (25.56 M parameters), which the source's code built until 2021-12-07; since then "
        "it builds a ResNet-34 (21.80 M) under this name"
    ),
    "zero_init": Note(
        "until 2021-12-07 the source's code set the last BatchNorm's gamma to zero in the baseline only, so that part "
        "of the difference may be the initial values",
        on="improved",
    ),
    "ssenet": Note(
        "learning rate 0.01 for batch 256, a tenth of the usual; the number of epochs, and whether rows are of the "
        "best or the last one, are unknown; one seed (123)"
    ),
    "best_epoch": Note(
        "100 epochs; the released script keeps the best Top-1 and the best Top-5 over the epochs, each by itself, on "
        "the validation set; whether the rows are those is not stated"
    ),
    "unexplained_gflops": Note(
        "no place of the stride reproduces the printed GFLOPs of this backbone (3.77 and 4.23 G for 50 layers, 7.51 "
        "and 7.97 G for 101, convolutions and linear layers)",
        on="counts",
    ),
    "senet_table_2": Note(
        "100 epochs, batch 1,024, rate 0.6; the ablations of the same paper have another schedule (error of the "
        "ResNet-50 24.80 % here, 23.30 % there) and do not compare with these rows"
    ),
    "original_paper": Note(
        "printed by its source as the number of the network's own paper: not the baseline of the source's improvements"
    ),
    "senet_ablation": Note(
        "about 300 epochs, rate lowered where the validation loss stops falling, label smoothing, no biases in the "
        "excitation; table 2 of the same paper has another schedule (error of the ResNet-50 23.30 % here, 24.80 % "
        "there) and does not compare with these rows"
    ),
    "other_table": Note(
        "its table prints no baseline; the improvement is over the one of tables 10, 13 and 16, with the same recipe "
        "and the same SE row (22.28/6.03)",
        on="improved",
    ),
    "senet_270": Note("270 epochs, rate lowered after 125, 200 and 250"),
    "caffe": Note(
        'released Caffe model: batch 256, rate 0.1, "more epochs", augmentation with rotation and pixel jitter besides '
        "crops and flips"
    ),
    "cbam": Note("100 epochs in the paper, 90 by default in its script"),
    "checkpoint": Note("of the released checkpoint; the paper has 77.34 for CBAM on ResNet-50"),
    "quoted": Note(
        "printed here, but equal to the last digit to the number of the method's own paper: most likely quoted"
    ),
    "gcnet": Note("quoted from the method's own paper; where the block stands there is not stated here"),
    "quoted_baseline": Note(
        "the baseline of this table equals that of SENet's table 2 to the last digit: most likely quoted, so that the "
        "improvement compares two recipes",
        on="improved",
    ),
    "eca_top5": Note("Top-5 accuracy of this baseline is printed as 92.25 in table 2 and as 92.52 in table 3"),
    "units_2_30": Note(
        "its GFLOPs are in units of 2^30 and its parameters in units of 2^20; its 3.86 is a ResNet-50 with the stride "
        "in the 3x3 convolution, not the 3.86 of the other papers",
        on="counts",
    ),
    "srm": Note("90 epochs, rate lowered after 31 and 61"),
    "gct": Note(
        "TensorFlow; its block stands before the convolutions, ours between the last BatchNorm and the addition; "
        "weight decay on beta"
    ),
    "fcanet": Note("stronger recipe: cosine schedule, 5 epochs of warm-up, label smoothing 0.1"),
    "unequal_epochs": Note(
        "140 epochs, the baseline of the same project (error 23.45 %) 100: not an equal budget, so no improvement is "
        "taken",
        on="improved",
        blank=True,
    ),
    "other_page": Note(
        "its baseline stands on another page of the same project; both 100 epochs, rate lowered after 30, 60 and 90",
        on="improved",
    ),
    "typo": Note("its README prints 2.18 M parameters, a typo for 21.8 M", on="counts"),
    "legacy": Note(
        "weights ported from Caffe; stride in the first 1x1 convolution, other pooling in the stem, dropout before the "
        "classifier"
    ),
    "relu_before_squeeze": Note("a ReLU stands before this SE block: its squeeze sees no negative values"),
    "timm_recipe": Note("trained under the recipe that its name ends in, which is none of those here"),
    "no_baseline": Note(
        "no improvement: published.csv has no baseline of the same source and training", on="improved", blank=True
    ),
    "moskomule": Note("greatest accuracy over 90 epochs on the validation set; rate lowered after 50 and 70"),
}
