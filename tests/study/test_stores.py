"""Studies on prepared stores: what a store holds is part of a run's identity, and where it lies is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from prepared_stores import class_folders, prepared

from sqzlab.data.fingerprint import count, digests
from sqzlab.errors import UnavailableError
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
  data.name: imagefolder
  data.image_size: 28
"""
TIER = "  data.tier: {}\n"
STORE = "  data.store: {}\n"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    prepared(class_folders(folder / "root"), folder / "out")
    return folder / "out"


def loaded(path: Path) -> Study:
    return load_study(path, counts=count, digests=digests)


def test_counts_and_digest_come_from_the_stores_without_a_root(write: Write, out: Path, tmp_path: Path) -> None:
    text = HEAD + TIER.format("store") + STORE
    study = loaded(write(text.format(out)))
    for run in study.runs:
        data = run.config.data
        assert (data.classes, data.train_images, data.val_images, data.root) == (2, 10, 6, None)
        assert data.store_digest == digests(None, None, None, str(out))["data.store_digest"]
    assert not parity_faults(study)
    (tmp_path / "moved").symlink_to(out)
    moved = loaded(write(text.format(tmp_path / "moved")))
    assert [run.run_id for run in moved.runs] == [run.run_id for run in study.runs]


def test_another_store_or_tier_makes_other_runs(write: Write, out: Path, tmp_path: Path) -> None:
    prepared(class_folders(tmp_path / "root", train=6), tmp_path / "other")
    texts = [HEAD + TIER.format(tier) + STORE.format(at) for tier, at in (("store", out), ("resident", out))]
    texts += [HEAD + TIER.format("store") + STORE.format(tmp_path / "other"), HEAD + TIER.format("jpeg"), HEAD]
    root = f"  data.root: {tmp_path / 'root'}\n"
    names = [run.run_id for text in texts for run in loaded(write(text if "store" in text else text + root)).runs]
    assert len(set(names)) == 2 * len(texts)


def test_tier_pil_is_what_an_absent_tier_is(write: Write) -> None:
    ours, theirs = (load_study(write(HEAD + tier)) for tier in ("", TIER.format("pil")))
    assert [run.run_id for run in ours.runs] == [run.run_id for run in theirs.runs]


def test_a_store_that_does_not_fit_ends_the_loading(write: Write, out: Path, tmp_path: Path) -> None:
    text = HEAD + TIER.format("store")
    with pytest.raises(UnavailableError, match=r"crops of 28 pixels, not of 32; valid: data\.image_size 28"):
        loaded(write(text.replace("size: 28", "size: 32") + STORE.format(out)))
    with pytest.raises(UnavailableError, match="from data set 'imagefolder', not 'imagenet'"):
        loaded(write(text.replace("imagefolder", "imagenet") + STORE.format(out)))
    with pytest.raises(UnavailableError, match=r"train\.store' cannot be read \(no such file"):
        loaded(write(text + STORE.format(tmp_path / "none")))


def test_what_a_tier_needs_or_does_not_take_is_told_with_its_place(faults: Faults) -> None:
    (line,) = faults(HEAD + TIER.format("store"))
    assert "data.store: is missing: the tier 'store' reads a folder that `prepare` made" in line
    assert line.startswith("s.yaml:")
    (line,) = faults(HEAD + STORE.format("somewhere"))
    assert line.startswith("s.yaml:10:15: data.store: applies to no run: applies only beside data.tier")
    digits = HEAD.replace("imagefolder", "digits").replace("  data.image_size: 28\n", "")
    (line,) = faults(digits + TIER.format("jpeg"))
    assert line.startswith("s.yaml:9:14: data.tier: applies to no run: does not apply to the data set 'digits'")
    lists = "  data.train_list: a.txt\n  data.val_list: b.txt\n"
    listed = HEAD.replace("imagefolder", "imagelist") + TIER.format("store") + STORE.format("somewhere")
    assert not faults(listed)
    assert all("whose stores hold the images of lists" in line for line in faults(listed + lists))
    assert len(faults(listed + lists)) == 2
