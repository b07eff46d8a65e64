import json
import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from outcome_studies import BITS, N, analysed, rows, shown
from scipy import stats
from statsmodels.stats import contingency_tables
from statsmodels.stats.multitest import multipletests

from sqzlab.analysis.arms import group_arms
from sqzlab.analysis.outcomes import read_outcomes
from sqzlab.analysis.paired import pair_with_baseline
from sqzlab.analysis.records import read_study

Study = Callable[..., Path]
LEFT_OUT = "left out of the per-image estimates"


def test_differences_on_new_images_are_those_of_plain_loops(study: Study) -> None:
    table = rows(analysed(study(BITS))[0]["images"])
    assert [row["arm"] for row in table] == ["gap", "SP", "std"]
    for row in table:
        own, reference = BITS[row["arm"]], BITS["baseline"]
        by_image = [
            sum(map(int, own[:, i])) / len(own) - sum(map(int, reference[:, i])) / len(reference) for i in range(N)
        ]
        error = math.sqrt(statistics.variance(by_image) / N)
        difference = statistics.fmean(by_image)
        assert float(row["difference"]) == pytest.approx(difference, abs=1e-12)
        assert float(row["standard_error"]) == pytest.approx(error, rel=1e-9)
        assert float(row["high"]) - float(row["low"]) == pytest.approx(2 * stats.norm.ppf(0.975) * error, rel=1e-9)
        assert float(row["p_new_images"]) == pytest.approx(2 * stats.norm.sf(abs(difference) / error), rel=1e-9)
        assert float(row["seed_part"]) + float(row["image_part"]) == pytest.approx(error**2, rel=1e-9)
        assert (int(row["runs"]), int(row["baseline_runs"]), int(row["images"])) == (len(own), 3, N)


def test_the_two_checkpoints_are_those_of_the_first_common_seed(study: Study) -> None:
    for row in rows(analysed(study(BITS))[0]["images"]):
        own, reference = BITS[row["arm"]][0], BITS["baseline"][0]
        table = [[np.sum(own & reference), np.sum(own & ~reference)], [np.sum(~own & reference), 0]]
        assert (row["seed"], row["baseline_seed"]) == ("0", "0")
        assert [int(row["only_arm"]), int(row["only_baseline"])] == [table[0][1], table[1][0]]
        expected = contingency_tables.mcnemar(table, exact=True).pvalue
        assert float(row["p_checkpoints"]) == pytest.approx(expected, rel=1e-9)


def test_without_a_common_seed_the_first_runs_make_the_pair_and_both_seeds_are_named(study: Study) -> None:
    folder = study({name: BITS[name] for name in ("baseline", "gap")})
    for start in ("resnet18-baseline-s0", "resnet18-gap-s1", "resnet18-gap-s2"):
        next(folder.glob(f"{start}*/metrics.json")).unlink()
    tables, _ = analysed(folder)
    assert (rows(tables["images"])[0]["seed"], rows(tables["images"])[0]["baseline_seed"]) == ("0", "1")
    assert shown(tables["images"])["gap"][7] == "0, 1"
    assert "where they have none, the first run of each: both seeds are given" in dict(tables["images"].notes)["c"]


@pytest.mark.parametrize("correction", ["dunnett", "holm", "none"])
def test_p_values_are_adjusted_for_the_groups_arms(study: Study, correction: str) -> None:
    table = rows(analysed(study(BITS), correction)[0]["images"])
    for key in ("p_new_images", "p_checkpoints"):
        single = [float(row[key]) for row in table]
        expected = single if correction == "none" else multipletests(single, method="holm")[1]
        assert [float(row[f"{key}_adjusted"]) for row in table] == pytest.approx(list(expected), rel=1e-9)


def test_beside_them_stands_the_main_tables_p(study: Study) -> None:
    folder = study({"baseline": BITS["baseline"], "gap": BITS["gap"], "std": BITS["std"]})
    tops = [BITS[name].mean(axis=1) for name in ("gap", "std", "baseline")]
    expected = stats.dunnett(*tops[:2], control=tops[2], rng=np.random.default_rng(0)).pvalue
    table = rows(analysed(folder)[0]["images"])
    assert [float(row["p_other_seeds_adjusted"]) for row in table] == pytest.approx(list(expected), abs=2e-3)


def test_each_p_is_labelled_with_the_question_that_it_answers(study: Study) -> None:
    table = analysed(study(BITS))[0]["images"]
    notes = dict(table.notes)
    assert [column.title for column in table.columns if "p " in column.title and "[" in column.title] == [
        "p other seeds [a]",
        "p new images [b]",
        "p these two [c]",
    ]
    assert notes["a"].startswith("Would other seeds of these arms differ on these images? Student's t")
    assert notes["b"].startswith("Would they differ on new images of the same kind, with other seeds? Paired over")
    assert notes["c"].startswith("Do these two checkpoints differ on images like these? McNemar's")


def test_an_arm_without_outcomes_keeps_its_row(study: Study) -> None:
    folder = study(BITS)
    for path in folder.glob("resnet18-SP-*/correct.npz"):
        path.unlink()
    tables, warnings = analysed(folder)
    assert shown(tables["images"])["SP"][:5] == ["n/a"] * 5
    assert shown(tables["images"])["SP"][5] == shown(analysed(study(BITS, "whole"))[0]["images"])["SP"][5]
    assert warnings == (f"correct.npz absent (2 runs, such as {warnings[0].split()[6][:-2]}): {LEFT_OUT}",)


