"""Which code runs: a digest of the package's files, and git's commit and changes where git knows them.

A package that lies in a snapshot (`sqzlab/slurm/snapshot.py`) has a `code.json` beside it that says what git said
when it was taken; any other asks git itself.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import sqzlab
from sqzlab.runs.files import read_json

PACKAGE = Path(sqzlab.__file__).resolve().parent
CODE = "code.json"  # of a snapshot
LONGEST_DIFF = 200_000  # characters; a longer one is cut and says so


@cache
def origin() -> Mapping[str, Any]:
    """`sqzlab` (version), `code` (digest), `git_commit`, `git_dirty`, `git_diff` of the package that runs.

    Read from the disk at the first call and then kept: a process goes on with what it has imported. The three of git
    are None where it does not know the package.
    """
    return describe(PACKAGE, contents(PACKAGE))


def describe(package: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    """The same of any copy of the package that holds these files."""
    found = {"sqzlab": sqzlab.__version__, "code": digest(files)}
    taken = read_json(package.parent / CODE) or {}
    if taken.get("digest") != package.parent.name:  # some other code.json, or none
        return found | _from_git(package, files)
    told = {key: taken.get(key) for key in FROM_GIT}
    if taken["digest"] != found["code"]:
        told |= {"git_dirty": True, "git_diff": f"[unknown: the snapshot {taken['digest']} was changed]"}
    return found | told


def contents(package: Path) -> dict[str, bytes]:
    """Every file that belongs to the package, by its path in it; not what Python, an editor or a disk left there."""
    found = {}
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package)
        left = any(part.startswith(".") or part == "__pycache__" for part in name.parts)
        if not left and path.suffix != ".pyc" and not path.name.endswith("~") and path.is_file():
            found[name.as_posix()] = path.read_bytes()
    return found


def digest(files: Mapping[str, bytes]) -> str:
    """16 hex digits over all names and contents."""
    hashed = hashlib.sha256()
    for name, data in sorted(files.items()):
        hashed.update(os.fsencode(f"{name}\0{len(data)}\0") + data)
    return hashed.hexdigest()[:16]


def _from_git(package: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Asks the repository that tracks the package, not one that merely lies around it, as around a `.venv`."""
    root, name = package.parent, package.name
    tracked = _git(root, "ls-files", "-z", "--error-unmatch", "--", f"{name}/__init__.py", name)
    commit = _git(root, "rev-parse", "HEAD") if tracked is not None else None
    diff = _git(root, "diff", *PLAIN, "HEAD", "--", ".", ":!results") if commit is not None else None
    if tracked is None or commit is None or diff is None:
        return dict.fromkeys(FROM_GIT)
    known = set(tracked.split("\0"))
    for path in (f"{name}/{file}" for file in files):
        if path not in known and len(diff) <= LONGEST_DIFF:
            new = _git(root, "diff", *PLAIN, "--no-index", "--", os.devnull, path, fine=(1,))
            diff += new if new is not None else f"[untracked: {path}]\n"
    if len(diff) > LONGEST_DIFF:
        diff = f"{diff[:LONGEST_DIFF]}\n[cut: more than {LONGEST_DIFF} characters]"
    return {"git_commit": commit.strip(), "git_dirty": bool(diff), "git_diff": diff or None}


def _git(root: Path, *arguments: str, fine: tuple[int, ...] = (0,)) -> str | None:
    """What git prints, or None where it fails. It takes no lock: many runs ask at once, beside the user."""
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    environment = {key: value for key, value in os.environ.items() if key not in ELSEWHERE}
    try:
        done = subprocess.run(command, capture_output=True, env=environment, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode in fine else None


FROM_GIT = ("git_commit", "git_dirty", "git_diff")
PLAIN = ("--no-color", "--no-ext-diff", "--no-textconv")  # whatever the user's own configuration says
ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set inside git's hooks; they point to another repository
