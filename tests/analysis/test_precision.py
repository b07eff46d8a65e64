import json
import math
import re
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from outcome_studies import BITS, N, analysed, exactly, luck, rows, shown
from scipy import stats
from statsmodels.stats.power import TTestIndPower

from sqzlab.analysis.arms import group_arms
from sqzlab.analysis.cli import main
from sqzlab.analysis.explain import explain_arm, explain_pair
from sqzlab.analysis.more_seeds import MoreSeeds, more_seeds
from sqzlab.analysis.records import read_study
from sqzlab.analysis.writers import to_csv, to_html, to_latex, to_markdown
from sqzlab.errors import ConfigError

Study = Callable[..., Path]


# ---- precision ---------------------------------------------------------------------------------


def test_the_spread_over_seeds_is_estimated_twice(study: Study) -> None:
    (row,) = rows(analysed(study(BITS))[0]["precision"])
    tops = [bits.mean(axis=1) for bits in BITS.values()]
    squares, df = sum(((top - top.mean()) ** 2).sum() for top in tops), sum(len(top) - 1 for top in tops)
    assert (float(row["sd"]), int(row["df"])) == (pytest.approx(math.sqrt(squares / df)), df)
    assert float(row["low"]) == pytest.approx(math.sqrt(squares / stats.chi2.ppf(0.975, df)))
    assert float(row["high"]) == pytest.approx(math.sqrt(squares / stats.chi2.ppf(0.025, df)))
    spread = 0.0
    for bits in BITS.values():
        for i in range(N):
            spread += (len(bits) - 1) / df * statistics.variance(map(int, bits[:, i])) / N**2
    assert float(row["images_sd"]) == pytest.approx(math.sqrt(spread))
    assert float(row["images_sd_standard_error"]) < 0.1 * float(row["images_sd"])


def test_with_one_arm_the_smallest_differences_are_those_of_a_plain_t_test(study: Study) -> None:
    bits = {"baseline": luck(0.9, 4, key=1), "gap": luck(0.91, 4, key=2)}
    (row,) = rows(analysed(study(bits))[0]["precision"])
    error = float(row["sd"]) * math.sqrt(2 / 4)
    assert float(row["separated_from"]) == pytest.approx(stats.t.ppf(0.975, 6) * error, rel=1e-6)
    effect = TTestIndPower().solve_power(nobs1=4, alpha=0.05, power=0.8)
    assert float(row["found_from"]) == pytest.approx(effect * float(row["sd"]), rel=1e-4)


def test_four_lines_a_group_say_what_can_be_resolved(study: Study) -> None:
    tables, _ = analysed(study(BITS))
    lines = shown(tables["precision"])
    assert list(lines) == [
        "sd over seeds, from the runs' accuracies",
        "sd over seeds, from images that runs disagree on",
        "smallest difference that is separated",
        "smallest true difference found with power 0.8",
    ]
    assert lines["sd over seeds, from the runs' accuracies"][2] == "4 arms, df 7"
    assert lines["smallest difference that is separated"][2] == "2 + 3 runs, 3 arms"
    for entries in lines.values():
        assert 0 < float(entries[0]) < 10


def test_without_a_baseline_nothing_is_called_separated(study: Study) -> None:
    tables, _ = analysed(study({"gap": BITS["gap"], "SP": BITS["SP"]}))
    lines = shown(tables["precision"])
    assert lines["smallest difference that is separated"] == [
        "n/a",
        "",
        "no finished run of the baseline, or of another arm",
    ]
    assert "images" not in tables


def test_seeds_that_agree_exactly_resolve_nothing(study: Study) -> None:
    same = {name: np.tile(bits[0], (2, 1)) for name, bits in BITS.items()}
    tables, _ = analysed(study(same))
    lines = shown(tables["precision"])
    for line in ("sd over seeds, from the runs' accuracies", "sd over seeds, from images that runs disagree on"):
        assert lines[line][:2] == ["0.000", "n/a"]
    assert shown(tables["precision"])["smallest difference that is separated"][2] == "the runs of every arm are equal"
    assert "more_seeds" not in tables


# ---- more seeds --------------------------------------------------------------------------------


