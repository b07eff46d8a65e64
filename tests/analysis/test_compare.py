import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from sqzlab.analysis.compare import compare
from sqzlab.analysis.records import load_records
from sqzlab.errors import ConfigError

MakeStudy = Callable[..., Path]
BOTH = {"model.backbone": ["resnet18", "resnet34"], "model.squeeze": ["baseline", "gap", "SP"]}


def values(frame: pd.DataFrame, arm: str, metric: str = "top1") -> Sequence[float]:
    return frame[(frame["model.squeeze"] == arm) & (frame["state"] == "done")][metric].tolist()


def row_of(frame: pd.DataFrame, arm: str) -> Mapping[str, Any]:
    (row,) = frame[frame["arm"] == arm].to_dict("records")
    return {str(key): value for key, value in row.items()}


def test_an_arm_is_a_row_in_the_order_of_the_plan(make_study: MakeStudy) -> None:
    found = compare(load_records(make_study(matrix=BOTH)))
    assert found["arm"].tolist() == ["baseline", "gap", "SP"] * 2
    assert found["group"].tolist() == ["resnet18"] * 3 + ["resnet34"] * 3
    assert found["is_baseline"].tolist() == [True, False, False] * 2
    assert found["model.squeeze"].tolist() == found["arm"].tolist()


@pytest.mark.parametrize("metric", ["top1", "top5", "val_loss"])
def test_mean_and_spread_are_numpys(make_study: MakeStudy, metric: str) -> None:
    frame = load_records(make_study(seeds=(0, 1, 2)))
    found = compare(frame, metric=metric)
    for arm in found["arm"]:
        expected = values(frame, arm, metric)
        assert row_of(found, arm)["mean"] == pytest.approx(np.mean(expected), abs=1e-15)
        assert row_of(found, arm)["sd"] == pytest.approx(np.std(expected, ddof=1), abs=1e-15)


def test_p_values_and_joint_intervals_are_scipys_dunnett(make_study: MakeStudy) -> None:
    frame = load_records(make_study(seeds=(0, 1, 2), states={"resnet18-RG-s1": "failed"}))
    found = compare(frame)
    arms = [arm for arm in found["arm"] if arm != "baseline"]
    samples = [values(frame, arm) for arm in arms]
    oracle = stats.dunnett(*samples, control=values(frame, "baseline"), rng=np.random.default_rng(0))
    joint = oracle.confidence_interval(0.95)
    for i, arm in enumerate(arms):
        row = row_of(found, arm)
        assert row["p_adjusted"] == pytest.approx(oracle.pvalue[i], abs=2e-3)
        assert row["joint_low"] == pytest.approx(joint.low[i], abs=2e-4)
        assert row["joint_high"] == pytest.approx(joint.high[i], abs=2e-4)
        assert row["separated"] == (oracle.pvalue[i] < 0.05)


def test_the_interval_of_a_difference_is_the_pooled_t_interval(make_study: MakeStudy) -> None:
    frame = load_records(make_study(matrix={"model.squeeze": ["baseline", "gap"]}, seeds=(0, 1, 2)))
    found = row_of(compare(frame, confidence=0.9), "gap")
    oracle = stats.ttest_ind(values(frame, "gap"), values(frame, "baseline"))
    interval = oracle.confidence_interval(0.9)
    assert found["p"] == pytest.approx(oracle.pvalue)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))


def test_holms_p_values_are_statsmodels(make_study: MakeStudy) -> None:
    found = compare(load_records(make_study(seeds=(0, 1, 2))), correction="holm")
    arms = found[~found["is_baseline"]]
    expected = multipletests(arms["p"], method="holm")[1]
    assert arms["p_adjusted"].tolist() == pytest.approx(expected.tolist())


def test_one_seed_has_a_difference_and_no_interval(make_study: MakeStudy) -> None:
    frame = load_records(make_study(seeds=[0]))
    found = row_of(compare(frame), "gap")
    assert found["difference"] == pytest.approx(values(frame, "gap")[0] - values(frame, "baseline")[0])
    absent = ("sd", "standard_error", "low", "high", "joint_low", "joint_high", "p", "p_adjusted", "separated")
    assert all(pd.isna(found[key]) for key in absent)


