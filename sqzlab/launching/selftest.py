"""`python launch.py --selftest`: three small runs through the user's own cluster, and what works there.

They are submitted, signalled, queued again, resumed and cancelled by the code that does so with a study. Each step
says `ok`, `FAILED` or `not available`, and what that means for studies. Nothing of it stays in the queue.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from sqzlab.errors import UnavailableError
from sqzlab.launching.display import say
from sqzlab.launching.plan import prepare
from sqzlab.launching.site import Site
from sqzlab.launching.status import State, duration
from sqzlab.launching.waiting import AT_WORK, QUEUED, Look, Sent, StoppedError, tell, wait
from sqzlab.run import METRICS, Run
from sqzlab.runs.files import read_json
from sqzlab.slurm import client
from sqzlab.slurm.batches import BATCH, locked, read_all
from sqzlab.slurm.cancel import cancel
from sqzlab.slurm.options import Options
from sqzlab.slurm.submit import Submitted, submit
from sqzlab.study.study import Study, load_study

STUDY = """\
description: what --selftest sends; the longer run is the one that is cancelled
matrix:
  train.epochs: [{short}, {long}]
seeds: [0]
defaults:
  model: {{backbone: resnet18, squeeze: gap, reduction: 4, stem: small, width: 0.125}}
  data: {{name: digits}}
  train: {{recipe: digits, checkpoint_steps: 20, device: {device}, deterministic: true}}
