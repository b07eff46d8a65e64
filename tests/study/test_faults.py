"""What a faulty study is answered with: every fault at once, each with its place, its key and what is valid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sqzlab.catalog import SQUEEZES
from sqzlab.errors import ConfigError
from sqzlab.study.study import load_study

Faults = Callable[..., list[str]]

VALID = """\
matrix:
  model.backbone: [resnet18, resnet50]
  model.squeeze: [baseline, gap]
seeds: [0, 1]
baseline: {model.squeeze: baseline}
defaults:
  data.name: digits
  train.recipe: digits
  model.stem: small
"""


def test_every_fault_of_a_file_is_told_at_once_in_the_order_of_the_file(faults: Faults) -> None:
    told = faults(
        """\
        matrix:
          model.backbone: [resnet18, resnte50]
          model.squeeze: [baseline, gapp]
          model.squeze: [gap]
        seeds: [0, 0]
        baseline: {model.squeeze: none}
        defaults:
          model: {fc_bias: off, zero_init_gamma: no}
          data.name: digits
          train: {recipe: digits, lr: 8:00:00, epochs: 1e1, batch_size: 0x, momentum: 1}
        slurm: {partition: gpu, memory: 32}
        colour: red
        """
    )
    assert [line.partition("; ")[0].removeprefix("s.yaml:") for line in told] == [
        "2:30: model.backbone: unknown name 'resnte50'",
        "3:29: model.squeeze: unknown name 'gapp'",
        "4:3: model.squeze: unknown key",
        "5:12: seeds: 0 repeats",
        "8:20: model.fc_bias: 'off' is text",
        "8:42: model.zero_init_gamma: 'no' is text",
        "10:31: train.lr: '8:00:00' is text",
        "10:48: train.epochs: 10.0 is a number",
        "10:65: train.batch_size: '0x' is text",
        "10:79: train.momentum: 1 is out of range",
        "11:9: slurm.partition: unknown key",
        "11:33: slurm.memory: 32",
        "12:1: colour: unknown key",
    ]
    assert told[1].endswith(f"did you mean 'gap'? valid: {', '.join(SQUEEZES)}")
    assert "did you mean 'model.squeeze'? valid: model.backbone, model.squeeze, " in told[2]
    assert told[4].endswith("write true or false")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("resnet18, resnet50", "resnet18, resnet18"), "2:30: model.backbone: 'resnet18' repeats a value of this axis"),
        (
            ("[resnet18, resnet50]", "resnet18"),
            "2:19: model.backbone: 'resnet18' is no axis; valid: a list of one or more",
        ),
        (("[resnet18, resnet50]", "[]"), "2:19: model.backbone: [] is no axis; valid: a list of one or more values"),
        (
            ("[resnet18, resnet50]", "[resnet18, [resnet50]]"),
            "2:30: model.backbone: ['resnet50'] is a list; valid: one value",
        ),
        (("seeds: [0, 1]", "seeds: 3"), "4:8: seeds: 3; valid: a list of whole numbers"),
        (("seeds: [0, 1]", "seeds: [-1, 0]"), "4:9: seeds: -1 is no seed; valid: whole numbers from 0 to 2147483647"),
        (("seeds: [0, 1]", "seeds: [true]"), "4:9: seeds: True is no seed"),
        (("seeds: [0, 1]\n", ""), "1:1: seeds: is missing; valid: a list of whole numbers"),
        (
            ("squeeze: baseline}", "squeeze: SP}"),
            "5:27: baseline: no arm has model.squeeze=SP; valid: values of an arm",
        ),
        (
            ("{model.squeeze: b", "{model.stem: b"),
            "5:12: baseline: model.stem is no axis; valid: model.backbone, model.squeeze",
        ),
        (("  data.name: digits\n", ""), "1:1: data.name: is missing; valid: digits, imagenet,"),
        (("recipe: digits", "recipe: digit"), "8:17: train.recipe: unknown name 'digit'; did you mean 'digits'?"),
        (("data.name: digits", "data.name: {a: 1}"), "7:14: data.name: is a mapping; valid: one value"),
        (("data.name: digits", "data: digits"), "7:3: data: is a section; write its keys below it; valid: data.name"),
        (("  model.stem: small", "  stem: small"), "9:3: stem: unknown key; did you mean 'model.stem'?"),
        (("  model.stem: small", "  data.classes: 3"), "9:3: data.classes: comes from the data set and cannot be set"),
        (
            ("  model.stem: small", "  seed: 3"),
            "9:3: seed: does not stand here; valid: the key seeds beside the matrix",
        ),
        (
            ("  model.stem: small", "  data.root: x"),
            "9:14: data.root: applies to no run: does not apply to the data set",
        ),
        (
            ("  model.stem: small", "  model.squeeze: gap"),
            "9:18: model.squeeze: applies to no run, as the matrix or every",
        ),
        (("  model.stem: small", "  model: {stem: small}\n  model.stem: small"), "10:3: model.stem: repeated key"),
        (
            ("model.stem: small", "model.width: 0.1"),
            "9:16: model.width: 0.1 makes 64 * width = 6.4, which is not whole",
        ),
        (("model.stem: small", "data.image_size: 7"), "9:20: data.image_size: 7 is out of range; valid: at least 8"),
        (
            ("  model.stem: small", "  train.milestones: [a]\n  train.schedule: step"),
            "9:21: train.milestones: 'a' is text",
        ),
        (
            ("seeds:", "exclude: [{model.squeeze: SP}]\nseeds:"),
            "4:11: exclude: matches nothing: no combination has model.sq",
        ),
        (("seeds:", "exclude: [{model.stem: small}]\nseeds:"), "4:11: exclude: matches nothing: model.stem is no axis"),
        (("seeds:", "exclude: [{}]\nseeds:"), "4:11: exclude: is empty; valid: a mapping"),
        (("seeds:", "exclude: {model.squeeze: SP}\nseeds:"), "4:10: exclude: is not a list; valid: a list of mappings"),
        (
            ("seeds:", "include: [{model.squeeze: baseline, model.reduction: 4}]\nseeds:"),
            "4:54: model.reduction: does not app",
        ),
        (("seeds:", "include: [{model.squeeze: SP}]\nseeds:"), "4:27: model.backbone: is missing; valid: resnet18,"),
        (("seeds:", "name: a/b\nseeds:"), "4:7: name: 'a/b' is not safe as a folder's name"),
        (("seeds:", "name: -rf\nseeds:"), "4:7: name: '-rf' is not safe as a folder's name"),
        (("seeds:", "name: 3\nseeds:"), "4:7: name: 3 is not safe as a folder's name"),
        (("seeds:", "profiles: {../a: {}}\nseeds:"), "4:12: profiles: '../a' is not safe as a folder's name"),
        (
            ("seeds:", "profiles: {a: {profiles: {}}}\nseeds:"),
            "4:16: profiles.a.profiles: unknown key; valid: matrix, exclude",
        ),
        (
            ("seeds:", "profiles: {a: {defaults: {train.lr: x}}}\nseeds:"),
            "4:37: train.lr: 'x' is text; valid: a number",
        ),
        (("seeds:", "profiles: [a]\nseeds:"), "4:11: profiles: ['a'] is not a mapping"),
        (
            ("[baseline, gap]", "[baseline, gap]\n  data.workers: [1, 2]"),
            "4:3: data.workers: changes no result and so is no axis",
        ),
        (("seeds:", "include: [{train.lr: 016}]\nseeds:"), "4:22: train.lr: '016' is octal in YAML 1.1"),
    ],
)
def test_one_fault_gives_one_line(faults: Faults, change: tuple[str, str], line: str) -> None:
    assert change[0] in VALID
    (told,) = faults(VALID.replace(*change, 1))
    assert told.startswith(f"s.yaml:{line}")


def test_a_valid_study_has_no_faults(faults: Faults) -> None:
    assert faults(VALID) == []


def test_an_axis_that_does_not_apply_to_an_arm_is_a_fault_at_each_of_its_values(faults: Faults) -> None:
    told = faults(VALID.replace("seeds", "  model.reduction: [4, 8]\nseeds"))
    assert [line[: line.index("; it applies")] for line in told] == [
        "s.yaml:4:21: model.reduction: does not apply to squeeze 'baseline'",
        "s.yaml:4:24: model.reduction: does not apply to squeeze 'baseline'",
    ]
    assert all(line.endswith("exclude this combination") for line in told)


def test_a_squeeze_that_is_not_defined_on_the_maps_is_told_once_for_all_backbones(faults: Faults) -> None:
    (told,) = faults(VALID.replace("[baseline, gap]", "[baseline, gap, SP]").replace("stem: small", "stem: imagenet"))
    assert told.startswith("s.yaml:7:14: data.image_size: 32 with the imagenet stem gives maps of 8x8, 4x4, 2x2, 1x1: ")


def test_arms_that_are_the_same_run_are_a_fault(faults: Faults) -> None:
    (told,) = faults(
        VALID.replace("seeds", "  train.lr: [0.1, null]\nseeds").replace("[0, 1]", "[5]").replace("null", "1.0e-1")
    )
    assert told.startswith("s.yaml:4:19: train.lr: 0.1 repeats a value of this axis")
    (told,) = faults(
        VALID + "include:\n  - {model.backbone: resnet34}\n  - {model.backbone: resnet34, model.squeeze: baseline}"
    )
    assert told == (
        "s.yaml:12:47: matrix: model.backbone=resnet34, model.squeeze=baseline is the same run as "
        "model.backbone=resnet34, model.squeeze=baseline; remove one"
    )


def test_a_fault_of_another_profile_is_told_too_and_says_whose_it_is(faults: Faults) -> None:
    text = VALID.replace("model.stem: small", "model.stem: small\n  train.batch_size: 2000")
    text = text.replace("seeds: [0, 1]\n", "") + "profiles:\n"
    text += "  one: {seeds: [4], defaults: {train.batch_size: 32}}\n"
    text += "  two: {seeds: [4]}\n"
    text += "  three: {seeds: [4], defaults: {train.batch_size: 32, train.lr: 0}}\n"
    assert faults(text, "one") == [
        "s.yaml:9:21: train.batch_size: 2000 is more than the 1347 training images (profile 'two')",
        "s.yaml:13:66: train.lr: 0 is out of range; valid: above 0.0",
    ]


def test_an_exclude_or_default_that_another_profile_uses_is_no_fault(faults: Faults) -> None:
    text = VALID + "  model.reduction: 8\nexclude: [{model.backbone: resnet50, model.squeeze: gap}]\n"
    text += "profiles:\n  narrow: {matrix: {model.backbone: [resnet18]}}\n"
    text += "  plain: {matrix: {model.squeeze: [baseline]}, exclude: []}\n"
    for profile in (None, "narrow", "plain"):
        assert faults(text, profile) == []


def test_an_unknown_profile_names_the_valid_ones(faults: Faults) -> None:
    text = VALID + "profiles: {imagenet: , laptop: }"
    assert faults(text, "labtop") == [
        "s.yaml: profile: unknown profile 'labtop'; did you mean 'laptop'? valid: imagenet, laptop"
    ]
    assert faults(VALID, "laptop") == ["s.yaml: profile: unknown profile 'laptop'; the file has no profiles"]


def test_a_study_of_too_many_runs_is_refused_at_once(faults: Faults) -> None:
    many = VALID.replace("[0, 1]", str(list(range(30_000))))
    assert faults(many) == ["s.yaml:2:3: matrix: makes 120,000 runs with its seeds; valid: at most 100,000"]
    axis = str(list(range(1, 20_001)))
    items = "".join(f"  - {{train.epochs: {n}}}\n" for n in range(3, 2003))
    (told,) = faults(VALID.replace("seeds: [0, 1]", f"  train.epochs: {axis}\nseeds: [0]") + "exclude:\n" + items)
    assert "has 80,000 combinations and 2,000 elements of exclude and include" in told


def test_an_unsafe_file_name_asks_for_a_name(tmp_path: Path) -> None:
    path = tmp_path / "my study.yaml"
    path.write_text(VALID)
    with pytest.raises(
        ConfigError, match="name: 'my study' is not safe as a folder's name; rename the file or give a name"
    ):
        load_study(path)
    path.write_text(VALID + "name: my_study")
    assert load_study(path).name == "my_study"
