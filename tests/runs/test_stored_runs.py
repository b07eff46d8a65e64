"""Runs on prepared stores: stopped within an epoch they end with the same bits, and are evaluated on the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from inference_networks import network as network_of
from prepared_stores import class_folders, picture, prepared
from same_result import assert_same_result
from small_runs import SMALL

from sqzlab.config import Config
from sqzlab.data.fingerprint import count, digests
from sqzlab.errors import UnavailableError
from sqzlab.inference.checkpoint import open_network
from sqzlab.inference.evaluate import evaluate
from sqzlab.inference.validation import open_validation
from sqzlab.launching.plan import debugged
from sqzlab.resolving import resolve
from sqzlab.run import CONFIG, METRICS, Run
from sqzlab.runs.execute import execute
from sqzlab.runs.files import read_json, write_json
from sqzlab.runs.stop import StopFlag


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    prepared(class_folders(folder / "root", train=9), folder / "out")
    return folder / "out"


def planned(out: Path, tier: str) -> Run:
    values = {**SMALL, "data.name": "imagefolder", "data.tier": tier, "data.store": str(out), "data.image_size": 28}
    values |= {"data.workers": 0, "train.batch_size": 4, "train.epochs": 2}
    found = count("imagefolder", None, None, None, str(out), 28)
    config = resolve(values, 0, found, digests(None, None, None, str(out)))
    assert isinstance(config, Config), config
    return Run("study", None, {"model.squeeze": "baseline"}, config)


def folder_of(run: Run, folder: Path) -> Path:
    folder.mkdir()
    write_json(folder / CONFIG, run.to_json())
    return folder


@pytest.mark.parametrize("tier", ["store", "resident"])
def test_a_run_stopped_within_an_epoch_ends_with_the_same_bits_and_is_evaluated_on_its_store(
    tier: str, out: Path, tmp_path: Path
) -> None:
    undisturbed, stopped = (folder_of(planned(out, tier), tmp_path / name) for name in ("whole", "stopped"))
    assert execute(undisturbed) == "done"
    for steps in (1, 4):
        assert execute(stopped, StopFlag(after_steps=steps)) == "interrupted"
    assert execute(stopped) == "done"
    assert_same_result(stopped, undisturbed)
    network = open_network(str(stopped))
    data = open_validation(network)
    assert data.own
    assert network.class_names == data.class_names == ("class 0", "class 1")
    recorded = read_json(stopped / METRICS)
    assert recorded is not None
    assert evaluate(network, data, batch_size=4, bad=pytest.fail).top1.mean() == pytest.approx(recorded["top1"])


@pytest.mark.parametrize("prepared_since", ["nothing", "others", "no train"])
def test_images_are_a_runs_own_only_in_the_stores_it_was_planned_with(prepared_since: str, tmp_path: Path) -> None:
    root, stores = class_folders(tmp_path / "root"), tmp_path / "stores"
    prepared(root, stores)
    run = planned(stores, "store")
    (stores / "train.store").unlink()
    if prepared_since != "no train":
        if prepared_since == "others":  # of the same names and labels
            picture(7, 50, 40).save(root / "train" / "class 0" / "0.png")
        prepared(root, stores)
    net = replace(network_of(classes=2, size=28), run=run)
    assert open_validation(net).own == (prepared_since == "nothing")


def test_a_run_is_not_trained_on_another_store_than_planned(out: Path, tmp_path: Path) -> None:
    run = planned(out, "store")
    prepared(class_folders(tmp_path / "root", train=8), tmp_path / "other")
    data = run.config.data.model_copy(update={"store": str(tmp_path / "other")})
    other = Run(run.study, None, run.cell, run.config.model_copy(update={"data": data}))
    with pytest.raises(UnavailableError, match="but the run was planned with"):
        execute(folder_of(other, tmp_path / "run"))


def test_debug_keeps_a_store_that_is_there_and_generates_images_without_it(out: Path) -> None:
    run = planned(out, "resident")
    kept = debugged(run, "cuda").config.data
    assert (kept.name, kept.tier) == ("imagefolder", "resident")
    assert debugged(run, "cpu").config.data.tier == "store"
    data = run.config.data.model_copy(update={"store_digest": None})
    absent = Run(run.study, None, run.cell, run.config.model_copy(update={"data": data}))
    made = debugged(absent, "cpu").config.data
    assert (made.name, made.tier, made.store) == ("generated", None, None)