slurm: {{cpus: 1, memory: 4GB, time: 0:15:00}}
"""
EPOCHS = {"cpu": 20, "cuda": 120}
"""Half a minute to a minute: on a network disk, what a node has written may be seen half a minute later."""

PATIENCE_S = 1800.0  # in the queue
OF_THE_PLACE = ("train_images_per_s", "time_s")
OK, FAILED, LACKING = "ok", "FAILED", "not available"
COLOURS = {OK: "green", FAILED: "red", LACKING: "yellow"}


def selftest(results: Path, options: Options, console: Console, patience_s: float = PATIENCE_S) -> int:
    """Exit code: 0 all that studies need works, 1 something failed. Raises UnavailableError where Slurm refuses.

    `options` are sbatch's. A job waits at most `patience_s` seconds in the queue. What was sent lies in a folder of
    its own under `results`, which stays only if something failed.
    """
    test = _Selftest(results.resolve() / f"selftest-{secrets.token_hex(2)}", options, console, patience_s)
    try:
        with _interruptible():
            test.run()
    except StoppedError as stopped:
        test.tell(FAILED, stopped.what, str(stopped))
    finally:
        test.clean_up()
    if test.failed:
        say(console, f"{test.failed} of {test.told} FAILED; what was sent lies in {test.home}")
        return 1
    say(console, "All that a study needs works on this cluster.")
    return 0


class _Selftest:
    """The steps in the order of their execution; each tells how it went."""

    def __init__(self, home: Path, options: Options, console: Console, patience_s: float) -> None:
        self.home, self.options, self.console, self.patience_s = home, options, console, patience_s
        self.told = self.failed = 0
        self.studies: dict[Path, Sequence[Run]] = {}  # what may be in the queue
        gpu = any(key.startswith("gpus") or (key == "gres" and "gpu" in str(value)) for key, value in options.items())
        self.device = "cuda" if gpu else "cpu"

    def run(self) -> None:
        asked = "".join(f" {key}={value}" for key, value in self.options.items())
        say(self.console, f"Sending three small runs to Slurm{' with' if asked else ''}{asked}; Ctrl-C cancels them.")
        partition = self.options.get("partition")
        site = Site.ask(None if partition is None else str(partition))
        for there, what, said in site.told():
            self.tell(OK if there else LACKING, what, said)
        study = self._study()
        short, long = study.runs
        signalled, spare = Sent(self.home / "selftest", short), Sent(self.home / "selftest", long)
        whole = Sent(self.home / "undisturbed", short)
        self._submit(study, {signalled.study_folder: study.runs, whole.study_folder: (short,)})
        self._start(signalled)
        self._node(signalled)
        self._signal(signalled, site.requeue_delay_s)
        self._cancel(spare)
        self._resume(signalled)
        self._compare(signalled, whole)
        self._stays_cancelled(spare)

    def tell(self, word: str, what: str, said: str) -> None:
        self.told += 1
        self.failed += word == FAILED
        tell(self.console, word, COLOURS[word], f"{what}: {said}")

    # ---- the steps -----------------------------------------------------------------------------

    def _study(self) -> Study:
        self.home.mkdir(parents=True)
        path, epochs = self.home / "selftest.yaml", EPOCHS[self.device]
        path.write_text(STUDY.format(short=epochs, long=10 * epochs, device=self.device))
        return load_study(path)

    def _submit(self, study: Study, studies: Mapping[Path, Sequence[Run]]) -> None:
        accepted: list[Submitted] = []
        began = time.monotonic()
        for folder, runs in studies.items():
            self.studies[folder] = runs
            with locked(folder):
                prepare(runs, folder)
                sent = submit(study, runs, folder, self.options, None)
                accepted += [one for one in sent if isinstance(one, Submitted)]
        ids = " and ".join(one.job_id for one in accepted)
        self.tell(OK, "submit", f"arrays {ids} accepted in {time.monotonic() - began:.1f} s")

    def _start(self, sent: Sent) -> None:
        began = time.monotonic()
        self._wait("start", sent, lambda look: look.place == AT_WORK or look.trains)
        started = time.monotonic()
        self._wait("start", sent, lambda look: look.trains)
        took = f"{duration(started - began)} in the queue, {duration(time.monotonic() - started)} to load and begin"
        self.tell(OK, "start", took)

    def _node(self, sent: Sent) -> None:
        found = sent.provenance()
        node = found["segments"][-1]["node"]
        self.tell(OK, "results", f"node {node} reads and writes {self.home.parent}")
        self.tell(OK, "software", f"Python {found['python']} and torch {found['torch']} on {node}")
        if self.device == "cuda":
            self.tell(OK, "GPU", f"{found['gpu']}, CUDA {found['cuda']}")
        else:
            self.tell(LACKING, "GPU", "none was asked for; --slurm gpus_per_node=1 tries one")
        submitted = (read_json(read_all(sent.study_folder)[-1].folder / BATCH) or {})["code"]
        if found["code"] == submitted:
            self.tell(OK, "code", f"what runs is what was submitted ({submitted})")
        else:
            self.tell(FAILED, "code", f"submitted was {submitted}, but {found['code']} runs: is PYTHONPATH set there?")

    def _signal(self, sent: Sent, delay_s: int) -> None:
        look = sent.look()
        if look.job is None or look.status.state is not State.RUNNING:
            raise StoppedError("signal", f"too late, the run is {look.status.text}")
        client.ask("scancel", "--signal=USR2", look.job.job_id)
        began = time.monotonic()
        look = self._wait("signal", sent, lambda look: look.saved is not None)
        assert look.saved is not None
        took = duration(time.monotonic() - began)
        self.tell(OK, "signal", f"SIGUSR2 made the run save its state at step {look.saved['last_step']} ({took})")
        self._wait("requeue", sent, lambda look: look.place == QUEUED or len(look.segments) > 1)
        self.tell(OK, "requeue", f"the job is queued again; Slurm lets it wait for {duration(delay_s)} or more")

    def _cancel(self, sent: Sent) -> None:
        look = self._wait("cancel", sent, lambda look: look.trains)
        began, was = time.monotonic(), look.status.state
        with locked(sent.study_folder):
            ids = cancel(sent.study_folder, [sent.run.run_id])
        took = duration(time.monotonic() - began)
        look = sent.look()
        if look.status.detail.startswith("cancelled"):
            told = f"job {', '.join(ids)} was {was}, is gone after {took}; the run is {look.status.text}"
            self.tell(OK, "cancel", told)
        else:
            self.tell(FAILED, "cancel", f"the run of job {', '.join(ids)} is {look.status.text}")

    def _resume(self, sent: Sent) -> None:
        look = self._wait("resume", sent, lambda look: len(look.segments) > 1)
        saved = look.saved
        assert saved is not None
        then = look.segments[look.segments.index(saved) + 1]
        if then["first_step"] == saved["last_step"]:
            told = f"on node {then['node']}, at step {then['first_step']}: no step is lost or repeated"
            self.tell(OK, "resume", told)
        else:
            self.tell(FAILED, "resume", f"at step {then['first_step']}, but saved was step {saved['last_step']}")

    def _compare(self, signalled: Sent, whole: Sent) -> None:
        for sent in (signalled, whole):
            self._wait("result", sent, lambda look: look.status.state is State.DONE)
        ours, theirs = (read_json(sent.folder / METRICS) or {} for sent in (signalled, whole))
        keys = sorted(ours.keys() | theirs.keys())
        apart = [key for key in keys if key not in OF_THE_PLACE and ours.get(key) != theirs.get(key)]
        if not apart:
            self.tell(OK, "result", f"equals that of the same run undisturbed, top-1 {100 * ours['top1']:.2f} %")
            return
        machines = {_machine(sent.provenance()) for sent in (signalled, whole)}
        if len(machines) > 1:
            told = f"the runs to compare came to unlike machines, which round unlike: {'; '.join(sorted(machines))}"
            self.tell(LACKING, "result", told)
        else:
            self.tell(FAILED, "result", f"differs from that of the same run undisturbed in {', '.join(apart)}")

    def _stays_cancelled(self, sent: Sent) -> None:
        look = sent.look()
        if look.job is None:
            self.tell(OK, "cancelled", "the cancelled job has not come back")
        else:
            self.tell(FAILED, "cancelled", f"job {look.job.job_id} has come back and is {look.job.state}")

    def _wait(self, what: str, sent: Sent, reached: Callable[[Look], bool]) -> Look:
        return wait(self.console, what, sent, reached, self.patience_s)

    # ---- afterwards ----------------------------------------------------------------------------

    def clean_up(self) -> None:
        """Leaves nothing in the queue, and the folder only if something failed."""
        for folder, runs in self.studies.items():
            try:
                with locked(folder):
                    cancel(folder, [run.run_id for run in runs])
            except UnavailableError as error:
                self.tell(FAILED, "clean-up", f"{error}; see squeue --me, names sqzlab-{folder.name}")
        if not self.failed:
            shutil.rmtree(self.home, ignore_errors=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """A closed terminal and a kill leave no job behind either: they act as Ctrl-C does, unless nohup is in force."""
    heeded = [n for n in (signal.SIGHUP, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, signal.default_int_handler) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _machine(provenance: Mapping[str, Any]) -> str:
    return str(provenance.get("gpu") or provenance.get("cpu"))
