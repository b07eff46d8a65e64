import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import islice
from multiprocessing import forkserver
from pathlib import Path

import pytest

from sqzlab.data.open import open_data
from sqzlab.errors import UnavailableError

WORKERS = min(2, len(os.sched_getaffinity(0)))


@pytest.fixture
def opened(config_of):
    def open_(workers=2, **changes):
        return open_data(config_of("imagefolder", workers=workers, **changes), batch_size=2, seed=4, val_batch_size=2)

    return open_


def gone(pids, within_s=15.0):
    end = time.monotonic() + within_s
    while (left := [pid for pid in pids if alive(pid)]) and time.monotonic() < end:
        time.sleep(0.02)
    return not left


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def workers_now():
    return [child.pid for child in multiprocessing.active_children()]


@pytest.fixture(autouse=True, scope="module")
def _fork_server_of_our_own():
    """One that another file's tests started here has no signals blocked: a worker hears them until it has begun."""
    forkserver._forkserver._stop()


@pytest.fixture(autouse=True)
def _no_worker_is_left():
    assert workers_now() == []
    yield
    gc.collect()
    assert workers_now() == []


@pytest.mark.parametrize("start", [0, 3])
def test_batches_are_the_same_with_and_without_workers(opened, start, same):
    alone, helped = opened(workers=0), opened()
    same(alone.train_batches(1, start=start), helped.train_batches(1, start=start))
    same(alone.val_batches(), helped.val_batches())


def test_training_and_validation_may_be_read_in_turns(opened, same):
    alone, helped = opened(workers=0), opened()
    train = helped.train_batches(0)
    first = [next(train), next(train)]
    same(helped.val_batches(), alone.val_batches())
    same([*first, *train], alone.train_batches(0))


def test_workers_end_with_the_epoch(opened):
    batches = opened().train_batches(0)
    next(batches)
    pids = workers_now()
    assert len(pids) == WORKERS
    list(batches)
    assert gone(pids)


def test_workers_end_when_the_iterator_is_given_up(opened):
    batches = opened().train_batches(0)
    next(batches)
    pids = workers_now()
    del batches
    assert pids
    assert gone(pids)


def test_workers_end_when_an_epoch_is_cut_short(opened):
    data = opened()
    for _ in islice(data.train_batches(0), 1):
        pids = workers_now()
    assert pids
    assert gone(pids)


def test_closing_ends_the_workers_of_every_iterator(opened):
    data = opened()
    running = [data.train_batches(0), data.val_batches()]
    for batches in running:
        next(batches)
    pids = workers_now()
    assert len(pids) == 2 * WORKERS
    data.close()
    assert gone(pids)
    assert [list(batches) for batches in running] == [[], []]
    data.close()


def test_no_more_workers_start_than_there_are_batches(opened):
    batches = opened(workers=7).train_batches(0, start=4)
    next(batches)
    assert len(workers_now()) == 1
    batches.close()


def test_a_broken_image_is_named_in_one_line_by_a_worker_too(opened, tmp_path):
    for split, content in (("train", b"\xff\xd8 no image"), ("val", b"")):
        (tmp_path / split / "a").mkdir(parents=True)
        for number in range(4):
            (tmp_path / split / "a" / f"{number}.jpg").write_bytes(content)
    data = opened(root=str(tmp_path), classes=1, train_images=4, val_images=4)
    with pytest.raises(UnavailableError, match=r"^image '.*/\d\.jpg' cannot be read \([^\n]*\)$"):
        next(data.train_batches(0))


def test_a_worker_that_is_killed_is_an_error_and_no_endless_wait(opened):
    data = opened()
    batches = data.train_batches(0)
    next(batches)
    for pid in workers_now():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises((RuntimeError, ConnectionError, EOFError)):  # by what it was doing just then
        list(batches)


def test_workers_ignore_interrupts_and_end_on_sigterm(opened):
    batches = opened().train_batches(0)
    next(batches)
    pids = workers_now()
    for pid in pids:
        os.kill(pid, signal.SIGINT)
    time.sleep(0.2)
    assert workers_now() == pids
    os.kill(pids[0], signal.SIGTERM)
    assert gone(pids[:1])
    batches.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
def test_workers_do_not_hear_the_signals_that_others_send_to_the_whole_job(opened, same, number):
    data = opened()
    batches = data.train_batches(0)
    first, pids = next(batches), workers_now()
    subprocess.run(["kill", f"-{number.value}", *map(str, pids)], check=True)
    same([first, *batches], opened(workers=0).train_batches(0))
    assert gone(pids)


TRAINER = """
import multiprocessing, signal, sys, time
from sqzlab.config import DataConfig
from sqzlab.data.open import open_data

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: print("handled", flush=True))
    config = DataConfig(name="imagefolder", root=sys.argv[1], image_size=32, workers=2,
                        classes=2, train_images=11, val_images=5)
    batches = open_data(config, batch_size=2, seed=0).train_batches(0)
    next(batches)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(number, folders, tmp_path):
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, script, folders],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored where pytest runs in the background
    ) as trainer:
        pids = [int(pid) for pid in trainer.stdout.readline().split()]
        assert len(pids) == WORKERS
        if number == signal.SIGINT:
            os.killpg(trainer.pid, number)  # as the terminal does
        else:
            trainer.send_signal(number)
        trainer.wait(20)
        assert gone(pids, within_s=10)