def pair(folder: Path, first: str, second: str) -> MoreSeeds:
    (found,) = more_seeds(group_arms(read_study(folder)), first, second)
    return found


def test_the_seeds_still_to_run_are_those_of_a_plain_t_test(study: Study) -> None:
    """With one arm, and all spread from it and its baseline, the family is one comparison."""
    bits = {"baseline": luck(0.9, 4, key=1), "gap": luck(0.91, 4, key=2)}
    found = pair(study(bits), "gap", "baseline")
    tops = [runs.mean(axis=1) for runs in bits.values()]
    sd = math.sqrt((tops[0].var(ddof=1) + tops[1].var(ddof=1)) / 2)
    assert found.difference == pytest.approx(tops[1].mean() - tops[0].mean())
    n = TTestIndPower().solve_power(effect_size=abs(found.difference) / sd, alpha=0.05, power=0.8)
    assert found.separated is False
    assert found.more == math.ceil(n) - 4


def test_any_two_arms_can_be_asked_for_either_way_round(study: Study) -> None:
    folder = study(BITS)
    there, back = pair(folder, "gap", "std"), pair(folder, "std", "gap")
    assert there.difference == -back.difference
    assert (there.separated, there.more) == (back.separated, back.more)
    assert pair(folder, "gap", "baseline").separated is pair(folder, "baseline", "gap").separated


def test_arms_that_are_not_there_have_no_answer(study: Study) -> None:
    assert more_seeds(group_arms(read_study(study(BITS))), "gap", "no such arm") == ()


