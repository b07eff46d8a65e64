"""Weights & Biases: offline folders that `wandb sync` uploads, or a server at once where that is asked for.

A run has one id for ever, so that what is uploaded again lands in the same run. Offline, a run has one folder, whole
or absent; what is in it is told by a file beside it, and a run that has changed is written anew in its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqzlab.errors import UnavailableError
from sqzlab.tracking.epochs import TrackedRun

if TYPE_CHECKING:
    import wandb


class WeightsAndBiases:
    """Writes `<home>/offline-run-*`; raises UnavailableError where wandb is not installed or its server refuses.

    `project` is the study's folder where it is None. Without `online` nothing is ever sent, whatever the environment.
    """

    def __init__(self, home: Path, project: str | None = None, online: bool = False) -> None:
        os.environ["WANDB_ERROR_REPORTING"] = "false"  # read at the import; else even offline it asks for its server
        try:
            import wandb  # noqa: F401
        except ImportError:
            raise UnavailableError('wandb is not installed; pip install "sqzlab[wandb]"') from None
        self.home, self.project, self.online = home, project, online
        self.staged = self.home / ".staged"
        self.live: dict[str, wandb.Run] = {}  # of runs that go on, online

    def track(self, run: TrackedRun) -> bool:
        """Writes what is not there yet; returns whether there was anything."""
        return self._send(run) if self.online else self._write(run)

    def close(self) -> None:
        """Ends what is open, and W&B's own process."""
        import wandb

        for opened in self.live.values():
            opened.finish()
        self.live.clear()
        wandb.teardown()

    @property
    def look(self) -> str:
        return "sent; wandb says where" if self.online else f"to upload: wandb sync {self.home}/offline-run-*"

    def _write(self, run: TrackedRun) -> bool:
        shown = _digest(run, self.project)
        present = sorted(self.home.glob(f"offline-run-*-{run_key(run)}"))
        if any(_told(folder) == shown for folder in present):
            return False
        shutil.rmtree(self.staged, ignore_errors=True)  # of a command that was killed
        self.staged.mkdir(parents=True)
        opened = self._open(run, self.staged)
        log(opened, run)
        opened.finish(exit_code=_exit_code(run))
        (written,) = (self.staged / "wandb").glob(f"offline-run-*-{run_key(run)}")
        (written / TOLD).write_text(json.dumps({"run_id": run.run_id, "digest": shown}) + "\n", encoding="utf-8")
        for old in present:
            shutil.rmtree(old)
        written.rename(self.home / written.name)
        shutil.rmtree(self.staged)
        return True

    def _send(self, run: TrackedRun) -> bool:
        if run.run_id not in self.live:
            self.live[run.run_id] = self._open(run, self.home)
        sent = log(self.live[run.run_id], run)
        if run.ended:
            self.live.pop(run.run_id).finish(exit_code=_exit_code(run))
        return sent

    def _open(self, run: TrackedRun, folder: Path) -> wandb.Run:
        import wandb

        quiet = wandb.Settings(
            *(),
            console="off",
            silent=True,
            disable_git=True,  # what describes the run is in its config: neither this process's code nor its machine
            disable_code=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
        )
        try:
            return wandb.init(
                mode="online" if self.online else "offline",
                dir=folder,
                project=self.project or run.study,
                id=run_key(run),
                name=run.run_id,
                group=run.arm,
                config=_nested(run),
                resume="allow" if self.online else None,
                reinit="create_new",
                settings=quiet,
            )
        except wandb.Error as error:
            raise UnavailableError(f"wandb: {str(error).splitlines()[0]}") from None


def run_key(run: TrackedRun) -> str:
    """The run's id at W&B: of its name and its study's, so that it is the same wherever and whenever it is tracked."""
    return hashlib.sha256(f"{run.study}/{run.run_id}".encode()).hexdigest()[:16]


def log(opened: wandb.Run, run: TrackedRun) -> bool:
    """Logs the epochs that W&B has not yet (`step` is the first that it would take) and how far the run is."""
    news = [epoch for epoch in run.epochs if epoch.number >= opened.step]
    for epoch in news:
        opened.log({**epoch.values, "_timestamp": epoch.time_s}, step=epoch.number)
    opened.summary.update({**{f"final/{key}": value for key, value in run.final.items()}, "state": run.state})
    return bool(news)


def _exit_code(run: TrackedRun) -> int:
    return int(run.state in ("failed", "damaged"))


def _digest(run: TrackedRun, project: str | None) -> str:
    epochs = [(epoch.number, epoch.time_s, dict(epoch.values)) for epoch in run.epochs]
    shown: list[Any] = [project, run.run_id, run.arm, dict(run.config), epochs, run.state, dict(run.final)]
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def _told(folder: Path) -> str | None:
    """The digest of what the folder holds; None where it cannot be told."""
    try:
        return str(json.loads((folder / TOLD).read_bytes())["digest"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _nested(run: TrackedRun) -> dict[str, Any]:
    """`{"model": {"squeeze": "gap"}}` of `{"model.squeeze": "gap"}`."""
    nested: dict[str, Any] = {}
    for key, value in run.config.items():
        section, _, name = key.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    return nested


TOLD = "sqzlab.json"
