"""A YAML file as nodes that know their line and column, its scalars read by YAML 1.2's core schema.

PyYAML parses the syntax only. What it would make of scalars is YAML 1.1 (`off` false, `1e-3` text, `8:00:00` 28800,
`016` 14) and what it would make of mappings keeps the last of repeated keys, so neither is used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from sqzlab.errors import ConfigError, choices

MAX_BYTES = 1_000_000
MAX_NODES = 200_000  # with every alias expanded
MAX_DEPTH = 32
MAX_TEXT = 2_000

Scalar = str | int | float | bool | None
Mark = tuple[int, int]
"""Line and column, counted from 1."""
Fault = tuple[Mark, str, str]
"""Where it stands, the keys that lead there joined by dots, what is wrong."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands; `key_mark` is where its key stands, if it is a mapping's value."""

    value: Scalar | list[Node] | dict[str, Node]
    mark: Mark = (1, 1)
    end: Mark = (1, 1)
    key_mark: Mark = (1, 1)
    size: int = 1  # nodes in it, aliases expanded, with those that were dropped

    @property
    def token(self) -> Any:
        """Equal for equal values: 1 and 1.0 are, 1 and true are not."""
        if isinstance(self.value, list):
            return tuple(node.token for node in self.value)
        return (isinstance(self.value, bool), self.value)

    @property
    def plain(self) -> Any:
        """The value without positions."""
        if isinstance(self.value, list):
            return [node.plain for node in self.value]
        if isinstance(self.value, dict):
            return {key: node.plain for key, node in self.value.items()}
        return self.value


@dataclass(frozen=True)
class Document:
    root: Node
    faults: list[Fault]  # what reading could go on after: repeated keys, tags, ambiguous numbers


class UnreadableError(Exception):
    """Nothing can be read beyond this point."""

    def __init__(self, mark: Mark, text: str) -> None:
        super().__init__(text)
        self.mark, self.text = mark, text


def read_yaml(path: Path) -> Document:
    """The file's only document. Raises ConfigError, one line, where it cannot be read to its end."""
    data = _bytes(path)
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: is larger than {MAX_BYTES:,} bytes, which no study file should be")
    try:
        return parse(_decoded(data))
    except UnreadableError as error:
        line, column = error.mark
        raise ConfigError(f"{path}:{line}:{column}: {error.text}") from None


def parse(text: str) -> Document:
    """Raises UnreadableError."""
    reader = _Reader(text)
    try:
        return Document(reader.document(), reader.faults)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UnreadableError(_mark(mark) if mark else (1, 1), _syntax(error, text)) from None
    except yaml.YAMLError as error:
        raise UnreadableError((1, 1), " ".join(str(error).split())) from None


def parse_scalar(text: str) -> Scalar:
    """What an unquoted scalar means. Raises ValueError where two readings are possible."""
    if text in _WORDS:
        return _WORDS[text]
    if not text or text[0] not in "+-.0123456789":
        return text
    if _LEADING_ZERO.fullmatch(text):
        bare = re.sub(r"(?<![0-9])0+(?=[0-9])", "", text)
        raise ValueError(f"{text!r} is octal in YAML 1.1 and decimal in 1.2; write {bare} or 0o...")
    if _UNDERSCORES.fullmatch(text):
        raise ValueError(f"{text!r} is text in YAML 1.2; write {text.replace('_', '')}, or quote it if text is meant")
    if _INTEGER.fullmatch(text) and len(text) <= 30:
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isfinite(number) and len(text) <= 30:
            return number
    elif not _NOT_FINITE.fullmatch(text):
        return text
    raise ValueError(f"{text[:40]!r} is out of range; valid: a finite number of at most 30 characters")


