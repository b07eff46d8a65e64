import csv
import io
import json
import shutil
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from sqzlab.analysis.arms import Group, group_arms
from sqzlab.analysis.records import Records, read_study
from sqzlab.analysis.tables import Entry, Table, error_table, full_table, probability, squeeze_table
from sqzlab.analysis.writers import to_csv

MakeStudy = Callable[..., Path]


def analysed(folder: Path, correction: str = "dunnett") -> tuple[Records, tuple[Group, ...]]:
    records = read_study(folder)
    return records, group_arms(records, correction)


def metrics(folder: Path, start: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"{start}-s*/metrics.json"))]


def set_top1(folder: Path, **accuracies: Sequence[float]) -> Path:
    """Gives the seeds of arms these accuracies."""
    for arm, values in accuracies.items():
        for path, value in zip(sorted(folder.glob(f"resnet18-{arm}-s*/metrics.json")), values, strict=True):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"top1": value}))
    return folder


def repeat_run(folder: Path, start: str) -> Path:
    """A second run of the same seed of the same arm."""
    (own,) = folder.glob(f"{start}*")
    twin = own.with_name(f"{start}zz")
    shutil.copytree(own, twin)
    values = json.loads((twin / "metrics.json").read_text()) | {"run_id": twin.name, "top1": 0.5, "top5": 0.6}
    (twin / "metrics.json").write_text(json.dumps(values))
    return twin


def shown(table: Table, arm: str) -> dict[str, Entry]:
    (row,) = [row for section in table.sections for row in section.rows if row[0].text == arm]
    return dict(zip([column.title for column in table.columns], row, strict=True))


def csv_rows(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(table))))


def test_means_and_spreads_are_those_of_the_statistics_module(make_study: MakeStudy) -> None:
    folder = make_study(seeds=(0, 1, 2))
    rows = csv_rows(squeeze_table(*analysed(folder)))
    assert len(rows) == 8
    for row in rows:
        top1 = [values["top1"] for values in metrics(folder, f"resnet18-{row['arm']}")]
        assert float(row["top1_mean"]) == pytest.approx(statistics.mean(top1), abs=1e-12)
        assert float(row["top1_sd"]) == pytest.approx(statistics.stdev(top1), abs=1e-12)
        assert row["n"] == "3"


def test_improvement_is_the_difference_of_the_means_in_percentage_points(make_study: MakeStudy) -> None:
    folder = make_study()
    records, groups = analysed(folder)
    means = {
        name: statistics.mean(values["top1"] for values in metrics(folder, f"resnet18-{name}"))
        for name in ("baseline", "gap")
    }
    gap = next(arm for arm in groups[0].arms if arm.label == "gap")
    assert groups[0].improved(gap) == pytest.approx(100 * (means["gap"] - means["baseline"]))
    improved = next(row for row in squeeze_table(records, groups).sections[0].rows if row[0].text == "gap")
    assert improved[3].text == f"{100 * (means['gap'] - means['baseline']):+.2f}"


def test_errors_are_what_accuracies_leave(make_study: MakeStudy) -> None:
    records, groups = analysed(make_study())
    accuracies, errors = squeeze_table(records, groups), error_table(records, groups)
    for accuracy, error in zip(accuracies.sections[0].rows, errors.sections[0].rows, strict=True):
        assert float(accuracy[1].text) + float(error[1].text) == pytest.approx(100, abs=0.011)
        assert accuracy[1].spread == error[1].spread


def test_one_seed_has_no_spread_rather_than_zero(make_study: MakeStudy) -> None:
    table = squeeze_table(*analysed(make_study(seeds=[0])))
    assert {row[1].spread for row in table.sections[0].rows} == {"n/a"}
    assert {row["top1_sd"] for row in csv_rows(table)} == {""}


