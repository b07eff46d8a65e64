from __future__ import annotations

import pytest

from sqzlab.bench.plan import COMPILED, EAGER, KINDS, OURS, PEERS, SQUEEZES, TRAINING, Contender, Entry, entries
from sqzlab.errors import ConfigError

FORMS = ("plain", "folded")


def test_our_plain_network_comes_first_in_each_backbone_whatever_is_named() -> None:
    rows = entries(["resnet18", "resnet50"], ["gap"], ["folded"], (), [COMPILED], [TRAINING], 224)
    assert [str(row) for row in rows] == [
        f"{backbone} {label}, compiled, training"
        for backbone in ("resnet18", "resnet50")
        for label in ("baseline", "gap, folded")
    ]


def test_every_row_is_there_once_and_has_its_reference_among_the_rows() -> None:
    rows = entries(["resnet50"], SQUEEZES, FORMS, PEERS, [EAGER, COMPILED], KINDS, 224)
    assert len(rows) == len(set(rows)) == 2 * (8 + 3) + 2 * (16 + 3)
    assert {row.reference for row in rows} <= set(rows)


def test_folded_networks_are_measured_compiled_only() -> None:
    rows = entries(["resnet50"], SQUEEZES, FORMS, (), [EAGER, COMPILED], KINDS, 224)
    assert {row.mode for row in rows if row.contender.form == "folded"} == {COMPILED}


def test_networks_of_one_backbone_have_different_labels() -> None:
    contenders = {row.contender for row in entries(["resnet50"], SQUEEZES, FORMS, PEERS, [COMPILED], KINDS, 224)}
    assert len({contender.label for contender in contenders}) == len(contenders) == 19


def test_a_squeeze_that_is_not_defined_at_this_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"image_size: 64 .*4x4 level of the pyramid"):
        entries(["resnet18"], ["SP"], FORMS, (), [EAGER], KINDS, 64)


@pytest.mark.parametrize(("mode", "rule"), [(EAGER, "eager"), (COMPILED, "fused"), ("compiled+graphs", "fused")])
def test_a_mode_is_held_against_the_bound_of_its_kind(mode: str, rule: str) -> None:
    assert Entry(Contender(OURS, "resnet18"), mode, TRAINING).accounting == rule
