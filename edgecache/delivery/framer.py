"""What a framing of speech is: `sse` and `protobuf` are two. Pure.

An answer is metadata, pieces of audio in order, and then an end or an error; of a long text each sentence is announced
before its audio. A framing is told these and returns bytes; it does not know where they come from or go.
"""

from typing import Protocol

from edgecache.errors import SpeechError
from edgecache.fill.telling import About, End, Piece, Sentence


class Framer(Protocol):
    """One answer being framed."""

    @property
    def media_type(self) -> str: ...
    @property
    def piece_bytes(self) -> int:
        """How much audio goes into one frame at most."""

    def begin(self, about: About) -> bytes: ...
    def sentence(self, sentence: Sentence) -> bytes: ...
    def piece(self, piece: Piece) -> bytes: ...
    def end(self, about: About, end: End) -> bytes: ...
    def error(self, error: SpeechError) -> bytes: ...
