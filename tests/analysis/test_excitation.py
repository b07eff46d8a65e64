from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn_gates import block_of, gates_of

from sqzlab.analysis import excitation
from sqzlab.analysis.excitation import activation_by_class, dependence_by_depth, draw, sampled, spread_within_classes
from sqzlab.analysis.figures.looks import LOOKS, in_style
from sqzlab.errors import ConfigError

ROOT = Path(__file__).parents[2]
DIGESTS = """
import hashlib
from drawn_gates import gates_of
from sqzlab.analysis.excitation import draw
drawn = draw([gates_of()], (0, 3), 5)
for name in sorted(drawn):
    print(name, hashlib.sha256(drawn[name]).hexdigest())
"""


@pytest.fixture(scope="module")
def drawn() -> dict[str, bytes]:
    return draw([gates_of()], (0, 3), 5)


def test_all_figures_are_drawn_in_every_format(drawn: dict[str, bytes]) -> None:
    names = ("a-run-classes", "a-run-within", "depth")
    assert set(drawn) == {f"{name}.{ending}" for name in names for ending in ("svg", "png", "pdf")}


def test_two_processes_draw_the_same_bytes(drawn: dict[str, bytes]) -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONHASHSEED": "7", "TZ": "UTC-5", "PYTHONPATH": path}
    said = subprocess.run([sys.executable, "-c", DIGESTS], env=environment, check=True, capture_output=True, text=True)
    here = [f"{name} {hashlib.sha256(drawn[name]).hexdigest()}" for name in sorted(drawn)]
    assert said.stdout.splitlines() == here


def test_fonts_are_embedded_as_outlines_that_print(drawn: dict[str, bytes]) -> None:
    for name, content in drawn.items():
        if name.endswith(".pdf"):
            assert b"/FontFile2" in content
            assert b"/Type3" not in content
            assert b"CreationDate" not in content


def test_channels_are_sampled_evenly_and_alike_in_every_run() -> None:
    assert sampled(2048, 50).tolist() == [i * 2048 // 50 for i in range(50)]
    assert sampled(8, 50).tolist() == list(range(8))
    assert len(set(sampled(51, 50).tolist())) == 50


def test_each_class_and_the_mean_over_all_is_a_line_in_a_panel_a_stage() -> None:
    gates = gates_of(("layer1.0", "layer1.1", "layer2.0", "layer4.0"))
    figure = activation_by_class(gates, (3, 1), channels=5)
    assert [ax.get_title("left") or ax.get_title() for ax in figure.axes] == ["conv2_2", "conv3_1", "conv5_1"]
    at = [0, 1, 3, 4, 6]
    for ax, block in zip(figure.axes, gates.last_of_stages(), strict=True):
        lines = [line for line in ax.lines if len(line.get_xdata())]
        assert [line.get_xdata().tolist() for line in lines] == [at] * 3
        np.testing.assert_array_equal(lines[0].get_ydata(), block.mean[3, at])
        np.testing.assert_array_equal(lines[1].get_ydata(), block.mean[1, at])
        np.testing.assert_array_equal(lines[2].get_ydata(), block.overall[at])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["class 3", "class 1", "all images"]


def test_the_bars_of_a_class_are_one_standard_deviation_each_way() -> None:
    gates = gates_of(("layer1.0", "layer3.0"))
    figure = spread_within_classes(gates, (2, 4), channels=3)
    block, at = gates.blocks[1], [0, 2, 5]
    bars = figure.axes[3].collections[0].get_segments()
    found = [(x, low, high) for ((x, low), (_, high)) in bars]
    wanted = [(c, block.mean[4, c] - block.std[4, c], block.mean[4, c] + block.std[4, c]) for c in at]
    np.testing.assert_allclose(found, wanted)


def test_an_arm_is_a_line_over_the_blocks_that_it_has() -> None:
    whole = gates_of(("layer1.0", "layer2.0", "layer2.1"))
    part = gates_of(("layer2.0", "layer2.1"), run="part", squeeze="SP")
    figure = dependence_by_depth([whole, part])
    lines = [line for line in figure.axes[0].lines if line.get_label().startswith("_child")]
    assert lines[0].get_xdata().tolist() == [0, 1, 2]
    assert lines[1].get_xdata().tolist() == [1, 2]
    assert lines[1].get_ydata().tolist() == [block.share for block in part.blocks]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["gap", "SP"]


def test_blocks_stand_in_the_order_of_their_numbers() -> None:
    names = tuple(f"layer3.{i}" for i in range(12))
    figure = dependence_by_depth([gates_of(names)])
    labels = [label.get_text() for label in figure.axes[2].get_xticklabels()]
    assert labels == [f"conv4_{i + 1}" for i in range(12)]


def test_of_a_deep_network_only_the_stages_are_named() -> None:
    names = tuple(f"layer{stage + 1}.{i}" for stage, depth in enumerate((3, 8, 36, 3)) for i in range(depth))
    figure = dependence_by_depth([gates_of(names, classes=2, channels=2)])
    labels = [label.get_text() for label in figure.axes[2].get_xticklabels()]
    assert labels == ["conv2_1", "conv3_1", "conv4_1", "conv5_1"]


def test_gates_that_never_move_leave_a_gap_and_draw_no_warning() -> None:
    still = block_of(np.full((10, 4), 0.5), np.arange(10) % 5, 5, "layer1.0")
    gates = dataclasses.replace(gates_of(), blocks=(still, *gates_of().blocks[1:]))
    line = dependence_by_depth([gates]).axes[0].lines[0]
    assert np.isnan(line.get_ydata()).tolist() == [True, False, False]


def test_runs_of_one_squeeze_are_named_by_run() -> None:
    assert excitation.labels([gates_of(run="a"), gates_of(run="b")]) == ["a", "b"]
    assert excitation.labels([gates_of(run="a"), gates_of(run="b", squeeze="SP")]) == ["gap", "SP"]


def test_more_than_can_be_told_apart_is_refused() -> None:
    with pytest.raises(ConfigError, match="7 classes cannot be told apart; valid: at most 6"):
        draw([gates_of(classes=8)], range(7), 4)
    with pytest.raises(ConfigError, match="13 networks cannot be told apart in one figure; valid: at most 12"):
        draw([gates_of(run=f"r{i}") for i in range(13)], (0,), 4)


def test_nothing_overlaps_the_legend() -> None:
    with in_style():
        figure = dependence_by_depth([gates_of(run=f"run{i}", squeeze=s) for i, s in enumerate(list(LOOKS)[1:])])
        figure.draw_without_rendering()
        legend = figure.legends[0].get_window_extent()
        assert legend.x0 >= 0
        assert legend.x1 <= figure.bbox.x1
        assert all(ax.get_tightbbox().y0 >= legend.y1 - 1 for ax in figure.axes)
