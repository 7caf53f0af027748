"""Long text told piece by piece: the same words as `telling` has for one utterance, with each sentence announced.

Keeps rule 3: a text that can't go on raises behind all that was heard of it. It does not know how a piece is written on
the wire, nor how its text comes.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from edgecache.errors import ClientError
from edgecache.fill.longform import Began, LongForm, Sound
from edgecache.fill.telling import About, Cached, End, Piece, Sentence, about, arrived_s, cut
from edgecache.speech.timings import Timings
from edgecache.speech.utterance import Utterance

if TYPE_CHECKING:
    from edgecache.speech import sentences as found

#: The text as a whole did as well as the sentence that did worst.
_WORSE = (Cached.HIT, Cached.STALE, Cached.JOINED, Cached.MISS)


class LongTelling:
    """One long text being told. `events` may be gone through once; `about` and `end` then say what it came to."""

    def __init__(self, form: LongForm, sentences: "AsyncGenerator[found.Sentence, None]", whole: Utterance) -> None:
        self._form = form
        self._sentences = sentences
        self._whole = whole
        self._about: About | None = None
        self._audio_bytes = self._pieces = 0
        self._at_ms = 0
        self._timings = Timings()
        self._began: Began | None = None

    def __repr__(self) -> str:
        return f"<LongTelling {self._form!r}, {self._pieces} pieces>"

    @property
    def about(self) -> About:
        """What is known so far; only once it has begun."""
        assert self._about is not None
        return self._about

    @property
    def began(self) -> Began:
        """The sentence that is being told; only once it has begun."""
        assert self._began is not None
        return self._began

    @property
    def arrived_s(self) -> float:
        """When the last of its bytes came; inf: long ago."""
        return arrived_s(self.began.speech)

    @property
    def end(self) -> End:
        """What it came to."""
        return End(self._form.duration_ms, self._audio_bytes, self._pieces, self._timings)

    async def events(self, piece_bytes: int) -> AsyncGenerator[About | Sentence | Piece, None]:
        """What it is about, then each sentence and its audio. SpeechError: it can't go on; ClientError: nothing to say."""
        async with aclosing(self._form.pieces(self._sentences)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Began):
                    begins = self._about is None
                    self._learn(piece)
                    if begins:
                        yield self.about
                    sentence = piece.sentence
                    yield Sentence(sentence.index, sentence.start, sentence.end, piece.offset_ms)
                elif isinstance(piece, Sound):
                    for each in self._timed(piece.audio, piece_bytes):
                        yield each
                else:
                    self._timings = self._timings.followed_by(piece.timings)
        if self._about is None:
            raise ClientError(400, "empty_text", "text has nothing in it to speak.", param="text")

    def _learn(self, began: Began) -> None:
        self._began = began
        told = about(began.speech, self._whole)
        if self._about is None:
            self._about = msgspec.structs.replace(
                told, sample_rate_hz=began.sample_rate_hz, channels=began.channels, duration_ms=None, key=None
            )
        elif _WORSE.index(told.cache) > _WORSE.index(self._about.cache):
            self._about = msgspec.structs.replace(self._about, cache=told.cache, cluster=told.cluster)

    def _timed(self, audio: bytes, piece_bytes: int) -> list[Piece]:
        """The sound cut, each part with its share of the time that it takes."""
        began_ms, lasts_ms = self._at_ms, self._form.duration_ms - self._at_ms
        timed: list[Piece] = []
        passed = 0
        for part in cut(audio, piece_bytes):
            from_ms = began_ms + lasts_ms * passed // len(audio)
            passed += len(part)
            to_ms = began_ms + lasts_ms * passed // len(audio)
            timed.append(Piece(part, self._pieces, from_ms, to_ms - from_ms))
            self._pieces += 1
        self._audio_bytes += len(audio)
        self._at_ms = self._form.duration_ms
        return timed
