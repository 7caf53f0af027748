"""Speech told piece by piece: the one iteration that every delivery is a framing of.

Raw HTTP, server-sent events, WebSocket and protobuf all hear the same bytes here, whether they come from a recording or
from a flight under way, and from byte zero. Keeps rule 3: the iteration ends only if the speech did; when a flight breaks
off it raises, and each framing tells that in its own way. It does not know how a piece is written on the wire.
"""

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from enum import Enum

import msgspec

from edgecache.cache.key import Key
from edgecache.fill.edge import Live, Recorded, Speech
from edgecache.fill.longform import timings
from edgecache.speech.formats import Expected
from edgecache.speech.meter import Meter
from edgecache.speech.timings import Timings
from edgecache.speech.utterance import Utterance


class Cached(Enum):
    """How the cache did, as clients are told."""

    HIT = "hit"
    STALE = "stale"
    MISS = "miss"
    JOINED = "joined"


class Sentence(msgspec.Struct, frozen=True):
    """Which part of a text an utterance speaks: code points from `text_start` to before `text_end`."""

    index: int
    text_start: int
    text_end: int
    offset_ms: int | None = None


class About(msgspec.Struct, frozen=True):
    """What is known when the speech begins. duration_ms: None while it is still being made."""

    media_type: str
    format: str
    sample_rate_hz: int | None
    channels: int | None
    duration_ms: int | None
    cache: Cached
    cluster: str
    #: What it is recorded under, or will be; None: it is not to be.
    key: Key | None


class Piece(msgspec.Struct, frozen=True):
    """Some of the audio. offset_ms: where in the sound it begins; with duration_ms None where the format does not say."""

    audio: bytes
    sequence: int
    offset_ms: int | None
    duration_ms: int | None


class End(msgspec.Struct, frozen=True):
    """What it came to. timings: when which word is heard, if the cluster tells it."""

    duration_ms: int | None
    audio_bytes: int
    pieces: int
    timings: Timings = Timings()


async def heard(speech: Speech, piece_bytes: int) -> AsyncGenerator[bytes, None]:
    """All of the audio, in pieces of at most this size. SpeechError: it broke off."""
    if isinstance(speech, Recorded):
        for part in cut(speech.recording.audio, piece_bytes):
            yield part
        return
    flight, position = speech.flight, 0
    with flight.reading():
        while chunk := await flight.read(position):
            for part in cut(chunk, piece_bytes):
                yield part
            position += len(chunk)


def cut(audio: bytes, piece_bytes: int) -> list[bytes]:
    """The audio in parts of at most this size."""
    if len(audio) <= piece_bytes:
        return [audio]
    return [audio[at : at + piece_bytes] for at in range(0, len(audio), piece_bytes)]


class Telling:
    """One speech being told to one client. `pieces` may be gone through once; `end` says what it came to."""

    __slots__ = ("_audio_bytes", "_duration_ms", "_meter", "_pieces", "_speech", "about")

    def __init__(self, speech: Speech, utterance: Utterance) -> None:
        self._speech = speech
        self.about = about(speech, utterance)
        self._meter = Meter(self.about.media_type, _expected(utterance))
        self._audio_bytes = self._pieces = 0
        self._duration_ms = self.about.duration_ms

    def __repr__(self) -> str:
        return f"<Telling {self.about.cache.value}, {self._pieces} pieces, {self._audio_bytes} bytes>"

    async def pieces(self, piece_bytes: int) -> AsyncGenerator[Piece, None]:
        """The audio, piece by piece. SpeechError: it broke off."""
        began_ms = self._so_far_ms()
        async with aclosing(heard(self._speech, piece_bytes)) as audio:
            async for part in audio:
                self._meter.feed(part)
                self._audio_bytes += len(part)
                ended_ms = self._so_far_ms()
                lasts_ms = None if ended_ms is None or began_ms is None else max(0, ended_ms - began_ms)
                yield Piece(part, self._pieces, began_ms, lasts_ms)
                self._pieces += 1
                began_ms = ended_ms
        if self._duration_ms is None:
            self._duration_ms = self._meter.finish()

    async def events(self, piece_bytes: int) -> "AsyncGenerator[About | Sentence | Piece, None]":
        """What it is about, then its audio. SpeechError: it broke off."""
        yield self.about
        async with aclosing(self.pieces(piece_bytes)) as pieces:
            async for piece in pieces:
                yield piece

    @property
    def arrived_s(self) -> float:
        """When the last of its bytes came; inf: long ago."""
        return arrived_s(self._speech)

    @property
    def end(self) -> End:
        """What it came to, once all pieces were told."""
        return End(self._duration_ms, self._audio_bytes, self._pieces, timings(self._speech))

    def _so_far_ms(self) -> int | None:
        heard_ms = self._meter.heard_ms
        if heard_ms is None and self._duration_ms is not None and isinstance(self._speech, Recorded):
            return self._duration_ms * self._audio_bytes // len(self._speech.recording.audio)
        return heard_ms


def arrived_s(speech: Speech) -> float:
    """When the last of its bytes came to this edge; inf: long ago, and nobody waited for it."""
    return math.inf if isinstance(speech, Recorded) else speech.flight.arrived_s


def about(speech: Speech, utterance: Utterance) -> About:
    """What is known of it now."""
    return _recorded(speech) if isinstance(speech, Recorded) else _live(speech, _expected(utterance))


def _expected(utterance: Utterance) -> Expected:
    return Expected(utterance.format, utterance.sample_rate_hz, len(utterance.text), utterance.speaking_rate)


def _recorded(speech: Recorded) -> About:
    facts = speech.recording.facts
    return About(
        media_type=facts.media_type,
        format=facts.container,
        sample_rate_hz=facts.sample_rate_hz,
        channels=facts.channels,
        duration_ms=facts.duration_ms,
        cache=Cached.HIT if speech.forward_status is None else Cached.STALE,
        cluster=facts.cluster,
        key=speech.recording.key,
    )


def _live(speech: Live, expected: Expected) -> About:
    """What the first audio says; it is there, since a flight is not live before."""
    head, rendering, position = speech.head, speech.flight.rendering, 0
    meter = Meter(head.media_type, expected)
    while meter.sample_rate_hz is None and (chunk := rendering.read(position)):
        meter.feed(chunk)
        position += len(chunk)
    return About(
        media_type=head.media_type,
        format=meter.container,
        sample_rate_hz=meter.sample_rate_hz,
        channels=meter.channels,
        duration_ms=None,
        cache=Cached.JOINED if speech.joined else Cached.MISS,
        cluster=head.cluster,
        key=speech.flight.key if head.stored else None,
    )
