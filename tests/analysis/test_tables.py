import csv
import io
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqzlab.analysis.arms import Group, group_arms
from sqzlab.analysis.records import Records, read_study
from sqzlab.analysis.tables import Column, Entry, Section, Table, error_table, squeeze_table
from sqzlab.analysis.writers import to_csv, to_html, to_latex, to_markdown

MakeStudy = Callable[..., Path]


def analysed(folder: Path) -> tuple[Records, tuple[Group, ...]]:
    records = read_study(folder)
    return records, group_arms(records)


def metrics(folder: Path, start: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"{start}-s*/metrics.json"))]


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
    shown = next(row for row in squeeze_table(records, groups).sections[0].rows if row[0].text == "gap")
    assert shown[3].text == f"{100 * (means['gap'] - means['baseline']):+.2f}"


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
    shown = {row[0].text: row[3].text for row in table.sections[0].rows}
    assert len({shown["baseline"], shown["gap"], shown["SP"], shown["RG"]}) == 4


ODD = Table(
    "odd",
    "50 % of a_b & c^2",
    (Column("name", False), Column("value")),
    (Section("a|b <i>", ((Entry("x_1|y"), Entry("1.00", "0.50")), (Entry("$&#"), Entry("−2.00", marks="a")))),),
    ({"name": 'x "1",\n', "value": 0.1 + 0.2},),
    (("a", "a < b"),),
)


def test_markdown_escapes_and_aligns() -> None:
    lines = to_markdown(ODD).splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    assert len({len(line) for line in rows}) == 1
    assert r"x\_1\|y" in rows[2]
    assert rows[1].endswith(":|") or rows[1].endswith(": |")


def test_latex_escapes_and_splits_numbers_at_the_plus_minus_sign() -> None:
    text = to_latex(ODD)
    for part in (r"50 \% of a\_b \& c\textasciicircum{}2", r"\$\&\#", r"r@{ $\pm$ }l", "1.00 & 0.50", r"$-$2.00"):
        assert part in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert body[0].count("&") == 1  # the title spans both halves
    assert body[2].replace(r"\&", "").count("&") == 2


def test_csv_keeps_every_digit() -> None:
    (row,) = csv_rows(ODD)
    assert float(row["value"]) == 0.1 + 0.2
    assert row["name"] == 'x "1",\n'


def test_html_escapes() -> None:
    text = to_html(ODD)
    assert "<i>" not in text
    assert "a|b &lt;i&gt;" in text
    assert "<sup>a</sup>" in text
