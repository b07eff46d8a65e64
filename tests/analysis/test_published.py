import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from sqzlab.analysis.caveats import NOTES, Marks
from sqzlab.analysis.published import (
    PublishedRow,
    System,
    accuracy_error,
    difference_error,
    read_published,
    sprg_table,
    ssenet_table,
    systems,
    why_no_arm,
)
from sqzlab.analysis.sources import BACKBONE_NAMES, DEFAULTS, OTHER_BACKBONES, SOURCES
from sqzlab.catalog import BACKBONES
from sqzlab.errors import ConfigError
from sqzlab.recipes import RECIPES
from sqzlab.resolving import model_config

PUBLISHED = Path(__file__).parents[2] / "results" / "published.csv"
HEADER = "source,table,backbone,variant,top1_err,top5_err,gflops,params_m,note\n"


@pytest.fixture(scope="module")
def raw() -> list[dict[str, str]]:
    with PUBLISHED.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def rows() -> tuple[PublishedRow, ...]:
    return read_published(PUBLISHED)


@pytest.fixture(scope="module")
def found(rows: tuple[PublishedRow, ...]) -> dict[tuple[str, str, str], System]:
    """Systems by label, printed backbone and first printed variant."""
    made = {(one.label, one.rows[0].backbone, one.rows[0].variant): one for one in systems(rows)}
    assert len(made) == len(systems(rows))
    return made


# ---- the two tables again ----------------------------------------------------------------------


def test_every_accuracy_of_ssenet_comes_out_as_it_was_printed(
    raw: list[dict[str, str]], rows: tuple[PublishedRow, ...]
) -> None:
    printed = [
        (row["backbone"], row["variant"], f"{float(row['raw_top1']):.2f}", f"{float(row['raw_top5']):.2f}")
        for row in raw
        if row["source"] == "SsENet.PyTorch README"
    ]
    sections = ssenet_table(rows).sections
    made = [(section.title, *(entry.text for entry in row[:3])) for section in sections for row in section.rows]
    assert made == printed
    assert len(made) == 12


def test_improvements_of_ssenet_are_those_of_its_readme(rows: tuple[PublishedRow, ...]) -> None:
    improved = [[row[3].text for row in section.rows] for section in ssenet_table(rows).sections]
    assert improved[0] == ["", "+1.20", "+1.02", "+0.76", "+1.19", "−0.35"]
    assert improved[1] == ["", "−0.82", "−0.58", "−0.60", "−0.77", "−1.95"]


def test_each_row_of_ssenet_carries_its_own_footnotes(rows: tuple[PublishedRow, ...]) -> None:
    table = ssenet_table(rows)
    first, second = ([(row[0].marks, row[3].marks) for row in section.rows] for section in table.sections)
    assert first == [("", ""), *[("", "a")] * 5]
    assert second == [("b", ""), *[("c", "")] * 5]
    told = dict(table.notes)
    assert set(told) == {"a", "b", "c"}
    assert "in the baseline only" in told["a"]
    assert "a real ResNet-50" in told["b"]
    assert "SE-ResNet-34" in told["c"]


def test_the_errors_of_chance_are_said_to_be_of_the_images_alone(rows: tuple[PublishedRow, ...]) -> None:
    for table in (ssenet_table(rows), sprg_table(rows)):
        assert "From the choice of 50,000 images alone" in table.caption
        assert "the luck of the seed comes on top" in table.caption


@pytest.mark.parametrize(
    "told", ["a tenth of the usual", "unknown", "one seed", "0.20 to 0.21 points", "about 0.30 or less"]
)
def test_what_holds_for_all_of_ssenet_stands_in_the_caption(rows: tuple[PublishedRow, ...], told: str) -> None:
    assert told in ssenet_table(rows).caption


def test_every_row_of_the_sprg_readme_comes_out_as_it_was_printed(
    raw: list[dict[str, str]], rows: tuple[PublishedRow, ...]
) -> None:
    printed = [
        (row["backbone"], row["variant"], row["raw_top1"], row["raw_top5"], row["gflops"])
        for row in raw
        if row["source"].startswith("SP/RG README")
    ]
    table = sprg_table(rows)
    made = [(section.title, *(entry.text for entry in row)) for section in table.sections for row in section.rows]
    assert made == printed
    assert len(made) == 25
    assert "best Top-1 and the best Top-5" in table.caption


def test_only_the_resnexts_of_sprg_have_unexplained_gflops(rows: tuple[PublishedRow, ...]) -> None:
    table = sprg_table(rows)
    marks = {section.title: {row[3].marks for row in section.rows} for section in table.sections}
    nothing = {f"ResNet-{depth}": {""} for depth in (50, 101, 152)}
    assert marks == nothing | {"ResNeXt-50": {"a"}, "ResNeXt-101": {"a"}}
    assert [mark for mark, _ in table.notes] == ["a"]


