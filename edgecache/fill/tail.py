"""What a flight tells other processes that follow it, entry by entry, and how far one of those has come. Pure.

Keeps rules 1, 2 and 3 between processes: the first entry says whose speech it is, and that is compared before anything is
heard; bytes are taken only where the last ones ended; an end is one only if length and checksum agree. Whatever else an
entry says, or says out of turn, is no leader of ours: `Forged`. It does not know Redis, nor what becomes of a flight.
"""

import re
from enum import Enum

import msgspec
import xxhash

from edgecache.cache.lookup import Asked
from edgecache.cache.recording import Facts, tellable
from edgecache.cache.tags import MAX_TAG, MAX_TAGS

#: Changes when the meaning of an entry changes, so that versions living beside each other don't follow each other.
VERSION = 1
#: A leader tells at most this much at once.
CHUNK_BYTES = 64 << 10
#: What a cluster may be called: it stands in `Cache-Status`.
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Opened(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The first: whose speech it is, and since which purge. Nothing may have been heard of it yet."""

    version: int
    namespace: str
    canonical: bytes
    after_purge: int


class Begun(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The first audio, and what the flight's head says of it. stored: it will be, if it ends well."""

    media_type: str
    cluster: str
    stored: bool
    tags: tuple[str, ...] | None
    audio: bytes


class More(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Bytes, and where they belong."""

    position: int
    audio: bytes


class Alive(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """There was nothing to tell for a while, and who leads is still there."""


class Ended(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The rendering is over. checksum: xxh3-128 of its bytes. facts: of the recording that it became, if it did."""

    length: int
    checksum: bytes
    facts: Facts | None


class Broken(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """No more comes, and what came is no whole. reason: a word of ours."""

    reason: str


Entry = Opened | Begun | More | Alive | Ended | Broken

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Entry] = msgspec.msgpack.Decoder(Entry)


class Forged(Exception):
    """No entry that a leader of ours tells, or not one that it tells now. The message quotes nothing of it."""


def frame(entry: Entry) -> bytes:
    """The entry as one binary value."""
    return _encoder.encode(entry)


def unframe(value: bytes) -> Entry:
    """The entry that was framed. Forged: it is none."""
    try:
        entry = _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Forged("no entry of ours") from error
    if isinstance(entry, Begun) and not _may_be_head(entry):
        raise Forged("a head that can't stand in an answer")
    if isinstance(entry, Ended) and entry.facts is not None and not tellable(entry.facts):
        raise Forged("facts that can't stand in an answer's head")
    return entry


def _may_be_head(begun: Begun) -> bool:
    media_type, tags = begun.media_type, begun.tags or ()
    return (
        media_type.isascii()
        and media_type.isprintable()
        and _NAME.fullmatch(begun.cluster) is not None
        and len(tags) <= MAX_TAGS
        and all(len(tag) <= MAX_TAG for tag in tags)
    )


class State(Enum):
    """How far one that follows has come."""

    CALLED = "called"  # who leads was asked to tell, and has not answered
    ANSWERED = "answered"  # it leads this speech, and nothing is heard yet
    SPEAKING = "speaking"  # its head is known: these bytes or none
    WHOLE = "whole"
    GONE = "gone"  # it broke off before it was heard: anyone may lead
    CUT = "cut"  # it broke off later


class Event(Enum):
    """What comes of the tail, or does not."""

    OPEN = "open"
    BEGIN = "begin"
    MORE = "more"
    ALIVE = "alive"
    END = "end"
    BREAK = "break"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.CALLED, Event.OPEN): State.ANSWERED,
    (State.CALLED, Event.BREAK): State.GONE,
    (State.ANSWERED, Event.ALIVE): State.ANSWERED,
    (State.ANSWERED, Event.BEGIN): State.SPEAKING,
    (State.ANSWERED, Event.BREAK): State.GONE,
    (State.SPEAKING, Event.MORE): State.SPEAKING,
    (State.SPEAKING, Event.ALIVE): State.SPEAKING,
    (State.SPEAKING, Event.END): State.WHOLE,
    (State.SPEAKING, Event.BREAK): State.CUT,
}

_EVENTS: dict[type[Entry], Event] = {
    Opened: Event.OPEN,
    Begun: Event.BEGIN,
    More: Event.MORE,
    Alive: Event.ALIVE,
    Ended: Event.END,
    Broken: Event.BREAK,
}


class Story:
    """One tail, as far as it was heard."""

    __slots__ = ("_asked", "_sum", "begun", "believed", "ended", "length", "opened", "silent", "state")

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._sum = xxhash.xxh3_128()
        self.state = State.CALLED
        self.believed = True
        self.silent = False
        self.opened: Opened | None = None
        self.begun: Begun | None = None
        self.ended: Ended | None = None
        self.length = 0

    def __repr__(self) -> str:
        return f"<Story {self.state.value}, {self.length} bytes>"

    def take(self, value: bytes) -> bytes:
        """One more entry; the audio that it brings. Forged: it is not believed, and nothing after it is."""
        try:
            return self._take(unframe(value))
        except Forged:
            self.believed = False
            raise

    def _take(self, entry: Entry) -> bytes:
        after = TRANSITIONS.get((self.state, _EVENTS[type(entry)]))
        if after is None:  # of a table for what others write: no bug of ours, and not believed
            raise Forged("out of turn")
        audio = b""
        match entry:
            case Opened(version, namespace, canonical):
                if version != VERSION:
                    raise Forged("another version's")
                if (namespace, canonical) != (self._asked.namespace, self._asked.canonical):
                    raise Forged("another utterance's")
                self.opened = entry
            case Begun(audio=audio):
                self.begun = entry
                self._add(0, audio)
            case More(position, audio):
                self._add(position, audio)
            case Ended(length, checksum):
                if (length, checksum) != (self.length, self._sum.digest()):
                    raise Forged("an end that does not agree with what came")
                self.ended = entry
            case _:
                pass
        self.state = after
        return audio

    def breaks(self) -> None:
        """It goes no further: silence, a connection that is lost, or what is not believed."""
        self.state = TRANSITIONS[self.state, Event.BREAK]

    def _add(self, position: int, audio: bytes) -> None:
        if position != self.length:
            raise Forged("bytes that do not follow those before")
        self.length += len(audio)
        self._sum.update(audio)