def test_without_any_outcomes_there_is_no_table_of_them(study: Study) -> None:
    folder = study(BITS)
    for path in folder.glob("*/correct.npz"):
        path.unlink()
    tables, warnings = analysed(folder)
    assert list(tables) == ["precision", "more_seeds"]
    assert len(warnings) == 1
    assert "no arm has two runs with usable outcomes" in str(shown(tables["precision"]))


def test_one_run_an_arm_still_has_its_checkpoints_and_new_images(study: Study) -> None:
    tables, warnings = analysed(study({name: bits[:1] for name, bits in BITS.items()}))
    assert list(tables) == ["images", "precision"]
    row = shown(tables["images"])["gap"]
    assert row[0] == "1 + 1"
    assert row[4:6] == ["n/a", "n/a"]  # no shares, and nothing about other seeds on these images
    assert "n/a" not in [*row[1:4], *row[6:]]
    assert "with one run an arm nothing here can test that" in dict(tables["images"].notes)["b"]
    assert [entries[0] for entries in shown(tables["precision"]).values()] == ["n/a"] * 4
    assert warnings == ()


def test_arms_that_are_right_on_the_same_images_have_no_interval(study: Study) -> None:
    same = np.tile(BITS["baseline"][0], (2, 1))
    row = shown(analysed(study({"baseline": same, "gap": same}))[0]["images"])["gap"]
    assert row[1:5] == ["0.00", "0.00", "n/a", "n/a"]
    assert row[6] == "n/a"
    assert row[8:] == ["0 : 0", ">0.999"]


@pytest.mark.parametrize(("images", "told"), [(9, False), (10, True)])
def test_few_images_that_tell_two_arms_apart_make_no_p(study: Study, images: int, told: bool) -> None:
    of_baseline = np.arange(N)[None] < np.full((2, 1), 500)
    apart = np.arange(N)[None] < np.full((2, 1), 500 + images)
    far = np.arange(N)[None] < np.full((2, 1), 590)
    table = analysed(study({"baseline": of_baseline, "gap": apart, "SP": far}))[0]["images"]
    row = shown(table)["gap"]
    assert [row[i] == "n/a" for i in (3, 6)] == [not told] * 2
    assert row[2] != "n/a"
    assert "n/a where fewer than 10 images tell the arms apart" in table.caption
    by_arm = {one["arm"]: one for one in rows(table)}
    assert float(by_arm["SP"]["p_new_images_adjusted"]) == pytest.approx(2 * float(by_arm["SP"]["p_new_images"]))


def test_a_share_of_the_images_that_would_be_negative_is_marked(study: Study) -> None:
    rng = np.random.default_rng(0)
    bits = {name: rng.random((2, N)) < 0.5 for name in ("baseline", *"abcdefgh")}
    bits = dict(zip(("baseline", "gap", "SP", "std", "gmp", "RG", "random"), bits.values(), strict=False))
    table = analysed(study(bits))[0]["images"]
    of = {row["arm"]: float(row["image_part"]) for row in rows(table)}
    assert sum(part == 0 for part in of.values()) > 0
    for arm, part in of.items():
        assert (shown(table)[arm][4] == "≈ 100 : 0") == (part == 0)


def test_arms_of_one_name_are_not_paired_with_each_others_images(study: Study) -> None:
    records = read_study(study({name: BITS[name] for name in ("baseline", "gap", "SP")}))
    (group,) = group_arms(records)
    twins = replace(group, arms=tuple(replace(arm, label="twin") for arm in group.arms))
    twins = replace(twins, baseline=twins.arms[0])
    outcomes, _ = read_outcomes(records.folder, twins.arms)
    found = pair_with_baseline(twins, outcomes)
    for arm in twins.arms[1:]:
        bits = BITS[str(arm.rows[0]["squeeze"])]
        expected = bits.mean() - BITS["baseline"].mean()
        assert found[id(arm)].new_images.difference == pytest.approx(expected)


def test_of_a_huge_study_the_first_runs_of_each_arm_are_read_and_it_says_so(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqzlab.analysis.precision.MOST_RUNS", 8)
    table = analysed(study(BITS))[0]["images"]
    assert [entries[0] for entries in shown(table).values()] == ["2 + 2"] * 3
    assert "Of arms with more than 2 runs the first 2 are read." in table.caption


def test_unequal_orders_are_not_paired_and_told(study: Study, store: Callable[..., None]) -> None:
    folder = study(BITS)
    for path in folder.glob("resnet18-gap-*"):
        store(path, BITS["gap"][0], BITS["gap"][0], order="f" * 64)
        metrics = json.loads((path / "metrics.json").read_text()) | {"top1": float(BITS["gap"][0].mean())}
        (path / "metrics.json").write_text(json.dumps(metrics))
    tables, warnings = analysed(folder)
    assert shown(tables["images"])["gap"][0] == "n/a"
    assert any("in another order, than most of the group's (unpaired) (3 runs" in told for told in warnings)