def test_a_table_without_rows_is_empty() -> None:
    assert ssenet_table(()).sections == sprg_table(()).sections == ()


# ---- rows as networks --------------------------------------------------------------------------


def test_every_row_is_a_network_of_ours_or_has_a_reason_not_to_be(rows: tuple[PublishedRow, ...]) -> None:
    reasons = {row: why_no_arm(row) for row in rows}
    forgotten = [row for row, reason in reasons.items() if reason is not None and "not known" in reason]
    assert forgotten == []
    covered = [row for one in systems(rows) for row in one.rows]
    assert len(covered) == len(set(covered))
    assert set(covered) == {row for row, reason in reasons.items() if reason is None}


@pytest.mark.parametrize("column", ["source", "table", "backbone", "variant"])
def test_a_new_row_is_not_taken_for_one_that_is_known(rows: tuple[PublishedRow, ...], column: str) -> None:
    new = replace(rows[0], **{column: "new"})
    assert "not known" in str(why_no_arm(new))
    assert len(systems((*rows, new))) == len(systems(rows))


def test_nothing_in_the_tables_of_sources_is_without_a_row(rows: tuple[PublishedRow, ...]) -> None:
    used: set[str] = set()
    for source in SOURCES:
        members = [row for row in rows if (row.source, row.table) in source.tables]
        assert {(row.source, row.table) for row in members} == set(source.tables)
        assert {row.variant for row in members} == set(source.variants)
        assert set(source.labels) | source.baseline <= set(source.variants)
        for backbone, variant, name in source.row_notes:
            assert any(backbone in (None, row.backbone) and variant in (None, row.variant) for row in members), name
        used |= {*source.notes, *(name for _, _, name in source.row_notes)}
    assert used == set(NOTES)
    assert {row.backbone for row in rows} == {*OTHER_BACKBONES, *BACKBONE_NAMES}


def test_names_are_those_of_the_catalog_and_the_recipes() -> None:
    assert set(BACKBONE_NAMES.values()) <= set(BACKBONES)
    complete = model_config(backbone="resnet50", squeeze="gap")
    assert {key: getattr(complete, key) for key in DEFAULTS} == DEFAULTS
    assert {note.on for note in NOTES.values()} == {"level", "improved", "counts"}
    for source in SOURCES:
        for settings in (source.known, *(v for v in source.variants.values() if not isinstance(v, str))):
            assert settings.get("train.recipe", "sprg") in RECIPES


@pytest.mark.parametrize(
    ("label", "backbone", "variant", "improved"),
    [
        ("SsENet.PyTorch", "ResNet-18", "gap", 34.29 - 33.09),
        ("SsENet.PyTorch", "ResNet-18", "random", 34.29 - 34.64),
        ("SP/RG", "ResNet-50", "SE", 24.48 - 23.21),
        ("SP/RG", "ResNet-101", "RGSE", 23.28 - 21.24),
        ("SP/RG", "ResNeXt-101", "CBAM", 21.53 - 21.10),
        ("SENet, table 2", "ResNet-50", "SE", 24.80 - 23.29),
        ("SENet, table 2", "ResNeXt-50", "SE", 22.11 - 21.10),
        ("SENet, tables 10 to 16", "ResNet-50", "SE r=16", 23.30 - 22.28),
        ("SENet, table 10", "ResNet-50", "SE r=32", 23.30 - 22.72),
        ("SENet, table 11", "ResNet-50", "squeeze=Max", 23.30 - 22.57),
        ("SENet, table 12", "ResNet-50", "excitation=ReLU", 23.30 - 23.47),
        ("SENet, table 13", "ResNet-50", "SE Stage 4", 23.30 - 22.68),
        ("SENet, table 14", "ResNet-50", "SE-Identity", 23.30 - 22.20),
        ("SENet, table 15", "ResNet-50", "SE 3x3", 23.30 - 22.48),
        ("SENet, table 16", "ResNet-50", "NoSqueeze", 23.30 - 22.93),
        ("SENet, footnote 2", "ResNet-50", "SE", 23.21 - 22.20),
        ("ECA-Net, table 3", "ResNet-50", "ECA", 24.80 - 22.52),
        ("ECA-Net, table 3", "ResNet-152", "ECA", 22.42 - 21.08),
        ("SRM", "ResNet-50", "SRM (mean+std)", 24.11 - 22.87),
        ("GCT", "ResNet-50", "GCT (WD on beta)", 23.80 - 22.30),
        ("mmpretrain", "ResNet-101", "SE (seresnet101_8xb32_in1k)", 22.03 - 21.74),
    ],
)
def test_improvements_are_over_the_baseline_of_the_same_source(
    found: dict[tuple[str, str, str], System], label: str, backbone: str, variant: str, improved: float
) -> None:
    assert found[label, backbone, variant].improved == pytest.approx(improved, abs=1e-9)


