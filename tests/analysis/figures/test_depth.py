from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_gates import gates_of

from sqzlab.analysis.figures.depth import excitation_by_stage, has_excitation
from sqzlab.analysis.figures.looks import LOOKS
from sqzlab.analysis.gates import Gates, blocks_table
from sqzlab.analysis.writers import to_csv
from sqzlab.errors import ConfigError


def recorded(folder: Path, *several: Gates, name: str = "excitation") -> Path:
    """A study in which the gates of these networks were recorded."""
    (folder / name).mkdir(parents=True)
    (folder / name / "excitation.csv").write_text(to_csv(blocks_table(several)))
    return folder


def test_each_arm_is_a_line_of_its_squeezes_look_over_the_blocks(tmp_path: Path) -> None:
    gap, sp = gates_of(run="resnet18-gap-s0-0123abcd"), gates_of(run="resnet18-SP-s0-0123abcd", squeeze="SP", seed=1)
    figure = excitation_by_stage(recorded(tmp_path, gap, sp))
    share, std = figure.axes
    for line, gates in zip(share.lines, (gap, sp), strict=False):
        np.testing.assert_allclose(line.get_ydata(), [block.share for block in gates.blocks])
        assert (line.get_color(), line.get_marker()) == LOOKS[gates.squeeze]
    wanted = [np.sqrt((block.within + block.between).mean()) for block in gap.blocks]
    np.testing.assert_allclose(std.lines[0].get_ydata(), wanted)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["gap", "SP"]


def test_runs_of_one_arm_are_averaged_and_counted(tmp_path: Path) -> None:
    runs = [gates_of(run=f"resnet18-gap-s{i}-0123abcd", seed=i) for i in range(3)]
    figure = excitation_by_stage(recorded(tmp_path, *runs))
    wanted = np.mean([[block.share for block in gates.blocks] for gates in runs], axis=0)
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), wanted)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["gap (n = 3)"]


def test_arms_of_one_squeeze_are_named_in_full(tmp_path: Path) -> None:
    runs = [gates_of(run=f"resnet18-gap-reduction{i}-s0-0123abcd") for i in (2, 4)]
    figure = excitation_by_stage(recorded(tmp_path, *runs))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["resnet18-gap-reduction2", "resnet18-gap-reduction4"]


def test_long_names_stand_within_the_page_and_below_the_panels(tmp_path: Path) -> None:
    runs = [gates_of(run=f"resnext101_32x4d-frozen_random-reduction{i}-s0-0123abcd") for i in range(12)]
    figure = excitation_by_stage(recorded(tmp_path, *runs))
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.x1
    assert all(ax.get_tightbbox().y0 >= legend.y1 - 1 for ax in figure.axes)


def test_whether_gates_were_recorded_is_seen_from_the_folder(tmp_path: Path) -> None:
    assert not has_excitation(tmp_path)
    assert has_excitation(recorded(tmp_path, gates_of()))


@pytest.mark.parametrize("content", ["", "run,squeeze\n", "run,squeeze,block\na,gap,layer1.0\n", "\0", "a\nb\n"])
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, content: str) -> None:
    path = recorded(tmp_path, gates_of()) / "excitation" / "excitation.csv"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"excitation\.csv: no table of recorded gates, or damaged$"):
        excitation_by_stage(tmp_path)


def test_too_many_arms_are_refused(tmp_path: Path) -> None:
    recorded(tmp_path, *(gates_of(run=f"resnet18-gap-reduction{i}-s0-0123abcd") for i in range(13)))
    with pytest.raises(ConfigError, match="13 arms cannot be told apart; valid: at most 12"):
        excitation_by_stage(tmp_path)
