import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqzlab.analysis.arms import Arm, Group, group_arms
from sqzlab.analysis.beside import Ours, beside_table
from sqzlab.analysis.published import PublishedRow, System, accuracy_error, difference_error, read_published, systems
from sqzlab.analysis.records import Records, read_study
from sqzlab.analysis.tables import Table
from sqzlab.analysis.writers import WRITERS, to_csv, to_html
from sqzlab.resolving import model_config

MakeStudy = Callable[..., Path]
ROWS = read_published(Path(__file__).parents[2] / "results" / "published.csv")
SYSTEMS = systems(ROWS)
COUNTS = {"data": "imagenet", "classes": 1000, "train_images": 1_281_167, "val_images": 50_000}
FULL_SIZE = {"model.stem": "imagenet", "model.width": 1.0, "model.image_size": 224, "model.num_classes": 1000}
STRIDE_FIRST, GAMMA_1 = {"stride": "v1"}, {"zero_init_gamma": False}
ON_IMAGENET: dict[str, Any] = {"config": FULL_SIZE, **COUNTS}
"""What a full study on ImageNet writes otherwise than the small one of `make_study`."""


def compared(folder: Path, rows: Sequence[PublishedRow] = ROWS) -> Table:
    records = read_study(folder)
    table = beside_table(records, group_arms(records), rows)
    assert table is not None
    return table