@pytest.mark.parametrize(
    ("label", "backbone", "variant", "why"),
    [
        ("SENet README, table 1", "ResNet-50", "SE (released caffe, bs256 lr0.1 more epochs)", "no_baseline"),
        ("CBAM, table 4", "ResNet-50", "CBAM", "no_baseline"),
        ("CBAM, checkpoint", "ResNet-50", "CBAM", "no_baseline"),
        ("ECANet README", "ResNet-18", "ECA", "no_baseline"),
        ("FcaNet", "ResNet-50", "FcaNet top16", "no_baseline"),
        ("timm, legacy_seresnet50", "ResNet-50", "SE (legacy_seresnet50.in1k)", "no_baseline"),
        ("moskomule", "ResNet-50", "SE (no bias)", "no_baseline"),
        ("mmpretrain", "ResNet-50", "SE (seresnet50_8xb32_in1k)", "unequal_epochs"),
    ],
)
def test_without_a_baseline_of_the_same_training_there_is_no_improvement_and_a_note(
    found: dict[tuple[str, str, str], System], label: str, backbone: str, variant: str, why: str
) -> None:
    one = found[label, backbone, variant]
    assert one.improved is None
    assert one.improved_error is None
    assert why in one.notes


def test_a_network_that_is_no_baseline_has_an_improvement_or_a_note_that_forbids_it(
    found: dict[tuple[str, str, str], System],
) -> None:
    for key, one in found.items():
        forbids = any(NOTES[name].blank for name in one.notes)
        assert (one.improved is None) == (forbids or one.squeeze == "baseline"), key
        assert not (forbids and one.squeeze == "baseline"), key


def test_baselines_carry_no_note_on_improvements(found: dict[tuple[str, str, str], System]) -> None:
    baselines = [one for one in found.values() if one.squeeze == "baseline"]
    assert len(baselines) > 20
    assert not [name for one in baselines for name in one.notes if NOTES[name].on == "improved"]


@pytest.mark.parametrize(
    ("label", "backbone", "variant", "notes"),
    [
        ("SsENet.PyTorch", "ResNet-18", "gap", {"ssenet", "zero_init"}),
        ("SsENet.PyTorch", "ResNet-50", "gap", {"ssenet", "mislabelled"}),
        ("SsENet.PyTorch", "ResNet-50", "baseline", {"ssenet", "which_resnet50"}),
        ("SP/RG", "ResNet-50", "SE", {"best_epoch"}),
        ("SP/RG", "ResNeXt-50", "SE", {"best_epoch", "unexplained_gflops"}),
        ("SENet, table 2", "ResNet-50", "SE", {"senet_table_2"}),
        ("SENet, table 2, original", "ResNet-50", "base (original paper)", {"original_paper"}),
        ("SENet, table 12", "ResNet-50", "excitation=Tanh", {"senet_ablation", "other_table"}),
        ("SENet, table 16", "ResNet-50", "NoSqueeze", {"senet_ablation"}),
        ("ECA-Net, table 2", "ResNet-50", "base", {"quoted", "eca_top5"}),
        ("ECA-Net, table 3", "ResNet-101", "base", {"quoted", "units_2_30"}),
        ("ECA-Net, table 3", "ResNet-50", "ECA", {"quoted_baseline", "units_2_30"}),
        ("timm, legacy_seresnet34", "ResNet-34", "SE (legacy_seresnet34.in1k)", {"legacy", "relu_before_squeeze"}),
        ("timm, legacy_seresnet50", "ResNet-50", "SE (legacy_seresnet50.in1k)", {"legacy"}),
        ("mmpretrain", "ResNet-34", "base", {"typo"}),
        ("mmpretrain", "ResNet-50", "base", set()),
    ],
)
def test_caveats_stand_where_they_apply_and_nowhere_else(
    found: dict[tuple[str, str, str], System], label: str, backbone: str, variant: str, notes: set[str]
) -> None:
    assert {*found[label, backbone, variant].notes} - {"no_baseline"} == notes


def test_a_measurement_that_is_printed_in_several_tables_is_one_network(
    found: dict[tuple[str, str, str], System],
) -> None:
    se = found["SENet, tables 10 to 16", "ResNet-50", "SE r=16"]
    assert {row.table for row in se.rows} == {f"Table {number}" for number in range(10, 17)}
    assert se.printed("gflops") == "3.87"
    assert se.printed("params_m") == "28.1"
    assert len(found["SENet, tables 10, 13, 16", "ResNet-50", "base (original)"].rows) == 3