@pytest.mark.parametrize("state", ["failed", "missing"])
def test_every_cell_without_a_result_is_shown(make_study: MakeStudy, state: str) -> None:
    table = squeeze_table(*analysed(make_study(states={"resnet18-gap": state, "resnet18-std-s1": state})))
    rows = {row[0].text: row for row in table.sections[0].rows}
    assert len(rows) == 8
    assert rows["gap"][1].text == state
    assert rows["gap"][3].text == "n/a"
    assert rows["gap"][4].text == "0"
    assert rows["std"][1].spread == "n/a"
    assert rows["std"][4].text == f"1 (1 of 2 {state})"


def test_without_a_finished_baseline_there_is_no_improvement(make_study: MakeStudy) -> None:
    table = squeeze_table(*analysed(make_study(states={"resnet18-baseline": "failed"})))
    assert [row[3].text for row in table.sections[0].rows] == ["", *["n/a"] * 7]


def test_each_backbone_has_a_baseline_of_its_own(make_study: MakeStudy) -> None:
    matrix = {"model.backbone": ["resnet18", "resnet34"], "model.squeeze": ["gap", "baseline"]}
    _, groups = analysed(make_study(matrix=matrix))
    assert [group.title for group in groups] == ["resnet18", "resnet34"]
    for group in groups:
        assert [arm.label for arm in group.arms] == ["baseline", "gap"]
        assert group.baseline is group.arms[0]
        assert group.backbone == group.title


def test_axes_that_the_baseline_does_not_have_are_ignored_when_it_is_looked_up(make_study: MakeStudy) -> None:
    matrix = {"model.squeeze": ["baseline", "gap"], "model.reduction": [8, 16], "train.lr": [0.1, 0.2]}
    _, groups = analysed(make_study(matrix=matrix))
    assert [group.title for group in groups] == ["lr 0.1", "lr 0.2"]
    for group in groups:
        assert [arm.label for arm in group.arms] == ["baseline", "gap, reduction 8", "gap, reduction 16"]
        assert all(group.improved(arm) is not None for arm in group.arms[1:])


def test_a_study_without_a_baseline_still_has_its_table(make_study: MakeStudy) -> None:
    table = squeeze_table(
        *analysed(make_study(matrix={"model.backbone": ["resnet18"], "model.squeeze": ["gap", "SP"]}))
    )
    assert [row[3].text for row in table.sections[0].rows] == ["n/a", "n/a"]


def test_the_caption_names_all_that_a_reader_must_know(make_study: MakeStudy) -> None:
    caption = squeeze_table(*analysed(make_study())).caption
    for part in ("last epoch (8 epochs)", "sample standard deviation", "digits", "1,200", "597", "cpu", "0123456789"):
        assert part in caption


def test_gflops_of_arms_that_differ_are_told_apart(make_study: MakeStudy) -> None:
    table = error_table(*analysed(make_study()))
    gflops = {row[0].text: row[3].text for row in table.sections[0].rows}
    assert len({gflops["baseline"], gflops["gap"], gflops["SP"], gflops["RG"]}) == 4


SPREAD = {"baseline": (0.79, 0.8, 0.81), "gap": (0.89, 0.9, 0.91), "gmp": (0.69, 0.7, 0.71), "std": (0.79, 0.81, 0.81)}
FOUR = {"model.backbone": ["resnet18"], "model.squeeze": list(SPREAD)}


@pytest.fixture
def spread(make_study: MakeStudy) -> Path:
    """gap is better, gmp worse, std as good as the baseline."""
    return set_top1(make_study(matrix=FOUR, seeds=(0, 1, 2)), **SPREAD)


@pytest.mark.parametrize(
    ("make", "better", "worse"),
    [
        (squeeze_table, {"Top-1 %", "improved %p"}, {"improved %p"}),
        (error_table, {"Top-1 err %"}, set()),
        (full_table, {"Top-1 %", "diff. %p"}, {"diff. %p"}),
    ],
)
def test_only_what_is_separated_is_bold(
    spread: Path, make: Callable[..., Table], better: set[str], worse: set[str]
) -> None:
    table = make(*analysed(spread))
    bold = {arm: {title for title, entry in shown(table, arm).items() if entry.bold} for arm in SPREAD}
    assert bold == {"baseline": set(), "gap": better, "gmp": worse, "std": set()}
    assert f"where the arm is worse, {'only the difference' if worse else 'nothing'}." in table.caption


