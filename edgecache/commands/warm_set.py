"""What is to be warmed: a file of texts, times voices, languages, formats and rates, as utterances, each of them once.

Keeps the rule that a line that can't be read is told by its place, and costs no other line anything. Pure: it asks nobody.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from edgecache.commands.saying import spelled_value
from edgecache.commands.terminal import Misused
from edgecache.commands.warm_options import Kind
from edgecache.dialects import speeko
from edgecache.errors import ClientError

#: How long a text may be is the edge's to say: it is told then.
_ANY_LENGTH = 1 << 40
#: Of a retry file: why a line is in it. No field of the utterance.
FAILED = "_failed"


_SUFFIXES = {".csv": Kind.CSV, ".jsonl": Kind.JSONL, ".ndjson": Kind.JSONL}


def kind_of(name: str) -> Kind:
    """As the file's name says; what has no name that says so is a text a line."""
    return _SUFFIXES.get(Path(name).suffix.lower(), Kind.TXT)


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that asks for nothing. where: FILE:LINE."""

    where: str
    why: str


@dataclass(frozen=True, slots=True)
class Line:
    """The fields that a line asks for."""

    where: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Choices:
    """What is asked for where a line does not say; each of them, if there are several."""

    voices: Sequence[str] = ()
    languages: Sequence[str] = ()
    formats: Sequence[str] = ()
    sample_rates_hz: Sequence[int] = ()

    def of(self, fields: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The fields with every combination of what they leave open."""
        offered = {
            "voice_id": self.voices,
            "language": self.languages,
            "format": self.formats,
            "sample_rate": self.sample_rates_hz,
        }
        open_ = {name: each for name, each in offered.items() if each and fields.get(name) is None}
        for chosen in product(*open_.values()):
            yield {**fields, **dict(zip(open_, chosen, strict=True))}


@dataclass(frozen=True, slots=True)
class Wanted:
    """One utterance to be asked for. mark: names it for this edge and key, and tells nobody what it says."""

    where: str
    fields: Mapping[str, Any]
    mark: str

    @property
    def body(self) -> bytes:
        """The request's."""
        return json.dumps(self.fields, ensure_ascii=False).encode()

    @property
    def characters(self) -> int:
        """How much there is to say."""
        return len(str(self.fields["text"]))


@dataclass(slots=True)
class WarmSet:
    """All of it. duplicates: how many were asked for a second time and left out."""

    wanted: list[Wanted] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)
    duplicates: int = 0

    @property
    def characters(self) -> int:
        """How much there is to say in all."""
        return sum(each.characters for each in self.wanted)


def gathered(lines: Iterable[Line | BadLine], choices: Choices, salt: str) -> WarmSet:
    """Every utterance once, in order. salt: where marks are to be told apart from others'."""
    found, seen = WarmSet(), set()
    for line in lines:
        if isinstance(line, BadLine):
            found.bad.append(line)
            continue
        try:
            spelled = [(fields, _mark(fields, salt)) for fields in choices.of(line.fields)]
        except ClientError as error:
            found.bad.append(BadLine(line.where, error.message))
            continue
        for fields, mark in spelled:
            if mark in seen:
                found.duplicates += 1
            else:
                seen.add(mark)
                found.wanted.append(Wanted(line.where, fields, mark))
    return found


def _mark(fields: Mapping[str, Any], salt: str) -> str:
    """ClientError: an edge would refuse these fields."""
    asked = speeko.checked(dict(fields), _ANY_LENGTH)
    key = hashlib.blake2b(salt.encode()).digest()
    said = (asked.chunking or "").encode() + b"\0" + asked.utterance.canonical
    return hashlib.blake2b(said, digest_size=16, key=key).hexdigest()


# Reading.


def read(content: bytes, name: str, kind: Kind) -> Iterator[Line | BadLine]:
    """Every line that asks for something. Misused: it is no such file at all."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    match kind:
        case Kind.CSV:
            return _rows(content, name)
        case Kind.JSONL:
            return _each(content, name, _object)
        case Kind.TXT:
            return _each(content, name, lambda line: {"text": line.decode()})


def _each(content: bytes, name: str, fields_in: Any) -> Iterator[Line | BadLine]:
    """Lines end as files have them, and nothing else in a text ends one (U+2028 may stand in a sentence)."""
    for number, raw in enumerate(content.split(b"\n"), 1):
        line, where = raw.removesuffix(b"\r"), f"{name}:{number}"
        if not line.strip():
            continue
        try:
            yield Line(where, fields_in(line))
        except UnicodeDecodeError as error:
            yield BadLine(where, _not_utf8(error.start))
        except ClientError as error:
            yield BadLine(where, error.message.replace("The body", "The line"))


def _object(line: bytes) -> Mapping[str, Any]:
    fields = speeko.read_fields(line)
    return {name: each for name, each in fields.items() if name != FAILED}


def _not_utf8(at: int) -> str:
    return f"The line is not UTF-8 (at byte {at})."


def _rows(content: bytes, name: str) -> Iterator[Line | BadLine]:
    rows = csv.reader(io.StringIO(content.decode("utf-8", "surrogateescape"), newline=""), strict=True)
    heading = _heading(rows, name)
    while True:
        began = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadLine(f"{name}:{began}", f"The row can't be read: {error}.")
            continue
        if row:
            yield _row(f"{name}:{began}", heading, row)


def _heading(rows: Any, name: str) -> list[str]:
    try:
        heading = [each.strip() for each in next(rows, [])]
    except csv.Error as error:
        raise Misused(f"{name}:1: the header can't be read: {error}") from error
    if "text" not in heading or "" in heading or len({*heading}) < len(heading):
        raise Misused(f"{name}:1: a csv begins with a header: names of fields, each once, one of them `text`")
    return heading


def _row(where: str, heading: Sequence[str], row: Sequence[str]) -> Line | BadLine:
    if len(row) != len(heading):
        return BadLine(where, f"The row has {len(row)} cells, the header {len(heading)}.")
    if any("\udc80" <= letter <= "\udcff" for cell in row for letter in cell):
        return BadLine(where, "The row is not UTF-8.")
    return Line(where, {column: _cell(column, cell) for column, cell in zip(heading, row, strict=True) if cell})


def _cell(column: str, cell: str) -> Any:
    """As `--field` reads a value. What is a word is one, whatever it looks like."""
    return cell if column == "text" or column in speeko.WORDS else spelled_value(cell)
