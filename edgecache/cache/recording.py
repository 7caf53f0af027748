"""A sealed rendering with its facts, and the one binary frame it is stored in.

Keeps rule 6: what a store returns is checked before it is believed. `unframe` either gives back what `frame` was given
or raises `BrokenRecord`; it never raises anything else, and never returns part of a recording.

The frame: magic, version, three lengths, namespace and canonical utterance, facts (MessagePack), audio, and an xxh3-128
checksum over all before it. It is written by one SET and read by one GET, so it is there whole or not at all.
"""

import math
import re
import struct

import msgspec
import xxhash

from edgecache.cache.key import Key
from edgecache.speech.timings import Timings

MAGIC = b"ECR1"
VERSION = 1
_HEAD = struct.Struct(">4sBHIIQ")
CHECKSUM_BYTES = 16
_ETAG = re.compile("[0-9a-f]{32}")


class BrokenRecord(Exception):
    """These bytes are not a whole recording of this version; the message says why."""


class Facts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is known of a recording besides its bytes.

    media_type: as the cluster gave it. container: as the bytes say ("wav", "mp3", "ogg/opus", "flac", "pcm").
    duration_ms, sample_rate_hz, channels: None when the bytes do not say. made_at: Unix seconds. made_in_ms: how long
    the cluster took to the last byte. etag: xxh3-128 of the audio, in hex. timings: when which word is heard; a
    recording that was made before there were any, or by a cluster that tells none, has none. tags: as the cluster put
    them on it. after_purge: the serial of the newest purge that was known when it was begun.
    """

    media_type: str
    container: str
    duration_ms: int | None
    sample_rate_hz: int | None
    channels: int | None
    made_at: float
    made_in_ms: float
    first_audio_ms: float
    cluster: str
    etag: str
    timings: Timings = Timings()
    tags: tuple[str, ...] = ()
    after_purge: int = 0


class Recording(msgspec.Struct, frozen=True, gc=False):
    """Speech that was heard whole once, and whose it is. It refers to nothing that could refer to it: the collector need not
    look at it, however many there are."""

    key: Key
    namespace: str
    canonical: bytes
    facts: Facts
    audio: bytes

    @property
    def size_bytes(self) -> int:
        """What it weighs in a tier: its bytes and about what Python adds."""
        facts = self.facts
        tag_bytes = sum(len(tag) + TAG_BYTES for tag in facts.tags) if facts.tags else 0
        return len(self.audio) + len(self.canonical) + facts.timings.size_bytes + tag_bytes + OVERHEAD_BYTES

    def __repr__(self) -> str:
        return f"<Recording {self.key[:8]} {self.facts.container} {len(self.audio)} bytes>"


#: A recording's Python objects and its place in the memory tier (measured: bench.memory).
OVERHEAD_BYTES = 1024
#: What Python adds to a tag.
TAG_BYTES = 57

_facts_encoder = msgspec.msgpack.Encoder()
_facts_decoder = msgspec.msgpack.Decoder(Facts)
_folded_decoder = msgspec.msgpack.Decoder(tuple[str, bytes, Facts])


def etag(audio: bytes) -> str:
    """The strong validator of these bytes."""
    return xxhash.xxh3_128_hexdigest(audio)


def tellable(facts: Facts) -> bool:
    """Whether an answer can be given with these facts. No recording of ours has others; who else writes to Redis may."""
    media_type = facts.media_type
    return (
        media_type.isascii()
        and media_type.isprintable()
        and _ETAG.fullmatch(facts.etag) is not None
        and math.isfinite(facts.made_at)
    )


def folded(recording: Recording) -> bytes:
    """All of it but key and audio in one piece, a third of what it weighs unfolded: for who holds many."""
    return _facts_encoder.encode((recording.namespace, recording.canonical, recording.facts))


def unfolded(key: Key, rest: bytes, audio: bytes) -> Recording:
    """The recording that was folded. Unlike a frame it never left this process, and is not checked."""
    namespace, canonical, facts = _folded_decoder.decode(rest)
    return Recording(key, namespace, canonical, facts, audio)


def frame(recording: Recording) -> bytes:
    """The recording as one binary value."""
    namespace = recording.namespace.encode()
    facts = _facts_encoder.encode(recording.facts)
    head = _HEAD.pack(MAGIC, VERSION, len(namespace), len(recording.canonical), len(facts), len(recording.audio))
    body = b"".join((head, namespace, recording.canonical, facts, recording.audio))
    return body + xxhash.xxh3_128_digest(body)


def unframe(key: Key, value: bytes | memoryview) -> Recording:
    """The recording that was framed. BrokenRecord: cut, changed, of another version, or never one of ours.

    Every hit in Redis pays for this: the checksum reads all once, and each part is copied once, out of what was received.
    """
    size = len(value)
    if size < _HEAD.size + CHECKSUM_BYTES:
        raise BrokenRecord("too short")
    magic, version, namespace_bytes, canonical_bytes, facts_bytes, audio_bytes = _HEAD.unpack_from(value)
    if magic != MAGIC:
        raise BrokenRecord("not a recording")
    if version != VERSION:
        raise BrokenRecord(f"version {version}, not {VERSION}")
    canonical_at = _HEAD.size + namespace_bytes
    facts_at = canonical_at + canonical_bytes
    audio_at = facts_at + facts_bytes
    end = audio_at + audio_bytes
    if end + CHECKSUM_BYTES != size:
        raise BrokenRecord("not as long as it says")
    whole = memoryview(value)
    if xxhash.xxh3_128_digest(whole[:end]) != whole[end:]:
        raise BrokenRecord("checksum differs")
    try:
        namespace = str(whole[_HEAD.size : canonical_at], "utf-8")
        facts = _facts_decoder.decode(whole[facts_at:audio_at])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BrokenRecord(f"facts do not decode: {error}") from error
    return Recording(key, namespace, bytes(whole[canonical_at:facts_at]), facts, bytes(whole[audio_at:end]))


def glimpse(key: Key, start: bytes) -> Recording | None:
    """What a frame's beginning says, unchecked and without audio: to be counted, never served. None: nothing yet."""
    if len(start) < _HEAD.size:
        return None
    magic, version, namespace_bytes, canonical_bytes, facts_bytes, _ = _HEAD.unpack_from(start)
    canonical_at = _HEAD.size + namespace_bytes
    facts_at = canonical_at + canonical_bytes
    if magic != MAGIC or version != VERSION or facts_at + facts_bytes > len(start):
        return None
    try:
        facts = _facts_decoder.decode(start[facts_at : facts_at + facts_bytes])
        namespace = start[_HEAD.size : canonical_at].decode()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return Recording(key, namespace, start[canonical_at:facts_at], facts, b"")