def lines(table: Table) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Data by arm and source."""
    found = {(row["arm"], row["published_by"]): row for row in table.data}
    assert len(found) == len(table.data)
    return found


def set_top1(folder: Path, levels: Mapping[str, Sequence[float]]) -> Path:
    """Gives the runs of each squeeze these accuracies, in the order of their names."""
    for squeeze, values in levels.items():
        paths = sorted(folder.glob(f"*-{squeeze}-s*/metrics.json"))
        for path, top1 in zip(paths, values, strict=True):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"top1": top1, "top5": (1 + top1) / 2}))
    return folder


def as_ours(system: System, **other: Any) -> Ours:
    """The published network as an arm on ImageNet that no study varies, with other values for some keys."""
    given = {key.removeprefix("model."): value for key, value in system.settings.items() if key.startswith("model.")}
    model = model_config(backbone=system.backbone, **given).model_dump()
    values = {f"model.{key}": value for key, value in model.items()}
    training = {key: value for key, value in system.settings.items() if not key.startswith("model.")}
    changed = {f"model.{key}": value for key, value in other.items()}
    return Ours(Arm("it", {}, ()), values | training | changed, imagenet=True)


def named(system: System) -> str:
    return f"{system.label} {system.rows[0].backbone} {system.rows[0].variant}"


# ---- which rows an arm matches -----------------------------------------------------------------


@pytest.mark.parametrize("system", SYSTEMS, ids=named)
def test_every_published_network_that_is_no_exception_can_be_made_and_matches(system: System) -> None:
    assert as_ours(system).is_network(system)


@pytest.mark.parametrize(
    "other",
    [
        {"backbone": "resnet101"},
        {"squeeze": "gmp"},
        {"reduction": 8},
        {"gate": "tanh"},
        {"placement": "pre"},
        {"stages": "conv2"},
        {"width": 0.5},
        {"image_size": 160},
        {"stem": "small"},
    ],
    ids=str,
)
def test_an_arm_that_differs_in_one_thing_is_another_network(other: Mapping[str, Any]) -> None:
    (system,) = (one for one in SYSTEMS if named(one) == "SENet, tables 10 to 16 ResNet-50 SE r=16")
    assert not as_ours(system, **other).is_network(system)


@pytest.mark.parametrize("key", ["reduction", "gate", "placement", "stages", "width", "image_size", "stem"])
def test_what_is_not_known_of_an_arm_is_not_taken_to_agree(key: str) -> None:
    (system,) = (one for one in SYSTEMS if named(one) == "SP/RG ResNet-50 SE")
    ours = as_ours(system)
    known = {name: value for name, value in ours.values.items() if name != f"model.{key}"}
    assert not Ours(ours.arm, known, imagenet=True).is_network(system)


def test_the_width_rule_matters_only_where_it_changes_the_width() -> None:
    basic, bottleneck = (
        next(one for one in SYSTEMS if one.backbone == backbone and one.squeeze == "gap")
        for backbone in ("resnet18", "resnet50")
    )
    assert not as_ours(basic, width_rule="divisible8").is_network(basic)
    assert as_ours(bottleneck, width_rule="divisible8").is_network(bottleneck)


@pytest.mark.parametrize(("decay", "labels"), [(True, {"GCT"}), (False, set()), (None, set())])
def test_gct_is_compared_only_with_the_row_of_its_weight_decay(
    make_study: MakeStudy, decay: bool | None, labels: set[str]
) -> None:
    config = FULL_SIZE if decay is None else FULL_SIZE | {"train.decay_norm_and_bias": decay}
    matrix = {"model.backbone": ["resnet50"], "model.squeeze": ["baseline", "GCT"]}
    table = compared(make_study(matrix=matrix, seeds=[0], **COUNTS, config=config))
    assert {label for arm, label in lines(table) if arm == "GCT"} == labels


@pytest.mark.parametrize(
    ("axis", "values", "expected"),
    [
        ("reduction", [2, 4, 8, 16, 32], {f"reduction {r}": f"SE r={r}" for r in (2, 4, 8, 16, 32)}),
        ("gate", ["relu", "tanh"], {"gate relu": "excitation=ReLU", "gate tanh": "excitation=Tanh"}),
        (
            "stages",
            ["conv2", "conv3", "conv4", "conv5"],
            {"stages conv2": "SE Stage 2", "stages conv3": "SE Stage 3", "stages conv4": "SE Stage 4"},
        ),
        (
            "placement",
            ["pre", "post", "identity", "3x3"],
            {
                **{"placement pre": "SE-PRE", "placement post": "SE-POST"},
                **{"placement identity": "SE-Identity", "placement 3x3": "SE 3x3"},
            },
        ),
    ],
)
def test_each_arm_of_a_sweep_stands_beside_its_own_row_of_senets_ablations(
    make_study: MakeStudy, axis: str, values: list[Any], expected: dict[str, str]
) -> None:
    matrix = {"model.backbone": ["resnet50"], "model.squeeze": ["gap"], f"model.{axis}": values}
    table = compared(make_study(matrix=matrix, seeds=[0], **ON_IMAGENET))
    ablations = {
        row["arm"].removeprefix("gap, "): row["variant"] for row in table.data if "senet_ablation" in row["caveats"]
    }
    assert ablations == expected


def test_where_the_study_varies_the_recipe_an_arm_stands_beside_its_own_source_alone(make_study: MakeStudy) -> None:
    recipes = ["ssenet", "senet2018", "senet270", "sprg", "srm", "moskomule", "mmpretrain", "mmpretrain101", "fcanet"]
    matrix = {"model.backbone": ["resnet50"], "model.squeeze": ["gap"], "train.recipe": recipes}
    table = compared(make_study(matrix=matrix, seeds=[0], **ON_IMAGENET, baseline={"train.recipe": "sprg"}))
    assert {(row["arm"].rpartition("recipe ")[2], row["published_by"]) for row in table.data} == {
        ("senet2018", "SENet, table 2"),
        ("senet270", "SENet, footnote 2"),
        ("sprg", "SP/RG"),
        ("srm", "SRM"),
        ("moskomule", "moskomule"),
        ("mmpretrain", "mmpretrain"),
    }
    assert {row["difference_points"] for row in table.data} == {None}  # our baseline is an SE network here


def test_where_the_study_varies_the_biases_they_must_agree(make_study: MakeStudy) -> None:
    matrix = {"model.backbone": ["resnet50"], "model.squeeze": ["gap"], "model.fc_bias": [False, True]}
    found = lines(compared(make_study(matrix=matrix, seeds=[0], **ON_IMAGENET)))
    assert {arm for arm, label in found if label == "SP/RG"} == {"gap, fc_bias true"}
    assert {arm for arm, label in found if label == "SENet, tables 10 to 16"} == {"gap, fc_bias false"}
    assert not [arm for arm, label in found if label == "SENet, table 2"]  # which does not say


# ---- differences -------------------------------------------------------------------------------


@pytest.fixture
def resnet50(make_study: MakeStudy) -> Table:
    return of_resnet50(make_study)


def of_resnet50(make_study: MakeStudy, **made: Any) -> Table:
    """Five arms of three seeds, their blocks and initial values made so."""
    squeezes = ["baseline", "gap", "gmp", "RG", "ECA"]
    matrix = {"model.backbone": ["resnet50"], "model.squeeze": squeezes}
    config = FULL_SIZE | {f"model.{key}": value for key, value in made.items()}
    folder = make_study(matrix=matrix, seeds=(0, 1, 2), **COUNTS, config=config)
    levels = {"baseline": (0.759, 0.76, 0.761), "gap": (0.772, 0.773, 0.774), "gmp": (0.7595, 0.7605, 0.7615)}
    levels |= {"RG": (0.778, 0.779, 0.78), "ECA": (0.749, 0.75, 0.751)}
    return compared(set_top1(folder, levels))


@pytest.mark.parametrize(
    ("arm", "label", "ours", "theirs", "made"),
    [
        ("gap", "SP/RG", 1.30, 24.48 - 23.21, GAMMA_1),
        ("gap", "SENet, table 2", 1.30, 24.80 - 23.29, STRIDE_FIRST),
        ("gap", "SENet, tables 10 to 16", 1.30, 23.30 - 22.28, STRIDE_FIRST),
        ("gap", "SRM", 1.30, 24.11 - 23.20, GAMMA_1),
        ("gmp", "SENet, table 11", 0.05, 23.30 - 22.57, STRIDE_FIRST),
        ("RG", "SP/RG", 1.90, 24.48 - 22.27, GAMMA_1),
        ("ECA", "ECA-Net, table 3", -1.00, 24.80 - 22.52, {}),
    ],
)
def test_the_difference_is_our_improvement_minus_theirs(
    make_study: MakeStudy, arm: str, label: str, ours: float, theirs: float, made: Mapping[str, Any]
) -> None:
    row = lines(of_resnet50(make_study, **made))[arm, label]
    assert row["ours_improved_points"] == pytest.approx(ours, abs=1e-9)
    assert row["improved_points"] == pytest.approx(theirs, abs=1e-9)
    assert row["difference_points"] == pytest.approx(ours - theirs, abs=1e-9)


@pytest.mark.parametrize(
    ("label", "unlike"),
    [
        ("SP/RG", "the last BatchNorm's gamma starts at 1"),
        ("SENet, table 2", "the stride in the first 1x1 convolution"),
    ],
)
def test_over_baselines_that_are_made_otherwise_there_is_a_footnote_and_no_difference(
    resnet50: Table, label: str, unlike: str
) -> None:
    row = lines(resnet50)["gap", label]
    assert row["ours_improved_points"] is not None
    assert row["improved_points"] is not None
    assert row["difference_points"] is row["difference_standard_error_points"] is None
    assert row["baseline_differs"] == unlike
    (line,) = (line for line in resnet50.sections[0].rows if (line[0].text, line[3].text) == ("gap", label))
    assert line[6].text == ""
    assert dict(resnet50.notes)[line[6].marks] == f"no difference: their baseline is unlike ours: {unlike}"


def test_the_error_of_a_difference_has_our_seeds_and_their_images(resnet50: Table) -> None:
    row = lines(resnet50)["ECA", "ECA-Net, table 3"]
    ours = np.sqrt(np.mean([0.1**2] * 5) * (1 / 3 + 1 / 3))  # three seeds an arm, all with an sd of 0.1 points
    theirs = np.sqrt(sum(share * (1 - share) / 50_000 for share in (0.7520, 0.7748))) * 100
    assert row["difference_standard_error_points"] == pytest.approx(np.hypot(ours, theirs), abs=1e-3)
    (line,) = (
        line for line in resnet50.sections[0].rows if (line[0].text, line[3].text) == ("ECA", "ECA-Net, table 3")
    )
    assert line[6].spread == f"{np.hypot(ours, theirs):.2f}"
    assert "without the luck of the published run's seed" in resnet50.caption


@pytest.mark.parametrize("levels", [[(0.76,), (0.773,)], [(0.76, 0.76), (0.773, 0.773)]], ids=["one", "all alike"])
def test_a_difference_of_seeds_without_spread_has_no_error(make_study: MakeStudy, levels: Any) -> None:
    matrix = {"model.backbone": ["resnet50"], "model.squeeze": ["baseline", "ECA"]}
    folder = make_study(matrix=matrix, seeds=range(len(levels[0])), **ON_IMAGENET)
    table = compared(set_top1(folder, dict(zip(matrix["model.squeeze"], levels, strict=True))))
    row = lines(table)["ECA", "ECA-Net, table 3"]
    assert row["difference_points"] == pytest.approx(1.3 - (24.80 - 22.52), abs=1e-9)
    assert row["difference_standard_error_points"] is None
    assert {line[6].spread for line in table.sections[0].rows if line[6].text} == {"n/a"}


@pytest.mark.parametrize("label", ["SENet README, table 1", "timm, legacy_seresnet50", "moskomule", "mmpretrain"])
def test_a_source_without_an_own_baseline_has_its_level_and_a_footnote_instead(resnet50: Table, label: str) -> None:
    row = lines(resnet50)["gap", label]
    assert row["top1_percent"] > 77
    assert row["improved_points"] is row["difference_points"] is None
    (line,) = (line for line in resnet50.sections[0].rows if (line[0].text, line[3].text) == ("gap", label))
    assert line[5].text == line[6].text == ""
    assert dict(resnet50.notes)[line[5].marks].startswith(("no improvement", "140 epochs"))


def test_errors_of_chance_are_those_of_the_rows_and_the_caption_has_their_range(resnet50: Table) -> None:
    row = lines(resnet50)["gap", "SP/RG"]
    assert row["top1_standard_error_points"] == pytest.approx(accuracy_error(76.79))
    assert row["improved_standard_error_points"] == pytest.approx(difference_error(76.79, 75.52))
    errors = [accuracy_error(row["top1_percent"]) for row in resnet50.data]
    assert f"{min(errors):.2f} to {max(errors):.2f} points" in resnet50.caption


def test_only_an_improvement_that_is_separated_is_bold(resnet50: Table) -> None:
    bold = {line[0].text: {entry.bold for entry in line[2:3]} for line in resnet50.sections[0].rows}
    assert bold == {"baseline": {False}, "gap": {True}, "gmp": {False}, "RG": {True}, "ECA": {True}}
    assert not [entry for line in resnet50.sections[0].rows for i, entry in enumerate(line) if entry.bold and i != 2]


def test_every_footnote_is_used_and_printed_once(resnet50: Table) -> None:
    used = {mark for line in resnet50.sections[0].rows for entry in line for mark in entry.marks.split(",") if mark}
    assert used == {mark for mark, _ in resnet50.notes}
    assert len({text for _, text in resnet50.notes}) == len(resnet50.notes)
    assert not [text for _, text in resnet50.notes if "GFLOPs" in text]  # of which none are shown


def test_what_was_done_otherwise_there_is_a_footnote(resnet50: Table) -> None:
    found = lines(resnet50)
    gamma = "the last BatchNorm's gamma starts at 1"
    assert found["gap", "SP/RG"]["differs"] == f"biases in the excitation, {gamma}"
    assert found["baseline", "SP/RG"]["differs"] == gamma
    assert found["gap", "SENet, table 2"]["differs"] == "the stride in the first 1x1 convolution"
    assert found["baseline", "mmpretrain"]["differs"] == ""
    assert f"unlike ours: {gamma}" in dict(resnet50.notes).values()


def test_without_spread_nothing_is_bold_but_the_difference_stays(make_study: MakeStudy) -> None:
    matrix = {"model.backbone": ["resnet50"], "model.squeeze": ["baseline", "gap"]}
    folder = make_study(matrix=matrix, seeds=[0], **COUNTS, config=FULL_SIZE | {"model.zero_init_gamma": False})
    table = compared(set_top1(folder, {"baseline": [0.76], "gap": [0.773]}))
    assert lines(table)["gap", "SP/RG"]["difference_points"] == pytest.approx(0.03, abs=1e-9)
    assert not [entry for line in table.sections[0].rows for entry in line if entry.bold]


def test_without_a_finished_baseline_there_is_no_difference(make_study: MakeStudy) -> None:
    matrix = {"model.backbone": ["resnet50"], "model.squeeze": ["baseline", "gap"]}
    table = compared(make_study(matrix=matrix, states={"resnet50-baseline": "missing"}, **ON_IMAGENET))
    row = lines(table)["gap", "SP/RG"]
    assert row["ours_improved_points"] is row["difference_points"] is None
    assert row["improved_points"] == pytest.approx(1.27)
    assert "Left out, without a finished run or a readable config.json: resnet50 baseline." in table.caption


# ---- the mislabelled ResNet-50 -----------------------------------------------------------------


def test_mislabelled_arms_stand_beside_the_network_that_was_built_without_an_improvement(
    make_study: MakeStudy,
) -> None:
    matrix = {"model.backbone": ["resnet34", "resnet50"], "model.squeeze": ["baseline", "gap"]}
    table = compared(make_study(matrix=matrix, seeds=[0], **ON_IMAGENET))
    ssenet = [row for row in table.data if row["published_by"] == "SsENet.PyTorch"]
    assert [(row["group"], row["arm"], row["variant"]) for row in ssenet] == [
        ("resnet34", "gap", "gap"),
        ("resnet50", "baseline", "baseline"),
    ]
    assert ssenet[0]["improved_points"] is ssenet[0]["difference_points"] is None
    assert any(text.startswith("labelled ResNet-50") for _, text in table.notes)


def test_against_a_real_resnet50_the_mislabelled_arms_have_the_improvement_of_their_table(
    make_study: MakeStudy,
) -> None:
    matrix = {"model.backbone": ["resnet34", "resnet50"], "model.squeeze": ["baseline", "gap"]}
    folder = set_top1(
        make_study(matrix=matrix, seeds=[0], **ON_IMAGENET), {"baseline": (0.73, 0.76), "gap": (0.74, 0.77)}
    )
    records = read_study(folder)
    arms = {(arm.cell["model.backbone"], arm.label): arm for group in group_arms(records) for arm in group.arms}
    base, gap = arms["resnet50", "baseline"], arms["resnet34", "gap"]
    table = beside_table(records, [Group("as it was", {}, (base, gap), base)], ROWS)
    assert table is not None
    row = lines(table)["gap", "SsENet.PyTorch"]
    assert row["improved_points"] == pytest.approx(-0.82)
    assert row["difference_points"] == pytest.approx(-2 + 0.82)


# ---- other data --------------------------------------------------------------------------------


def test_on_another_data_set_no_difference_is_taken_and_the_caption_says_why(make_study: MakeStudy) -> None:
    table = compared(make_study(config={"model.reduction": 4}))
    assert {row["difference_points"] for row in table.data} == {None}
    assert {arm for arm, label in lines(table) if label == "SsENet.PyTorch"} == {
        *("baseline", "gap", "gmp", "std", "gapXstd", "random")
    }
    assert "neither levels nor improvements are comparable" in table.caption
    assert "digits" in table.caption
    assert not [text for _, text in table.notes if text.startswith("unlike ours")]


def test_on_another_data_set_an_arm_with_a_varied_reduction_matches_that_reduction_alone(
    make_study: MakeStudy,
) -> None:
    matrix = {"model.backbone": ["resnet18"], "model.squeeze": ["gap"], "model.reduction": [4, 16]}
    assert {arm for arm, _ in lines(compared(make_study(matrix=matrix)))} == {"gap, reduction 16"}


@pytest.mark.parametrize("other", [{"val_images": 10_000}, {"train_images": 100_000}, {"classes": 100}], ids=str)
def test_a_part_of_imagenet_is_not_imagenet(make_study: MakeStudy, other: Mapping[str, int]) -> None:
    table = compared(make_study(**{**ON_IMAGENET, **other}))
    assert {row["ours_imagenet"] for row in table.data} == {False}
    assert {row["difference_points"] for row in table.data} == {None}


def test_imagenet_at_full_size_is_comparable_whatever_the_form_of_its_files(make_study: MakeStudy) -> None:
    table = compared(make_study(**{**ON_IMAGENET, "data": "imagelist"}))
    assert {row["ours_imagenet"] for row in table.data} == {True}
    assert "neither levels nor improvements" not in table.caption
    assert lines(table)["gap", "SsENet.PyTorch"]["difference_points"] is not None


# ---- what is not there -------------------------------------------------------------------------


def analysed(folder: Path) -> tuple[Records, tuple[Group, ...]]:
    records = read_study(folder)
    return records, group_arms(records)


def test_a_backbone_that_nobody_published_has_no_table(make_study: MakeStudy) -> None:
    folder = make_study(matrix={"model.backbone": ["other"], "model.squeeze": ["baseline", "gap"]})
    assert beside_table(*analysed(folder), ROWS) is None


def test_without_published_rows_there_is_no_table(make_study: MakeStudy) -> None:
    assert beside_table(*analysed(make_study(seeds=[0])), ()) is None


def test_an_arm_whose_configuration_cannot_be_read_is_named(make_study: MakeStudy) -> None:
    folder = make_study(seeds=[0], **ON_IMAGENET)
    (path,) = folder.glob("resnet18-gap-s0-*/config.json")
    path.write_text("{")
    table = compared(folder)
    assert not [arm for arm, _ in lines(table) if arm == "gap"]
    assert "Left out, without a finished run or a readable config.json: resnet18 gap." in table.caption


# ---- output ------------------------------------------------------------------------------------


def test_every_form_of_the_table_is_written_and_csv_has_full_precision(resnet50: Table) -> None:
    for write in (*WRITERS.values(), to_html):
        assert "SENet, tables 10 to 16" in write(resnet50)
    back = list(csv.DictReader(io.StringIO(to_csv(resnet50))))
    assert len(back) == len(resnet50.data)
    for row, original in zip(back, resnet50.data, strict=True):
        value = original["difference_points"]
        assert row["difference_points"] == ("" if value is None else repr(value))


def test_equal_records_give_equal_tables(make_study: MakeStudy) -> None:
    folder = make_study(**ON_IMAGENET)
    assert compared(folder) == compared(folder)
