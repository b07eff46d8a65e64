"""The newest good state of a run, and the one before it."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

from sqzlab.run import CHECKPOINT, PREVIOUS_CHECKPOINT
from sqzlab.runs.files import write_whole
from sqzlab.runs.lease import Lease


def save(lease: Lease, digest: str, state: dict[str, Any]) -> None:
    """Writes the state as the newest; what was the newest is kept as the one before.

    Killed between the two renames, the run has only the one before, which `load` then takes.
    """

    def rotate(aside: Path, newest: Path) -> None:
        with lease.held():
            if newest.exists():
                newest.replace(lease.folder / PREVIOUS_CHECKPOINT)
            aside.replace(newest)

    content = io.BytesIO()  # torch.save hides what a file object raises: a full disk should be told as one
    torch.save({"digest": digest, **state}, content)
    write_whole(lease.folder / CHECKPOINT, lambda file: file.write(content.getbuffer()), rename=rotate)


def load(lease: Lease, digest: str) -> dict[str, Any] | None:
    """The newest state that can be read and belongs to this configuration, on the CPU, or None.

    The one before takes the place of a newest that is lost or damaged: the next `save` would keep the damaged one.
    """
    for name in (CHECKPOINT, PREVIOUS_CHECKPOINT):
        path = lease.folder / name
        if path.exists() and (state := read(path, digest)) is not None:
            if name == PREVIOUS_CHECKPOINT:
                with lease.held():
                    path.replace(lease.folder / CHECKPOINT)
            return state
    return None


def read(path: Path, digest: str) -> dict[str, Any] | None:
    """The state in one file, or None, with the reason on stderr, where it is damaged or of another configuration."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not check the checksums
            damaged = archive.testzip()
        if damaged is None:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if state.get("digest") == digest:
                return state
    except (OSError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        print(f"{path} cannot be read ({error}); going on from an older state", file=sys.stderr)
        return None
    print(f"{path} is damaged or of another configuration; going on from an older state", file=sys.stderr)
    return None


def drop_previous(lease: Lease) -> None:
    """Leaves only the newest state, once the run is done."""
    with lease.held():
        (lease.folder / PREVIOUS_CHECKPOINT).unlink(missing_ok=True)
