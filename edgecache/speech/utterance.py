"""What is asked for: every field that changes the audio, and its one canonical form.

Keeps rule 1 (never another utterance's audio): two utterances have the same canonical bytes only if they ask for the
same thing. It does not know where the fields came from, nor how a key is made of them.

Theory. A value is written as a tag, a length and its content, so that no field can run into the next. Fields are sorted
by name, so that order on the wire does not matter. Numbers are written by value: 1, 1.0 and 1e0 are one number.
Text is kept to the code point: no trimming, no case folding, no Unicode normalisation.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TypeAlias

import msgspec

from edgecache.errors import ClientError

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"

#: First byte of every canonical form; a change of the form changes it, so that old recordings are simply not found.
CANONICAL_VERSION = 1
#: Deeper nesting than any TTS field needs; far from Python's own limit.
MAX_DEPTH = 16

_VERSION = bytes([CANONICAL_VERSION])
_LENGTH = struct.Struct(">I")
_TEXT = ord("s")
_FLOAT = struct.Struct(">d")


class Utterance(msgspec.Struct, frozen=True):
    """Speech that is asked for. `fields` always has `text`; a dialect has filled in its defaults."""

    fields: Mapping[str, Value]
    canonical: bytes

    @property
    def text(self) -> str:
        """The words to be spoken."""
        return str(self.fields["text"])

    @property
    def voice(self) -> str:
        """The voice asked for; empty if none was."""
        asked = self.fields.get("voice_id")
        return asked if isinstance(asked, str) else ""

    @property
    def language(self) -> str:
        """The language asked for; empty if none was."""
        asked = self.fields.get("language")
        return asked if isinstance(asked, str) else ""

    @property
    def format(self) -> str | None:
        """The container or encoding asked for, in lower case; None leaves it to the cluster."""
        asked = self.fields.get("format")
        return asked.lower() if isinstance(asked, str) else None

    @property
    def sample_rate_hz(self) -> int | None:
        """The sample rate asked for; None leaves it to the cluster."""
        asked = self.fields.get("sample_rate")
        return asked if isinstance(asked, int) else None

    @property
    def speaking_rate(self) -> float:
        """How fast to speak; 1.0 is the voice's own pace."""
        asked = self.fields.get("speaking_rate", 1.0)
        return float(asked) if isinstance(asked, int | float) and asked > 0 else 1.0

    def __repr__(self) -> str:
        return f"<Utterance {len(self.text)} characters, fields {', '.join(sorted(self.fields))}>"


#: What has one form only.
_AS_THEY_ARE = frozenset({str, int, bool})


def utterance(fields: Mapping[str, Value]) -> Utterance:
    """The utterance of these fields. Absent and null are the same. ClientError: a value that has no canonical form."""
    kept = {
        name: value if type(value) in _AS_THEY_ARE else plain(value, name)
        for name, value in fields.items()
        if value is not None
    }
    return Utterance(kept, _VERSION + _encode_fields(kept, "request"))


def plain(value: Value, where: str, depth: int = 0) -> Value:
    """The value with its numbers in the one form that stands for them: integral floats as int, -0.0 as 0."""
    if depth > MAX_DEPTH:
        raise ClientError(400, "too_deep", f"{where} is nested more than {MAX_DEPTH} levels deep", param=where)
    match value:
        case float():
            if not math.isfinite(value):
                raise ClientError(400, "bad_number", f"{where} is not a finite number", param=where)
            return int(value) if value.is_integer() else value
        case list():
            return [plain(each, f"{where}[{n}]", depth + 1) for n, each in enumerate(value)]
        case dict():
            return {name: plain(each, f"{where}.{name}", depth + 1) for name, each in value.items()}
        case _:
            return value


def _lengthed(tag: bytes, content: bytes) -> bytes:
    return tag + _LENGTH.pack(len(content)) + content


