import io
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy import stats

from sqzlab.analysis import cli
from sqzlab.analysis.cli import main
from sqzlab.analysis.compare import compare
from sqzlab.analysis.records import load_records
from sqzlab.analysis.tables import Column, Entry, Section, Table

ROOT = Path(__file__).parents[2]
MakeStudy = Callable[..., Path]


def analyze(*arguments: object, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "analyze.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def one_line(text: str) -> bool:
    return len(text.strip().splitlines()) == 1 and "Traceback" not in text


def test_all_studies_under_results_are_analysed_by_default(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        make_study(f"results/{name}", seeds=[0], matrix={"model.squeeze": ["baseline", "gap"]})
    results = make_study("results/three", seeds=[0]).parent
    (results / "published").mkdir()
    monkeypatch.chdir(results.parent)
    assert main([]) == 0
    told = capsys.readouterr().out
    for name in ("one", "two", "three"):
        assert f"report: results/{name}/report/index.html" in told
    assert all(len(line) <= 80 for line in told.splitlines() if not line.startswith("report: "))


def test_explain_prints_the_runs_behind_an_arm(make_study: MakeStudy, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_study(states={"resnet18-gap-s1": "failed"})
    assert main([str(folder), "--explain", "gap"]) == 0
    told = capsys.readouterr().out
    assert "resnet18-gap-s0" in told
    assert "failed: FloatingPointError" in told
    assert str(folder) in told


def signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def explained(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What --explain gap prints, each line's breaks taken out."""
    assert main([str(folder), "--explain", "gap", *options]) == 0
    told = capsys.readouterr().out
    assert all(len(line) <= 80 for line in told.splitlines() if not line.startswith("each run's files: "))
    return " ".join(told.split())


def test_explain_shows_how_difference_interval_and_p_came_about(
    make_study: MakeStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_study(matrix={"model.squeeze": ["baseline", "gap", "SP"]}, seeds=(0, 1, 2))
    frame = load_records(folder)
    samples = {arm: 100 * frame[frame["squeeze"] == arm]["top1"] for arm in ("baseline", "gap", "SP")}
    difference = samples["gap"].mean() - samples["baseline"].mean()
    sd = math.sqrt(statistics.mean(sample.var() for sample in samples.values()))
    error = sd * math.sqrt(2 / 3)
    half, p = stats.t.ppf(0.975, 6) * error, 2 * stats.t.sf(abs(difference) / error, 6)
    told = explained(folder, capsys)
    for part in (
        f"Top-1 of gap: mean {samples['gap'].mean():.3f} %, sd {samples['gap'].std():.3f}, n = 3",
        f"= {signed(difference)} points",
        f"pooled sd over the arms of {frame['backbone'].iloc[0]}: {sd:.3f} points, df = 2 + 2 + 2 = 6",
        f"standard error: {sd:.3f} × √(1/3 + 1/3) = {error:.3f} points",
        f"t = {signed(difference)} / {error:.3f} = {difference / error:.2f}, df 6; p = {p:.4g}",
        f"{stats.t.ppf(0.975, 6):.3f} × {error:.3f}, {signed(difference - half)} to {signed(difference + half)}",
        "Dunnett's many-to-one test in a family of 2 arms",
    ):
        assert part in told


@pytest.mark.parametrize(
    ("correction", "told"),
    [
        ("dunnett", "Dunnett's many-to-one test in a family of 7 arms: p = {:.4g} 95 % interval for all of them"),
        (
            "holm",
            "Holm's method in a family of 7 arms: p = {:.4g} 95 % interval for all of them at once (Bonferroni's)",
        ),
        ("none", "; p = {:.4g} 95 % interval of this difference by itself"),
    ],
)
def test_explain_takes_the_correction(
    make_study: MakeStudy, capsys: pytest.CaptureFixture[str], correction: str, told: str
) -> None:
    folder = make_study(seeds=(0, 1, 2))
    found = compare(load_records(folder), correction=correction).set_index("arm")
    shown = explained(folder, capsys, "--correction", correction)
    assert told.format(found.loc["gap", "p_adjusted"]) in shown
    assert ("p is not adjusted" in shown) == (correction == "none")


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"seeds": [0]}, "no interval and no p: one seed an arm"),
        ({"states": {"resnet18-baseline": "failed"}}, "no finished baseline, so no difference"),
        ({"states": {"resnet18-gap": "missing"}}, "no finished run, so no difference"),
        ({"top1": 0.5}, "no interval and no p: all seeds of an arm agree exactly"),
    ],
)
def test_explain_says_why_there_is_no_difference_or_no_p(
    make_study: MakeStudy, capsys: pytest.CaptureFixture[str], how: dict[str, Any], told: str
) -> None:
    assert told in explained(make_study(**how), capsys)


def test_the_correction_is_named_in_the_captions(make_study: MakeStudy, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_study(matrix={"model.squeeze": ["baseline", "gap", "SP"]})
    assert main([str(folder), "--correction", "holm"]) == 0
    assert "adjusted for 2 arms by Holm's method" in " ".join(capsys.readouterr().out.split())
    assert "adjusted for 2 arms by Holm's method" in (folder / "report" / "full.md").read_text()


def test_what_is_separated_is_bold_in_the_terminal() -> None:
    told = io.StringIO()
    table = Table("t", "", (Column("a"), Column("b")), (Section("s", ((Entry("1", bold=True), Entry("2[i]")),)),), ())
    cli._show(Console(file=told, force_terminal=True, color_system="standard", width=80), table)
    row = next(line for line in told.getvalue().splitlines() if "2[i]" in line)
    assert "\x1b[1m1\x1b[0m" in row


def test_published_tables_come_from_published_csv_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "published.csv").write_bytes((ROOT / "results" / "published.csv").read_bytes())
    assert main(["--published", "--results", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "65.71" in told
    assert "SE-ResNet-34" in told
    assert "22.27" in told
    written = {path.name for path in (tmp_path / "published").iterdir()}
    assert written == {f"published-{name}.{kind}" for name in ("ssenet", "sprg") for kind in ("md", "tex", "csv")}


@pytest.mark.parametrize(
    "arguments",
    [
        ["absent"],
        ["--results", "absent"],
        ["--results", "."],
        ["--explain", "gpa", "STUDY"],
        ["--published", "STUDY"],
        ["--published", "--correction", "holm"],
        ["--correction", "tukey", "STUDY"],
        ["FILE"],
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(
    make_study: MakeStudy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    folder = make_study()
    empty = folder.parent.parent / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    stands_for = {"STUDY": str(folder), "FILE": str(folder / "plan.json")}
    assert main([stands_for.get(argument, argument) for argument in arguments]) == 2
    assert one_line(capsys.readouterr().err)


def test_an_unknown_arm_names_a_close_one(make_study: MakeStudy, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(make_study()), "--explain", "gapxstd"]) == 2
    assert "did you mean 'gapXstd'?" in capsys.readouterr().err


def test_a_report_folder_that_is_a_file_is_exit_code_3(
    make_study: MakeStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_study(seeds=[0])
    (folder / "report").write_text("in the way")
    assert main([str(folder)]) == 3
    assert one_line(capsys.readouterr().err)
    assert (folder / "report").read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
@pytest.mark.parametrize(("how", "told"), [("size=64k", "no space left on device"), ("ro", "read-only file system")])
def test_a_full_or_read_only_disk_is_exit_code_3_and_leaves_nothing(make_study: MakeStudy, how: str, told: str) -> None:
    folder = make_study(seeds=[0])
    (folder / "report").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", how, "tmpfs", folder / "report"], capture_output=True)
    if mounted.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        done = analyze(folder)
        left = list((folder / "report").iterdir())
    finally:
        subprocess.run(["umount", folder / "report"], check=True)
    assert done.returncode == 3
    assert told in done.stderr
    assert one_line(done.stderr)
    assert left == []


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_plus_minus_signs_still_gets_its_tables(make_study: MakeStudy, encoding: str) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    command = [sys.executable, str(ROOT / "analyze.py"), str(make_study(seeds=[0]))]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"baseline" in done.stdout


def test_help_is_quick_and_needs_no_heavy_module() -> None:
    code = "import sys; from sqzlab.analysis.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted(m for m in ('torch', 'pandas', 'matplotlib', 'numpy', 'pydantic') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_analysis_never_imports_torch(make_study: MakeStudy) -> None:
    code = "import sys; from sqzlab.analysis.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(make_study(seeds=[0]))], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
