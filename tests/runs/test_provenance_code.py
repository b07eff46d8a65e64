"""Which code a run says it was: true git repositories of every kind around a small package."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqzlab.runs.code import LONGEST_DIFF, contents, describe, digest

UNKNOWN = {"git_commit": None, "git_dirty": None, "git_diff": None}
Git = Callable[..., str]


def said(package: Path) -> dict[str, Any]:
    return describe(package, contents(package))


def of_git(package: Path) -> dict[str, Any]:
    return {key: value for key, value in said(package).items() if key.startswith("git_")}


def git(folder: Path, *arguments: str, given: str | None = None) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, input=given, env=environment()
    )
    return done.stdout


def environment() -> dict[str, str]:
    who = {f"GIT_{role}_{what}": "a@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


def write_package(root: Path) -> Path:
    for name, text in {"__init__.py": "", "part/model.py": "width = 8\n", "part/page.html": "<p>\n"}.items():
        (root / "sqzlab" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "sqzlab" / name).write_text(text)
    return root / "sqzlab"


def commit(root: Path) -> str:
    git(root, "add", "--all")
    git(root, "commit", "--message", "all")
    return git(root, "rev-parse", "HEAD").strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The package of a clean checkout with one commit."""
    package = write_package(tmp_path / "checkout")
    git(package.parent, "init")
    commit(package.parent)
    return package


def test_a_clean_checkout_has_its_commit_and_no_diff(package: Path) -> None:
    head = git(package, "rev-parse", "HEAD").strip()
    assert of_git(package) == {"git_commit": head, "git_dirty": False, "git_diff": None}


def test_the_digest_changes_with_every_content_and_name_and_with_nothing_else(package: Path) -> None:
    clean = digest(contents(package))
    for left in ("__pycache__/model.cpython-311.pyc", "part/.model.py.swp", "part/model.py~", ".cache/model.py"):
        (package / left).parent.mkdir(exist_ok=True)
        (package / left).write_text("left")
    os.utime(package / "part/model.py", (0, 0))
    assert digest(contents(package)) == clean == said(package)["code"]
    seen = {clean}
    (package / "part/model.py").write_text("width = 9\n")
    seen.add(digest(contents(package)))
    (package / "part/model.py").rename(package / "part/models.py")
    seen.add(digest(contents(package)))
    (package / "part/page.html").write_text("")
    seen.add(digest(contents(package)))
    (package / "new.py").touch()
    seen.add(digest(contents(package)))
    assert len(seen) == 5


def test_names_and_contents_cannot_be_moved_into_each_other() -> None:
    assert digest({"a": b"b", "c": b""}) != digest({"a": b"", "bc": b""}) != digest({"ab": b"", "c": b""})


def test_applying_the_diff_to_the_commit_gives_the_code_that_ran(package: Path, tmp_path: Path) -> None:
    """Changed, staged, deleted and untracked files, without a last newline, empty, with a space, not UTF-8-clean."""
    (package / "part/model.py").write_text("width = 9")
    (package / "part/page.html").unlink()
    (package / "staged.py").write_text("a = 1\n")
    git(package, "add", "staged.py")
    (package / "part/new file.py").write_text("b = 'ü'\n\n")
    (package / "part/empty.py").touch()
    told = said(package)
    assert told["git_dirty"] is True
    git(tmp_path, "clone", "--no-local", str(package.parent), "again")
    git(tmp_path / "again", "apply", "-", given=told["git_diff"])
    assert contents(tmp_path / "again" / "sqzlab") == contents(package)


@pytest.mark.parametrize("ignored", [False, True])
def test_an_untracked_module_counts_as_a_change_even_where_git_ignores_it(package: Path, ignored: bool) -> None:
    (package / "scratch.py").write_text("import sqzlab\n")
    if ignored:
        (package.parent / ".git/info/exclude").write_text("scratch.py\n")
    told = said(package)
    assert told["git_dirty"] is True
    assert "+import sqzlab" in told["git_diff"]


def test_results_and_files_beside_the_package_that_git_does_not_know_are_no_change(package: Path) -> None:
    root = package.parent
    (root / "results/study").mkdir(parents=True)
    (root / "results/study/plan.json").write_text("{}")
    head = commit(root)
    (root / "results/study/plan.json").write_text("[]")
    (root / "notes.txt").write_text("notes")
    assert of_git(package) == {"git_commit": head, "git_dirty": False, "git_diff": None}


def test_a_long_diff_is_cut_and_says_so(package: Path) -> None:
    (package / "part/model.py").write_text("width = 8\n" * LONGEST_DIFF)
    diff = said(package)["git_diff"]
    assert len(diff) < LONGEST_DIFF + 100
    assert diff.endswith(f"[cut: more than {LONGEST_DIFF} characters]")


def test_a_change_that_is_not_utf8_is_recorded(package: Path) -> None:
    (package / "part/model.py").write_bytes("# Größe\nwidth = 9\n".encode("latin-1"))
    assert "+width = 9" in said(package)["git_diff"]


def test_the_users_configuration_does_not_change_the_diff(package: Path) -> None:
    (package / "part/model.py").write_text("width = 9\n")
    plain = said(package)["git_diff"]
    git(package, "config", "color.ui", "always")
    git(package, "config", "diff.external", "false")
    assert said(package)["git_diff"] == plain


def test_without_a_repository_git_says_nothing(tmp_path: Path) -> None:
    package = write_package(tmp_path)
    assert of_git(package) == UNKNOWN


def test_without_git_itself_only_the_digest_is_known(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = said(package)["code"]
    monkeypatch.setenv("PATH", "/nowhere")
    assert of_git(package) == UNKNOWN
    assert said(package)["code"] == code


def test_a_repository_without_a_commit_has_none(tmp_path: Path) -> None:
    package = write_package(tmp_path)
    git(tmp_path, "init")
    git(tmp_path, "add", "--all")
    assert of_git(package) == UNKNOWN


def test_the_commit_of_a_repository_around_an_installed_package_is_not_its_own(tmp_path: Path) -> None:
    """As in `project/.venv/lib/python3.11/site-packages/sqzlab`, where `project` is somebody's thesis."""
    (tmp_path / "thesis.tex").write_text("\\documentclass{book}\n")
    (tmp_path / ".gitignore").write_text(".venv/\n")
    git(tmp_path, "init")
    commit(tmp_path)
    package = write_package(tmp_path / ".venv/lib/python3.11/site-packages")
    assert of_git(package) == UNKNOWN


def test_the_variables_of_a_git_hook_do_not_lead_to_another_repository(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = of_git(package)
    (tmp_path / "other").mkdir()
    git(tmp_path / "other", "init")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other/.git/index"))
    assert of_git(package) == head


def test_asking_git_works_beside_a_user_who_holds_its_lock_and_writes_nothing(package: Path) -> None:
    (package / "part/model.py").touch()  # makes git want to renew its index
    lock = package.parent / ".git/index.lock"
    lock.touch()
    before = (package.parent / ".git/index").read_bytes()
    assert of_git(package)["git_dirty"] is False
    assert (package.parent / ".git/index").read_bytes() == before