def test_what_is_called_quoted_equals_its_original(found: dict[tuple[str, str, str], System]) -> None:
    originals = {"base": ("SENet, table 2", "base (re-implementation)"), "SE": ("SENet, table 2", "SE")}
    originals["CBAM"] = "CBAM, table 4", "CBAM"
    quoted = [one for one in found.values() if "quoted" in one.notes]
    assert len(quoted) == 9
    for one in quoted:
        label, variant = originals[one.rows[0].variant]
        original = found[label, one.rows[0].backbone, variant]
        assert one.top1 == original.top1
        assert one.top5 == original.top5 or "eca_top5" in one.notes


def test_the_mislabelled_arms_are_the_network_that_was_built(found: dict[tuple[str, str, str], System]) -> None:
    built = {key[1:]: one.backbone for key, one in found.items() if key[0] == "SsENet.PyTorch"}
    assert built["ResNet-50", "baseline"] == "resnet50"
    assert {built["ResNet-50", name] for name in ("gap", "gmp", "std", "gapXstd", "random")} == {"resnet34"}
    assert built["ResNet-18", "gap"] == "resnet18"


# ---- chance ------------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [65.71, 76.15, 80.26, 0.0, 100.0])
def test_the_error_of_an_accuracy_is_that_of_the_binomial_law(percent: float) -> None:
    expected = 100 * stats.binom(50_000, percent / 100).std() / 50_000
    assert accuracy_error(percent) == pytest.approx(expected, abs=1e-12)


def test_the_error_of_a_difference_is_that_of_two_binomials() -> None:
    simulated = stats.binom(50_000, [[0.6571], [0.6691]]).rvs(size=(2, 40_000), random_state=0) / 500
    assert difference_error(65.71, 66.91) == pytest.approx((simulated[0] - simulated[1]).std(), rel=0.02)


# ---- footnotes ---------------------------------------------------------------------------------


def test_letters_of_footnotes_follow_their_first_use_and_never_repeat() -> None:
    marks = Marks()
    assert marks.of(["x", "y"]) == "a,b"
    assert marks.of(["y"]) == "b"
    assert marks.of([]) == ""
    letters = [marks.of([str(number)]) for number in range(800)]
    assert letters[:2] == ["c", "d"]
    assert letters[23:26] == ["z", "aa", "ab"]
    assert len(set(letters)) == 800
    assert marks.notes[:2] == (("a", "x"), ("b", "y"))


# ---- the file ----------------------------------------------------------------------------------


def faults() -> Iterator[tuple[bytes, str]]:
    good = "s,t,b,v,23.3,6.5,3.86,25.6,\n"
    yield b"a,b\n1,2\n", ":1: no column 'source'"
    yield b"", ":1: no column 'source'"
    yield b"\xff\xfe", "not UTF-8"
    for old, new, told in (
        ("23.3", "high", "top1_err is 'high'; valid: a number from 0 to 100"),
        ("23.3", "101", "top1_err is '101'; valid: a number from 0 to 100"),
        ("23.3", "-1", "top1_err is '-1'"),
        ("23.3", "nan", "top1_err is 'nan'"),
        ("23.3", "", "top1_err is empty"),
        ("6.5", "100.5", "top5_err is '100.5'; valid: a number from 0 to 100, or nothing"),
        ("6.5", "6,5", "more fields than columns"),
        ("3.86", "3.86G", "gflops is '3.86G'; valid: a number above 0, or nothing"),
        ("3.86", "0", "gflops is '0'"),
        ("25.6", "inf", "params_m is 'inf'"),
        ("s,t", ",t", "source is empty"),
        (",25.6,", "", "fewer fields than columns"),
        ("b,v", '"b,v', "unexpected end of data"),
    ):
        yield (HEADER + good.replace("s,", "r,", 1) + good.replace(old, new, 1)).encode(), f":3: {told}"
    yield (HEADER + good + good).encode(), ":3: 's', 't', 'b', 'v' is there twice, first in line 2"


@pytest.mark.parametrize(("content", "told"), list(faults()), ids=lambda value: value if isinstance(value, str) else "")
def test_a_damaged_file_is_refused_with_line_column_and_value(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "published.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_published(path)
    assert str(caught.value).startswith(str(path))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_a_spreadsheet_wrote_reads_the_same(tmp_path: Path, rows: tuple[PublishedRow, ...]) -> None:
    text = PUBLISHED.read_text().replace("\n", "\r\n")
    (tmp_path / "published.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_published(tmp_path / "published.csv") == rows


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"published\.csv: no such file"):
        read_published(tmp_path / "published.csv")
