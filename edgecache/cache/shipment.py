"""Recordings on their way from one edge to another: a stream of parts, each under a head that says where it ends. Pure.

Keeps rule 6 for files: nothing is believed that is not whole, and what is damaged costs nothing else. A head is a mark, a
kind, the content's length and checksum, and a checksum of these; a recording's content is its frame, which has a stronger
one of its own. Behind a head whose content is not what it says, the reader looks on for the next. So a file that was cut,
or had bytes changed, added or taken out, gives all recordings that are whole, and says where it is broken.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec

FORMAT = 1
#: Between processes a frame of the control channel has to hold one recording.
MAX_PART_BYTES = 15 << 20
_MARK = b"\x8eECS"
_HEAD = struct.Struct(">4sBIII")
_SAID = struct.Struct(">BII")
#: What was read is cut off the buffer when there is so much of it.
_COMPACT_BYTES = 1 << 20
_NO_PART = "there is something that is no part"


class Kind(Enum):
    """What a part is."""

    HEADING = 1
    RECORDING = 2
    ENDING = 3


_KINDS = {each.value: each for each in Kind}


def part(kind: Kind, content: bytes) -> bytes:
    """One part as bytes."""
    return _head(kind, len(content), zlib.crc32(content)) + content


def told(kind: Kind, words: Mapping[str, Any]) -> bytes:
    """A part that is a mapping."""
    return part(kind, msgspec.json.encode(words))


def _head(kind: Kind, length: int, check: int) -> bytes:
    said = _SAID.pack(kind.value, length, check)
    return _MARK + said + zlib.crc32(said).to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class Part:
    """One that is where it should be; a recording's frame is still to be checked. at: its first byte in the stream."""

    kind: Kind
    content: bytes
    at: int

    @property
    def words(self) -> Mapping[str, Any]:
        """The mapping that it tells; empty if it is none."""
        try:
            found = msgspec.json.decode(self.content)
        except msgspec.DecodeError:
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Broken:
    """From this byte of the stream on there is no part, until the next one."""

    at: int
    why: str


Found = Part | Broken


@dataclass(slots=True)
class Reader:
    """Reads a stream as it comes. Holds at most one part, and what came with its end."""

    _received: bytearray = field(default_factory=bytearray)
    #: Where the next part should begin, and where the buffer does in the stream.
    _next: int = 0
    _begins: int = 0
    #: Between here and the next part nothing more is told to be broken.
    _lost: bool = False

    def feed(self, more: bytes) -> Iterator[Found]:
        """What can be told by now."""
        self._received += more
        yield from self._read(ended=False)

    def finish(self) -> Iterator[Found]:
        """The stream is over: the rest."""
        yield from self._read(ended=True)

    def _read(self, *, ended: bool) -> Iterator[Found]:
        while (found := self._step(ended=ended)) is not None:
            yield from found
            if self._next > _COMPACT_BYTES:
                del self._received[: self._next]
                self._begins += self._next
                self._next = 0

    def _step(self, *, ended: bool) -> tuple[Found, ...] | None:
        """None: more has to come."""
        received, at = self._received, self._next
        if len(received) - at < _HEAD.size:
            if not ended or len(received) == at:
                return None
            cut = _MARK.startswith(received[at : at + len(_MARK)])
            return self._fail(len(received) - at, "it is cut short" if cut else _NO_PART)
        mark, number, length, check, checked = _HEAD.unpack_from(received, at)
        if mark != _MARK or zlib.crc32(_SAID.pack(number, length, check)) != checked or number not in _KINDS:
            return self._look_on(ended=ended)
        if length > MAX_PART_BYTES:
            return self._fail(_HEAD.size, "a part is too large")
        end = at + _HEAD.size + length
        if len(received) < end:
            return self._fail(_HEAD.size, "a part is cut short") if ended else None
        content = bytes(memoryview(received)[at + _HEAD.size : end])
        if zlib.crc32(content) != check:
            return self._fail(_HEAD.size, "a part was changed")
        self._next, self._lost = end, False
        return (Part(_KINDS[number], content, self._begins + at),)

    def _look_on(self, *, ended: bool) -> tuple[Found, ...] | None:
        """To where the next part may begin."""
        found = self._received.find(_MARK, self._next + 1)
        if found < 0:
            kept = 0 if ended else len(_MARK) - 1
            found = max(len(self._received) - kept, self._next + 1)
        return self._fail(found - self._next, _NO_PART)

    def _fail(self, skipped: int, why: str) -> tuple[Found, ...]:
        at, self._next = self._begins + self._next, self._next + skipped
        lost, self._lost = self._lost, True
        return () if lost else (Broken(at, why),)
