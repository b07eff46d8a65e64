"""W&B's offline folders, written by the command in a process of its own and read by W&B's own messages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tracked_study import copied, lines, runs, unfinish, write

from sqzlab.tracking.epochs import SERIES, read_run
from sqzlab.tracking.wandb import run_key

ROOT = Path(__file__).parents[2]
DEADLINE_S = 240.0  # only so that nothing waits for ever


class _Asked(BaseHTTPRequestHandler):
    """Refuses everything and notes that it was asked."""

    paths: list[str]

    def _refuse(self) -> None:
        self.paths.append(self.path)
        self.send_error(401)

    do_GET = do_POST = do_PUT = _refuse  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """The address of a server that refuses, and what it was asked for."""
    paths: list[str] = []
    handler = type("Handler", (_Asked,), {"paths": paths})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}", paths
        serving.shutdown()
        thread.join()


def track(study: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command with nothing of W&B in its environment but these variables, and a home of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    env = clean | {"HOME": str(study.parent), "XDG_CONFIG_HOME": str(study.parent / ".config")} | variables
    command = [sys.executable, "-W", "error", "-m", "sqzlab", "track", str(study), "--to", "wandb", *words]
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as child:
        try:
            out, err = child.communicate(timeout=DEADLINE_S)
        finally:
            left = _of_session(child.pid)
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
    assert not left, "left a process behind"
    return subprocess.CompletedProcess(command, child.returncode, out, err)


def _of_session(session: int) -> list[int]:
    """The living processes of the session, by id."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue  # it has ended
        state, _, _, of_session = text.rpartition(")")[2].split()[:4]
        if int(of_session) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


def folders(study: Path) -> dict[str, Path]:
    """The offline folder of each run by its name."""
    by_key = {run_key(read_run(run)[0]): run.name for run in runs(study)}
    found = sorted((study / "wandb").glob("offline-run-*"))
    named = {by_key[folder.name.rpartition("-")[2]]: folder for folder in found}
    assert len(named) == len(found), "a run has two folders"
    return named


def held(study: Path) -> dict[str, dict[str, Any]]:
    """What W&B's files hold, by run."""
    paths = {name: next(folder.glob("run-*.wandb")) for name, folder in folders(study).items()}
    command = [sys.executable, str(ROOT / "tests/wandb_file.py"), *map(str, paths.values())]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    of = dict(zip(paths, told, strict=True))
    return {run.name: of[run.name] for run in runs(study)}


def test_offline_folders_hold_the_records_and_nothing_is_sent(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    study, (address, asked) = copied(tmp_path / "study"), server
    done = track(study, WANDB_API_KEY="0" * 40, WANDB_BASE_URL=address, WANDB_MODE="online")
    assert (done.returncode, done.stderr, asked) == (0, "", [])
    assert f"wandb sync {study}/wandb/offline-run-*" in done.stdout
    for run, found in zip(runs(study), held(study).values(), strict=True):
        tracked = read_run(run)[0]
        assert (found["id"], found["name"], found["project"]) == (run_key(tracked), run.name, "study")
        assert (found["group"], found["exit"]) == ("resnet18-baseline", 0)
        assert [item["_step"] for item in found["history"]] == [line["epoch"] for line in lines(run)]
        assert [{name: item[name] for name in SERIES} for item in found["history"]] == [
            {name: line[name] for name in SERIES} for line in lines(run)
        ]
        assert [item["_timestamp"] for item in found["history"]] == pytest.approx([e.time_s for e in tracked.epochs])
        config = json.loads((run / "config.json").read_text())["config"]
        assert found["config"]["model"] == {key: value for key, value in config["model"].items() if value is not None}
        assert found["config"]["seed"] == config["seed"]
        summary = {name: found["summary"][f"final/{name}"] for name in tracked.final}
        assert summary == tracked.final
        assert found["summary"]["state"] == "done"


def test_repeating_writes_nothing_and_a_run_that_went_on_takes_the_place_of_its_folder(tmp_path: Path) -> None:
    study = copied(tmp_path / "study")
    first, second = runs(study)
    records, metrics = unfinish(second, 4)
    assert track(study).returncode == 0
    before = folders(study)
    assert held(study)[second.name]["summary"]["state"] == "unfinished"

    again = track(study)
    assert (again.returncode, again.stderr) == (0, "")
    assert "2 runs with 14 epochs: 0 written" in again.stdout
    assert folders(study) == before

    write(second, records)
    (second / "metrics.json").write_bytes(metrics)
    assert "2 runs with 20 epochs: 1 written" in track(study).stdout
    after = folders(study)
    assert after[first.name] == before[first.name]
    assert after[second.name] != before[second.name]
    assert [item["_step"] for item in held(study)[second.name]["history"]] == [line["epoch"] for line in records]
    assert held(study)[second.name]["id"] == run_key(read_run(second)[0])


def test_what_a_killed_command_left_is_cleared_away(tmp_path: Path) -> None:
    study = copied(tmp_path / "study")
    (study / "wandb/.staged/wandb/offline-run-20260101_000000-x").mkdir(parents=True)
    half = study / "wandb" / f"offline-run-20260101_000000-{run_key(read_run(runs(study)[0])[0])}"
    half.mkdir()
    assert track(study, "--project", "mine").returncode == 0
    assert not half.exists()
    assert not (study / "wandb/.staged").exists()
    assert {found["project"] for found in held(study).values()} == {"mine"}


@pytest.mark.parametrize(
    ("variables", "told"),
    [({}, "wandb: No API key configured. Use `wandb login` to log in."), ({"WANDB_API_KEY": "0" * 40}, "wandb: ")],
)
def test_a_server_that_does_not_let_us_in_is_told(
    tmp_path: Path, server: tuple[str, list[str]], variables: dict[str, str], told: str
) -> None:
    study = copied(tmp_path / "study")
    done = track(study, "--online", WANDB_BASE_URL=server[0], **variables)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith(told)
    assert "Traceback" not in done.stderr
