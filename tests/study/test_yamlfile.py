from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sqzlab.errors import ConfigError
from sqzlab.study import yamlfile
from sqzlab.study.yamlfile import parse, parse_scalar, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.0e-3", 0.001),
        (".5", 0.5),
        ("1.", 1.0),
        ("+2", 2),
        ("-7", -7),
        ("0", 0),
        ("0o17", 15),
        ("0x1F", 31),
        ("off", "off"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("y", "y"),
        ("8:00:00", "8:00:00"),
        ("190:20:30", "190:20:30"),
        ("2001-12-14", "2001-12-14"),
        ("0b11", "0b11"),
        ("=", "="),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("nUll", "nUll"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_plain_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: Any) -> None:
    read = parse_scalar(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["016", "-01", "00", "1_000", "1_0.5", ".inf", "-.Inf", ".nan", "1e999", "9" * 31])
def test_numbers_that_two_readers_would_read_differently_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|valid"):
        parse_scalar(text)


@given(st.one_of(st.integers(-(10**20), 10**20), st.floats(allow_nan=False, allow_infinity=False), st.booleans()))
def test_numbers_and_truth_values_as_python_and_json_write_them_are_read_back(value: float) -> None:
    read = parse_scalar(str(value).lower())
    assert read == value
    assert type(read) is type(value)


def test_quoted_scalars_are_text() -> None:
    assert parse("['1', \"true\", '016', '', \"<<\"]").root.plain == ["1", "true", "016", "", "<<"]


@given(
    st.recursive(
        st.one_of(
            st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.text("abc é:#'\"\n,[]{}&*!|>%@", max_size=8)
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(st.text("abcé", min_size=1), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_what_pyyaml_writes_is_read_back(value: Any) -> None:
    document = parse(yaml.safe_dump(value, allow_unicode=True))
    assert document.faults == []
    assert document.root.plain == value


def test_nodes_know_where_they_and_their_keys_stand() -> None:
    root = parse("a: 1\nb:\n  c: [x, yy]\n").root
    assert isinstance(root.value, dict)
    inner = root.value["b"]
    assert isinstance(inner.value, dict)
    assert (inner.mark, inner.key_mark) == ((3, 3), (2, 1))
    items = inner.value["c"].value
    assert isinstance(items, list)
    assert [node.mark for node in items] == [(3, 7), (3, 10)]


def test_aliases_stand_for_their_anchors() -> None:
    assert parse("a: &x [1, 2]\nb: *x\nc: {d: *x}").root.plain == {"a": [1, 2], "b": [1, 2], "c": {"d": [1, 2]}}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\na: 2", "2:1: a: repeated key; it stands on line 1 already"),
        ("d:\n  a: 1\n  'a': 2", "3:3: d.a: repeated key; it stands on line 2 already"),
        ("a: {<<: {b: 1}}", "1:5: a: merge keys (<<) are not read"),
        ("1: a", "1:1: key 1 is no key; valid: text"),
        ("true: a", "1:1: key True is no key; valid: text"),
        ("? [a]\n: b", "1:3: list or mapping is no key; valid: text"),
        ("a: !!str 5", "1:4: a: tag 'tag:yaml.org,2002:str' is not read"),
        ("a: !x [5]", "1:4: a: tag '!x' is not read"),
        ("a:\n - 016", "2:4: a: '016' is octal in YAML 1.1 and decimal in 1.2; write 16"),
        ("a: 1_000", "1:4: a: '1_000' is text in YAML 1.2; write 1000"),
        ("a: " + "x" * 3000, "1:4: a: is 3,000 characters long; valid: at most 2,000"),
    ],
)
def test_what_reading_can_go_on_after_is_collected(text: str, line: str) -> None:
    (mark, key, told), *others = parse(text).faults
    assert others == []
    assert f"{mark[0]}:{mark[1]}: {key + ': ' if key else ''}{told}".startswith(line)


def test_reading_goes_on_after_every_such_fault() -> None:
    document = parse("a: 016\na: 2\nb: !t 3\nb: 1_0\nc: ok")
    assert [fault[0] for fault in document.faults] == [(1, 4), (3, 4), (4, 4), (4, 1)]
    assert document.root.plain == {"a": 2, "b": "3", "c": "ok"}


BOMB = "\n".join([f"a0: &a0 [{'x, ' * 9}]", *(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]" for i in range(1, 12))])


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "1:1: is empty"),
        (b"# nothing\n", "1:1: is empty"),
        (b"a: 1\nb: caf\xe9\n", "2:7: byte 0xe9 is not UTF-8"),
        ("a: 1".encode("utf-16"), "1:1: byte 0xff is not UTF-8"),
        (b"\x7fELF\x00\x00", "1:1: character '\\x7f' is not allowed"),
        (b"a: 1\nb: \x00", "2:4: character '\\x00' is not allowed"),
        (b"a:\n\tb: 1\n", "2:1: a tab indents this line; valid: spaces"),
        (b"a: [1,\n  2\nb: 3\n", "3:2: not YAML: "),
        (b"a: b: c", "1:5: not YAML: mapping values are not allowed"),
        (b"a: 'b\n", "2:1: not YAML: found unexpected end of stream"),
        (b"a: @b", "1:4: not YAML: found character"),
        (b"a: 1\n---\nb: 2\n", "2:1: a second document starts here"),
        (b"a: *b", "1:4: alias *b has no anchor &b before it"),
        (b"a: &b [*b]", "1:8: alias *b stands inside its own anchor"),
        (b"[" * 100_000, "1:34: is nested deeper than 32 levels"),
        (b"- " * 100_000, "1:67: is nested deeper than 32 levels"),
        (BOMB.encode(), "6:5: holds more than 200,000 values once its aliases are expanded"),
    ],
)
def test_an_unreadable_file_gives_one_line_with_its_position(tmp_path: Path, data: bytes, line: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    (told,) = caught.value.faults
    assert told.startswith(f"{path}:{line}")
    assert told.isprintable()


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "squeeze.yaml").write_text("a: 1")
    with pytest.raises(
        ConfigError, match=r"sqeeze.yaml: no such file; did you mean 'squeeze.yaml'\? valid: squeeze.yaml"
    ):
        read_yaml(tmp_path / "sqeeze.yaml")


def test_what_is_no_regular_readable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "huge.yaml").write_bytes(b"#" * (yamlfile.MAX_BYTES + 1))
    for name, told in {
        "": "is a folder",
        "huge.yaml": "is larger than 1,000,000 bytes",
        "huge.yaml/x": "cannot be read: Not a directory",
        "a\0b": "embedded null byte",
        "x" * 300: "cannot be read: File name too long",
    }.items():
        with pytest.raises(ConfigError, match=told) as caught:
            read_yaml(tmp_path / name)
        assert caught.value.exit_code == 2


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: [2]\r\n")
    assert read_yaml(path).root.plain == {"a": 1, "b": [2]}