def test_every_number_has_the_value_it_is_rounded_from(spread: Path) -> None:
    for entry in (entry for row in full_table(*analysed(spread)).sections[0].rows for entry in row):
        assert (entry.value is None) == (not entry.text[:1].isdigit() and entry.text[:1] not in ("+", "−", "<", ">"))
    gap = shown(full_table(*analysed(spread)), "gap")
    assert gap["diff. %p"].value == pytest.approx(10)
    assert gap["n"].value == 3


def test_the_full_table_has_interval_and_p_of_scipys_tests(spread: Path) -> None:
    std = shown(full_table(*analysed(spread, "none")), "std")
    row = next(row for row in csv_rows(full_table(*analysed(spread, "none"))) if row["arm"] == "std")
    spreads = [statistics.variance(values) for values in SPREAD.values()]
    error = (statistics.mean(spreads) * 2 / 3) ** 0.5
    difference, half = statistics.mean(SPREAD["std"]) - 0.8, float(stats.t.ppf(0.975, 8)) * error
    assert (float(row["low"]), float(row["high"])) == pytest.approx((difference - half, difference + half))
    assert float(row["p"]) == pytest.approx(2 * stats.t.sf(difference / error, 8))
    assert str(std["95 % interval"]) == f"−{100 * (half - difference):.2f} to +{100 * (difference + half):.2f}"
    assert std["p"].text == f"{float(row['p']):.3f}"


def test_a_p_value_is_never_shown_as_zero_or_one(spread: Path) -> None:
    table = full_table(*analysed(set_top1(spread, std=SPREAD["baseline"])))
    assert shown(table, "gap")["p"].text == "<0.001"
    assert shown(table, "std")["p"].text == ">0.999"


def test_a_difference_that_rounds_to_zero_has_no_sign(spread: Path) -> None:
    table = squeeze_table(*analysed(set_top1(spread, std=(0.78999, 0.8, 0.81))))
    assert shown(table, "std")["improved %p"].text == "0.00"


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"squeeze": "gap"}, ("floor C/16", "no", "standard")),
        ({"squeeze": "gap", "reduction": 4, "fc_bias": True}, ("floor C/4", "yes", "standard")),
        ({"squeeze": "gap", "width_rule": "divisible8", "placement": "pre"}, ("divisible8 C/16", "no", "pre")),
        ({"squeeze": "gap", "stages": "conv5"}, ("floor C/16", "no", "standard, conv5")),
        ({"squeeze": "of another version"}, ("C/16", "no", "n/a")),
    ],
)
def test_what_an_arms_blocks_are_like_is_read_from_a_run(
    make_study: MakeStudy, model: dict[str, Any], told: tuple[str, ...]
) -> None:
    folder = make_study(matrix=FOUR)
    for path in folder.glob("resnet18-gap-s*/config.json"):
        whole = {"backbone": "resnet18", "stem": "small", "num_classes": 10, "image_size": 32, **model}
        path.write_text(json.dumps({"config": {"model": whole}}))
    row = shown(full_table(*analysed(folder)), "gap")
    assert tuple(row[title].text for title in ("width rule", "bias", "placement")) == told


def test_blocks_are_blank_for_the_baseline_and_unknown_where_no_run_began(make_study: MakeStudy) -> None:
    table = full_table(*analysed(make_study(matrix=FOUR, states={"resnet18-gap": "missing"})))
    for arm, text in (("baseline", ""), ("gap", "n/a")):
        assert {shown(table, arm)[title].text for title in ("width rule", "bias", "placement")} == {text}
    assert {shown(table, "baseline")[title].text for title in ("diff. %p", "95 % interval", "p")} == {""}


