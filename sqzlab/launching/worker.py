"""The process that trains one run of the local queue. It is forked from a server that has imported torch once."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from sqzlab.errors import SqzlabError
from sqzlab.runs.code import origin
from sqzlab.runs.execute import execute
from sqzlab.runs.graphs import installed
from sqzlab.runs.stop import StopFlag

LOG = "log.txt"
GRACE_S = 20.0  # for a worker whose launcher is gone to reach a step boundary and save
PRELOADED = (torch, origin(), installed())  # the last two: of the code as it was when it was imported


def work(folder: Path, gpu: str | None, try_resuming: bool, told: Connection) -> None:
    """Executes the run and sends (outcome, error in one line, exit code). Its output goes to `log.txt`.

    `try_resuming` stops the run after its first step and goes on from its checkpoint (`--debug`).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher hears Ctrl-C and says SIGTERM
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        _redirect(folder / LOG)
        stop = StopFlag()
        _end_with_launcher(stop)
        with stop.on_signals(signal.SIGTERM):
            if try_resuming:
                execute(folder, StopFlag(after_steps=1))
            outcome: str = execute(folder, stop)
        told.send((outcome, "", 0))
    except Exception as error:  # already recorded by execute where the disk takes it; the launcher goes on
        traceback.print_exc()
        code = error.exit_code if isinstance(error, SqzlabError) else 1
        told.send(("failed", f"{type(error).__name__}: {' '.join(str(error).split())}", code))


def _redirect(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
    faulthandler.enable()


def _end_with_launcher(stop: StopFlag) -> None:
    """A killed launcher leaves no worker behind: it saves at its next step and ends."""
    launcher = parent_process()
    assert launcher is not None

    def watch() -> None:
        wait([launcher.sentinel])
        stop.set("the launcher is gone")
        time.sleep(GRACE_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