def test_what_did_not_finish_is_counted_and_has_no_mean(make_study: MakeStudy) -> None:
    frame = load_records(make_study(states={"resnet18-gap": "failed", "resnet18-std-s1": "missing"}))
    found = compare(frame)
    gap, std = row_of(found, "gap"), row_of(found, "std")
    assert [gap[key] for key in ("n", "planned", "failed", "damaged", "missing")] == [0, 2, 2, 0, 0]
    assert [std[key] for key in ("n", "planned", "failed", "damaged", "missing")] == [1, 2, 0, 0, 1]
    assert pd.isna(gap["mean"])
    assert pd.isna(gap["difference"])
    assert std["low"] < std["difference"] < std["high"]  # the other arms tell how far seeds spread


@pytest.mark.parametrize(
    "baseline", ["SP", {"model.squeeze": "SP"}, {"model.squeeze": "SP", "model.backbone": "resnet18"}]
)
def test_another_arm_can_be_the_baseline(make_study: MakeStudy, baseline: Any) -> None:
    frame = load_records(make_study())
    found = compare(frame, baseline)
    squeezes = found.set_index("model.squeeze")
    assert squeezes.index[squeezes["is_baseline"]].tolist() == ["SP"]
    difference = np.mean(values(frame, "gap")) - np.mean(values(frame, "SP"))
    assert squeezes.loc["gap", "difference"] == pytest.approx(difference)


def test_a_filtered_frame_has_a_smaller_family(make_study: MakeStudy) -> None:
    frame = load_records(make_study(seeds=(0, 1, 2)))
    few = frame[frame["model.squeeze"].isin(["baseline", "gap"])]
    found = row_of(compare(few), "gap")
    oracle = stats.ttest_ind(values(frame, "gap"), values(frame, "baseline"))
    assert found["p_adjusted"] == pytest.approx(oracle.pvalue)
    assert found["df"] == 4


def test_studies_that_share_no_cell_can_be_put_together(make_study: MakeStudy) -> None:
    first = load_records(make_study("results/one", matrix=BOTH | {"model.backbone": ["resnet18"]}))
    second = load_records(make_study("results/two", matrix=BOTH | {"model.backbone": ["resnet34"]}))
    together = compare(pd.concat([first, second], ignore_index=True))
    pd.testing.assert_frame_equal(together.iloc[:3], compare(first))
    pd.testing.assert_frame_equal(together.iloc[3:].reset_index(drop=True), compare(second))


def without_plan(folder: Path) -> Path:
    (folder / "plan.json").unlink()
    return folder


def test_a_study_without_a_plan_keeps_its_rows_beside_one_that_has_one(make_study: MakeStudy) -> None:
    planned = make_study("one", matrix={"model.squeeze": ["baseline", "gap"]}, states={"resnet18-gap-s1": "failed"})
    found = without_plan(make_study("two", matrix={"model.squeeze": ["SP", "RG"]}))
    together = compare(pd.concat([load_records(planned), load_records(found)]))
    assert dict(zip(together["arm"], together["planned"], strict=True)) == {"baseline": 2, "gap": 2, "SP": 2, "RG": 2}
    assert together["n"].tolist() == [2, 1, 2, 2]


def test_runs_outside_a_plan_are_left_out_beside_a_study_without_one(make_study: MakeStudy) -> None:
    folder = make_study("one", matrix={"model.squeeze": ["baseline", "gap"]})
    plan = json.loads((folder / "plan.json").read_text())
    plan["runs"] = [run for run in plan["runs"] if run["seed"] == 0]
    (folder / "plan.json").write_text(json.dumps(plan))
    found = without_plan(make_study("two", matrix={"model.squeeze": ["SP"]}))
    together = compare(pd.concat([load_records(folder), load_records(found)]))
    assert dict(zip(together["arm"], together["n"], strict=True)) == {"baseline": 1, "gap": 1, "SP": 2}


