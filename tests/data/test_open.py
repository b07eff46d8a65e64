from itertools import islice, zip_longest

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqzlab.catalog import DATASETS
from sqzlab.data.open import SOURCES, open_data
from sqzlab.data.order import permutation
from sqzlab.errors import UnavailableError

OPENED = [name for name in DATASETS if name != "imagenet"]  # imagenet is imagefolder with 1,000 classes


def images_by_index(batches):
    return {int(i): image for batch in batches for i, image in zip(batch.index, batch.images, strict=True)}


def test_every_data_set_of_the_catalog_can_be_opened():
    assert list(SOURCES) == list(DATASETS)


@pytest.mark.parametrize("name", OPENED)
def test_a_batch_is_uint8_images_with_their_labels_and_positions(name, config_of):
    data = open_data(config_of(name), batch_size=4, seed=0)
    batch = next(data.train_batches(0))
    assert (batch.images.shape, batch.images.dtype) == ((4, 3, 32, 32), torch.uint8)
    layouts = (torch.contiguous_format, torch.channels_last)
    assert any(batch.images.is_contiguous(memory_format=layout) for layout in layouts)
    assert (batch.labels.shape, batch.labels.dtype) == ((4,), torch.int64)
    assert (batch.index.shape, batch.index.dtype) == ((4,), torch.int64)
    assert 0 <= batch.labels.min() <= batch.labels.max() < data.classes


@pytest.mark.parametrize("name", OPENED)
def test_an_epoch_is_full_batches_in_the_order_of_seed_and_epoch(name, config_of):
    data = open_data(config_of(name), batch_size=4, seed=3)
    batches = list(data.train_batches(2))
    assert len(batches) == data.steps_per_epoch == data.train_images // 4
    order = permutation(3, 2, data.train_images)
    assert torch.cat([b.index for b in batches]).tolist() == order[: 4 * len(batches)].tolist()


@pytest.mark.parametrize("name", OPENED)
def test_every_validation_image_comes_once_in_order(name, config_of, same):
    data = open_data(config_of(name), batch_size=4, seed=0, val_batch_size=3)
    batches = list(data.val_batches())
    assert torch.cat([b.index for b in batches]).tolist() == list(range(data.val_images))
    assert all(len(b.index) == 3 for b in batches[:-1])
    same(batches, data.val_batches())


@pytest.mark.parametrize("name", OPENED)
@pytest.mark.parametrize("size", [2, 3])
def test_the_parts_of_several_processes_are_the_batches_of_one(name, size, config_of):
    whole = open_data(config_of(name), batch_size=6, seed=0, val_batch_size=4)
    parts = [
        open_data(config_of(name), batch_size=6, seed=0, val_batch_size=4, rank=rank, world_size=size)
        for rank in range(size)
    ]
    assert {part.steps_per_epoch for part in parts} == {whole.steps_per_epoch}
    assert {part.val_steps for part in parts} == {whole.val_steps} == {len(list(whole.val_batches()))}
    for of in (lambda data: islice(data.train_batches(1), 3), lambda data: data.val_batches()):
        for batch, *shares in zip_longest(of(whole), *(of(part) for part in parts)):
            shares = [share for share in shares if share is not None]
            assert max(len(share.index) for share in shares) - min(len(share.index) for share in shares) <= 1
            for field in ("images", "labels", "index"):
                assert torch.equal(torch.cat([getattr(share, field) for share in shares]), getattr(batch, field))


@pytest.mark.parametrize("name", OPENED)
def test_an_epoch_that_is_resumed_repeats_and_skips_nothing(name, config_of, same):
    data = open_data(config_of(name), batch_size=2, seed=1)
    whole = list(data.train_batches(1))
    for start in (0, 1, data.steps_per_epoch - 1, data.steps_per_epoch):
        again = open_data(config_of(name), batch_size=2, seed=1)
        same(again.train_batches(1, start=start), whole[start:])


