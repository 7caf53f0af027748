"""Speech as server-sent events (WHATWG HTML §9.2). Pure.

`metadata`, then `audio` events with base64, then `done` or `error`: an answer without one of the two was cut off (rule 3).
All that is sent is JSON in one line or base64, so nothing that comes from outside can begin a field or an event of its
own. There are no event ids: a client that connects again is told everything from the start, whatever it last heard.
"""

from base64 import b64encode

import msgspec

from edgecache.delivery.problem import told
from edgecache.errors import SpeechError
from edgecache.fill.telling import About, End, Piece, Sentence

MEDIA_TYPE = "text/event-stream"
#: Clients limit a line to 64 KiB, and base64 makes four bytes of three; the rest is for the words around it.
EVENT_BYTES = 64 << 10
#: A mark takes at most some 80 bytes: more are not told here, but at the recording's own path.
MAX_MARKS = 700
PIECE_BYTES = (EVENT_BYTES - 256) // 4 * 3


class ServerSentEvents:
    """One answer."""

    media_type = MEDIA_TYPE + "; charset=utf-8"
    piece_bytes = PIECE_BYTES

    def begin(self, about: About) -> bytes:
        """What is known when the speech begins."""
        return _event("metadata", described(about))

    def sentence(self, sentence: Sentence) -> bytes:
        """The audio that follows is of this sentence."""
        return _event("sentence", sentence)

    def piece(self, piece: Piece) -> bytes:
        """Some of the audio."""
        head = {
            "sequence_number": piece.sequence,
            "offset_ms": piece.offset_ms,
            "duration_ms": piece.duration_ms,
            "audio": "",
        }
        # The last member's value goes in as it is: base64 needs no escaping.
        return b'event: audio\ndata: %b%b"}\n\n' % (msgspec.json.encode(head)[:-2], b64encode(piece.audio))

    def end(self, about: About, end: End) -> bytes:
        """That was all."""
        return _event("done", completed(about, end))

    def error(self, error: SpeechError) -> bytes:
        """It broke off."""
        return _event("error", {"status": error.status, "error": told(error)})


def described(about: About) -> dict[str, object]:
    """The metadata, as JSON deliveries have them."""
    return {
        "format": about.format,
        "media_type": about.media_type,
        "sample_rate": about.sample_rate_hz,
        "channels": about.channels,
        "duration_ms": about.duration_ms,
        "cache": about.cache.value,
        "key": about.key,
    }


def completed(about: About, end: End) -> dict[str, object]:
    """What it came to, as JSON deliveries have it."""
    told: dict[str, object] = {
        "duration_ms": end.duration_ms,
        "cache": about.cache.value,
        "bytes": end.audio_bytes,
        "chunks": end.pieces,
    }
    return told | {"timings": end.timings.told()} if end.timings and end.timings.count <= MAX_MARKS else told


def _event(name: str, content: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(content))
