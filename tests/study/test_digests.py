"""Studies that name files: lists of images and weights to start from. What those hold is part of a run's identity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sqzlab.data.fingerprint import count, digests
from sqzlab.errors import ConfigError, UnavailableError
from sqzlab.study.study import Study, load_study, parity_faults

Write = Callable[[str], Path]
Faults = Callable[..., list[str]]

HEAD = """\
matrix:
  model.squeeze: [baseline, gap]
seeds: [0]
defaults:
  model.backbone: resnet18
  train.recipe: sprg
  train.batch_size: 2
  data.name: {data}
"""
LISTS = "  data.root: {0}\n  data.train_list: {0}/train.txt\n  data.val_list: {0}/val.txt\n"
INCLUDE = """include:
  - {{model.squeeze: gap, train.pretrained: {0}}}
  - {{model.squeeze: gap, train.pretrained: {1}}}
"""


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """A folder with three images of two classes in its training list and one in the other."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a b.png", "c.png", "d.png"):
        (folder / name).touch()
    (folder / "train.txt").write_text("a b.png 0\nc.png 1\na b.png 0\n")
    (folder / "val.txt").write_text("d.png 1\n")
    return folder


def loaded(path: Path, **given: Any) -> Study:
    return load_study(path, counts=count, digests=digests, **given)


def ids(study: Study) -> list[str]:
    return [run.run_id for run in study.runs]


def test_the_images_of_lists_are_counted(write: Write, lists: Path) -> None:
    study = loaded(write(HEAD.format(data="imagelist") + LISTS.format(lists)))
    for run in study.runs:
        data = run.config.data
        assert (data.classes, data.train_images, data.val_images) == (2, 3, 1)
        assert run.config.model.num_classes == 2
        assert data.lists_digest == digests(f"{lists}/train.txt", f"{lists}/val.txt", None)["data.lists_digest"]
    assert not parity_faults(study)


def test_runs_keep_their_names_where_the_lists_lie_elsewhere_and_not_where_they_change(
    write: Write, lists: Path, tmp_path: Path
) -> None:
    text = HEAD.format(data="imagelist") + LISTS
    before = ids(loaded(write(text.format(lists))))
    lists.rename(tmp_path / "moved")
    assert ids(loaded(write(text.format(tmp_path / "moved")))) == before
    (tmp_path / "moved" / "train.txt").write_text("c.png 1\na b.png 0\na b.png 0\n")
    assert not set(ids(loaded(write(text.format(tmp_path / "moved"))))) & set(before)


def test_a_study_with_lists_is_valid_on_a_machine_without_them(faults: Faults) -> None:
    assert not faults(HEAD.format(data="imagelist") + LISTS.format("/nowhere"))


@pytest.mark.parametrize("given", ["", "  data.train_list: train.txt\n", "  data.val_list: val.txt\n"])
def test_lists_that_are_not_named_are_one_fault_with_its_place(given: str, faults: Faults) -> None:
    text = "data.name: 'imagelist' needs data.train_list and data.val_list; valid: paths of text files, "
    assert faults(HEAD.format(data="imagelist") + given) == [f"s.yaml:8:14: {text}`name label` a line"]


def test_lists_do_not_apply_to_other_data(faults: Faults) -> None:
    (line,) = faults(HEAD.format(data="digits") + "  data.train_list: train.txt\n")
    assert line.startswith("s.yaml:9:20: data.train_list: applies to no run: does not apply to the data set 'digits'")


def test_a_line_at_fault_and_a_missing_list_end_the_loading(write: Write, lists: Path) -> None:
    path = write(HEAD.format(data="imagelist") + LISTS.format(lists))
    (lists / "train.txt").write_text("a b.png zero\n")
    with pytest.raises(ConfigError, match=r"train\.txt:1: 'zero' is no label"):
        loaded(path)
    (lists / "train.txt").unlink()
    with pytest.raises(UnavailableError, match=r"data\.train_list: '.*train\.txt' cannot be read"):
        loaded(path)


# ---- weights -----------------------------------------------------------------------------------


def test_the_content_of_pretrained_weights_is_part_of_a_run(write: Write, tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    file.write_bytes(b"one")
    text = HEAD.format(data="digits") + f"  train.pretrained: {file}\n"
    before = loaded(write(text))
    assert {run.config.train.pretrained_digest for run in before.runs} == {
        digests(None, None, str(file))["train.pretrained_digest"]
    }
    assert not parity_faults(before)
    file.write_bytes(b"two")
    assert not set(ids(before)) & set(ids(loaded(write(text))))
    assert not set(ids(before)) & set(ids(loaded(write(HEAD.format(data="digits")))))


def test_missing_weights_are_named_where_they_are_needed(write: Write) -> None:
    path = write(HEAD.format(data="digits") + "  train.pretrained: none.pt\n")
    assert len(load_study(path).runs) == 2
    with pytest.raises(UnavailableError, match=r"train\.pretrained: 'none\.pt' cannot be read \(no such file"):
        loaded(path)


def test_two_files_make_two_runs_and_two_copies_make_one(write: Write, tmp_path: Path) -> None:
    one, two = tmp_path / "one.pt", tmp_path / "two.pt"
    one.write_bytes(b"one")
    two.write_bytes(b"two")
    path = write(HEAD.format(data="digits").replace("[baseline, gap]", "[baseline]") + INCLUDE.format(one, two))
    assert len(load_study(path).runs) == 3
    assert len(set(ids(loaded(path)))) == 3
    two.write_bytes(b"one")
    with pytest.raises(ConfigError, match="is the same run as"):
        loaded(path)


def test_each_arm_may_start_from_a_file_of_its_own(write: Write, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    own = "include:\n" + "".join(
        f"  - {{model.squeeze: {squeeze}, train.pretrained: {tmp_path / name}}}\n"
        for squeeze, name in (("baseline", "one"), ("gap", "two"))
    )
    assert not parity_faults(loaded(write(HEAD.format(data="digits") + own)))


def test_a_factor_without_weights_is_a_fault(faults: Faults) -> None:
    (line,) = faults(HEAD.format(data="digits") + "  train.lrp: 0.1\n")
    assert "train.lrp: applies to no run: applies only beside train.pretrained" in line
