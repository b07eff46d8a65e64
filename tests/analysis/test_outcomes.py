import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqzlab.analysis.arms import Arm, group_arms
from sqzlab.analysis.outcomes import UnusableError, read_correct, read_outcomes, tell
from sqzlab.analysis.records import read_study

MakeStudy = Callable[..., Path]
Spoil = Callable[[Path, str, str], object]
N = 597
BITS = np.random.default_rng(1).random((2, N)) < 0.9


def written(folder: Path, **changed: Any) -> bytes:
    """A run's file with some of its arrays changed; None leaves one out."""
    arrays = {
        "top1": np.packbits(BITS[0]),
        "top5": np.packbits(BITS[1]),
        "n": np.array(N),
        "order_hash": np.array("ab"),
    }
    (folder / "run").mkdir(exist_ok=True)
    kept = {name: array for name, array in (arrays | changed).items() if array is not None}
    np.savez_compressed(folder / "run" / "correct.npz", **kept)
    return (folder / "run" / "correct.npz").read_bytes()


def packed_by_hand(entries: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def as_npy(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path("sprung").write_text, ("",)


@pytest.fixture
def arms(make_study: MakeStudy) -> tuple[Path, tuple[Arm, ...]]:
    folder = make_study(matrix={"model.squeeze": ["baseline", "gap"]}, seeds=(0, 1, 2))
    return folder, group_arms(read_study(folder))[0].arms


@pytest.mark.parametrize(("column", "expected"), [("top1", BITS[0]), ("top5", BITS[1])])
def test_every_bit_comes_back(tmp_path: Path, column: str, expected: np.ndarray[Any, Any]) -> None:
    written(tmp_path)
    correct = read_correct(tmp_path, "run", column)
    assert (correct.n, correct.order_hash) == (N, "ab")
    assert np.array_equal(np.unpackbits(correct.packed, count=N).astype(bool), expected)
    assert correct.accuracy == expected.mean()


CHANGED = {
    "an array is absent": {"top1": None},
    "the number of images is absent": {"n": None},
    "the order is absent": {"order_hash": None},
    "the bits are too few": {"top1": np.packbits(BITS[0])[:-1]},
    "the bits are too many": {"top1": np.zeros(75_000, dtype=np.uint8)},
    "the bits are of another type": {"top1": np.packbits(BITS[0]).astype(np.uint16)},
    "the bits have another shape": {"top1": np.packbits(BITS[0])[None]},
    "the bits are not packed": {"top1": BITS[0]},
    "the number of images is none": {"n": np.array(597.0)},
    "the number of images is several": {"n": np.array([597])},
    "the number of images is below two": {"n": np.array(1), "top1": np.packbits(BITS[0, :1])},
    "the number of images is negative": {"n": np.array(-597)},
    "the number of images is greater than any": {"n": np.array(2**62)},
    "the order is no text": {"order_hash": np.array(7)},
    "the order is very long": {"order_hash": np.array("0" * 900)},
    "the order is a pickled object": {"order_hash": np.array(Trap(), dtype=object)},
    "the bits are pickled objects": {"top1": np.array([Trap()], dtype=object)},
}


@pytest.mark.parametrize("changed", CHANGED.values(), ids=CHANGED.keys())
def test_a_file_of_something_else_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Mapping[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, **changed)
    with pytest.raises(UnusableError, match=r"^damaged: .+"):
        read_correct(tmp_path, "run")
    assert not (tmp_path / "sprung").exists()


def test_what_is_packed_to_unpack_without_end_is_damaged(tmp_path: Path) -> None:
    written(tmp_path)
    parts = {"n.npy": as_npy(np.array(N)), "order_hash.npy": as_npy(np.array("ab"))}
    bomb = as_npy(np.packbits(BITS[0]))[:128] + bytes(2**24)
    content = packed_by_hand(parts | {"top1.npy": bomb})
    assert len(content) < 2**16
    (tmp_path / "run" / "correct.npz").write_bytes(content)
    with pytest.raises(UnusableError, match="damaged: top1 is no array of the expected type"):
        read_correct(tmp_path, "run")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_a_run_does_not_pack_with_is_damaged(tmp_path: Path, method: int) -> None:
    written(tmp_path)
    (tmp_path / "run" / "correct.npz").write_bytes(packed_by_hand({"n.npy": as_npy(np.array(N))}, method))
    with pytest.raises(UnusableError, match="damaged: n is packed in another way"):
        read_correct(tmp_path, "run")


@pytest.mark.parametrize("content", [b"", b"PK", b"not an archive", pickle.dumps(Trap())], ids=repr)
def test_what_is_no_archive_is_damaged(tmp_path: Path, content: bytes) -> None:
    written(tmp_path)
    (tmp_path / "run" / "correct.npz").write_bytes(content)
    with pytest.raises(UnusableError, match=r"^damaged"):
        read_correct(tmp_path, "run")


def test_a_file_that_is_not_there_is_absent(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match=r"^absent$"):
        read_correct(tmp_path, "run")


def test_a_folder_in_its_place_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "run" / "correct.npz").mkdir(parents=True)
    with pytest.raises(UnusableError, match=r"^unreadable: is a directory$"):
        read_correct(tmp_path, "run")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    folder = tmp_path_factory.mktemp("fuzzed")
    return folder, written(folder)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(end=st.integers(0, 900), place=st.integers(0, 900), value=st.integers(0, 255))
def test_whatever_a_disk_made_of_a_file_it_is_read_whole_or_refused(
    whole: tuple[Path, bytes], end: int, place: int, value: int
) -> None:
    folder, content = whole
    spoiled = bytearray(content[: len(content) - end] if end % 3 == 0 else content)
    if place < len(spoiled):
        spoiled[place] = value
    (folder / "run" / "correct.npz").write_bytes(spoiled)
    try:
        correct = read_correct(folder, "run")
    except UnusableError:
        return
    assert np.array_equal(np.unpackbits(correct.packed, count=correct.n).astype(bool), BITS[0])


def test_an_arms_runs_are_rows_in_the_order_of_its_seeds(arms: tuple[Path, tuple[Arm, ...]]) -> None:
    folder, (baseline, gap) = arms
    outcomes, faults = read_outcomes(folder, (baseline, gap))
    assert faults == ()
    assert outcomes[id(gap)].seeds == (0, 1, 2)
    assert outcomes[id(gap)].bits().shape == (3, N)
    assert outcomes[id(gap)].bits().mean(axis=1).tolist() == [row["top1"] for row in gap.done]


def test_of_long_arms_only_the_first_runs_are_read(arms: tuple[Path, tuple[Arm, ...]]) -> None:
    folder, members = arms
    outcomes, _ = read_outcomes(folder, members, most=2)
    assert [one.seeds for one in outcomes.values()] == [(0, 1), (0, 1)]


@pytest.fixture
def spoil(store: Callable[..., None]) -> Spoil:
    """Makes the outcomes of the runs of this beginning unusable."""
    return lambda folder, start, kind: [spoil_one(path, kind, store) for path in folder.glob(f"{start}*/correct.npz")]


def spoil_one(path: Path, kind: str, store: Callable[..., None]) -> None:
    with np.load(path) as found:
        bits = np.unpackbits(found["top1"], count=N).astype(bool)
    if kind == "absent":
        path.unlink()
    elif kind == "cut short":
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "other outcomes":
        store(path.parent, np.roll(bits, 1) & bits, bits)
    elif kind == "fewer images":
        store(path.parent, bits[:500], bits[:500])
    elif kind == "another order":
        store(path.parent, bits, bits, order="1" * 64)


TOLD = {
    "absent": r"^correct.npz absent \(1 run, such as resnet18-gap-s1-\w+\): left out of the per-image estimates$",
    "cut short": r"^correct.npz damaged \(1 run, such as resnet18-gap-s1-\w+: .*zip.*\): left out",
    "other outcomes": r"that is not what the metrics were computed from \(.*top1 is 0\.8\d+, not 0\.9\d+\): left out",
    "fewer images": r"of another number of images than the metrics \(.*: 500, not 597\): left out",
    "another order": r"of other images, or in another order, than most .*\(1 run, such as resnet18-gap-s1-\w+\)",
}


@pytest.mark.parametrize("kind", TOLD)
def test_an_unusable_run_is_left_out_and_told(arms: tuple[Path, tuple[Arm, ...]], spoil: Spoil, kind: str) -> None:
    folder, members = arms
    spoil(folder, "resnet18-gap-s1", kind)
    outcomes, faults = read_outcomes(folder, members)
    assert {arm.label: outcomes[id(arm)].seeds for arm in members} == {"baseline": (0, 1, 2), "gap": (0, 2)}
    (told,) = tell(faults)
    assert re.search(TOLD[kind], told), told


def test_an_arm_without_usable_outcomes_is_not_there(arms: tuple[Path, tuple[Arm, ...]], spoil: Spoil) -> None:
    folder, members = arms
    spoil(folder, "resnet18-gap", "absent")
    outcomes, faults = read_outcomes(folder, members)
    assert list(outcomes) == [id(members[0])]
    assert len(faults) == 3
    assert "3 runs, such as resnet18-gap-s0" in tell(faults)[0]


def test_the_order_that_most_runs_share_is_kept_whichever_is_read_first(
    arms: tuple[Path, tuple[Arm, ...]], spoil: Spoil
) -> None:
    folder, members = arms
    spoil(folder, "resnet18-baseline-s0", "another order")
    outcomes, _ = read_outcomes(folder, members)
    assert [outcomes[id(arm)].seeds for arm in members] == [(1, 2), (0, 1, 2)]


def test_the_columns_have_faults_of_their_own(arms: tuple[Path, tuple[Arm, ...]]) -> None:
    folder, members = arms
    for path in folder.glob("resnet18-gap-s1*/metrics.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"top5": 0.5}))
    members = group_arms(read_study(folder))[0].arms
    assert read_outcomes(folder, members, "top1")[1] == ()
    assert [fault.detail for fault in read_outcomes(folder, members, "top5")[1]] != []
