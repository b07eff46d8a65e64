"""`python -m sqzlab train`: what it runs, that it goes on, and what it says to what is wrongly written."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import threading
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import wait_for

from sqzlab.analysis.records import load_records
from sqzlab.commands.cli import main
from sqzlab.commands.key_options import add_key_options, key_values, option_of
from sqzlab.commands.train import ARCHS, ONE_PROCESS, _configured, _values, add_arguments
from sqzlab.config import KEYS, Config
from sqzlab.errors import UnavailableError
from sqzlab.inference.checkpoint import open_network
from sqzlab.resolving import model_config
from sqzlab.run import CHECKPOINT, CONFIG, FAILURE, METRICS, PLAN, Run
from sqzlab.runs.files import write_json
from sqzlab.runs.lease import Lease

NETWORK = ["--backbone", "resnet18", "--squeeze", "gap", "--reduction", "4", "--stem", "small", "--width", "0.125"]
SMALL = [*NETWORK, "--data", "digits", "--epochs", "2", "--limit-batches", "4", "--warmup-epochs", "0"]


def folder_of(out: Path) -> Path:
    (config,) = out.glob(f"*/{CONFIG}")
    return config.parent


def metrics_of(out: Path) -> dict[str, object]:
    values: dict[str, object] = json.loads((folder_of(out) / METRICS).read_text())
    return values


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "single"
    assert main(["train", *SMALL, "--out", str(out)]) == 0
    return out


# ---- runs --------------------------------------------------------------------------------------


def test_it_trains_and_says_how_well_and_what_can_be_done_next(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *SMALL, "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    metrics, folder = metrics_of(tmp_path), folder_of(tmp_path)
    assert lines[0] == f"run {folder.name}"
    assert folder.name.startswith("resnet18-gap-reduction4-stemsmall-width0.125-epochs2-")
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert any(line.startswith(f"top-1 {metrics['top1']:.2%}, top-5 {metrics['top5']:.2%}") for line in lines)
    assert any(line.endswith(f"python -m sqzlab predict {folder} IMAGE ...") for line in lines)
    assert {key: metrics[key] for key in ("run_id", "val_loss")} == {
        key: metrics_of(trained)[key] for key in ("run_id", "val_loss")
    }


def test_a_run_that_is_done_is_not_repeated(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder_of(trained) / METRICS).stat().st_mtime_ns
    assert main(["train", *SMALL, "--out", str(trained)]) == 0
    assert "it is done already" in capsys.readouterr().out
    assert (folder_of(trained) / METRICS).stat().st_mtime_ns == before


def test_one_that_is_interrupted_goes_on_to_the_same_end(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", *SMALL, "--out", str(tmp_path), "--checkpoint-steps", "1"]

    def interrupt() -> None:
        wait_for(lambda: any(tmp_path.glob(f"*/{CHECKPOINT}")))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert main(command) == 130
    thread.join()
    assert "its state is saved; the same command goes on" in capsys.readouterr().out
    assert main(command) == 0
    assert "going on at step" in capsys.readouterr().out
    found, expected = metrics_of(tmp_path), metrics_of(trained)
    assert [found[key] for key in ("run_id", "top1", "val_loss")] == [
        expected[key] for key in ("run_id", "top1", "val_loss")
    ]


def test_a_run_that_another_process_trains_is_left_to_it(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / folder_of(trained).name
    folder.mkdir()
    shutil.copy(folder_of(trained) / CONFIG, folder)
    lease = Lease.acquire(folder)
    assert main(["train", *SMALL, "--out", str(tmp_path)]) == 1
    assert "another process trains this run" in capsys.readouterr().out
    lease.release()


def test_the_runs_of_a_folder_are_a_plan_that_analysis_reads(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "both"
    out.mkdir()
    (out / folder_of(trained).name).symlink_to(folder_of(trained))
    assert main(["train", *SMALL, "--epochs", "1", "--lr", "1e30", "--out", str(out)]) == 1
    frame = load_records(out).sort_values("state")
    assert frame["state"].tolist() == ["done", "failed"]
    assert frame["planned"].all()
    assert frame["train.epochs"].tolist() == [2, 1]
    assert frame["data.name"].tolist() == ["digits", "digits"]
    assert json.loads((out / PLAN).read_text())["baseline"] == {}


def test_a_run_that_fails_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SMALL, "--epochs", "1", "--lr", "1e30", "--out", str(tmp_path)]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("failed: the ")
    assert last.endswith(f"its traceback: {folder_of(tmp_path) / FAILURE}")


@pytest.mark.filterwarnings("default::sqzlab.networks.pretrained.PretrainedWarning")
def test_it_fine_tunes_on_lists_of_images(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"image {number}.png")
    lines = [f"image {number}.png {number % 3}\n" for number in range(8)]
    (tmp_path / "train.txt").write_text("".join(lines))
    (tmp_path / "val.txt").write_text("".join(lines[:5]))
    data = ["--data", "imagelist", "--root", str(tmp_path), "--image-size", "32", "-j", "0"]
    data += ["--train-list", str(tmp_path / "train.txt"), "--val-list", str(tmp_path / "val.txt")]
    weights = ["--pretrained", str(folder_of(trained) / CHECKPOINT), "--lrp", "0.1"]
    out = tmp_path / "out"
    assert main(["train", *NETWORK, *data, *weights, "--epochs", "1", "-b", "4", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "not loaded: the classifier (10 classes, not 3)" in said
    assert "imagelist: 8 training and 5 validation images of 3 classes" in said
    assert metrics_of(out)["classes"] == 3
    config = json.loads((folder_of(out) / CONFIG).read_text())["config"]
    assert config["train"]["lrp"] == 0.1
    assert all(
        len(config[section][key]) == 16 for section, key in (("data", "lists_digest"), ("train", "pretrained_digest"))
    )


# ---- what was written --------------------------------------------------------------------------


def said(command: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["train", *command]) == code
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["--data", "digits"], "--backbone: is missing; valid: resnet18, "),
        (NETWORK, "--data: is missing; valid: digits, imagenet, "),
        ([*SMALL, "--squeeze", "gapp"], "--squeeze: unknown name 'gapp'; did you mean 'gap'? valid: "),
        ([*SMALL, "--lr", "fast"], "--lr: 'fast' is text; valid: a number"),
        ([*SMALL, "--epochs", "010"], "--epochs: '010' is octal in YAML 1.1"),
        ([*SMALL, "--squeeze", "baseline"], "--reduction: does not apply to squeeze 'baseline'; "),
        ([*SMALL, "--lrp", "0.1"], "--lrp: applies only beside train.pretrained"),
        ([*SMALL, "--train-list", "x"], "--train-list: does not apply to the data set 'digits'; "),
        ([*NETWORK, "--data", "imagelist"], "--train-list: is missing; valid: a text file, `name label` a line"),
        ([*SMALL, "--set", "train.lr"], "--set 'train.lr': has no value; valid: KEY=VALUE"),
        ([*SMALL, "--set", "train.rl=1"], "--set 'train.rl=1': unknown key; did you mean 'train.lr'?"),
        ([*SMALL, "--set", "train.epochs=3"], "--epochs: is given twice"),
        ([*SMALL, "--set", "train.world_size=2"], "--world-size: does not apply: a single process trains here"),
        ([*SMALL, "--seed", "-1"], "--seed: -1 is no seed; valid: whole numbers from 0 to 2147483647"),
        (["-a", "RGSE5", "--data", "digits"], "--arch: unknown name 'RGSE5'; did you mean 'RGSE50'?"),
    ],
)
def test_what_is_wrongly_written_is_told_by_its_option(
    command: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(command, 2, capsys)[0].startswith(line)


def test_all_faults_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(["--backbone", "x", "--data", "y", "--recipe", "z", "--lr", "-1"], 2, capsys)
    assert [line.partition(":")[0] for line in lines] == ["--backbone", "--data", "--recipe", "--lr"]


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ([*NETWORK, "--data", "imagefolder"], "data set 'imagefolder' needs a folder: set data.root"),
        ([*SMALL, "--pretrained", "none.pt"], "train.pretrained: 'none.pt' cannot be read (no such file or directory)"),
        ([*SMALL, "--device", "cuda"], "--device 'cuda': "),
    ],
)
def test_what_is_lacking_is_named(
    command: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (found,) = said([*command, "--out", str(tmp_path)], 3, capsys)
    assert found.startswith(line)


def test_the_folder_of_a_study_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / PLAN).write_text('{"study": "squeeze_ablation"}')
    (line,) = said([*SMALL, "--out", str(tmp_path)], 2, capsys)
    assert line.startswith(f"--out: {str(tmp_path)!r} holds the study 'squeeze_ablation'; valid: ")


# ---- options -----------------------------------------------------------------------------------


def configured(*words: str) -> tuple[Config, dict[str, object]]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args(words)
    return _configured(_values(arguments), arguments.seed)  # type: ignore[return-value]


def test_every_key_of_a_study_has_one_option() -> None:
    options = [option_of(key) for key in KEYS]
    assert len(set(options)) == len(options)
    parser = argparse.ArgumentParser()
    add_key_options(parser, leave_out=ONE_PROCESS)
    known = parser.format_help()
    assert all((f"{option} " in known) == (key not in ONE_PROCESS) for key, option in zip(KEYS, options, strict=True))


def test_values_written_as_text_are_the_values() -> None:
    config, _ = configured(*SMALL, "--clip-norm", "1e-1", "--schedule", "step", "--milestones", "1", "--gamma", ".5")
    for key in KEYS:
        section, _, name = key.partition(".")
        value = getattr(getattr(config, section), name)
        if value is None:
            continue
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        text = text.lower() if isinstance(value, bool) else text
        read = key_values(argparse.Namespace(set=[f"{key}={text}"]))
        assert read == ({key: list(value) if isinstance(value, tuple) else value}, []), key


def test_a_default_that_is_written_out_makes_the_same_run() -> None:
    short, cell = configured(*NETWORK, "--data", "digits")
    long, named = configured(*NETWORK, "--data", "digits", "--epochs", "10", "--gate", "sigmoid", "--recipe", "digits")
    assert (short, cell) == (long, named)
    assert cell.keys() == {"model.backbone", "model.squeeze", "model.reduction", "model.stem", "model.width"}


def test_the_order_of_options_makes_no_other_run() -> None:
    options = [["--lr", "0.05"], ["--epochs", "3"], ["--momentum", "0.8"], ["--set", "model.fc_bias=true"]]
    there, back = (
        Run("train", None, cell, config)
        for config, cell in (
            configured(*NETWORK, "--data", "digits", *chain.from_iterable(given))
            for given in (options, reversed(options))
        )
    )
    assert there.run_id == back.run_id


def test_a_run_without_weights_names_the_command_that_makes_it(tmp_path: Path) -> None:
    given = ["--data", "digits", "--recipe", "sprg", "--schedule", "3", "--epochs", "7", "--compile", "--seed", "4"]
    config, cell = configured(*NETWORK, *given)
    run = Run("train", None, cell, config)
    folder = tmp_path / "single" / run.run_id
    folder.mkdir(parents=True)
    write_json(folder / CONFIG, run.to_json())
    with pytest.raises(UnavailableError) as caught:
        open_network(str(folder))
    words = shlex.split(str(caught.value).partition("to make it: ")[2])
    assert words[:4] == ["python", "-m", "sqzlab", "train"]
    assert words[words.index("--out") + 1] == str(folder.parent)
    config, cell = configured(*words[4:])
    assert Run("train", None, cell, config).run_id == run.run_id


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--backbone", "resnet18", "--width", "0.125"], False),
        (["--backbone", "resnet18", "--width", "0.25"], True),
        (["--backbone", "resnet50", "--width", "0.125"], True),
        (["--backbone", "resnet18", "--width", "0.125", "--device", "cuda"], True),
        (["--backbone", "resnet18", "--width", "0.125", "--channels-last"], True),
    ],
)
def test_a_network_too_narrow_for_channels_last_on_the_cpu_is_laid_out_otherwise(
    words: list[str], expected: bool
) -> None:
    config, _ = configured(*words, "--data", "digits", "--stem", "small")
    assert config.train.channels_last is expected


def test_a_flag_needs_no_value() -> None:
    on, _ = configured(*NETWORK, "--data", "digits", "--fc-bias", "--compile")
    off, _ = configured(*NETWORK, "--data", "digits", "--fc-bias", "false")
    assert (on.model.fc_bias, on.train.compile) == (True, True)
    assert (off.model.fc_bias, off.train.compile) == (False, False)


def test_the_schedule_of_the_released_scripts_is_a_step_each_so_many_epochs() -> None:
    config, _ = configured("-a", "RGSE50", "--data", "generated", "--schedule", "30", "-b", "64", "--wd", "5e-4")
    train = config.train
    assert (train.recipe, train.schedule, train.milestones, train.gamma) == ("sprg", "step", (30, 60, 90), 0.1)
    assert (train.batch_size, train.weight_decay) == (64, 5e-4)


@pytest.mark.parametrize(
    ("arch", "params"),
    [
        *(("resnet18", 11_689_512), ("SE50", 28_088_024), ("RGSE50", 28_212_440), ("SPSE50", 28_480_728)),
        *(("RGSEX50", 27_684_312), ("SPSEX50", 27_952_600)),
    ],
)
def test_the_names_of_the_released_code_are_its_networks(arch: str, params: int) -> None:
    from sqzlab.networks.cost import measure

    model = model_config(
        **{key.removeprefix("model."): value for key, value in ARCHS[arch].items() if value is not None}
    )
    assert measure(model).params == params
