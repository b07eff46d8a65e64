"""Whatever stands in a study file, it is answered with clear messages."""

from __future__ import annotations

import random
from pathlib import Path

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqzlab.errors import ConfigError
from sqzlab.study.study import load_study

VALID = """\
matrix:
  model.backbone: [resnet18, resnet50]
  model.squeeze: [baseline, gap]
exclude: [{model.squeeze: gap, model.backbone: resnet18}]
seeds: [0, 1]
baseline: {model.squeeze: baseline}
defaults:
  data.name: digits
  train.recipe: digits
  model.stem: small
slurm: {time: "8:00:00", include: [{model.backbone: resnet50, time: 1-08:00:00, runs_per_job: 2}]}
budget: {gpu_hours: 3.5}
"""


def test_a_valid_study_has_no_faults(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(VALID)
    assert len(load_study(path).runs) == 6


def only_config_errors(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    faults: tuple[str, ...] = ("s.yaml: valid",)
    try:
        load_study(path)
    except ConfigError as error:
        faults = error.faults
    assert faults
    assert all(line.isprintable() for line in faults)


@given(
    st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_random_bytes_give_a_clear_message(tmp_path: Path, data: bytes) -> None:
    only_config_errors(tmp_path / "s.yaml", data)


@given(st.randoms(use_true_random=False))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_mangled_study_gives_a_clear_message(tmp_path: Path, chance: random.Random) -> None:
    data = bytearray(VALID.encode())
    pieces = [
        b"[",
        b"]",
        b"{",
        b"}",
        b": ",
        b"- ",
        b"*a",
        b"&a ",
        b"!t ",
        b"'",
        b"\n",
        b"\t",
        b"~",
        b"1e9",
        b"null",
        b"<<",
    ]
    for _ in range(chance.randint(1, 5)):
        start = chance.randrange(len(data))
        data[start : start + chance.choice([0, 0, 1, 4, 12])] = chance.choice(pieces)
    only_config_errors(tmp_path / "s.yaml", bytes(data))


JUNK = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.sampled_from(["gap", "resnet18", "digits", ""]),
        st.text(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["model", "data", "train", "model.squeeze", "train.lr", "gpus", "time", "x"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["name", "matrix", "exclude", "include", "seeds", "baseline", "defaults", "profiles", "slurm", "budget"]
        ),
        JUNK,
    ),
    st.sampled_from(["defaults", "matrix", "profiles", "slurm", "budget"]),
    st.sampled_from(
        [
            "model.backbone",
            "data.name",
            "train.recipe",
            "train.schedule",
            "train.milestones",
            "train.epochs",
            "gpus",
            "include",
            "gpu_hours",
        ]
    ),
    JUNK,
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_values_of_any_shape_in_any_place_give_a_clear_message(
    tmp_path: Path, sections: dict[str, object], where: str, key: str, value: object
) -> None:
    study = yaml.safe_load(VALID) | sections
    if isinstance(study.get(where), dict):
        study[where][key] = value
    only_config_errors(tmp_path / "s.yaml", yaml.safe_dump(study).encode("utf-8", "surrogatepass"))
