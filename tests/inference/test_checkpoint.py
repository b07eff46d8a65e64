"""A network is opened by a run's id, its folder or a file, and what is none of them is told in one line."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
import torch
from inference_networks import class_folders, network, planned, saved, trained

from sqzlab.catalog import DATASETS
from sqzlab.config import Config, DataConfig
from sqzlab.data.open import SOURCES
from sqzlab.errors import ConfigError, SqzlabError, UnavailableError
from sqzlab.inference.checkpoint import open_network
from sqzlab.inference.images import STATISTICS
from sqzlab.resolving import resolve
from sqzlab.run import CHECKPOINT, CONFIG, PREVIOUS_CHECKPOINT
from sqzlab.runs.execute import execute
from sqzlab.runs.files import read_json, write_json
from sqzlab.runs.stop import StopFlag
from sqzlab.study.study import load_study, select

ROOT = Path(__file__).parents[2]


def message(text: str | Path, results: Path = Path("results"), **options: object) -> str:
    with pytest.raises(SqzlabError) as caught:
        open_network(str(text), results, **options)  # type: ignore[arg-type]
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def copied(run: Path, results: Path) -> Path:
    return shutil.copytree(run, results / run.parent.name / run.name)


# ---- what opens --------------------------------------------------------------------------------


def test_id_folder_and_checkpoint_of_a_run_open_the_same_network() -> None:
    run = trained()
    state = torch.load(run / CHECKPOINT, weights_only=True)["model"]
    for text in (run.name, str(run), str(run / CHECKPOINT)):
        opened = open_network(text, run.parents[1])
        assert opened.name == run.name
        assert opened.class_names == tuple("0123456789")
        assert not opened.model.training
        for name, value in opened.model.state_dict().items():
            assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_opens_with_the_outputs_and_names_it_was_saved_with(tmp_path: Path, suffix: str) -> None:
    made, names = network(), [f"class {i}" for i in range(10)]
    opened = open_network(str(saved(tmp_path / f"net{suffix}", made, names)))
    assert opened.class_names == tuple(names)
    assert (opened.config, opened.mean, opened.std, opened.data) == (made.config, made.mean, made.std, "imagenet")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    index = torch.arange(2)
    torch.testing.assert_close(opened.logits(images, index), made.logits(images, index))


def test_a_run_that_is_under_way_opens_as_far_as_it_is(tmp_path: Path) -> None:
    folder = planned(tmp_path)
    assert execute(folder, StopFlag(after_steps=11)) == "interrupted"
    assert open_network(str(folder)).epoch == 1  # of 10 steps each


def test_killed_between_two_checkpoints_the_one_before_is_taken(tmp_path: Path) -> None:
    run = copied(trained(), tmp_path)
    (run / CHECKPOINT).rename(run / PREVIOUS_CHECKPOINT)
    assert open_network(run.name, tmp_path).epoch == 2


def test_of_two_runs_with_one_id_the_one_with_weights_is_taken(tmp_path: Path) -> None:
    run = copied(trained(), tmp_path)
    without = shutil.copytree(run, tmp_path / "a-study" / run.name)
    (without / CHECKPOINT).unlink()
    assert open_network(run.name, tmp_path).folder == run


def test_opening_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    open_network(str(trained("random")))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_opens_for_images_of_another_size() -> None:
    opened = open_network(str(trained()), image_size=24)
    assert opened.config.image_size == 24
    assert opened.logits(torch.zeros(1, 3, 24, 24, dtype=torch.uint8), torch.arange(1)).shape == (1, 10)


def test_class_folders_name_the_classes_while_they_are_there(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", ["ant", "bee"])
    shutil.copytree(root / "val", root / "train")
    values = {
        "model.backbone": "resnet18",
        "model.width": 0.125,
        "data.name": "imagefolder",
        "data.root": str(root),
        "data.image_size": 32,
        "data.workers": 0,
        "train.recipe": "digits",
        "train.epochs": 2,
        "train.batch_size": 2,
        "train.limit_batches": 1,
    }
    config = resolve(values, 0, (2, 6, 6))
    assert isinstance(config, Config)
    run = planned(tmp_path / "results")
    write_json(run / CONFIG, {**(read_json(run / CONFIG) or {}), "config": config.model_dump(mode="json")})
    assert execute(run) == "done"
    assert open_network(str(run)).class_names == ("ant", "bee")
    shutil.rmtree(root)
    assert open_network(str(run)).labels == ("0", "1")


def test_the_statistics_are_those_of_the_data_sets(tmp_path: Path) -> None:
    assert STATISTICS.keys() == DATASETS.keys()
    root = class_folders(tmp_path, ["ant", "bee"])
    shutil.copytree(root / "val", root / "train")
    for name in ("digits", "generated", "imagefolder"):
        given = {"name": name, "root": str(root), "image_size": 32, "classes": 2, "train_images": 6, "val_images": 6}
        source = SOURCES[name](DataConfig.model_validate(given))
        assert (source.mean, source.std) == STATISTICS[name]


# ---- what does not -----------------------------------------------------------------------------


def test_an_unknown_id_names_those_that_are_close(tmp_path: Path) -> None:
    run = planned(tmp_path)
    for text in (run.name[:-9], run.name.replace("gap", "gpa")):
        told = message(text, tmp_path)
        assert told.startswith(f"{text!r}: no run under {str(tmp_path)!r}")
        assert f"did you mean {run.name!r}?" in told
    assert "did you mean" not in message("nothing-of-the-kind", tmp_path)


def test_several_runs_with_one_id_and_weights_are_told_apart_by_the_user(tmp_path: Path) -> None:
    one = copied(trained(), tmp_path)
    other = shutil.copytree(one, tmp_path / "other" / one.name)
    assert message(one.name, tmp_path) == f"{one.name!r}: several runs have this id; valid: {one} or {other}"


def test_a_run_without_weights_says_the_command_that_makes_it(tmp_path: Path) -> None:
    committed = ROOT / "results/squeeze_ablation-laptop/resnet18-gap-s1-b98077e4"
    told = message(committed)
    command, _, then = told.partition("to make it: ")[2].partition(", then name ")
    words = shlex.split(command)
    assert words[:3] == ["python", "launch.py", "experiments/squeeze_ablation.yaml"]
    assert then == "'again/squeeze_ablation-laptop/resnet18-gap-s1-b98077e4'"
    study = load_study(ROOT / words[2], words[words.index("--profile") + 1])
    only = [words[i + 1] for i, word in enumerate(words) if word == "--only"]
    assert [run.run_id for run in select(study, only)] == [committed.name]


def test_a_run_that_was_never_trained_is_told_so(tmp_path: Path) -> None:
    told = message(planned(tmp_path))
    assert "it has not been trained yet; to make it: python launch.py experiments/mini.yaml --only" in told
    told = message(planned(tmp_path, study="train"))
    assert "it has not been trained yet; to make it: python -m sqzlab train --seed 0 --out " in told


def test_a_folder_that_is_no_run_is_told_what_is_in_it(tmp_path: Path) -> None:
    run = planned(tmp_path)
    assert message(tmp_path / "mini") == (
        f"{str(tmp_path / 'mini')!r}: is no run's folder, it has no config.json; its 1 runs: {run.name}; "
        "valid: results/STUDY/RUN_ID"
    )


def test_a_damaged_configuration_is_one_line(tmp_path: Path) -> None:
    run = planned(tmp_path)
    (run / CONFIG).write_text('{"run_id": 1')
    assert message(run) == f"{run / CONFIG}: damaged, or of another version"


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    run = copied(trained(), tmp_path)
    content = bytearray((run / CHECKPOINT).read_bytes())
    content[len(content) // 2] ^= 1
    (run / CHECKPOINT).write_bytes(content)
    assert message(run).startswith(f"{run / CHECKPOINT}: is damaged")


def test_weights_of_another_network_are_one_line(tmp_path: Path) -> None:
    run = copied(trained(), tmp_path)
    shutil.copy(trained("random") / CHECKPOINT, run / CHECKPOINT)
    assert message(run) == f"{run / CHECKPOINT}: belongs to another configuration than {CONFIG} beside it"
    shutil.copy(trained("baseline", train__limit_batches=2) / CHECKPOINT, run / CHECKPOINT)
    assert message(run).startswith(f"{run / CHECKPOINT}: is not of resnet18 with squeeze 'gap'")


def test_a_file_of_weights_alone_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bare.pt"
    torch.save(network().model.state_dict(), path)
    assert message(path).startswith(f"{path}: holds weights, but not of which network")


def test_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UnavailableError) as caught:
        open_network(str(trained()), device="cuda")
    assert str(caught.value) == "device 'cuda': this machine has no GPU that can be used; valid here: cpu"


def test_an_image_size_at_which_the_squeeze_is_not_defined_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "sp.safetensors", network("SP"))
    with pytest.raises(ConfigError, match="image size 16 with the small stem"):
        open_network(str(path), image_size=16)