def test_what_a_squeeze_does_not_have_is_blank_even_where_no_run_began(make_study: MakeStudy) -> None:
    folder = make_study(matrix={"model.squeeze": ["baseline", "ECA"]}, states={"resnet18-ECA": "missing"})
    row = shown(full_table(*analysed(folder)), "ECA")
    assert [row[title].text for title in ("width rule", "bias", "placement")] == ["", "", "n/a"]


def test_an_axis_tells_of_the_blocks_of_an_arm_that_never_ran(make_study: MakeStudy) -> None:
    matrix = {"model.squeeze": ["baseline", "gap"], "model.reduction": [8], "model.fc_bias": [True]}
    table = full_table(*analysed(make_study(matrix=matrix, states={"resnet18-gap": "missing"})))
    row = shown(table, "gap, reduction 8, fc_bias true")
    assert (row["width rule"].text, row["bias"].text) == ("C/8", "yes")


def test_one_seed_claims_nothing_about_other_seeds(make_study: MakeStudy) -> None:
    table = full_table(*analysed(make_study(seeds=[0])))
    assert shown(table, "gap")["95 % interval"].text == shown(table, "gap")["p"].text == "n/a"
    assert shown(table, "gap")["diff. %p"].text not in ("", "n/a")
    assert "n = 1 seed an arm. One checkpoint each" in table.caption
    assert "says nothing about other seeds" in table.caption
    assert "Bold" not in table.caption


def test_seeds_that_agree_exactly_make_no_p_value(make_study: MakeStudy) -> None:
    folder = make_study(matrix=FOUR, seeds=(0, 1))
    table = full_table(*analysed(set_top1(folder, **{arm: [values[0]] * 2 for arm, values in SPREAD.items()})))
    assert shown(table, "gap")["p"].text == "n/a"
    assert "All seeds of an arm agree exactly (resnet18)" in table.caption


@pytest.mark.parametrize(
    ("correction", "told"),
    [
        ("dunnett", "adjusted for 3 arms by Dunnett's many-to-one test"),
        ("holm", "adjusted for 3 arms by Holm's method"),
        ("none", "not adjusted for 3 arms"),
    ],
)
def test_the_caption_names_test_correction_and_level(spread: Path, correction: str, told: str) -> None:
    for make in (squeeze_table, error_table, full_table):
        caption = make(*analysed(spread, correction)).caption
        for part in ("n = 3 seeds an arm", "Student's t", "df 8", "two-sided p < 0.05", told, "fp32"):
            assert part in caption
    assert "Interval: 95 %, of each difference by itself" in full_table(*analysed(spread)).caption


def test_the_caption_of_backbones_of_different_completeness_gives_ranges(make_study: MakeStudy) -> None:
    matrix = {"model.backbone": ["resnet18", "resnet34"], "model.squeeze": list(SPREAD)}
    states = {"resnet34-gap": "failed", "resnet34-std-s1": "failed"}
    caption = squeeze_table(*analysed(make_study(matrix=matrix, states=states))).caption
    for part in (
        "n = 0 to 2 seeds an arm, over finished runs (3 of 16 failed or missing)",
        "df 2 to 4",
        "adjusted for the 2 to 3 arms of a section, not across sections, by Dunnett's",
    ):
        assert part in caption


def test_one_arm_is_not_said_to_be_adjusted(make_study: MakeStudy) -> None:
    caption = full_table(*analysed(make_study(matrix={"model.squeeze": ["baseline", "gap"]}))).caption
    assert "one arm, nothing to adjust" in caption
    assert "Dunnett" not in caption


def test_the_caption_tells_the_arms_own_spread_from_the_pooled_one(spread: Path) -> None:
    caption = full_table(*analysed(spread)).caption
    pooled = statistics.mean(statistics.variance(values) for values in SPREAD.values()) ** 0.5
    assert f"the variance pooled over the arms, sd {100 * pooled:.2f} points, df 8" in caption
    assert "± is the arm's own sample standard deviation" in caption


def test_the_caption_says_that_runs_of_one_seed_begin_alike(spread: Path) -> None:
    assert "share initial weights and data order but are tested as independent" in full_table(*analysed(spread)).caption