def _utf8(text: str, where: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ClientError(
            400, "bad_unicode", f"{where} holds half a surrogate pair; send whole characters", param=where
        ) from error


def _encode(value: Value, where: str) -> bytes:
    match value:
        case None:
            return _lengthed(b"z", b"")
        case bool():
            return _lengthed(b"b", b"\x01" if value else b"\x00")
        case int():
            return _lengthed(b"i", value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
        case float():
            return _lengthed(b"f", _FLOAT.pack(value))
        case str():
            return _lengthed(b"s", _utf8(value, where))
        case list():
            return _lengthed(b"l", b"".join([_encode(each, where) for each in value]))
        case dict():
            return _encode_fields(value, where)


def _encode_fields(fields: Mapping[str, Value], where: str) -> bytes:
    """Names and texts are written out, as `_lengthed` would: nearly all fields are text, and every miss pays for this."""
    parts: list[bytes] = []
    lengthed = _LENGTH.pack
    for name in sorted(fields):
        value = fields[name]
        try:
            text = value.encode() if type(value) is str else None
            parts.append(_name(name) if len(name) <= _SHORT else _lengthed(b"n", name.encode()))
        except UnicodeEncodeError:
            text = _utf8(str(value), name)
            parts.append(_lengthed(b"n", _utf8(name, f"a field name in {where}")))
        parts += (_encode(value, name),) if text is None else (b"s", lengthed(len(text)), text)
    return _lengthed(b"d", b"".join(parts))


#: Of names that are remembered: clients choose them.
_SHORT = 32


@lru_cache(maxsize=256)
def _name(name: str) -> bytes:
    """There are a few, which come again and again."""
    return _lengthed(b"n", name.encode())


def decode(canonical: bytes) -> dict[str, Value]:
    """The fields that a canonical form was made of. ValueError: these bytes are not a canonical form."""
    if canonical[:1] != _VERSION:
        raise ValueError("not a canonical utterance of this version")
    tag, content, end = _part(canonical, 1)
    if tag != b"d" or end != len(canonical):
        raise ValueError("not a whole canonical utterance")
    return dict(_pairs(content))


def word(canonical: bytes, name: str) -> str:
    """One field of a canonical form, without decoding the others; empty if it is absent, or no text, or this is no form."""
    # Written out, without `_part`: whatever is found while a voice is purged pays for this.
    spelled = name.encode()
    sought, skipped, length_at = _lengthed(b"n", spelled), 1 + _LENGTH.size, _LENGTH.unpack_from
    at = 1 + skipped
    try:
        while at < len(canonical):
            value_at = at + skipped + length_at(canonical, at + 1)[0]
            end = value_at + skipped + length_at(canonical, value_at + 1)[0]
            if canonical.startswith(sought, at):
                return canonical[value_at + skipped : end].decode() if canonical[value_at] == _TEXT else ""
            at = end
    except (ValueError, struct.error, IndexError):  # who else writes to Redis may put anything there
        return ""
    return ""


def _part(encoded: bytes, start: int) -> tuple[bytes, bytes, int]:
    head = start + 1 + _LENGTH.size
    if head > len(encoded):
        raise ValueError("a canonical utterance ends too soon")
    end = head + _LENGTH.unpack_from(encoded, start + 1)[0]
    if end > len(encoded):
        raise ValueError("a canonical utterance ends too soon")
    return encoded[start : start + 1], encoded[head:end], end


def _pairs(content: bytes) -> Iterator[tuple[str, Value]]:
    at = 0
    while at < len(content):
        tag, name, at = _part(content, at)
        if tag != b"n":
            raise ValueError("a canonical utterance has a value without a name")
        value_tag, value, at = _part(content, at)
        yield name.decode(), _decode(value_tag, value)


def _values(content: bytes) -> Iterator[Value]:
    at = 0
    while at < len(content):
        tag, value, at = _part(content, at)
        yield _decode(tag, value)


def _decode(tag: bytes, content: bytes) -> Value:
    match tag:
        case b"z":
            return None
        case b"b":
            return content == b"\x01"
        case b"i":
            return int.from_bytes(content, "big", signed=True)
        case b"f":
            number: float = _FLOAT.unpack(content)[0]
            return number
        case b"s":
            return content.decode()
        case b"l":
            return list(_values(content))
        case b"d":
            return dict(_pairs(content))
        case _:
            raise ValueError(f"a canonical utterance has an unknown tag {tag!r}")