_WORDS: dict[str, Scalar] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_UNDERSCORES = re.compile(r"[-+]?[0-9][0-9.]*_[0-9_.]*")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Reader:
    """Builds nodes from the parser's events, so that depth and aliases are bounded while they are read."""

    def __init__(self, text: str) -> None:
        self.events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self.anchors: dict[str, Node | None] = {}  # None: not complete yet
        self.faults: list[Fault] = []
        self.path: list[str] = []

    def report(self, mark: Mark, text: str) -> None:
        self.faults.append((mark, ".".join(self.path), text))

    def document(self) -> Node:
        next(self.events)  # the stream's start
        if isinstance(next(self.events), yaml.StreamEndEvent):
            raise UnreadableError((1, 1), "is empty; valid: a study, see experiments/squeeze_ablation.yaml")
        root = self.node(next(self.events), 0)
        next(self.events)  # the document's end
        after = next(self.events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise UnreadableError(_mark(after.start_mark), "a second document starts here; valid: one document a file")
        return root if root is not None else Node(None)

    def node(self, event: Any, depth: int) -> Node | None:
        """The node that starts with this event; None for a scalar that has been reported."""
        mark = _mark(event.start_mark)
        if depth > MAX_DEPTH:
            raise UnreadableError(mark, f"is nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(str(event.anchor), mark)
        if event.tag is not None:
            self.report(mark, f"tag {event.tag!r} is not read; write the value alone, quoted if it is text")
        if event.anchor:
            self.anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = self.scalar(event, mark)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self.sequence(mark, depth)
        else:
            node = self.mapping(mark, depth)
        if node is not None and node.size > MAX_NODES:
            raise UnreadableError(mark, f"holds more than {MAX_NODES:,} values once its aliases are expanded")
        if event.anchor:
            self.anchors[event.anchor] = node or Node(None, mark)
        return node

    def alias(self, anchor: str, mark: Mark) -> Node:
        if anchor not in self.anchors:
            raise UnreadableError(mark, f"alias *{anchor} has no anchor &{anchor} before it")
        node = self.anchors[anchor]
        if node is None:
            raise UnreadableError(mark, f"alias *{anchor} stands inside its own anchor")
        return node

    def scalar(self, event: Any, mark: Mark) -> Node | None:
        end = _mark(event.end_mark)
        if len(event.value) > MAX_TEXT:
            self.report(mark, f"is {len(event.value):,} characters long; valid: at most {MAX_TEXT:,}")
            return None
        try:
            return Node(parse_scalar(event.value) if event.implicit[0] else event.value, mark, end)
        except ValueError as error:
            self.report(mark, str(error))
            return None

    def sequence(self, mark: Mark, depth: int) -> Node:
        nodes: list[Node] = []
        size = 1
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            node = self.node(event, depth + 1)
            size += node.size if node is not None else 1
            if node is not None:
                nodes.append(replace(node, key_mark=node.mark))
        return Node(nodes, mark, _mark(event.end_mark), size=size)

    def mapping(self, mark: Mark, depth: int) -> Node:
        nodes: dict[str, Node] = {}
        size = 1
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key_mark, plain = _mark(event.start_mark), isinstance(event, yaml.ScalarEvent) and event.implicit[0]
            key = self.node(event, depth + 1)
            self.path.append(str(key.value) if key is not None and isinstance(key.value, str) else "?")
            node = self.node(next(self.events), depth + 1)
            self.path.pop()
            size += sum(part.size if part is not None else 1 for part in (key, node)) - 1
            if key is None or not self.is_key(key, key_mark, plain, nodes):
                continue
            if node is not None:
                nodes[str(key.value)] = replace(node, key_mark=key_mark)
        return Node(nodes, mark, _mark(event.end_mark), size=size)

    def is_key(self, key: Node, mark: Mark, plain: bool, nodes: dict[str, Node]) -> bool:
        if not isinstance(key.value, str):
            kind = "list or mapping" if isinstance(key.value, list | dict) else f"key {key.value!r}"
            self.report(mark, f"{kind} is no key; valid: text, quoted where it looks like a number or true and false")
        elif key.value == "<<" and plain:
            self.report(mark, "merge keys (<<) are not read; repeat the values, or use a profile")
        elif key.value in nodes:
            first = nodes[key.value].key_mark[0]
            self.path.append(key.value)
            self.report(mark, f"repeated key; it stands on line {first} already")
            self.path.pop()
        else:
            return True
        return False


def printable(text: str) -> str:
    """The text on one line, whatever it holds."""
    return text if text.isprintable() else repr(text)[1:-1]


def _bytes(path: Path) -> bytes:
    """At most one byte more than a study file may have."""
    try:
        kind = "a folder" if path.is_dir() else "not a regular file" if path.exists() and not path.is_file() else None
        if kind is None:
            with path.open("rb") as file:
                return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file{_neighbours(path)}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    raise ConfigError(f"{path}: is {kind}; valid: a YAML file")


def _mark(mark: Any) -> Mark:
    return (mark.line + 1, mark.column + 1)


def _decoded(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        mark = _position(data[: error.start].decode("utf-8-sig", "replace"))
        raise UnreadableError(
            mark, f"byte 0x{data[error.start]:02x} is not UTF-8; valid: a text file in UTF-8"
        ) from None
    if odd := _UNPRINTABLE.search(text):
        raise UnreadableError(
            _position(text[: odd.start()]), f"character {odd[0]!r} is not allowed; valid: a text file"
        )
    return text


def _position(before: str) -> Mark:
    return (before.count("\n") + 1, len(before) - before.rfind("\n"))


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    lines = text.splitlines()
    mark = error.problem_mark
    if mark is not None and mark.line < len(lines) and lines[mark.line][: mark.column + 1].strip(" ").startswith("\t"):
        return "a tab indents this line; valid: spaces"
    told = error.problem or "is not YAML"
    since = "{} at {}:{}".format(error.context, *_mark(error.context_mark)) if error.context_mark else error.context
    return f"not YAML: {' '.join(told.split())}" + (f" ({since})" if since else "")


def _neighbours(path: Path) -> str:
    """The study files that stand beside a missing one."""
    try:
        names = sorted(
            other.name for other in path.parent.iterdir() if other.suffix in (".yaml", ".yml") and other.is_file()
        )
    except OSError:
        return ""
    return f"; {choices(names, path.name)}" if names else ""
