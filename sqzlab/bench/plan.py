"""What a benchmark measures: networks, how they are run and at what settings. Without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from sqzlab.resolving import model_config

SQUEEZES = ("baseline", "gap", "gmp", "std", "gapXstd", "random", "SP", "RG")
"""Those of the study."""
TRAINING, INFERENCE = KINDS = ("training", "inference")
EAGER, COMPILED, GRAPHS = MODES = ("eager", "compiled", "compiled+graphs")
OURS, TIMM, TORCHVISION = "sqzlab", "timm", "torchvision"
PEERS = (TIMM, TORCHVISION)


@dataclass(frozen=True)
class Contender:
    """A network of `source`; a peer's squeeze is `baseline` (its plain network) or `gap` (its SE network)."""

    source: str
    backbone: str
    squeeze: str = "baseline"
    form: str = "plain"

    @property
    def label(self) -> str:
        """Its name among the networks of one backbone."""
        if self.source != OURS:
            return self.source if self.squeeze == "baseline" else f"{self.source} SE"
        return self.squeeze if self.form == "plain" else f"{self.squeeze}, {self.form}"


@dataclass(frozen=True)
class Entry:
    """One row: a network in one mode, training or at inference."""

    contender: Contender
    mode: str
    kind: str

    @property
    def reference(self) -> Entry:
        """Our plain network in the same mode, doing the same."""
        return Entry(Contender(OURS, self.contender.backbone), self.mode, self.kind)

    @property
    def accounting(self) -> str:
        """The rule by which its bound is counted; see `traffic.py`."""
        return "eager" if self.mode == EAGER else "fused"

    def __str__(self) -> str:
        return f"{self.contender.backbone} {self.contender.label}, {self.mode}, {self.kind}"


@dataclass(frozen=True)
class Settings:
    """What holds for all rows. `steps` a turn are chosen for each row where they are None."""

    device: str
    batch: int
    size: int
    precision: str
    channels_last: bool = True
    threads: int | None = None
    rounds: int = 7
    steps: int | None = None


def entries(
    backbones: Sequence[str],
    squeezes: Sequence[str],
    forms: Sequence[str],
    peers: Sequence[str],
    modes: Sequence[str],
    kinds: Sequence[str],
    size: int,
) -> list[Entry]:
    """The rows, our plain network first in each backbone; folded ones in compiled modes only, which they are for.

    Raises ConfigError where a squeeze is not defined on images of this size.
    """
    found: dict[Entry, None] = {}
    for backbone in backbones:
        for squeeze in squeezes:
            model_config(backbone=backbone, squeeze=squeeze, image_size=size)
        ours = [Contender(OURS, backbone, squeeze, form) for form, squeeze in product(forms, squeezes)]
        theirs = [Contender(source, backbone, squeeze) for source in peers for squeeze in _offered(source)]
        for contender, mode, kind in product((Contender(OURS, backbone), *ours, *theirs), modes, kinds):
            if contender.form == "plain" or mode != EAGER:
                found[Entry(contender, mode, kind)] = None
    return list(found)


def _offered(source: str) -> tuple[str, ...]:
    return ("baseline", "gap") if source == TIMM else ("baseline",)
