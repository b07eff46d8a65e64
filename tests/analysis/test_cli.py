import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sqzlab.analysis.cli import main

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
