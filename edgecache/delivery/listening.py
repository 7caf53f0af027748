"""Who is imagined to hear the streams of this edge, with the clock and the lag that the hearing goes by.

One `Audience` is the node's; it makes a `Listening` for each stream: an `Exchange` has one, and whoever writes a stream in
another way feeds one too: `hand` before each write, `taken` after it. What was heard is decided in `measures.playback`.
"""

from dataclasses import dataclass

from edgecache.clock import Clock
from edgecache.measures.lag import Lag
from edgecache.measures.playback import Playback, Played


@dataclass(frozen=True, slots=True)
class Audience:
    """All who listen. cushion_s: how much audio a player wants to hold before it begins."""

    clock: Clock
    lag: Lag
    cushion_s: float

    def listening(self) -> "Listening":
        """One more stream."""
        return Listening(self)


class Listening:
    """One stream being heard."""

    __slots__ = ("_audience", "_playback")

    def __init__(self, audience: Audience) -> None:
        self._audience = audience
        self._playback = Playback(audience.cushion_s)

    def hand(self, audio_s: float, arrived_s: float) -> None:
        """So much audio is about to be written; its bytes came to this edge then. Nothing happens if it is none."""
        if audio_s > 0:
            self._playback.hand(self._audience.clock.monotonic(), audio_s, arrived_s, self._audience.lag.total_s)

    def taken(self) -> None:
        """The write has returned."""
        self._playback.taken(self._audience.clock.monotonic())

    def played(self) -> Played | None:
        """What a player would have heard; None: nobody knows."""
        return self._playback.played()