def test_the_caption_of_an_incomplete_study_counts_the_arms_without_a_run(make_study: MakeStudy) -> None:
    caption = squeeze_table(*analysed(make_study(seeds=[0], states={"resnet18-gmp": "missing"}))).caption
    assert "n = 0 to 1 seed an arm, over finished runs (1 of 8 failed or missing)." in caption


@pytest.mark.parametrize("make", [squeeze_table, full_table])
def test_without_a_baseline_the_caption_promises_no_difference(
    make_study: MakeStudy, make: Callable[..., Table]
) -> None:
    caption = make(*analysed(make_study(states={"resnet18-baseline": "failed"}))).caption
    assert "No finished baseline in resnet18: no difference. " in caption
    assert "over the baseline" not in caption
    assert "from the baseline" not in caption


@pytest.mark.parametrize(("epochs", "told"), [(1, "(1 epoch)"), (8, "(8 epochs)")])
def test_epochs_are_counted_in_english(make_study: MakeStudy, epochs: int, told: str) -> None:
    assert told in squeeze_table(*analysed(make_study(epochs=epochs))).caption


def test_runs_on_a_cpu_are_named_beside_those_on_gpus(make_study: MakeStudy) -> None:
    folder = make_study()
    for path in folder.glob("resnet18-gap-*/metrics.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"device": "cuda", "gpu": "H200"}))
    assert "Device: H200 and cpu, fp32" in squeeze_table(*analysed(folder)).caption


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (None, "n/a"),
        (0.0004, "<0.001"),
        (0.0404, "0.040"),
        (0.0497, "0.0497"),
        (0.049996, "0.049996"),
        (0.0502, "0.0502"),
        (0.05, "0.050"),
        (0.9999, ">0.999"),
    ],
)
def test_a_p_beside_the_level_shows_on_which_side_it_lies(p: float | None, text: str) -> None:
    assert probability(p).text == text


def test_a_seed_that_is_there_twice_counts_once(make_study: MakeStudy) -> None:
    folder = make_study(matrix=FOUR, seeds=(0, 1))
    before = csv_rows(full_table(*analysed(folder)))
    (folder / "plan.json").unlink()
    twin = repeat_run(folder, "resnet18-gap-s0-")
    assert json.loads((twin / "metrics.json").read_text())["seed"] == 0
    after = csv_rows(full_table(*analysed(folder)))
    for one, other in zip(sorted(before, key=str), sorted(after, key=str), strict=True):
        assert {**one, "planned": ""} == {**other, "planned": ""}


@pytest.mark.parametrize("squeezes", [["baseline", "gap"], ["gap"]])
def test_what_only_the_whole_names_of_axes_tell_apart_has_those(make_study: MakeStudy, squeezes: list[str]) -> None:
    folder = make_study(matrix={"model.squeeze": squeezes, "data.decay": [1, 2], "train.decay": [1, 2]})
    plan = json.loads((folder / "plan.json").read_text())
    for run in plan["runs"]:  # each arm has one of the two axes
        del run["cell"]["data.decay" if run["cell"]["train.decay"] == 1 else "train.decay"]
    (folder / "plan.json").write_text(json.dumps(plan))
    _, groups = analysed(folder)
    if len(squeezes) > 1:
        assert [group.title for group in groups] == ["train.decay 1", "data.decay 1", "decay 2"]
    else:
        assert [arm.label for arm in groups[0].arms] == ["gap, train.decay 1", "gap, data.decay 1", "gap, decay 2"]


def test_csv_of_every_table_comes_from_one_frame(spread: Path) -> None:
    records, groups = analysed(spread)
    squeeze, error, full = (csv_rows(make(records, groups)) for make in (squeeze_table, error_table, full_table))
    assert squeeze == error
    assert [{key: row[key] for key in squeeze[0]} for row in full] == squeeze
    assert float(squeeze[1]["difference"]) == pytest.approx(0.1, abs=1e-15)
    assert squeeze[0]["difference"] == ""
