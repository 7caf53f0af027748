"""A YAML file as a tree of values that know where they were written.

Keeps YAML 1.1's traps out: only `true` and `false` are booleans, only plain decimal numbers are numbers, `null` and
nothing are null, and all else is the text it looks like (`no`, `1:30`, `012`, `~`). Keys are unique. Depth, size and what
aliases repeat are bounded. It does not know what may be configured.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edgecache.configuration.report import Findings, Origin, Source, sounds_secret

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
#: Counted again each time an alias repeats them.
MAX_NODES = 20_000

Plain = str | int | float | bool | None

_WHOLE = r"-?(?:0|[1-9][0-9]{0,17})"
_RESOLVERS = {
    "bool": re.compile(r"(?:true|false)\Z"),
    "int": re.compile(_WHOLE + r"\Z"),
    "float": re.compile(_WHOLE + r"\.[0-9]{1,17}\Z"),
    "null": re.compile(r"(?:null)?\Z"),
}
_TAG = "tag:yaml.org,2002:"
#: What PyYAML says, and what helps.
_HINTS = {
    "cannot start any token": "indent with spaces; text that begins with a special character needs quotes",
    "mapping values are not allowed": 'text with ": " in it needs quotes',
    "but got '{'": 'write "${env:NAME}" in quotes',
    "while scanning a quoted scalar": "a closing quote is missing",
}


@dataclass(slots=True)
class Scalar:
    """A single value. text: as it was written. untyped: from the environment, so that its type is the option's."""

    value: Plain
    text: str
    origin: Origin
    untyped: bool = False


@dataclass(slots=True)
class Listed:
    """A list."""

    elements: "list[Written]"
    origin: Origin


@dataclass(slots=True)
class Mapped:
    """Keys and values, with the place of each key."""

    origin: Origin
    entries: "dict[str, Written]" = field(default_factory=dict)
    keys: dict[str, Origin] = field(default_factory=dict)


Written = Scalar | Listed | Mapped


def plain(text: str) -> Plain:
    """What this text means where it is not in quotes."""
    for kind, pattern in _RESOLVERS.items():
        if pattern.match(text):
            return _CONVERTED[kind](text)
    return text


_CONVERTED: dict[str, Callable[[str], Plain]] = {
    "bool": lambda text: text == "true",
    "int": int,
    "float": float,
    "null": lambda text: None,
}


def failure(error: OSError | ValueError) -> str:
    """Why a file can't be read, in words that follow its name."""
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return "does not exist"
        case IsADirectoryError():
            return "is a directory, not a file"
        case PermissionError():
            return "may not be read by this user"
        case UnicodeDecodeError():
            return "is not UTF-8"
        case OSError(strerror=str(reason)):
            return f"can't be read: {reason}"
        case _:
            return "is not a path"


