"""Snapshots of the code: taken from a checkout of the test's own, by processes that run in it. No Slurm is needed."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import sqzlab
from sqzlab.errors import ConfigError
from sqzlab.slurm.snapshot import take

SHIPPED = shutil.ignore_patterns("__pycache__")
TAKE = "import sys, pathlib; from sqzlab.slurm.snapshot import take; print(take(pathlib.Path(sys.argv[1])))"
WHICH = "import sqzlab; print(sqzlab.__file__)"
TOLD = "import json; from sqzlab.runs.code import origin; print(json.dumps(dict(origin())))"
KILLED_AT = """
import os, signal, sys
steps = int(sys.argv[2])
def count(event, arguments):
    global steps
    if event in ("open", "os.mkdir", "os.chmod", "os.rename") and sys.argv[1] in str(arguments[0]):
        steps -= 1
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)
import sqzlab.slurm.snapshot
sys.addaudithook(count)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with a copy of the package, as a user would edit it."""
    folder = tmp_path / "checkout"
    shutil.copytree(Path(sqzlab.__file__).parent, folder / "sqzlab", ignore=SHIPPED)
    return folder


def python(code: str, *arguments: object, cwd: Path, path: Path | None = None) -> subprocess.Popen[str]:
    """A process that imports the package from its folder, or as jobs do from `path`."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    if path is not None:
        environment |= {"PYTHONPATH": str(path), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def said(process: subprocess.Popen[str]) -> str:
    out, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    return out.strip()


def taken(checkout: Path, study: Path) -> Path:
    return Path(said(python(TAKE, study, cwd=checkout)))


def files(package: Path) -> list[str]:
    found = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(path.relative_to(package).as_posix() for path in found)


def same(checkout: Path, snapshot: Path) -> bool:
    """Whether both hold the same files with the same bytes."""
    ours, theirs = checkout / "sqzlab", snapshot / "sqzlab"
    names = files(ours)
    return files(theirs) == names and filecmp.cmpfiles(ours, theirs, names, shallow=False) == (names, [], [])


def test_a_snapshot_holds_every_file_of_the_package_read_only_in_folders_that_can_be_removed(
    checkout: Path, tmp_path: Path
) -> None:
    snapshot = taken(checkout, tmp_path / "results/study")
    assert snapshot.parent == tmp_path / "results/study/slurm/code"
    assert same(checkout, snapshot)
    assert {"py.typed", "analysis/report.html", "analysis/print.mplstyle"} <= set(files(snapshot / "sqzlab"))
    for path in [path for path in snapshot.rglob("*") if "__pycache__" not in path.parts]:
        assert bool(path.stat().st_mode & stat.S_IWUSR) == path.is_dir()


def test_the_code_that_was_submitted_is_the_code_that_runs(checkout: Path, tmp_path: Path) -> None:
    """A job starts in the user's folder, which by then holds other code."""
    snapshot = taken(checkout, tmp_path / "study")
    (checkout / "sqzlab/__init__.py").write_text("raise SystemExit('edited')\n")
    (checkout / "sqzlab/added.py").touch()
    assert said(python(WHICH, cwd=checkout, path=snapshot)) == str(snapshot / "sqzlab/__init__.py")
    told = json.loads(said(python(TOLD, cwd=checkout, path=snapshot)))
    assert told["code"] == snapshot.name
    with python("import sqzlab.added", cwd=checkout, path=snapshot) as job:
        assert "No module named 'sqzlab.added'" in job.communicate(timeout=240)[1]


def test_the_same_code_is_kept_once_and_other_code_beside_it(checkout: Path, tmp_path: Path) -> None:
    first = taken(checkout, tmp_path)
    inode = (first / "code.json").stat().st_ino
    assert taken(checkout, tmp_path) == first
    assert (first / "code.json").stat().st_ino == inode
    with (checkout / "sqzlab/run.py").open("a") as file:
        file.write("# other\n")
    second = taken(checkout, tmp_path)
    assert second != first
    assert same(checkout, second)
    assert sorted(first.parent.iterdir()) == sorted([first, second])


def test_a_snapshot_taken_from_a_snapshot_is_the_same(checkout: Path, tmp_path: Path) -> None:
    first = taken(checkout, tmp_path / "a")
    second = Path(said(python(TAKE, tmp_path / "b", cwd=tmp_path, path=first)))
    assert second.name == first.name
    assert same(checkout, second)


def test_a_job_records_the_commit_and_the_changes_of_its_submission(checkout: Path, tmp_path: Path) -> None:
    head = committed(checkout)
    clean = taken(checkout, tmp_path)
    (checkout / "sqzlab/new.py").write_text("x = 1\n")
    dirty = taken(checkout, tmp_path)
    later = committed(checkout)
    assert later != head
    told = json.loads(said(python(TOLD, cwd=checkout, path=clean)))
    assert (told["git_commit"], told["git_dirty"], told["git_diff"]) == (head, False, None)
    told = json.loads(said(python(TOLD, cwd=checkout, path=dirty)))
    assert (told["git_commit"], told["git_dirty"], told["code"]) == (head, True, dirty.name)
    assert "+x = 1" in told["git_diff"]


def test_code_that_was_committed_since_is_called_by_its_commit(checkout: Path, tmp_path: Path) -> None:
    committed(checkout)
    (checkout / "sqzlab/new.py").write_text("x = 1\n")
    snapshot = taken(checkout, tmp_path)
    head = committed(checkout)
    assert taken(checkout, tmp_path) == snapshot
    told = json.loads((snapshot / "code.json").read_text())
    assert (told["git_commit"], told["git_dirty"], told["digest"]) == (head, False, snapshot.name)


def test_a_snapshot_that_was_changed_is_told_by_the_job(checkout: Path, tmp_path: Path) -> None:
    committed(checkout)
    snapshot = taken(checkout, tmp_path)
    damage(snapshot / "sqzlab/run.py", b"# changed\n")
    told = json.loads(said(python(TOLD, cwd=checkout, path=snapshot)))
    assert told["code"] != snapshot.name
    assert told["git_dirty"] is True
    assert snapshot.name in told["git_diff"]


@pytest.mark.parametrize("name", ["sqzlab/run.py", "sqzlab/analysis/report.html", "sqzlab/added.py", "code.json"])
@pytest.mark.parametrize("content", [b"# changed\n", None], ids=["changed", "missing"])
def test_a_damaged_snapshot_is_mended(checkout: Path, tmp_path: Path, name: str, content: bytes | None) -> None:
    snapshot = taken(checkout, tmp_path)
    damage(snapshot / name, content)
    assert taken(checkout, tmp_path) == snapshot
    assert same(checkout, snapshot)
    assert json.loads((snapshot / "code.json").read_text())["digest"] == snapshot.name


def test_a_snapshot_of_which_a_whole_folder_is_gone_is_mended(checkout: Path, tmp_path: Path) -> None:
    snapshot = taken(checkout, tmp_path)
    shutil.rmtree(snapshot / "sqzlab")
    assert same(checkout, taken(checkout, tmp_path))


def test_byte_code_of_a_changed_file_is_not_run_after_the_file_is_mended(checkout: Path, tmp_path: Path) -> None:
    """Python compares seconds and size, and both may agree."""
    (checkout / "sqzlab/answer.py").write_text("print(1)\n")
    snapshot = taken(checkout, tmp_path)
    damage(snapshot / "sqzlab/answer.py", b"print(2)\n")
    assert said(python("import sqzlab.answer", cwd=tmp_path, path=snapshot)) == "2"
    changed = (snapshot / "sqzlab/answer.py").stat().st_mtime
    taken(checkout, tmp_path)
    os.utime(snapshot / "sqzlab/answer.py", (changed, changed))
    assert said(python("import sqzlab.answer", cwd=tmp_path, path=snapshot)) == "1"


def test_a_job_that_runs_while_its_snapshot_is_mended_goes_on(checkout: Path, tmp_path: Path) -> None:
    snapshot = taken(checkout, tmp_path)
    code = "import sqzlab.run; print(flush=True); input(); import sqzlab.catalog; print(sqzlab.catalog.__file__)"
    with python(code, cwd=tmp_path, path=snapshot) as job:
        assert job.stdout is not None
        job.stdout.readline()
        damage(snapshot / "sqzlab/run.py", b"# changed\n")
        damage(snapshot / "sqzlab/catalog.py", None)
        taken(checkout, tmp_path)
        assert job.communicate("\n", timeout=240)[0].strip() == str(snapshot / "sqzlab/catalog.py")
    assert job.returncode == 0


def test_a_launch_killed_at_any_step_leaves_a_whole_snapshot_or_none(checkout: Path, tmp_path: Path) -> None:
    home = tmp_path / "slurm/code"
    steps = 3 * len(files(checkout / "sqzlab"))  # at the least: open, close and chmod of each file, a mkdir each folder
    killed = 0
    for step in [*range(1, steps, steps // 8), *range(steps, steps + 40, 4)]:
        with python(KILLED_AT + TAKE, tmp_path, step, cwd=checkout) as process:
            process.communicate(timeout=240)
        killed += process.returncode == -9
        for snapshot in home.glob("[!.]*"):
            assert same(checkout, snapshot)
            assert json.loads((snapshot / "code.json").read_text())["digest"] == snapshot.name
            shutil.rmtree(snapshot)
    assert killed >= 8
    assert same(checkout, taken(checkout, tmp_path))


def test_what_killed_launches_left_is_removed_once_it_is_old(checkout: Path, tmp_path: Path) -> None:
    home = tmp_path / "slurm/code"
    for name, age_s in ((".old", 7200), (".young", 60)):
        (home / name / "sqzlab").mkdir(parents=True)
        then = (home / name).stat().st_mtime - age_s
        os.utime(home / name, (then, then))
    snapshot = taken(checkout, tmp_path)
    assert sorted(path.name for path in home.iterdir()) == [".young", snapshot.name]


def test_launches_at_once_agree_on_one_snapshot(checkout: Path, tmp_path: Path) -> None:
    wait = "import sys; from sqzlab.slurm import snapshot; print(flush=True); sys.stdin.readline();"
    launches = [python(wait + TAKE, tmp_path, cwd=checkout) for _ in range(4)]
    for launch in launches:
        assert launch.stdout is not None
        launch.stdout.readline()
    for launch in launches:
        assert launch.stdin is not None
        launch.stdin.write("\n")
        launch.stdin.flush()
    (snapshot,) = {Path(said(launch)) for launch in launches}
    assert same(checkout, snapshot)
    assert list(snapshot.parent.iterdir()) == [snapshot]


def test_a_folder_that_cannot_stand_in_pythonpath_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="PYTHONPATH"):
        take(tmp_path / "a:b")


def damage(path: Path, content: bytes | None) -> None:
    """Another content, or None: no such file."""
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)


def committed(checkout: Path) -> str:
    """Commits all of the checkout and returns the commit."""
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    (checkout / ".gitignore").write_text("__pycache__/\n")
    for command in (["init"], ["add", "--all"], [*who, "commit", "--message", "all"]):
        subprocess.run(["git", *command], cwd=checkout, check=True, capture_output=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, check=True, capture_output=True, text=True)
    return head.stdout.strip()
