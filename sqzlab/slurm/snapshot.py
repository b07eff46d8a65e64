"""The code that was submitted is the code that runs: a copy of the package that waits with the queued jobs.

    <study>/slurm/code/<digest>/sqzlab/...   what PYTHONPATH shows to the jobs of every launch of this very code
    <study>/slurm/code/<digest>/code.json    digest, what git said of the checkout, version, time

Files are read-only, so that an editor that followed a traceback into a snapshot says so. Folders are not: `rm -r`
works, and Python keeps its byte code there. It writes that aside and renames it, so any number of nodes may do so at
once; without it every process of every job would compile the package again.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqzlab
from sqzlab.errors import ConfigError
from sqzlab.runs.code import CODE, FROM_GIT, PACKAGE, contents, describe, digest
from sqzlab.runs.files import read_json, write_json

NAME = sqzlab.__name__
LEFT_S = 3600.0  # what lies half-written for so long has no writer any more


def take(study_folder: Path) -> Path:
    """Copies the package that runs into the study's folder, once for each content, and returns PYTHONPATH for jobs.

    A copy that is there is compared byte for byte and mended file by file, which no process that uses it notices.
    Raises ConfigError where the path cannot stand in PYTHONPATH.
    """
    home = study_folder.absolute() / "slurm" / "code"
    if os.pathsep in str(home):
        raise ConfigError(f"{str(home)!r}: jobs find their code through PYTHONPATH, which divides at {os.pathsep!r}")
    home.mkdir(parents=True, exist_ok=True)
    files = contents(PACKAGE)  # read once: what is named is what is written, whoever edits meanwhile
    target = home / digest(files)
    if not target.exists():
        _write(target, files)
    _mend(target, files)  # also what another launch wrote first
    return target


def _write(target: Path, files: Mapping[str, bytes]) -> None:
    """Whole or absent, also after kill -9. Not flushed to the disk: the next launch mends what a power cut took."""
    aside = target.parent / f".{target.name}.{secrets.token_hex(8)}"
    aside.mkdir()
    _sweep(target.parent, aside.stat().st_mtime)
    try:
        for name, data in files.items():
            _write_file(aside / NAME / name, data)
        _write_told(aside, _told(target.name, files))
        aside.rename(target)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if not (isinstance(error, OSError) and target.exists()):  # else another launch was faster
            raise


def _mend(target: Path, files: Mapping[str, bytes]) -> None:
    package = target / NAME
    present = contents(package)
    for name in present.keys() - files.keys():
        (package / name).unlink(missing_ok=True)
    for name in [name for name, data in files.items() if present.get(name) != data]:
        path = package / name
        aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        _write_file(aside, files[name])
        aside.replace(path)
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):  # it goes by seconds and size, which may agree
            compiled.unlink(missing_ok=True)
    told = read_json(target / CODE) or {}
    intact = told.get("digest") == target.name
    if intact and told.get("git_dirty") is False:
        return
    now = _told(target.name, files)
    if not intact or now["git_dirty"] is False:  # the same code, committed by now
        _write_told(target, now)


def _write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(READ_ONLY)


def _told(name: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    told = describe(PACKAGE, files)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"digest": name, **{key: told[key] for key in FROM_GIT}, "sqzlab": told["sqzlab"], "taken": now}


def _write_told(folder: Path, told: Mapping[str, Any]) -> None:
    write_json(folder / CODE, told, durable=False)
    (folder / CODE).chmod(READ_ONLY)


def _sweep(home: Path, now: float) -> None:
    """Removes what killed launches left. `now` is the file system's own: clocks may be apart."""
    for left in home.glob(".*"):
        try:
            if now - left.stat().st_mtime > LEFT_S:
                shutil.rmtree(left)
        except OSError:  # another launch sweeps as well
            continue


READ_ONLY = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
