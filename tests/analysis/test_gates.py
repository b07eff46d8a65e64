from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from drawn_gates import block_of, gates_of
from scipy import stats

from sqzlab.analysis.gates import RESOLUTION, BlockGates, block_rows, blocks_table, chosen_classes, read_npz, to_npz
from sqzlab.errors import ConfigError


def _drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gates (N, 3) of classes of unequal size; class 2 of 4 has no image."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 1, 3, 3, 3], size=60)
    return rng.normal(0.5, 0.1, (60, 3)) + 0.05 * labels[:, None], labels


@pytest.mark.parametrize("seed", range(3))
def test_variance_within_and_between_classes_is_that_of_loops_over_the_images(seed: int) -> None:
    x, labels = _drawn(seed)
    block = block_of(x, labels, 4)
    for c in range(3):
        grand = sum(x[:, c]) / len(x)
        within = between = 0.0
        for k in (0, 1, 3):
            own = [x[i, c] for i in range(len(x)) if labels[i] == k]
            centre = sum(own) / len(own)
            between += len(own) * (centre - grand) ** 2
            within += sum((value - centre) ** 2 for value in own)
        assert block.overall[c] == pytest.approx(grand, rel=1e-12)
        assert block.within[c] == pytest.approx(within / len(x), rel=1e-10)
        assert block.between[c] == pytest.approx(between / len(x), rel=1e-10)
        assert block.within[c] + block.between[c] == pytest.approx(np.var(x[:, c]), rel=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_the_share_of_one_channel_is_that_of_scipys_analysis_of_variance(seed: int) -> None:
    x, labels = _drawn(seed)
    block = block_of(x[:, :1], labels, 4)
    f = stats.f_oneway(*(x[labels == k, 0] for k in (0, 1, 3))).statistic
    assert block.share == pytest.approx(2 * f / (2 * f + len(x) - 3), rel=1e-10)


def test_gates_that_have_nothing_to_do_with_the_class_reach_chance() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 8
    block = block_of(rng.random((40, 4000)), labels, 8)
    gates = dataclasses.replace(gates_of(), blocks=(block,))
    assert gates.chance == 7 / 39
    assert block.share == pytest.approx(gates.chance, abs=0.01)


def test_gates_that_never_move_have_no_share() -> None:
    labels = np.arange(12) % 3
    noise = np.random.default_rng(0).random((12, 4))
    assert block_of(np.full((12, 4), 0.7), labels, 3).share is None
    assert block_of(0.7 + RESOLUTION / 10 * noise, labels, 3).share is None


def test_one_gate_that_moves_decides_among_many_that_do_not() -> None:
    labels = np.arange(12) % 3
    x = np.full((12, 4), 0.5)
    x[:, 1] += 0.1 * labels
    assert block_of(x, labels, 3).share == pytest.approx(1)


def test_every_image_counts_once_in_the_saturated_share() -> None:
    labels = np.array([0, 0, 0, 1])
    x = np.array([[0.01, 0.5], [0.5, 0.96], [0.5, 0.5], [0.0, 1.0]])
    assert block_of(x, labels, 2).saturated() == (2 / 8, 2 / 8)


def test_the_last_block_of_each_stage_is_chosen_and_a_stage_without_any_is_left_out() -> None:
    gates = gates_of(("layer1.0", "layer1.1", "layer3.0", "layer3.1", "layer3.22"))
    assert [block.name for block in gates.last_of_stages()] == ["layer1.1", "layer3.22"]


def test_classes_are_chosen_by_name_and_by_number() -> None:
    gates = dataclasses.replace(gates_of(), classes=("goldfish", "pug", "crane", "cliff", "crane"))
    assert chosen_classes(gates.classes, gates.blocks[0].images > 0, ["Pug", "4", "crane", "1"]) == (1, 4, 2)
    assert chosen_classes(gates.classes, gates.blocks[0].images > 0, []) == (0, 1, 2, 3)


def test_a_number_is_a_name_first() -> None:
    gates = dataclasses.replace(gates_of(), classes=("4", "3", "2", "1", "0"))
    assert chosen_classes(gates.classes, gates.blocks[0].images > 0, ["4", "0"]) == (0, 4)


def test_classes_that_are_not_there_are_each_named() -> None:
    block = gates_of().blocks[0]
    empty = dataclasses.replace(block, images=np.array([6, 0, 6, 6, 6]))
    gates = dataclasses.replace(gates_of(), blocks=(empty,))
    with pytest.raises(ConfigError) as error:
        chosen_classes(gates.classes, gates.blocks[0].images > 0, ["class 0", "pug", "5", "class 1"])
    assert error.value.faults == (
        "--classes: no class 'pug'; valid: numbers from 0 to 4, names ('class 0', 'class 1', 'class 2', ...)",
        "--classes: no class '5'; valid: numbers from 0 to 4, names ('class 0', 'class 1', 'class 2', ...)",
        "--classes: class 'class 1' has no image",
    )
    assert chosen_classes(gates.classes, gates.blocks[0].images > 0, []) == (0, 2, 3, 4)


def test_a_file_of_gates_is_read_as_it_was(tmp_path: Path) -> None:
    gates = gates_of()
    unbounded = dataclasses.replace(gates.blocks[1], low=None, high=None)
    gates = dataclasses.replace(gates, blocks=(gates.blocks[0], unbounded))
    (tmp_path / "a.npz").write_bytes(to_npz(gates))
    again = read_npz(tmp_path / "a.npz")
    assert dataclasses.replace(again, blocks=()).__dict__ == dataclasses.replace(gates, blocks=()).__dict__
    for before, after in zip(gates.blocks, again.blocks, strict=True):
        for field in dataclasses.fields(BlockGates):
            np.testing.assert_array_equal(getattr(after, field.name), getattr(before, field.name))
    assert to_npz(again) == to_npz(gates)


@pytest.mark.parametrize("content", ["empty", "text", "cut", "flipped", "other arrays", "pickle"])
def test_a_file_that_holds_no_gates_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    whole = to_npz(gates_of())
    if content == "other arrays":
        np.savez(path, correct=np.zeros(3))
    elif content == "pickle":
        np.savez(path, run=np.array([{"a": 1}], dtype=object))
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
        path.write_bytes({"empty": b"", "text": b"gates", "cut": whole[:middle], "flipped": flipped}[content])
    with pytest.raises(ConfigError, match=r"a\.npz: no recorded gates, or damaged$"):
        read_npz(path)


def test_a_file_that_is_not_there_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or directory"):
        read_npz(tmp_path / "a.npz")


def test_the_table_has_a_row_a_block_in_full_precision() -> None:
    gates = gates_of()
    table = blocks_table([gates, dataclasses.replace(gates, run="another")])
    assert [section.title for section in table.sections] == [
        "a-run (30 images, chance 13.8 %)",
        "another (30 images, chance 13.8 %)",
    ]
    assert list(table.data[:3]) == block_rows(gates)
    row, block = table.data[2], gates.blocks[2]
    assert (row["block"], row["stage"], row["channels"], row["classes"], row["images"]) == (
        "layer2.0",
        "conv3",
        8,
        5,
        30,
    )
    assert row["std_within"] == np.sqrt(block.within.mean())
    assert row["between_share"] == block.share
    shown = table.sections[0].rows[2]
    assert str(shown[4]) == f"{100 * row['between_share']:.1f}"


def test_what_does_not_exist_is_empty_in_the_table() -> None:
    block = block_of(np.full((6, 2), 0.5), np.arange(6) % 2, 2)
    gates = dataclasses.replace(gates_of(), blocks=(dataclasses.replace(block, low=None, high=None),))
    (row,) = block_rows(gates)
    assert (row["between_share"], row["saturated_low"], row["saturated_high"]) == (None, None, None)
    assert [str(entry) for entry in blocks_table([gates]).sections[0].rows[0][4:]] == ["n/a", "n/a", "n/a"]
