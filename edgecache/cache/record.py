"""Records as they are read again and again: what stands before the audio is decoded once, the audio is lent. Pure.

Keeps rules 6 and 7. A record whose bytes before the audio equal those of a record that was read whole before says the same
(they hold the lengths too), so only the checksum is left to be looked at, as it is every time: no byte is believed because
another was. What is remembered of records is bounded in bytes, and equality decides, not the key it is found by.
"""

import msgspec
import xxhash

from edgecache.cache.key import Key
from edgecache.cache.recording import CHECKSUM_BYTES, BrokenRecord, Recording, tellable, unframe

#: So much is remembered of what stands before audio.
FRONTS_BYTES = 4 << 20
#: What Python adds to one, and how many times the bytes of a front it takes: once as it is, once decoded.
OVERHEAD_BYTES = 1500
TIMES = 3


class Record:
    """A recording as it was read: whole and checked. Who is told of it may hear its audio until he returns, not later.

    bare: the same without audio; of records that begin alike it is the same one.
    """

    __slots__ = ("_whole", "audio", "bare")

    def __init__(self, bare: Recording, audio: memoryview) -> None:
        self.bare = bare
        self.audio = audio
        self._whole: Recording | None = None

    def __repr__(self) -> str:
        return f"<Record {self.bare.key[:8]} {len(self.audio)} bytes>"

    def whole(self) -> Recording:
        """The recording, to be kept: its audio is copied, once for all who want it."""
        if self._whole is None:
            bare = self.bare
            self._whole = Recording(bare.key, bare.namespace, bare.canonical, bare.facts, bytes(self.audio))
        return self._whole


class _Front(msgspec.Struct, frozen=True, gc=False):
    """What stands before a record's audio, where that begins and ends, and where the record does."""

    start: bytes
    bare: Recording
    audio_at: int
    audio_end: int
    end: int


class Records:
    """Reads them. What was read of late is remembered in two generations: when the young one is full, the old one goes."""

    __slots__ = ("_half_bytes", "_old", "_young", "_young_bytes")

    def __init__(self, max_bytes: int = FRONTS_BYTES) -> None:
        self._half_bytes = max_bytes // 2
        self._young: dict[Key, _Front] = {}
        self._old: dict[Key, _Front] = {}
        self._young_bytes = 0

    def __repr__(self) -> str:
        return f"<Records {len(self._young) + len(self._old)} remembered>"

    def read(self, key: Key, value: memoryview) -> Record:
        """The record that this is. BrokenRecord: it is none, or none that an answer can be given with."""
        front = self._young.get(key)
        if front is None or len(value) != front.end or bytes(value[: front.audio_at]) != front.start:
            return self._read_whole(key, value)
        audio_end = front.audio_end
        if xxhash.xxh3_128_digest(value[:audio_end]) != value[audio_end:]:
            raise BrokenRecord("checksum differs")
        return Record(front.bare, value[front.audio_at : audio_end])

    def _read_whole(self, key: Key, value: memoryview) -> Record:
        found = unframe(key, value)
        if not tellable(found.facts):
            raise BrokenRecord("facts that can't stand in an answer's head")
        end = len(value)
        audio_at, audio_end = end - CHECKSUM_BYTES - len(found.audio), end - CHECKSUM_BYTES
        start = bytes(value[:audio_at])
        front = self._old.pop(key, None)
        if front is None or front.start != start:
            bare = Recording(key, found.namespace, found.canonical, found.facts, b"")
            front = _Front(start, bare, audio_at, audio_end, end)
        self._remember(key, front)
        return Record(front.bare, value[audio_at:audio_end])

    def _remember(self, key: Key, front: _Front) -> None:
        before = self._young.pop(key, None)
        if before is not None:
            self._young_bytes -= _weight_bytes(before)
        weight_bytes = _weight_bytes(front)
        if weight_bytes > self._half_bytes:
            return
        if self._young_bytes + weight_bytes > self._half_bytes:
            self._old, self._young, self._young_bytes = self._young, {}, 0
        self._young[key] = front
        self._young_bytes += weight_bytes


def _weight_bytes(front: _Front) -> int:
    return TIMES * len(front.start) + OVERHEAD_BYTES
