"""Speech as protobuf messages (`dialects/speech.proto`). Pure.

One `TtsStreamResponse` for each event. Over HTTP each is behind its length as a varint; over a WebSocket the message is
its own frame. The last is an `AudioChunk` that is final or a `StreamError`: an answer without one was cut off (rule 3).
"""

from edgecache.dialects.speech_pb2 import (
    AudioChunk,
    Cancelled,
    StreamError,
    StreamMetadata,
    SynthesisComplete,
    TtsStreamResponse,
)
from edgecache.dialects.speech_pb2 import Sentence as WireSentence
from edgecache.errors import SpeechError
from edgecache.fill.telling import About, End, Piece, Sentence

MEDIA_TYPE = "application/x-protobuf"
PIECE_BYTES = 64 << 10


class Messages:
    """The messages of one utterance, each as bytes without its length."""

    def __init__(self, id: str = "") -> None:
        self._id = id

    def begin(self, about: About) -> bytes:
        """What is known when the speech begins."""
        metadata = StreamMetadata(
            sample_rate=about.sample_rate_hz or 0,
            channels=about.channels or 0,
            format=about.format,
            duration_ms=about.duration_ms,
            media_type=about.media_type,
            cache=about.cache.value,
            key=about.key or "",
        )
        return TtsStreamResponse(id=self._id, metadata=metadata).SerializeToString()

    def sentence(self, sentence: Sentence) -> bytes:
        """The audio that follows is of this sentence."""
        told = WireSentence(
            index=sentence.index,
            text_start=sentence.text_start,
            text_end=sentence.text_end,
            offset_ms=sentence.offset_ms,
        )
        return TtsStreamResponse(id=self._id, sentence=told).SerializeToString()

    def piece(self, piece: Piece) -> bytes:
        """Some of the audio."""
        chunk = AudioChunk(
            audio_data=piece.audio,
            sequence_number=piece.sequence,
            timestamp_ms=piece.offset_ms,
            duration_ms=piece.duration_ms,
        )
        return TtsStreamResponse(id=self._id, audio=chunk).SerializeToString()

    def end(self, end: End) -> bytes:
        """That was all. Which piece is the last is known only when nothing follows it, so this one is empty."""
        final = AudioChunk(sequence_number=end.pieces, is_final=True, timestamp_ms=end.duration_ms)
        return TtsStreamResponse(id=self._id, audio=final).SerializeToString()

    def complete(self, about: About, end: End) -> bytes:
        """What it came to, for a session that goes on."""
        told = SynthesisComplete(
            duration_ms=end.duration_ms, cache=about.cache.value, bytes=end.audio_bytes, chunks=end.pieces
        )
        return TtsStreamResponse(id=self._id, complete=told).SerializeToString()

    def error(self, error: SpeechError) -> bytes:
        """It broke off, or there is none."""
        told = StreamError(
            status=error.status,
            code=error.code,
            message=error.message.encode("utf-8", "replace").decode(),
            param=(error.param or "").encode("utf-8", "replace").decode(),
            retry_after_s=error.retry_after_s or 0,
        )
        return TtsStreamResponse(id=self._id, error=told).SerializeToString()

    def cancelled(self, stopped: int) -> bytes:
        """No byte of it follows."""
        return TtsStreamResponse(id=self._id, cancelled=Cancelled(stopped=stopped)).SerializeToString()


class Delimited:
    """One answer over HTTP."""

    media_type = MEDIA_TYPE
    piece_bytes = PIECE_BYTES

    def __init__(self) -> None:
        self._messages = Messages()

    def begin(self, about: About) -> bytes:
        """What is known when the speech begins."""
        return delimited(self._messages.begin(about))

    def sentence(self, sentence: Sentence) -> bytes:
        """The audio that follows is of this sentence."""
        return delimited(self._messages.sentence(sentence))

    def piece(self, piece: Piece) -> bytes:
        """Some of the audio."""
        return delimited(self._messages.piece(piece))

    def end(self, about: About, end: End) -> bytes:
        """That was all."""
        return delimited(self._messages.end(end))

    def error(self, error: SpeechError) -> bytes:
        """It broke off."""
        return delimited(self._messages.error(error))


def delimited(message: bytes) -> bytes:
    """The message behind its length."""
    return varint(len(message)) + message


def varint(number: int) -> bytes:
    """A number as protobuf writes lengths: seven bits a byte, the low ones first."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