@pytest.mark.parametrize("name", OPENED)
def test_augmentation_does_not_depend_on_the_batch_size(name, config_of):
    small, large = (open_data(config_of(name), batch_size=size, seed=1) for size in (2, 5))
    ours, theirs = images_by_index(small.train_batches(4)), images_by_index(large.train_batches(4))
    common = ours.keys() & theirs.keys()
    assert len(common) >= 8
    assert all(torch.equal(ours[i], theirs[i]) for i in common)


@pytest.mark.parametrize("name", [name for name in OPENED if name != "generated"])  # which augments nothing
def test_seeds_and_epochs_augment_differently(name, config_of):
    drawn = []
    for seed, epoch in ((0, 0), (1, 0), (0, 1)):
        data = open_data(config_of(name), batch_size=2, seed=seed)
        drawn.append(images_by_index(data.train_batches(epoch)))
    for other in drawn[1:]:
        common = drawn[0].keys() & other.keys()
        assert sum(not torch.equal(drawn[0][i], other[i]) for i in common) > len(common) / 2


@pytest.mark.parametrize("name", OPENED)
def test_the_seed_changes_neither_validation_nor_split(name, config_of, same):
    ours, theirs = (open_data(config_of(name), batch_size=2, seed=seed) for seed in (0, 1))
    assert ours.order_hash == theirs.order_hash
    same(ours.val_batches(), theirs.val_batches())


def test_data_sets_have_order_hashes_of_their_own(config_of):
    hashes = {open_data(config_of(name), batch_size=2, seed=0).order_hash for name in OPENED}
    assert len(hashes) == len(OPENED)


def test_the_order_hash_knows_names_not_places(config_of, folders, tmp_path):
    (tmp_path / "elsewhere").symlink_to(folders)
    here = open_data(config_of("imagefolder"), batch_size=2, seed=0)
    there = open_data(config_of("imagefolder", root=str(tmp_path / "elsewhere")), batch_size=2, seed=0)
    assert here.order_hash == there.order_hash


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 999), size=st.integers(2, 400), data=st.data())
def test_any_resumption_goes_on_where_the_whole_epoch_goes_on(config_of, seed, epoch, size, data, same):
    digits = open_data(config_of("digits", image_size=8), batch_size=size, seed=seed)
    start = data.draw(st.integers(0, digits.steps_per_epoch))
    same(digits.train_batches(epoch, start=start), list(digits.train_batches(epoch))[start:])


def test_nothing_draws_from_the_global_generators(config_of):
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for name in OPENED:
        data = open_data(config_of(name), batch_size=2, seed=0)
        next(data.train_batches(0))
        next(data.val_batches())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_skipped_images_are_not_decoded(config_of, folders, tmp_path, same):
    data = open_data(config_of("imagefolder"), batch_size=2, seed=0)
    skipped = permutation(0, 0, data.train_images)[:4]
    for index in skipped:
        path = data._source.train_paths[int(index)]
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"not an image")
    for file in folders.rglob("*.*"):
        copy = tmp_path / file.relative_to(folders)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            copy.symlink_to(file)
    broken = open_data(config_of("imagefolder", root=str(tmp_path)), batch_size=2, seed=0)
    same(broken.train_batches(0, start=2), list(data.train_batches(0))[2:])
    with pytest.raises(UnavailableError, match="cannot be read"):
        next(broken.train_batches(0))


@pytest.mark.parametrize("name", OPENED)
@pytest.mark.parametrize("field", ["classes", "train_images", "val_images"])
def test_other_counts_than_planned_are_told(name, field, config_of):
    config = config_of(name)
    with pytest.raises(UnavailableError, match="but the run was planned with") as caught:
        open_data(config.model_copy(update={field: getattr(config, field) + 1}), batch_size=2, seed=0)
    assert len(str(caught.value).splitlines()) == 1


def test_generated_images_cover_the_pixel_values_evenly(config_of):
    batch = next(open_data(config_of("generated"), batch_size=64, seed=0).train_batches(0))
    counts = torch.bincount(batch.images.flatten().int(), minlength=256).double()
    assert counts.min() / counts.mean() > 0.8
    assert batch.labels.tolist() == (batch.index % 1000).tolist()
