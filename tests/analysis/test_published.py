import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from sqzlab.analysis.arms import group_arms
from sqzlab.analysis.beside import beside_table
from sqzlab.analysis.published import BACKBONE_NAMES, VARIANTS, matching, read_published, sprg_table, ssenet_table
from sqzlab.analysis.records import read_study
from sqzlab.catalog import BACKBONES, SQUEEZES
from sqzlab.errors import ConfigError

PUBLISHED = Path(__file__).parents[2] / "results" / "published.csv"
MakeStudy = Callable[..., Path]


@pytest.fixture(scope="module")
def raw() -> list[dict[str, str]]:
    with PUBLISHED.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_accuracy_of_ssenet_comes_out_as_it_was_printed(raw: list[dict[str, str]]) -> None:
    printed = [
        (row["backbone"], row["variant"], f"{float(row['raw_top1']):.2f}", f"{float(row['raw_top5']):.2f}")
        for row in raw
        if row["source"] == "SsENet.PyTorch README"
    ]
    table = ssenet_table(read_published(PUBLISHED))
    made = [(section.title, *(entry.text for entry in row[:3])) for section in table.sections for row in section.rows]
    assert made == printed
    assert len(made) == 12


def test_improvements_of_ssenet_are_those_of_its_readme() -> None:
    table = ssenet_table(read_published(PUBLISHED))
    improved = [[row[3].text for row in section.rows] for section in table.sections]
    assert improved[0] == ["", "+1.20", "+1.02", "+0.76", "+1.19", "−0.35"]
    assert improved[1] == ["", "−0.82", "−0.58", "−0.60", "−0.77", "−1.95"]


def test_the_mislabelled_arms_of_ssenet_carry_their_footnote() -> None:
    table = ssenet_table(read_published(PUBLISHED))
    assert [row[3].marks for row in table.sections[0].rows] == [""] * 6
    assert [row[3].marks for row in table.sections[1].rows] == ["", *["a"] * 5]
    assert "SE-ResNet-34" in dict(table.notes)["a"]


def test_every_row_of_the_sprg_readme_comes_out_as_it_was_printed(raw: list[dict[str, str]]) -> None:
    printed = [
        (row["backbone"], row["variant"], row["raw_top1"], row["raw_top5"], row["gflops"])
        for row in raw
        if row["source"].startswith("SP/RG README")
    ]
    table = sprg_table(read_published(PUBLISHED))
    made = [(section.title, *(entry.text for entry in row)) for section in table.sections for row in section.rows]
    assert made == printed
    assert len(made) == 25


def test_published_names_stand_for_names_of_the_catalog() -> None:
    assert set(BACKBONE_NAMES.values()) <= set(BACKBONES)
    assert set(VARIANTS.values()) <= set(SQUEEZES)


def test_mislabelled_arms_match_the_network_that_was_built_and_give_no_difference() -> None:
    rows = read_published(PUBLISHED)
    assert all(found["source"] != "SsENet.PyTorch" for found in matching(rows, "resnet50", "gap"))
    (found,) = matching(rows, "resnet34", "gap")
    assert found["improved"] is None
    assert found["marks"] == "a"


def test_each_difference_is_against_the_same_source() -> None:
    found = {row["source"]: row["improved"] for row in matching(read_published(PUBLISHED), "resnet50", "gap")}
    assert found == {"SP/RG": pytest.approx(24.48 - 23.21), "SENet, table 2": pytest.approx(24.80 - 23.29)}


@pytest.mark.parametrize(("data", "different"), [("digits", True), ("imagenet", False)])
def test_another_data_set_is_labelled(make_study: MakeStudy, data: str, different: bool) -> None:
    records = read_study(make_study(data=data))
    table = beside_table(records, group_arms(records), read_published(PUBLISHED))
    assert table is not None
    assert ("different data set" in table.sections[0].title) == different
    assert ("neither levels nor improvements are comparable" in table.caption) == different


def test_a_backbone_that_nobody_published_has_no_table(make_study: MakeStudy) -> None:
    records = read_study(make_study(matrix={"model.backbone": ["other"], "model.squeeze": ["baseline", "gap"]}))
    assert beside_table(records, group_arms(records), read_published(PUBLISHED)) is None


@pytest.mark.parametrize(
    "content", [b"a,b\n1,2\n", b"\xff\xfe", b"source,table,backbone,variant,top1_err\nx,y,z,w,high\n"]
)
def test_a_damaged_file_of_published_numbers_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "published.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_published(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
