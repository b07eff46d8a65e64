"""What a job of Slurm does: `python -m sqzlab.slurm.job BATCH [RUN]`, once in every task of it.

It trusts nothing but files: which runs are its own stands in the batch, what is left of them in their folders. So it
may be started any number of times. A signal makes it save its state; then it asks Slurm to queue it again, but only
while Slurm calls it RUNNING: a cancelled job is COMPLETING, and would come back to life.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

from sqzlab.errors import SqzlabError
from sqzlab.run import FAILURE, METRICS
from sqzlab.runs.failure import failure
from sqzlab.runs.lease import TTL_S, BusyError, Lease, LeaseLostError
from sqzlab.runs.stop import StopFlag
from sqzlab.slurm import canary, client
from sqzlab.slurm.batches import Batch
from sqzlab.slurm.client import SilentError
from sqzlab.slurm.throttle import Balancing

DONE, FAILED, INTERRUPTED = 0, 1, 75
ASK_AGAIN_S = 5.0
REFUSED_S = 600.0  # so long a job that Slurm refuses to queue again waits to be killed or preempted
SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


def main(batch_folder: Path, run_id: str | None = None) -> int:
    """Exit code of this task."""
    for number in SIGNALS:  # preemption and srun send them more than once: the second must not kill what saves
        signal.signal(number, signal.SIG_IGN)
    stop = StopFlag()
    with stop.on_signals(*SIGNALS):
        batch = Batch.read(batch_folder)
        if batch is None:
            print(f"{batch_folder}: the batch is gone; nothing to do")
            return FAILED
        if run_id is not None:
            return _train(batch, run_id, stop)
        job_id = _job_id()
        mine = batch.runs[int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))]
        runs = [one for one in mine if _is_left(batch, one)]
        if not runs:
            return DONE
        work = _compile if batch.graphs else _train
        if int(os.environ.get("SLURM_PROCID", "0")) > 0:
            return FAILED if work(batch, runs[0], stop) == FAILED else DONE  # what is not 0 ends the other tasks
        with Balancing(batch.study_folder):
            alone = len(mine) == 1 or batch.graphs
            code = work(batch, runs[0], stop) if alone else _train_together(batch, runs, stop)
            if code == INTERRUPTED:
                return _requeue(batch, job_id, mine)
            if code == FAILED and not batch.graphs:
                canary.after_failure(batch)
            return code


def _is_left(batch: Batch, run_id: str) -> bool:
    """First act of every job, also of one that Slurm started again after it had finished."""
    if (batch.study_folder / run_id / METRICS).exists():
        print(f"{run_id}: done already", flush=True)
        return False
    if run_id in batch.cancelled():
        print(f"{run_id}: cancelled", flush=True)
        return False
    if canary.failed(batch, run_id) is not None:  # in this job's former start, beside one that was interrupted
        print(f"{run_id}: failed before", flush=True)
        return False
    return True


def _train(batch: Batch, run_id: str, stop: StopFlag) -> int:
    folder = batch.study_folder / run_id
    if stop.why == signal.SIGTERM.name:  # told to go before anything was loaded
        return INTERRUPTED
    try:
        from sqzlab.runs.execute import execute

        outcome = execute(folder, stop)
        if outcome == "busy":
            _wait_out(stop)
            outcome = "interrupted" if stop.why else execute(folder, stop)
    except Exception as error:
        print(f"{run_id}: {error}" if isinstance(error, SqzlabError) else traceback.format_exc(), flush=True)
        if not (folder / FAILURE).exists():  # nothing could even begin: an installation that this node lacks
            _record(folder, error)
        return FAILED
    print(f"{run_id}: {outcome}", flush=True)
    return INTERRUPTED if outcome == "interrupted" else DONE


def _compile(batch: Batch, run_id: str, stop: StopFlag) -> int:
    """What the run shares with others, by files alone; a signal is heeded before it begins, it takes a minute.

    Where it fails, nothing is recorded: the runs begin anyway, compile for themselves and tell what is wrong.
    """
    if stop.why == signal.SIGTERM.name:
        return INTERRUPTED
    try:
        from sqzlab.runs.kernels import prepare

        prepare(batch.study_folder / run_id, lambda: stop.why is not None)
    except Exception as error:
        if stop.why is not None:  # the tasks of the job have not all come, or one was ended
            return INTERRUPTED
        print(f"{run_id}: {error}" if isinstance(error, SqzlabError) else traceback.format_exc(), flush=True)
        return FAILED
    print(f"{run_id}: compiled", flush=True)
    return DONE


def _wait_out(stop: StopFlag) -> None:
    """Until the lease of a holder that is dead on another node has run out: only its silence tells."""
    deadline = time.monotonic() + TTL_S + ASK_AGAIN_S
    while time.monotonic() < deadline and not stop.why:
        time.sleep(0.5)


def _record(folder: Path, error: Exception) -> None:
    with suppress(BusyError, LeaseLostError, OSError):
        lease = Lease.acquire(folder)
        lease.write_json(FAILURE, failure(error))
        lease.release()


def _train_together(batch: Batch, run_ids: list[str], stop: StopFlag) -> int:
    """A process for each run, all at once on what the job was given. One that fails ends no other."""
    processes = []
    for run_id in run_ids:
        command = [sys.executable, "-u", "-m", "sqzlab.slurm.job", str(batch.folder), run_id]
        folder = batch.study_folder / run_id
        with (folder / "log.txt").open("ab") as log:
            processes.append(subprocess.Popen(command, stdout=log, stderr=log))
    told = False
    while any(process.poll() is None for process in processes):
        if stop.why and not told:
            told = True
            for process in processes:
                process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    codes = {process.returncode for process in processes}
    for run_id, process in zip(run_ids, processes, strict=True):
        print(f"{run_id}: exit code {process.returncode}", flush=True)
    if codes & {INTERRUPTED, -signal.SIGTERM, -signal.SIGUSR2}:  # by the signal: before Python could heed it
        return INTERRUPTED
    return DONE if codes == {DONE} else FAILED


def _requeue(batch: Batch, job_id: str, mine: tuple[str, ...]) -> int:
    """Puts the job back into the queue, or lets it end where Slurm is ending it.

    A job that ends by itself while Slurm calls it RUNNING would count as completed, and its run be lost: so where the
    controller does not answer it asks again, and where it refuses the job waits to be preempted.
    """
    deadline = time.monotonic() + REFUSED_S
    while True:
        try:
            state, restarts = client.state_of(job_id)
            if restarts != int(os.environ.get("SLURM_RESTART_COUNT", "0")):
                print("not queued again: Slurm has done so", flush=True)  # asked now, it would stop the copy elsewhere
                return FAILED
            if state != "RUNNING" or batch.cancelled().issuperset(mine):
                print(f"not queued again: {state if state != 'RUNNING' else 'cancelled'}", flush=True)
                return FAILED
            client.requeue(job_id)
            print(f"job {job_id} is queued again", flush=True)
            return INTERRUPTED
        except SilentError as error:
            print(f"asking for a requeue: {error}", flush=True)
            if time.monotonic() > deadline and client.why_silent() is None:
                return FAILED
        time.sleep(ASK_AGAIN_S)


def _job_id() -> str:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:3]))
