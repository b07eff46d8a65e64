from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sqzlab.config import KEYS
from sqzlab.study.layout import LIST_KEYS, TOP
from sqzlab.study.schema import schema_text, study_schema
from sqzlab.study.yamlfile import parse, read_yaml

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
VALIDATOR = jsonschema.Draft202012Validator(study_schema())


def valid(text: str) -> bool:
    return VALIDATOR.is_valid(parse(text).root.plain)


def test_the_committed_schema_is_the_current_one() -> None:
    assert (EXPERIMENTS / "study.schema.json").read_text() == schema_text(), (
        "renew it: python -m sqzlab.study.schema > experiments/study.schema.json"
    )


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(study_schema())


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_study_that_comes_with_the_project_fits_it_and_names_it(path: Path) -> None:
    VALIDATOR.validate(read_yaml(path).root.plain)
    assert path.read_text().startswith("# yaml-language-server: $schema=study.schema.json\n")


@pytest.mark.parametrize(
    "text",
    [
        "matrix: {model.squeeze: [gap]}",
        "matrix: {model: {squeeze: [gap]}, train.lr: [0.1, 1e-3]}",
        "matrix: {model.squeeze: [gap]}\ndefaults: {train: {milestones: [3, 5], clip_norm: null}, data.root: /data}",
        "profiles: {a: , b: {seeds: [1], slurm: {time: 1-08:00:00, memory: 32 GB}, exclude: []}}",
        "matrix: {model.squeeze: [gap]}\ninclude: [{model.squeeze: SP, train.milestones: [4]}]",
        "matrix: {model.squeeze: [gap]}\nslurm: {gpus: 8, include: [{model: {squeeze: gap}, runs_per_job: 2}]}",
        "matrix: {model.squeeze: [gap]}\nslurm: {include: }\nbudget: ",
        "profiles: {a: {budget: {gpu_hours: 0.5}}}",
    ],
)
def test_what_a_study_may_say_fits(text: str) -> None:
    assert valid(text)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "seeds: [0]",
        "matrix: {model.squeeze: gap}",
        "matrix: {model.squeeze: []}",
        "matrix: {model.squeeze: [gapp]}",
        "matrix: {model.squeze: [gap]}",
        "matrix: {model: {squeze: [gap]}}",
        "matrix: {data.workers: [1, 2]}",
        "matrix: {model.squeeze: [gap]}\nseeds: [0, 0]",
        "matrix: {model.squeeze: [gap]}\nseeds: [-1]",
        "matrix: {model.squeeze: [gap]}\ncolour: red",
        "matrix: {model.squeeze: [gap]}\nname: ../a",
        "matrix: {model.squeeze: [gap]}\ndefaults: {model.fc_bias: off}",
        "matrix: {model.squeeze: [gap]}\ndefaults: {train.lr: 0}",
        "matrix: {model.squeeze: [gap]}\ndefaults: {data.classes: 10}",
        "matrix: {model.squeeze: [gap]}\nslurm: {partition: gpu}",
        "matrix: {model.squeeze: [gap]}\nslurm: {time: 8:00}",
        "matrix: {model.squeeze: [gap]}\nslurm: {gpus: 17}",
        "matrix: {model.squeeze: [gap]}\nslurm: {runs_per_job: 0}",
        "matrix: {model.squeeze: [gap]}\nslurm: {include: {model.squeeze: gap, gpus: 1}}",
        "matrix: {model.squeeze: [gap]}\nslurm: {include: [{model.squeeze: gap}]}",
        "matrix: {model.squeeze: [gap]}\nslurm: {include: [{gpus: 1, cpus: 2}]}",
        "matrix: {model.squeeze: [gap]}\nslurm: {include: [{model.squeeze: gap, gpus: 1, include: []}]}",
        "matrix: {model.squeeze: [gap]}\nslurm: {include: [{seed: 1, gpus: 1}]}",
        "matrix: {model.squeeze: [gap]}\nbudget: {gpu_hours: 0}",
        "matrix: {model.squeeze: [gap]}\nbudget: {hours: 1}",
        "matrix: {model.squeeze: [gap]}\nbudget: 500",
        "profiles: {a: {profiles: {}}}",
        "profiles: {a b: {}}",
    ],
)
def test_what_is_wrong_without_looking_at_other_keys_does_not_fit(text: str) -> None:
    assert not valid(text)


def test_it_knows_every_key_and_describes_every_variant() -> None:
    defined: dict[str, Any] = study_schema()["$defs"]
    assert set(KEYS) <= set(defined)
    assert set(study_schema()["properties"]) == set(TOP)
    lists = [key for key in KEYS if '"array"' in str(defined[key]).replace("'", '"')]
    assert tuple(lists) == LIST_KEYS
