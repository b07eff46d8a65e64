"""Our numbers with the published ones of the same network beside them, each improvement over its own baseline."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot
from typing import Any

from sqzlab.analysis.arms import Arm, Group
from sqzlab.analysis.captions import describe_records, describe_tests
from sqzlab.analysis.caveats import Marks, texts
from sqzlab.analysis.published import (
    VAL_IMAGES,
    PublishedRow,
    System,
    accuracy_error,
    difference_error,
    sampling,
    systems,
)
from sqzlab.analysis.records import Records
from sqzlab.analysis.tables import Column, Entry, Section, Table, points
from sqzlab.catalog import BACKBONES
from sqzlab.run import CONFIG


@dataclass(frozen=True)
class Ours:
    """What an arm of ours is, as far as it is known."""

    arm: Arm
    values: Mapping[str, Any]  # dotted keys
    imagenet: bool

    @property
    def backbone(self) -> str:
        return str(self.values.get("model.backbone"))

    def is_network(self, system: System) -> bool:
        """Whether the arm is the published network: all that its variant says agrees, and nothing else differs.

        On ImageNet at full size. Elsewhere networks are shrunk, so that their size and a reduction that the study
        does not vary may differ. What was merely done otherwise, such as biases, must agree where the study varies it.
        """
        if self.contradicts(system) or any(key not in self.values for key in self._keys(system)):
            return False
        return not self.imagenet or all(self.values.get(key) in valid for key, valid in FULL_SIZE.items())

    @property
    def asked(self) -> Hashable:
        """All that `contradicts` asks of the arm."""
        return (
            self.imagenet,
            *(self.values.get(key, UNKNOWN) for key in ASKED),
            *(key in self.arm.cell for key in ASKED),
        )

    def contradicts(self, system: System) -> bool:
        """Whether something that is known of the arm already makes it another network."""
        if self.values.get("model.backbone") != system.backbone:
            return True
        known = [key for key in self._keys(system) if key in self.values]
        return any(self.values[key] != system.settings.get(key, UNKNOWN) for key in known)

    def _keys(self, system: System) -> list[str]:
        """What must agree."""
        keys = [key for key in ALWAYS if key in system.settings]
        if not self.imagenet and "model.reduction" not in {*self.arm.cell, *system.says}:
            keys = [key for key in keys if key != "model.reduction"]
        if BACKBONES[system.backbone].block == "basic":  # for C of 256 and more both rules give the same width
            keys += [key for key in ("model.width_rule",) if key in system.settings]
        return keys + [key for key in WHERE_VARIED if key in self.arm.cell]

    def differs(self, system: System) -> str:
        """What was done otherwise there, in words, or "": what is not known of either network is no difference."""
        both = [key for key in ("model.fc_bias", "model.stride", "model.zero_init_gamma") if key in system.settings]
        told = [
            OTHERWISE[key, system.settings[key]]
            for key in both
            if self.imagenet and self.values.get(key) not in (None, system.settings[key])
        ]
        return ", ".join(told)


def beside_table(records: Records, groups: Sequence[Group], rows: Sequence[PublishedRow]) -> Table | None:
    """arm | ours | improved | published by | Top-1 | improved | difference; None where nothing published matches.

    The difference is our improvement minus theirs, where both are of ImageNet and both baselines the same network,
    made alike as far as both are known. Its spread is a standard error.
    """
    known: dict[str, list[System]] = {}
    possible: dict[Hashable, list[System]] = {}
    for system in systems(rows):
        known.setdefault(system.backbone, []).append(system)
    marks, sections, data, shown, unread = Marks(), [], [], [], []
    for group in groups:
        base = None if group.baseline is None else with_config(records, of_records(group.baseline))
        lines = []
        for arm in group.arms:
            ours = of_records(arm)
            if (candidates := possible.get(ours.asked)) is None:  # mostly those of another arm
                candidates = [one for one in known.get(ours.backbone, ()) if not ours.contradicts(one)]
                possible[ours.asked] = candidates
            if not candidates:
                continue  # its config.json need not be read: thousands of them take seconds
            ours = with_config(records, ours)
            found = [system for system in candidates if arm.n and ours.is_network(system)]
            for system in found:
                line, row = _line(group, ours, base, system, marks)
                lines.append(line)
                data.append(row)
                shown.append((ours, system))
            if not arm.n or ("model.width" not in ours.values and not found):
                unread.append(f"{group.title} {arm.label}")
        if lines:
            sections.append(Section(group.title, tuple(lines)))
    if not sections:
        return None
    columns = (
        *(Column("arm", False), Column("ours Top-1 %"), Column("improved %p")),
        *(Column("published by", False), Column("Top-1 %"), Column("improved %p"), Column("ours − theirs %p")),
    )
    return Table(
        "published", _caption(records, groups, shown, unread), columns, tuple(sections), tuple(data), marks.notes
    )


def of_records(arm: Arm) -> Ours:
    """What the records tell of an arm, and its cell."""
    values: dict[str, Any] = {}
    for column, key in COLUMNS.items():
        found = {one[column] for one in arm.done} - {None}
        values |= {key: found.pop()} if len(found) == 1 else {}
    return Ours(arm, values | dict(arm.cell), bool(arm.done) and all(_is_imagenet(one) for one in arm.done))


def with_config(records: Records, ours: Ours) -> Ours:
    """The same with what the config.json of one of its runs adds, where that can be read."""
    run_id = (ours.arm.done or ours.arm.rows)[0]["run_id"]
    model = records.model(run_id)
    values = {} if model is None else {f"model.{key}": value for key, value in model.model_dump().items()}
    if ours.values.get("model.squeeze") == "GCT":
        values["train.decay_norm_and_bias"] = _decays(records, run_id)
    return replace(ours, values={**values, **ours.values})


def _line(
    group: Group, ours: Ours, base: Ours | None, system: System, marks: Marks
) -> tuple[tuple[Entry, ...], dict[str, Any]]:
    """One line of the table, and its data."""
    arm, theirs = ours.arm, system.baseline
    mean, sd, improved = arm.mean("top1"), arm.sd("top1"), group.improved(arm)
    compared = None if arm is group.baseline else group.compared(arm)
    separated = compared is not None and bool(compared.separated)
    same_baseline = base is not None and theirs is not None and base.is_network(theirs)
    published = system.improved
    if theirs is not None and theirs.backbone != system.backbone and not same_baseline:
        published = None  # two networks: says nothing, but to who compares the same two
    comparable = same_baseline and ours.imagenet and base is not None and base.imagenet
    base_differs = base.differs(theirs) if comparable and base is not None and theirs is not None else ""
    apart = improved - published if comparable and improved is not None and published is not None else None
    difference = None if base_differs else apart
    error = None if published is None or theirs is None else difference_error(system.top1, theirs.top1)
    own_error = _times_100(None if compared is None else compared.standard_error) or None  # 0: no spread was seen
    joint_error = None if difference is None or own_error is None or error is None else hypot(own_error, error)
    differs = ours.differs(system)
    level = marks.of([*texts(system.notes, "level"), *([f"unlike ours: {differs}"] if differs else [])])
    gained = marks.of(texts(system.notes, "improved"))
    forbids = base_differs and apart is not None
    why_blank = marks.of([f"no difference: their baseline is unlike ours: {base_differs}"] if forbids else [])
    entries = (
        *(Entry(arm.label), Entry(f"{mean:.2f}", "n/a" if sd is None else f"{sd:.2f}", value=mean)),
        Entry("") if arm is group.baseline else points(improved, bold=separated),
        *(Entry(system.label, marks=level), Entry(f"{system.top1:.2f}", value=system.top1)),
        Entry("", marks=gained) if published is None else points(published, gained),
        Entry("", marks=why_blank) if difference is None else _difference(difference, joint_error),
    )
    row = {
        **{"group": group.title, "arm": arm.label, "n": arm.n, "ours_imagenet": ours.imagenet},
        **{"ours_top1_percent": mean, "ours_sd_points": sd, "ours_improved_points": improved},
        "ours_improved_standard_error_points": own_error,
        "ours_separated": None if compared is None else compared.separated,
        **{"published_by": system.label, "source": system.rows[0].source},
        "tables": "; ".join(dict.fromkeys(row.table for row in system.rows)),
        **{"backbone": system.rows[0].backbone, "variant": system.rows[0].variant},
        **{"top1_percent": round(system.top1, 3), "top1_standard_error_points": accuracy_error(system.top1)},
        "top5_percent": None if system.top5 is None else round(system.top5, 3),
        **{"improved_points": published, "improved_standard_error_points": error},
        **{"difference_points": difference, "difference_standard_error_points": joint_error},
        **{"gflops": system.printed("gflops"), "params_m": system.printed("params_m")},
        **{"differs": differs, "baseline_differs": base_differs, "caveats": "; ".join(system.notes)},
    }
    return entries, row


def _caption(
    records: Records, groups: Sequence[Group], shown: Sequence[tuple[Ours, System]], unread: Sequence[str]
) -> str:
    names = {str(one["data"]) for ours, _ in shown if not ours.imagenet for one in ours.arm.done}
    elsewhere = sorted("a part of ImageNet" if name == "imagenet" else name for name in names)
    told = (
        "Ours beside published numbers of the same network, ImageNet-1k. Each improvement is over the same source's "
        "own baseline; blank where it has none of the same training, or is one. "
    )
    if elsewhere:
        told += (
            f"Ours are of {' and '.join(elsewhere)}, a different data set, and the published ones of networks at full "
            "width: neither levels nor improvements are comparable, and no difference is taken. "
        )
    if any(ours.imagenet for ours, _ in shown):
        told += (
            "Last column: our improvement minus theirs, blank unless both baselines are the same network, made alike "
            "as far as the source says how; other recipes are still other recipes. ± there: its standard error, ours "
            "over seeds (n/a without a spread), theirs from the choice of images alone, without the luck of the "
            "published run's seed. "
        )
    if unread:
        more = f" and {len(unread) - MOST:,} more" if len(unread) > MOST else ""
        told += f"Left out, without a finished run or a readable {CONFIG}: {', '.join(unread[:MOST])}{more}. "
    told += f"{sampling([system.top1 for _, system in shown])} "
    return told + describe_tests(groups, worse="the improvement") + describe_records(records)


def _difference(difference: float, error: float | None) -> Entry:
    return points(difference)._replace(spread="n/a" if error is None else f"{error:.2f}")


def _is_imagenet(row: Mapping[str, Any]) -> bool:
    return all(row[key] == count for key, count in IMAGENET.items())


def _decays(records: Records, run_id: str) -> bool | None:
    """Whether weight decay acts on parameters of one dimension, such as GCT's beta; None where that is not known."""
    try:
        found = json.loads((records.folder / run_id / CONFIG).read_bytes())["config"]["train"]["decay_norm_and_bias"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return found if isinstance(found, bool) else None


def _times_100(value: float | None) -> float | None:
    return None if value is None else 100 * value


MOST = 6
UNKNOWN = object()  # equals no value
ALWAYS = (
    *("model.squeeze", "model.reduction", "model.gate", "model.placement", "model.stages"),
    "train.decay_norm_and_bias",
)
"""What makes the network, and the one key of the training that a published variant names."""
WHERE_VARIED = ("model.fc_bias", "model.width_rule", "model.stride", "model.zero_init_gamma", "train.recipe")
ASKED = ("model.backbone", *ALWAYS, *WHERE_VARIED)
FULL_SIZE = {"model.width": (1.0,), "model.image_size": (224,), "model.stem": ("imagenet", "caffe")}
IMAGENET = {"classes": 1000, "train_images": 1_281_167, "val_images": VAL_IMAGES}
COLUMNS = {
    **{"backbone": "model.backbone", "squeeze": "model.squeeze", "reduction": "model.reduction"},
    **{"fc_bias": "model.fc_bias", "recipe": "train.recipe"},
}
OTHERWISE = {
    ("model.fc_bias", True): "biases in the excitation",
    ("model.fc_bias", False): "no biases in the excitation",
    ("model.stride", "v1"): "the stride in the first 1x1 convolution",
    ("model.stride", "v1.5"): "the stride in the 3x3 convolution",
    ("model.zero_init_gamma", True): "the last BatchNorm's gamma starts at 0",
    ("model.zero_init_gamma", False): "the last BatchNorm's gamma starts at 1",
}
