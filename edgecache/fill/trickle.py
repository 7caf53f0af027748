"""When a cluster's audio comes so slowly that it is broken off, though it never stalls. Pure.

Keeps: who keeps up with speech, or nearly, is never broken off; a pause is `timeouts.between_bytes`'s to judge; and time in
which this process stood still is no time. It does not know what is read, nor from whom.

Theory. A stall is seen by one read that gives nothing. A trickle gives a little to each, and holds a fill's room and its
listeners for as long as `timeouts.total` lets it. So what has come is looked at once in a while, over windows that follow
each other from the first audio on: in seconds of sound where the bytes tell them, which is what listeners need, and else in
bytes. Only when something comes, so that it costs a comparison for each piece and no timer.
"""

from dataclasses import dataclass
from math import inf

from edgecache.option import option


@dataclass(frozen=True, slots=True)
class Trickle:
    """When audio that comes too slowly is broken off. A stall is for `timeouts.between_bytes`."""

    window_s: float = option(10.0, "Over so long, again and again from the first audio on ...", minimum=0.1)
    real_time: float = option(
        0.2,
        "... a cluster has to give at least this share of the sound that is heard in that time (1 is real time; 0: never "
        "broken off) ...",
        minimum=0,
        maximum=1,
    )
    bytes_per_s: int = option(
        100, "... or, of a format whose bytes do not tell how long they sound, so many bytes a second.", minimum=0
    )


@dataclass(frozen=True, slots=True)
class Come:
    """What has come until then. stood_still_s: of all time before, how much this process stood still."""

    at_s: float
    stood_still_s: float
    sound_s: float
    length: int


class Watch:
    """One rendering's. due_s: from when on it is to look again; at its first look it only begins."""

    __slots__ = ("_began", "_policy", "due_s")

    def __init__(self, policy: Trickle) -> None:
        self._policy = policy
        self._began: Come | None = None
        self.due_s = -inf

    def look(self, come: Come) -> str:
        """Why it is too slow; empty: it is not."""
        began, window_s = self._began, self._policy.window_s
        if began is None:
            return self._begin(come)
        took_s = come.at_s - began.at_s - (come.stood_still_s - began.stood_still_s)
        if took_s < window_s:
            self.due_s = come.at_s + window_s - took_s
            return ""
        self._begin(come)
        if come.sound_s:
            sound_s = come.sound_s - began.sound_s
            slow = sound_s < self._policy.real_time * took_s
            return f"it gave {sound_s:.1f} s of sound in {took_s:.1f} s" if slow else ""
        length = come.length - began.length
        return f"it gave {length} bytes in {took_s:.1f} s" if length < self._policy.bytes_per_s * took_s else ""

    def _begin(self, come: Come) -> str:
        self._began = come
        self.due_s = come.at_s + self._policy.window_s
        return ""