def read(path: Path) -> tuple[Findings, Written | None]:
    """The tree of a file (None: the file is empty), and where mistakes are collected; the first may be there already."""
    name = str(path)
    findings = Findings(None, name)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        findings.add(Origin(), "", f"the file {failure(error)}", "name the file with --config or EDGECACHE_CONFIG")
        return findings, None
    if len(raw) > MAX_BYTES:
        findings.add(Origin(), "", "the file is larger than 1 MiB", "this can't be the configuration that was meant")
        return findings, None
    try:
        source = Source(name, raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace").removeprefix("\ufeff")
        findings.source = source = Source(name, before + "\ufffd")
        source.unread = True
        findings.add(source.origin(len(before)), "", "the file is not UTF-8 from here on", "save it as UTF-8")
        return findings, None
    findings.source = source
    return findings, parse(source, findings)


def parse(source: Source, findings: Findings) -> Written | None:
    """The tree of this text; None, perhaps with a finding, if there is none."""
    unprintable = yaml.reader.Reader.NON_PRINTABLE.search(source.text)
    source.unread = True
    if unprintable is not None:
        what = f"the file holds a control character (U+{ord(unprintable.group()):04X})"
        findings.add(source.origin(unprintable.start()), "", what, "delete it")
        return None
    loader = _Loader(source.text)
    try:
        node = loader.get_single_node()
        tree = None if node is None else _Walk(source, findings).written(node)
        source.unread = False
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark or loader.get_mark()
        told = ", ".join(part for part in (error.context, error.problem) if part)
        hint = next((hint for said, hint in _HINTS.items() if said in told), None)
        findings.add(source.origin(mark.index), "", f"this is not valid YAML: {told}", hint)
        return None
    except (ValueError, OverflowError):  # PyYAML on "\UFFFFFFFF", and on a %YAML directive of thousands of digits
        findings.add(source.origin(loader.get_mark().index), "", "this is not valid YAML: a number is out of range")
        return None
    finally:
        loader.dispose()
    return tree


class _Loader(yaml.SafeLoader):
    """PyYAML with our idea of numbers and booleans, and bounds."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML's way to say it

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        self._count += 1
        if self._depth > MAX_DEPTH or self._count > MAX_NODES:
            what = "too deep" if self._depth > MAX_DEPTH else "too many values"
            raise yaml.composer.ComposerError(None, None, f"this is {what}", self.get_mark())
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


for _kind, _pattern in _RESOLVERS.items():
    _Loader.add_implicit_resolver(_TAG + _kind, _pattern, None)


class _Walk:
    """From PyYAML's nodes to ours."""

    def __init__(self, source: Source, findings: Findings) -> None:
        self._source = source
        self._findings = findings
        self._count = 0
        self._within: list[int] = []

    def written(self, node: yaml.Node, key: str = "") -> Written:
        self._count += 1
        if id(node) in self._within or self._count > MAX_NODES:
            what = "an alias is within what it repeats" if id(node) in self._within else "aliases repeat too much"
            raise yaml.composer.ComposerError(None, None, what, node.start_mark)
        self._within.append(id(node))
        try:
            match node:
                case yaml.MappingNode():
                    self._known_tag(node, "map")
                    return self._mapped(node, key)
                case yaml.SequenceNode():
                    self._known_tag(node, "seq")
                    elements = [self.written(each, f"{key}.{index}") for index, each in enumerate(node.value)]
                    return Listed(elements, self._origin(node))
                case _:
                    return self._scalar(node, key)
        finally:
            self._within.pop()

    def _mapped(self, node: yaml.MappingNode, key: str) -> Mapped:
        mapped = Mapped(self._origin(node))
        for key_node, value_node in node.value:
            at = self._origin(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self._findings.add(at, key, "a key must be a plain word", "text that begins with { or [ needs quotes")
                continue
            name = str(key_node.value)
            full = f"{key}.{name}" if key else name
            value = self.written(value_node, full)
            if name in mapped.keys:
                first = mapped.keys[name]
                self._findings.add(at, full, "is here twice", f"first in line {first.line}; delete one of them")
                if sounds_secret(name) or not isinstance(value, Scalar):
                    self._source.mask(value.origin)
                continue
            mapped.keys[name], mapped.entries[name] = at, value
        return mapped

    def _scalar(self, node: yaml.Node, key: str) -> Scalar:
        text, origin = str(node.value), self._origin(node)
        kind = node.tag.removeprefix(_TAG)
        if any("\ud800" <= character <= "\udfff" for character in text):
            self._findings.add(origin, key, "holds half of a surrogate pair", "write the character itself")
            return Scalar(None, text, origin)
        if kind == "str":
            return Scalar(text, text, origin)
        self._known_tag(node, *_RESOLVERS)
        if not _RESOLVERS[kind].match(text):
            raise yaml.composer.ComposerError(None, None, f"this is no !!{kind}", node.start_mark)
        return Scalar(_CONVERTED[kind](text), text, origin)

    def _known_tag(self, node: yaml.Node, *kinds: str) -> None:
        if node.tag.removeprefix(_TAG) not in kinds:
            raise yaml.composer.ComposerError(None, None, f"the tag {node.tag} is not understood", node.start_mark)

    def _origin(self, node: yaml.Node) -> Origin:
        start, end = node.start_mark, node.end_mark
        return Origin(self._source.name, start.line + 1, start.column + 1, None, (end.line + 1, end.column + 1))
