"""Reports of studies whose files hold what nobody would have written, or too much of it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from sqzlab.analysis.cli import analyse, main

MakeStudy = Callable[..., Path]


def report_of(folder: Path) -> str:
    return analyse(folder, Console(quiet=True), figures=False).read_text()


def embedded_runs(text: str) -> dict[str, dict[str, object]]:
    data = text.partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    return json.loads(data)  # type: ignore[no-any-return]


def fail(folder: Path, **told: str) -> None:
    for path in folder.glob("resnet18-SP*/failure.json"):
        path.write_text(json.dumps(told))


def test_half_a_surrogate_pair_in_an_error_is_shown_as_a_question_mark(make_study: MakeStudy) -> None:
    folder = make_study(states={"resnet18-SP": "failed"})
    fail(folder, error="bad \ud800 end")
    assert "bad ? end" in report_of(folder)


def test_an_epoch_that_no_run_can_reach_is_left_out(make_study: MakeStudy) -> None:
    folder = make_study()
    path = min(folder.glob("resnet18-gap-s0*/epochs.jsonl"))
    with path.open("a") as file:
        file.write(f'{{"epoch": {"9" * 400}, "train_loss": 0.1, "val_loss": 0.1, "top1": 0.5, "top5": 0.6}}\n')
    epochs = embedded_runs(report_of(folder))[path.parent.name]["epochs"]
    assert epochs["epoch"] == [float(epoch) for epoch in range(1, 9)]  # type: ignore[index]


def test_a_traceback_of_megabytes_is_cut_and_costs_no_other_run_its_page(make_study: MakeStudy) -> None:
    folder = make_study(states={"resnet18-SP": "failed"})
    fail(folder, error="too much", traceback="first line\n" + "x" * 11_000_000 + "\nlast line")
    runs = embedded_runs(report_of(folder))
    assert len(runs) == 16
    shown = next(run for run_id, run in runs.items() if run_id.startswith("resnet18-SP"))["failure"]["traceback"]  # type: ignore[index]
    assert shown.startswith("first line")
    assert shown.endswith("last line")
    assert len(shown) < 21_000


def test_the_page_claims_no_likeness_that_the_records_do_not_tell(make_study: MakeStudy) -> None:
    whole = report_of(make_study())
    assert "all of one commit" in whole
    unknown = {"git_commit": None, "torch": None, "initial_weights": None, "data_order": None}
    text = report_of(make_study("results/unknown", **unknown))
    assert "Every planned run is done" in text
    assert "all of one commit" not in text
    assert "the same weights" not in text


def test_the_folder_may_be_the_one_where_you_are(make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_study()
    (folder / "plan.json").unlink()
    monkeypatch.chdir(folder)
    assert "<title>squeeze_ablation-laptop: report</title>" in report_of(Path())


def test_a_study_that_cannot_be_read_keeps_no_other_from_its_report(
    make_study: MakeStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    good = make_study()
    assert main([str(good.with_name("gone")), str(good), "--no-figures"]) == 2
    assert (good / "report" / "index.html").is_file()
    assert capsys.readouterr().err.count("\n") == 1


def test_without_figures_the_report_says_so(make_study: MakeStudy) -> None:
    folder = make_study()
    assert "figures are not drawn: --no-figures" in report_of(folder)
    assert not list((folder / "report").glob("*.svg"))


def test_an_arm_is_explained_where_it_is_and_studies_without_it_are_passed_over(
    make_study: MakeStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_study()
    make_study("results/other", matrix={"model.squeeze": ["baseline", "gap"]})
    assert main(["--results", str(folder.parent), "--explain", "SP"]) == 0
    assert main(["--results", str(folder.parent), "--explain", "nothing"]) == 2
    assert "has no arm 'nothing'" in capsys.readouterr().err
