"""A run ends with the same bits whatever happened to it on the way, and says what did."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from same_result import assert_same_result, segments
from small_runs import MakeRun, execute_to_end, executing, lines, stop, wait_for

from sqzlab.data.open import Batch, open_data
from sqzlab.errors import ConfigError, UnavailableError
from sqzlab.launching.status import State, status_of
from sqzlab.run import CHECKPOINT, CONFIG, EPOCHS, FAILURE, LEASE, METRICS, PREVIOUS_CHECKPOINT, PROVENANCE
from sqzlab.runs.execute import execute
from sqzlab.runs.files import read_json, write_json
from sqzlab.runs.kernels import boot, node_folder
from sqzlab.runs.stop import StopFlag
from sqzlab.training.trainer import DivergedError

INTERVAL = 3  # steps between checkpoints of the small runs


def repeated_steps(folder: Path) -> list[int]:
    """Steps done again after each interruption."""
    parts = segments(folder)
    return [before["last_step"] - after["first_step"] for before, after in pairwise(parts)]


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, Path]:
    """The finished run of an arm, by squeeze; made once."""
    return {}


def reference(uninterrupted: dict[str, Path], make_run: MakeRun, squeeze: str) -> Path:
    if squeeze not in uninterrupted:
        folder = make_run(f"reference-{squeeze}", squeeze)
        assert execute(folder) == "done"
        uninterrupted[squeeze] = folder
    return uninterrupted[squeeze]


@pytest.mark.parametrize("squeeze", ["baseline", "gap", "gmp", "std", "gapXstd", "random", "SP", "RG"])
def test_a_run_stopped_after_any_step_ends_with_the_same_bits(
    uninterrupted: dict[str, Path], make_run: MakeRun, squeeze: str
) -> None:
    folder = make_run("stopped", squeeze)
    for steps in (1, 7, 4):  # within an epoch, at its last step, in the next
        assert execute(folder, StopFlag(after_steps=steps)) == "interrupted"
    assert execute(folder) == "done"
    assert_same_result(folder, reference(uninterrupted, make_run, squeeze))
    assert repeated_steps(folder) == [0, 0, 0]
    assert [part["why"] for part in segments(folder)][-1] == "done"


def test_killed_at_random_moments_it_resumes_and_ends_with_the_same_bits(
    uninterrupted: dict[str, Path], make_run: MakeRun
) -> None:
    folder, moments = make_run("killed", "random"), random.Random(7)
    kills = 0
    while kills < 5 and not (folder / METRICS).exists():
        with executing(folder) as (process, _):
            began = len(segments(folder)) if (folder / PROVENANCE).exists() else 0
            wait_for(lambda began=began: (folder / PROVENANCE).exists() and len(segments(folder)) > began)
            if kills == 4:  # on a busy machine the others may all have come before the first checkpoint
                wait_for((folder / CHECKPOINT).exists)
            time.sleep(moments.uniform(0.0, 0.5))
            stop(process, signal.SIGKILL)
            process.join()
        kills += 1
    assert execute_to_end(folder) == "done"
    assert_same_result(folder, reference(uninterrupted, make_run, "random"))
    parts = segments(folder)
    assert len(parts) == kills + 1
    assert [part["why"] for part in parts] == ["killed"] * kills + ["done"]
    assert parts[-1]["first_step"] > 0, "it began anew instead of resuming"
    assert max(repeated_steps(folder)) <= INTERVAL


def test_killed_while_it_writes_a_checkpoint_it_resumes_from_the_one_before(
    uninterrupted: dict[str, Path], make_run: MakeRun
) -> None:
    folder = make_run("writing", "gap")
    for round_ in range(3):
        with executing(folder) as (process, _):
            before = segments(folder)[-1]["last_step"] if round_ else 0
            wait_for(
                lambda before=before: (
                    (folder / CHECKPOINT).exists()
                    and segments(folder)[-1]["end"] is None
                    and segments(folder)[-1]["last_step"] > before
                    and any(folder.glob(f".{CHECKPOINT}.*.tmp"))
                ),
                poll_s=0,
            )
            stop(process, signal.SIGKILL)
            process.join()
    assert execute_to_end(folder) == "done"
    assert_same_result(folder, reference(uninterrupted, make_run, "gap"))
    assert max(repeated_steps(folder)) <= INTERVAL
    assert not list(folder.glob(".*.tmp")), "what the killed writers left was not swept away"


def test_on_sigterm_it_saves_at_the_next_step_and_repeats_nothing(
    uninterrupted: dict[str, Path], make_run: MakeRun
) -> None:
    folder = make_run("terminated", "SP")
    with executing(folder) as (process, said):
        wait_for(lambda: (folder / CHECKPOINT).exists())
        stop(process, signal.SIGTERM)
        process.join(60)
        assert said.recv() == ("interrupted", "", 0)
    assert segments(folder)[-1]["why"] == "interrupted: SIGTERM"
    assert execute_to_end(folder) == "done"
    assert repeated_steps(folder) == [0]
    assert_same_result(folder, reference(uninterrupted, make_run, "SP"))


def test_told_to_stop_it_does_not_finish_the_evaluation_first(
    uninterrupted: dict[str, Path], make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, flag = make_run("evaluating", "gap"), StopFlag()
    evaluated = []

    def opening(*arguments: Any, **how: Any) -> Any:
        data = open_data(*arguments, **how)
        val_batches = data.val_batches

        def told_on_the_way(*, pinned: bool) -> Iterator[Batch]:
            for batch in val_batches(pinned=pinned):
                evaluated.append(batch)
                flag.set("SIGTERM")
                yield batch

        monkeypatch.setattr(data, "val_batches", told_on_the_way)
        return data

    with monkeypatch.context() as patch:
        patch.setattr("sqzlab.runs.execute.open_data", opening)
        assert execute(folder, flag) == "interrupted"
    assert len(evaluated) == 1
    assert segments(folder)[-1]["last_step"] == 8
    assert lines(folder / EPOCHS) == []
    assert execute(folder) == "done"
    assert_same_result(folder, reference(uninterrupted, make_run, "gap"))
    assert repeated_steps(folder) == [0]


def test_a_run_compiles_into_a_folder_of_its_node_publishes_it_and_leaves_the_process_its_own(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, seen = make_run(train__compile=True, train__epochs=2, train__limit_batches=1), set()

    def backend(graph: Any, _inputs: list[Any]) -> Any:
        seen.add((os.environ["TORCHINDUCTOR_CACHE_DIR"], os.environ["TRITON_CACHE_DIR"]))
        (Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]) / "fxgraph").mkdir(exist_ok=True)  # as torch's own keeps a graph
        return graph.forward

    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "of the node"))
    (tmp_path / "of the node").mkdir()
    assert execute(folder) == "done"
    torch.compiler.reset()
    (archive,) = (folder.parent / "kernels").iterdir()
    local = node_folder() / f"{archive.stem}-{boot()}"
    assert local.is_relative_to(tmp_path)
    assert seen == {(str(local), str(local / "triton"))}
    assert not {"TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"} & os.environ.keys()


def test_a_done_run_returns_at_once_and_touches_nothing(make_run: MakeRun) -> None:
    folder = make_run(train__epochs=2, train__limit_batches=1)
    assert execute(folder) == "done"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert execute(folder) == "done"
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_run_that_another_process_holds_is_busy(make_run: MakeRun) -> None:
    folder = make_run()
    with executing(folder) as (process, _):
        wait_for((folder / LEASE).exists)
        stop(process, signal.SIGSTOP)
        assert execute(folder) == "busy"
        assert not (folder / METRICS).exists()


@pytest.mark.parametrize("name", [CHECKPOINT, METRICS, EPOCHS, PROVENANCE, LEASE])
@pytest.mark.parametrize("damage", ["cut", "emptied"])
def test_a_damaged_file_costs_at_most_repeated_work(
    uninterrupted: dict[str, Path], make_run: MakeRun, name: str, damage: str
) -> None:
    folder = make_run("damaged", "gmp")
    execute(folder, StopFlag(after_steps=14))
    path = folder / name
    whole = path.read_bytes() if path.exists() else b'{"top1": 0.9, "top5"'
    path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    assert execute(folder) == "done"
    assert_same_result(folder, reference(uninterrupted, make_run, "gmp"))


def test_a_changed_byte_in_a_checkpoint_is_noticed(
    uninterrupted: dict[str, Path], make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run("changed", "gmp")
    execute(folder, StopFlag(after_steps=14))
    path = folder / CHECKPOINT
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert execute(folder) == "done"
    assert "going on from an older state" in capsys.readouterr().err
    assert segments(folder)[-1]["first_step"] > 0
    assert_same_result(folder, reference(uninterrupted, make_run, "gmp"))


def test_a_damaged_checkpoint_does_not_take_the_place_of_the_good_one_before(make_run: MakeRun) -> None:
    folder = make_run("rotated", "gmp")
    execute(folder, StopFlag(after_steps=4))  # saves after 3 and 4
    (folder / CHECKPOINT).write_bytes(b"PK")
    execute(folder, StopFlag(after_steps=1))  # goes on from 3, saves after 4
    (folder / CHECKPOINT).unlink()  # as a kill between the two renames leaves it
    execute(folder, StopFlag(after_steps=1))
    assert [part["first_step"] for part in segments(folder)] == [0, 3, 3]


def test_without_any_good_checkpoint_it_begins_anew(uninterrupted: dict[str, Path], make_run: MakeRun) -> None:
    folder = make_run("lost", "gmp")
    execute(folder, StopFlag(after_steps=14))
    for name in (CHECKPOINT, PREVIOUS_CHECKPOINT):
        (folder / name).write_bytes(b"PK")
    assert execute(folder) == "done"
    assert segments(folder)[-1]["first_step"] == 0
    assert_same_result(folder, reference(uninterrupted, make_run, "gmp"))


def test_a_checkpoint_of_another_configuration_is_not_used(make_run: MakeRun) -> None:
    mine, other = make_run("mine", "gap"), make_run("other", "gap", seed=1)
    execute(other, StopFlag(after_steps=5))
    (mine / CHECKPOINT).write_bytes((other / CHECKPOINT).read_bytes())
    execute(mine, StopFlag(after_steps=1))
    assert segments(mine)[0]["first_step"] == 0


def test_a_loss_that_is_not_finite_fails_the_run_and_says_where(make_run: MakeRun) -> None:
    folder = make_run(train__lr=1e30)
    with pytest.raises(DivergedError, match="not finite"):
        execute(folder)
    failure = read_json(folder / FAILURE)
    assert failure is not None
    assert failure["error"].startswith("DivergedError: the training loss is not finite at step ")
    assert "Traceback" in failure["traceback"]
    assert not (folder / METRICS).exists()


def test_a_segment_that_fails_says_so_and_is_not_taken_for_killed(make_run: MakeRun) -> None:
    folder = make_run(train__lr=1e30)
    for _ in range(2):
        with pytest.raises(DivergedError):
            execute(folder)
    for part in segments(folder):
        assert part["why"].startswith("failed: DivergedError: the training loss is not finite")
        assert part["end"] is not None


def test_a_failure_is_forgotten_once_the_run_is_tried_again(make_run: MakeRun) -> None:
    folder = make_run()
    write_json(folder / FAILURE, {"error": "of an earlier try"})
    assert execute(folder, StopFlag(after_steps=4)) == "interrupted"
    assert status_of(folder).state is State.INTERRUPTED


def test_a_writer_that_was_superseded_while_it_wrote_is_lost_and_has_not_failed(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run()
    torch_save = torch.save

    def overtaken(*arguments: Any) -> None:
        torch_save(*arguments)
        lease = read_json(folder / LEASE)
        assert lease is not None
        write_json(folder / LEASE, {**lease, "token": lease["token"] + 1})
        raise FileNotFoundError("the new holder has swept away the file that is being written")

    monkeypatch.setattr(torch, "save", overtaken)
    assert execute(folder) == "lost"
    assert not (folder / FAILURE).exists()


@pytest.mark.parametrize("described", [{}, {"study": "s", "profile": None, "cell": {}, "config": {"seed": 0}}])
def test_a_configuration_of_another_form_is_refused(tmp_path: Path, described: dict[str, Any]) -> None:
    write_json(tmp_path / CONFIG, described)
    with pytest.raises(ConfigError, match=r"config\.json: missing or damaged"):
        execute(tmp_path)


def test_a_run_says_that_it_lives_while_its_data_set_is_opened(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run()
    beats = []

    def opening(*arguments: Any, **how: Any) -> Any:
        old = time.time() - 50
        os.utime(folder / LEASE, (old, old))
        wait_for(lambda: (folder / LEASE).stat().st_mtime > old + 40, seconds=10)
        beats.append(True)
        return open_data(*arguments, **how)

    monkeypatch.setattr("sqzlab.runs.execute.open_data", opening)
    assert execute(folder, StopFlag(after_steps=1)) == "interrupted"
    assert beats


def test_a_gpu_that_is_not_there_fails_the_run_and_names_the_node(make_run: MakeRun) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    folder = make_run(train__device="cuda")
    with pytest.raises(UnavailableError, match=socket.gethostname()):
        execute(folder)
    assert (folder / FAILURE).exists()


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: missing or damaged"):
        execute(tmp_path)
    (tmp_path / CONFIG).write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json: missing or damaged"):
        execute(tmp_path)


def test_the_arms_share_initial_weights_and_data_order(uninterrupted: dict[str, Path], make_run: MakeRun) -> None:
    found = set()
    for squeeze in ("baseline", "random", "RG"):
        metrics = json.loads((reference(uninterrupted, make_run, squeeze) / METRICS).read_text())
        found.add((metrics["initial_weights"], metrics["data_order"]))
    assert len(found) == 1
    other = make_run("another-seed", seed=1, train__epochs=2, train__limit_batches=1)
    execute(other)
    metrics = json.loads((other / METRICS).read_text())
    assert not {metrics["initial_weights"], metrics["data_order"]} & set(found.pop())