FIX = (
    "fix the number before running, or test on the new seeds alone: looking again after every seed makes p < 0.05 false"
)
SENTENCES = {
    "separated": (exactly(560, 562), "gap and baseline differ by +3.52 points (2 and 2 runs): separated (Student's t)"),
    "open": (
        exactly(540, 544),
        "gap and baseline differ by +0.34 points (2 and 2 runs): not separated (Student's t); 19 more seeds of each "
        f"would find such a difference with power 0.8; {FIX}",
    ),
    "hopeless": (
        exactly(510, 571),
        "gap and baseline differ by +0.08 points (2 and 2 runs): not separated (Student's t); more than 1,000 more "
        f"seeds of each would find such a difference with power 0.8; {FIX}",
    ),
    "equal": (
        exactly(539, 541),
        "gap and baseline differ by 0.00 points (2 and 2 runs): no number of seeds separates equal means",
    ),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_the_answer_is_one_sentence(study: Study, case: str) -> None:
    bits, expected = SENTENCES[case]
    assert pair(study({"baseline": exactly(539, 541), "gap": bits}), "gap", "baseline").sentence() == expected


def test_with_one_run_an_arm_no_number_is_invented(study: Study) -> None:
    found = pair(study({"baseline": exactly(540), "gap": exactly(550)}), "gap", "baseline")
    assert (found.separated, found.more, found.shown) == (None, None, "n/a")
    assert found.sentence() == (
        "gap and baseline differ by +1.68 points (1 and 1 run); their spread over seeds is unknown, so no number of "
        "seeds can be given"
    )


def test_an_arm_that_is_explained_is_told_the_seeds_it_still_needs(study: Study) -> None:
    folder = study({"baseline": exactly(539, 541), "gap": SENTENCES["open"][0]})
    (table,) = explain_arm(folder, "gap")
    assert table.caption.endswith(SENTENCES["open"][1])


def test_two_arms_that_are_asked_for_are_told_in_every_group(make_study: Callable[..., Path]) -> None:
    matrix = {"model.backbone": ["resnet18", "resnet34"], "model.squeeze": ["baseline", "gap", "SP"]}
    told = explain_pair(make_study(matrix=matrix), "gap", "SP")
    assert [sentence.split(" differ by ")[0] for sentence in told] == ["resnet18: gap and SP", "resnet34: gap and SP"]


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("gap", "sdt", "no finished arm 'sdt'; did you mean 'std'"),
        ("no", "SP", "no finished arm 'no'; valid: baseline, gap, SP, std"),
        ("gap", "gap", "'gap' and 'gap': that is the same arm"),
    ],
)
def test_two_arms_that_cannot_be_compared_are_refused(study: Study, first: str, second: str, told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        explain_pair(study(BITS), first, second)


def test_the_command_line_tells_the_seeds_between_two_arms(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    folder = study(BITS)
    assert main([str(folder), "--explain", "gap", "--against", "std"]) == 0
    assert "resnet18: gap and std differ by" in capsys.readouterr().out
    assert main([str(folder), "--against", "std"]) == 2
    assert capsys.readouterr().err == "--against needs --explain: the other of the two arms\n"


def test_the_table_has_the_open_arms_and_the_best_two(study: Study) -> None:
    bits = {
        "baseline": exactly(500, 502),
        "gap": exactly(560, 562),
        "SP": exactly(560, 561),
        "std": exactly(501, 502),
        "RG": exactly(500, 502),
    }
    table = analysed(study(bits))[0]["more_seeds"]
    assert shown(table) == {
        "std − baseline": ["2 + 2", "+0.08", shown(table)["std − baseline"][2]],
        "RG − baseline": ["2 + 2", "0.00", "—"],
        "gap − SP (the best two)": ["2 + 2", "+0.08", shown(table)["gap − SP (the best two)"][2]],
    }
    dunnett, tukey = (int(shown(table)[pair][2]) for pair in ("std − baseline", "gap − SP (the best two)"))
    assert 10 < dunnett < tukey < 2 * dunnett
    assert "adjusted for 4 arms by Dunnett's many-to-one test; the best two by Tukey-Kramer over all" in table.caption
    assert [row["more"] for row in rows(table)] == [*[shown(table)["std − baseline"][2], ""], rows(table)[2]["more"]]


def top1s(folder: Path, squeeze: str) -> list[float]:
    return [json.loads(path.read_text())["top1"] for path in sorted(folder.glob(f"resnet18-{squeeze}-s*/metrics.json"))]


@pytest.mark.parametrize("correction", ["dunnett", "holm"])
def test_a_pair_without_the_baseline_is_separated_by_scipys_tukey_test(study: Study, correction: str) -> None:
    """Between Dunnett's critical value and Tukey's, a pair is not separated."""
    names = ("baseline", "gap", "SP", "std", "RG", "gmp")
    bits = {name: exactly(500, 503) for name in names}
    seen = set()
    for step in range(6, 12):
        folder = study({**bits, "gap": exactly(500 + step, 503 + step)}, f"results/{step}")
        (group,) = group_arms(read_study(folder), correction)
        (found,) = more_seeds((group,), "gap", "std")
        p = stats.tukey_hsd(*(top1s(folder, name) for name in names)).pvalue[1, 3]
        assert found.separated == (p < 0.05), step
        seen.add(found.separated)
        if not found.separated:
            assert "(Tukey-Kramer, all pairs of 6 arms)" in found.sentence()
            assert found.more
    assert seen == {True, False}


def test_with_holm_the_smallest_difference_is_bonferronis_and_said_to_be_the_latest(study: Study) -> None:
    tables, _ = analysed(study(BITS), "holm")
    (row,) = rows(tables["precision"])
    error = float(row["sd"]) * math.sqrt(1 / 2 + 1 / 3)
    assert float(row["separated_from"]) == pytest.approx(stats.t.isf(0.025 / 3, 7) * error)
    assert "smallest difference that is separated, at the latest" in shown(tables["precision"])
    assert "at the latest (Bonferroni; Holm's method may separate smaller ones)" in tables["precision"].caption


def test_without_a_correction_the_smallest_difference_is_that_of_one_arm(study: Study) -> None:
    (row,) = rows(analysed(study(BITS), "none")[0]["precision"])
    error = float(row["sd"]) * math.sqrt(1 / 2 + 1 / 3)
    assert float(row["separated_from"]) == pytest.approx(stats.t.isf(0.025, 7) * error)


def test_the_smallest_difference_knows_the_sizes_of_all_arms(study: Study) -> None:
    (row,) = rows(analysed(study(BITS))[0]["precision"])
    error = float(row["sd"]) * math.sqrt(1 / 2 + 1 / 3)
    loadings = np.sqrt(np.array([3, 2, 3]) / (np.array([3, 2, 3]) + 3))
    shape = np.outer(loadings, loadings)
    np.fill_diagonal(shape, 1)
    bound = np.full(3, float(row["separated_from"]) / error)
    assert stats.multivariate_t(shape=shape, df=7, seed=1).cdf(bound, lower_limit=-bound) == pytest.approx(
        0.95, abs=5e-4
    )
    assert "if the sd is as estimated" in analysed(study(BITS, "again"))[0]["precision"].caption


def test_the_two_spreads_are_compared_by_a_named_test(study: Study) -> None:
    (row,) = rows(analysed(study(BITS))[0]["precision"])
    line = shown(analysed(study(BITS, "again"))[0]["precision"])["sd over seeds, from images that runs disagree on"]
    assert line[2].endswith(f"; equal to the row above? p = {float(row['p_equal']):.3f}, F test")


def test_more_seeds_come_with_a_warning_against_looking_again(study: Study) -> None:
    caption = analysed(study(BITS))[0]["more_seeds"].caption
    assert f"{FIX.capitalize()}. " in caption


# ---- warnings ----------------------------------------------------------------------------------


def test_independent_runs_bring_no_warning(study: Study) -> None:
    bits = {name: luck(0.9, 10, key=i) for i, name in enumerate(("baseline", "gap", "SP", "std"))}
    assert analysed(study(bits))[1] == ()


def test_luck_that_moves_many_images_together_is_a_warning(study: Study) -> None:
    bits = {name: luck(0.9, 10, key=i, shared=0.04) for i, name in enumerate(("baseline", "gap", "SP"))}
    (told,) = analysed(study(bits))[1]
    assert "runs of one arm differ by more over seeds" in told
    assert "the luck of a seed moves many images together" in told
    assert "intervals over new images are too short, rely on those over seeds" in told


def test_runs_that_are_too_much_alike_are_a_warning(study: Study) -> None:
    rng = np.random.default_rng(0)
    bits = {
        name: np.array([rng.permutation(np.arange(N) < count + seed % 2) for seed in range(10)])
        for name, count in (("baseline", 500), ("gap", 510), ("SP", 520))
    }
    (told,) = analysed(study(bits))[1]
    assert "runs of one arm differ by less over seeds" in told
    assert "intervals over seeds may be too short" in told


def test_an_arm_whose_spread_is_not_the_others_is_named(study: Study) -> None:
    calm = {name: luck(0.95, 6, key=i) for i, name in enumerate(("baseline", "gap", "SP", "std"))}
    warnings = analysed(study(calm | {"RG": exactly(400, 440, 480, 520, 560, 597)}))[1]
    told = next(warning for warning in warnings if "the spread over seeds of" in warning)
    assert "the spread over seeds of RG is" in told
    assert "pooling the variance is doubtful" in told


# ---- form --------------------------------------------------------------------------------------


def test_equal_records_make_equal_bytes_in_every_form(study: Study) -> None:
    folder = study(BITS)
    for writer in (to_markdown, to_latex, to_csv, to_html):
        first, second = ({name: writer(table) for name, table in analysed(folder)[0].items()} for _ in range(2))
        assert first == second


def test_every_group_is_a_section_of_its_own(make_study: Callable[..., Path]) -> None:
    matrix = {"model.backbone": ["resnet18", "resnet34"], "model.squeeze": ["baseline", "gap"]}
    tables, _ = analysed(make_study(matrix=matrix))
    for table in tables.values():
        assert {section.title for section in table.sections} <= {"resnet18", "resnet34"}
    assert len(tables["images"].sections) == len(tables["precision"].sections) == 2


def test_a_study_that_has_only_begun_has_tables_too(make_study: Callable[..., Path]) -> None:
    tables, warnings = analysed(make_study(states={"resnet18": "missing"}))
    assert list(tables) == ["precision"]
    assert warnings == ()


def test_a_plan_without_runs_has_no_tables(make_study: Callable[..., Path]) -> None:
    folder = make_study(matrix={"model.squeeze": ["gap"]}, seeds=[0], states={"resnet18": "missing"})
    (folder / "plan.json").write_text(json.dumps(json.loads((folder / "plan.json").read_text()) | {"runs": []}))
    assert analysed(folder) == ({}, ())
