"""How far into the sound a place in its bytes is, found while the bytes go by. Pure.

It does not judge the audio (that is `fill.seal`'s): of what it can't read it knows nothing, and says so with None.
"""

from edgecache.speech.formats import Expected, NotAudio, inspector


class Meter:
    """One body being listened to, from its first byte."""

    __slots__ = ("_inspector", "_silent")

    def __init__(self, media_type: str, expected: Expected) -> None:
        self._silent = False
        try:
            self._inspector = inspector(media_type, expected)
        except NotAudio:
            self._silent = True

    def __repr__(self) -> str:
        return "<Meter of something unknown>" if self._silent else f"<Meter {self._inspector!r}>"

    def feed(self, audio: bytes) -> None:
        """The next bytes."""
        if self._silent:
            return
        try:
            self._inspector.feed(audio)
        except NotAudio:
            self._silent = True

    @property
    def container(self) -> str:
        """What the bytes are, as far as it is known."""
        return "other" if self._silent else self._inspector.container

    @property
    def sample_rate_hz(self) -> int | None:
        """None: not known (yet)."""
        return None if self._silent else self._inspector.sample_rate_hz

    @property
    def channels(self) -> int | None:
        """None: not known (yet)."""
        return None if self._silent else self._inspector.channels

    @property
    def heard_ms(self) -> int | None:
        """How much of the sound has gone by. None: this format does not say."""
        if self._silent:
            return None
        samples, rate_hz = self._inspector.heard_samples, self._inspector.sample_rate_hz
        if samples is None:
            return None
        return round(samples * 1000 / rate_hz) if rate_hz else 0

    def finish(self) -> int | None:
        """How long the sound was, in milliseconds; no more comes."""
        if self._silent:
            return None
        try:
            return self._inspector.finish().duration_ms
        except NotAudio:
            return None
