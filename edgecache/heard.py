"""Speech as a client hears it in protobuf messages (`dialects/speech.proto`): bytes in, events out. Pure.

Keeps rule 3 on the client's side: what ends without a final chunk was cut off, and says so. It does not know how bytes came.
"""

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from edgecache.dialects.speech_pb2 import TtsStreamResponse

MEDIA_TYPE = "application/x-protobuf"
#: No message of an edge is near this large.
MAX_MESSAGE_BYTES = 16 << 20
#: A length has at most so many bytes, seven bits in each.
MAX_LENGTH_BYTES = 5


class Garbled(Exception):
    """These bytes are not what an edge sends; the message says why."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The first event. duration_ms: None while it is being made. sample_rate_hz, channels: 0 if not known.

    cache: "hit", "miss", "joined" or "stale". key: `GET /v1/audio/{key}` once it is recorded; empty: it will not be.
    """

    media_type: str
    format: str
    sample_rate_hz: int
    channels: int
    duration_ms: int | None
    cache: str
    key: str


@dataclass(frozen=True, slots=True)
class SentenceBegun:
    """The sounds that follow are of this sentence: code points `start` to before `end` of the text."""

    index: int
    start: int
    end: int
    offset_ms: int | None


@dataclass(frozen=True, slots=True)
class Sound:
    """Some of the audio, and where in the speech it is heard."""

    audio: bytes
    sequence: int
    offset_ms: int | None
    duration_ms: int | None


@dataclass(frozen=True, slots=True)
class Ended:
    """That was all of it."""

    duration_ms: int | None


@dataclass(frozen=True, slots=True)
class Failed:
    """There is no speech, or no more of it."""

    status: int
    code: str
    message: str
    retry_after_s: int | None


Event = Begun | SentenceBegun | Sound | Ended | Failed


class Events:
    """One answer, fed as it comes."""

    def __init__(self) -> None:
        self._rest = bytearray()
        #: Whether it came to an end, or said why not.
        self.over = False

    def __repr__(self) -> str:
        return f"<Events {'over' if self.over else 'under way'}, {len(self._rest)} bytes of the next>"

    def feed(self, received: bytes) -> list[Event]:
        """What is known now that these bytes came. Garbled: they are none of an edge's."""
        self._rest += received
        found: list[Event] = []
        at = 0
        while (whole := self._next(at)) is not None:
            begins, at = whole
            if self.over:
                raise Garbled("something follows the end")
            event = _event(bytes(self._rest[begins:at]))
            self.over = isinstance(event, Ended | Failed)
            found.append(event)
        del self._rest[:at]
        return found

    def _next(self, at: int) -> tuple[int, int] | None:
        """Where the next message begins and ends, once it is there whole."""
        length = 0
        for place, byte in enumerate(self._rest[at : at + MAX_LENGTH_BYTES]):
            length |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                if length > MAX_MESSAGE_BYTES:
                    raise Garbled(f"a message of {length} bytes")
                begins = at + place + 1
                return (begins, begins + length) if begins + length <= len(self._rest) else None
        if len(self._rest) - at >= MAX_LENGTH_BYTES:
            raise Garbled("a length that does not end")
        return None


def _event(message: bytes) -> Event:
    try:
        told = TtsStreamResponse.FromString(message)
    except DecodeError as error:
        raise Garbled("this is no TtsStreamResponse") from error
    match told.WhichOneof("event"):
        case "metadata":
            of = told.metadata
            duration_ms = of.duration_ms if of.HasField("duration_ms") else None
            return Begun(of.media_type, of.format, of.sample_rate, of.channels, duration_ms, of.cache, of.key)
        case "sentence":
            sentence = told.sentence
            offset_ms = sentence.offset_ms if sentence.HasField("offset_ms") else None
            return SentenceBegun(sentence.index, sentence.text_start, sentence.text_end, offset_ms)
        case "audio":
            chunk = told.audio
            at_ms = chunk.timestamp_ms if chunk.HasField("timestamp_ms") else None
            if chunk.is_final:
                return Ended(at_ms)
            lasts_ms = chunk.duration_ms if chunk.HasField("duration_ms") else None
            return Sound(chunk.audio_data, chunk.sequence_number, at_ms, lasts_ms)
        case "error":
            failed = told.error
            return Failed(failed.status, failed.code, failed.message, failed.retry_after_s or None)
        case other:
            raise Garbled(f"{other or 'nothing'} has no place in an answer over HTTP")