def test_studies_with_different_baselines_must_name_one(make_study: MakeStudy) -> None:
    one = load_records(make_study("one", matrix={"model.squeeze": ["baseline", "gap"]}))
    two = load_records(make_study("two", matrix={"model.squeeze": ["SP"]}, baseline={"model.squeeze": "gap"}))
    together = pd.concat([one, two])
    with pytest.raises(ConfigError, match=r"^baseline: the frame does not tell its study's, or its studies have diff"):
        compare(together)
    assert compare(together, "gap")["is_baseline"].sum() == 1


def test_the_baseline_of_two_studies_that_have_the_same_is_kept(make_study: MakeStudy) -> None:
    given = {"baseline": {"model.squeeze": "gap"}}
    one = load_records(make_study("one", matrix={"model.squeeze": ["baseline", "gap"]}, **given))
    two = load_records(make_study("two", matrix={"model.squeeze": ["SP"]}, **given))
    assert row_of(compare(pd.concat([one, two])), "gap")["is_baseline"]


def test_a_seed_that_two_folders_have_is_named_with_both(make_study: MakeStudy) -> None:
    frames = [load_records(make_study(name, matrix={"model.squeeze": ["baseline"]})) for name in ("one", "two")]
    with pytest.raises(ConfigError, match=r"seed 0 of baseline is there twice \(\S+/one/(\S+) and \S+/two/\1\)"):
        compare(pd.concat(frames))


def test_runs_outside_the_plan_are_not_counted(make_study: MakeStudy) -> None:
    folder = make_study(seeds=(0, 1, 2))
    plan = json.loads((folder / "plan.json").read_text())
    plan["runs"] = [run for run in plan["runs"] if run["seed"] < 2]
    (folder / "plan.json").write_text(json.dumps(plan))
    assert set(compare(load_records(folder))["n"]) == {2}
    (folder / "plan.json").unlink()
    assert set(compare(load_records(folder))["n"]) == {3}


def test_the_speed_of_an_arm_is_the_median_of_its_runs(make_study: MakeStudy) -> None:
    folder = make_study(seeds=(0, 1, 2))
    for speed, path in zip((100.0, 700.0, 200.0), sorted(folder.glob("resnet18-gap-s*/metrics.json")), strict=True):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"train_images_per_s": speed}))
    assert row_of(compare(load_records(folder)), "gap")["images_per_s"] == 200


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"metric": "top"}, "metric: 'top'; did you mean 'top5'? valid: top1"),
        ({"metric": "params"}, "metric: 'params'; valid"),
        ({"confidence": 95}, "confidence: 95; valid: a number between 0 and 1"),
        ({"correction": "tukey"}, "correction: 'tukey'; valid: dunnett, holm, none"),
        ({"baseline": "gpa"}, "baseline: model.squeeze is never 'gpa'; did you mean"),
        ({"baseline": {"model.sqeeze": "gap"}}, "baseline: 'model.sqeeze' is no axis of this frame; did you mean"),
        ({"baseline": {}}, "baseline: no run has {}"),
    ],
)
def test_a_wrong_argument_is_told_with_what_is_valid(make_study: MakeStudy, wrong: dict[str, Any], told: str) -> None:
    frame = load_records(make_study(seeds=[0]))
    with pytest.raises(ConfigError) as caught:
        compare(frame, **wrong)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


def test_a_frame_of_another_kind_is_refused(make_study: MakeStudy) -> None:
    frame = load_records(make_study(seeds=[0]))
    with pytest.raises(ConfigError, match=r"^frame: without top1, top5; valid: a frame of load_records"):
        compare(frame.drop(columns=["top1", "top5"]))
    with pytest.raises(ConfigError, match=r"^frame: a dict; valid"):
        compare({})  # type: ignore[arg-type]


def test_the_same_run_twice_is_no_second_seed(make_study: MakeStudy) -> None:
    frame = load_records(make_study())
    with pytest.raises(ConfigError, match="seed 0 of baseline is there twice"):
        compare(pd.concat([frame, frame]))


def test_a_metric_that_a_run_did_not_record_is_refused(make_study: MakeStudy) -> None:
    frame = load_records(make_study(train_loss=None))
    with pytest.raises(ConfigError, match="'train_loss' is not recorded by resnet18-baseline-s0"):
        compare(frame, metric="train_loss")
    assert compare(frame)["mean"].notna().all()
