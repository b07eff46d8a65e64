import json
from collections.abc import Callable
from pathlib import Path

from sqzlab.analysis.curves import load_curves

MakeStudy = Callable[..., Path]


def a_run(folder: Path) -> Path:
    return min(path.parent for path in folder.glob("*/epochs.jsonl"))


def test_curves_have_a_row_an_epoch(make_study: MakeStudy) -> None:
    folder = make_study(epochs=5)
    run = a_run(folder)
    curves, warnings = load_curves(folder, [run.name])
    assert list(curves["epoch"]) == [1, 2, 3, 4, 5]
    assert not warnings
    assert curves["top1"].iloc[-1] == json.loads((run / "metrics.json").read_text())["top1"]


def test_a_cut_last_line_is_left_out_with_a_warning(make_study: MakeStudy) -> None:
    folder = make_study(epochs=5)
    run = a_run(folder)
    path = run / "epochs.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    curves, warnings = load_curves(folder, [run.name])
    assert list(curves["epoch"]) == [1, 2, 3, 4]
    assert "cut short" in warnings[0]


def test_an_epoch_that_was_repeated_after_a_crash_counts_once(make_study: MakeStudy) -> None:
    folder = make_study(epochs=3)
    run = a_run(folder)
    path = run / "epochs.jsonl"
    later = json.loads(path.read_text().splitlines()[1]) | {"top1": 0.5}
    path.write_text(path.read_text() + json.dumps(later) + "\n")
    curves, _ = load_curves(folder, [run.name])
    assert list(curves["epoch"]) == [1, 2, 3]
    assert curves["top1"].iloc[1] == 0.5


def test_an_absent_curve_is_a_warning(make_study: MakeStudy) -> None:
    folder = make_study()
    run = a_run(folder)
    (run / "epochs.jsonl").unlink()
    curves, warnings = load_curves(folder, [run.name])
    assert curves.empty
    assert run.name in warnings[0]
