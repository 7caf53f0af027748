"""A player imagined at the client's end of every stream: what it would have heard, and whose fault its gaps are. Pure.

Two players hear each stream, from the moments at which its bytes are handed to the client's connection. One begins with
the first audio and has no cushion: every moment that it has to wait is *jitter*. The other waits until it holds a cushion
of audio, as real players do: where it runs dry is an *under-run*. Neither knows the way to the client, which is beyond the
edge's sight but for one thing: a connection that takes no more bytes makes the edge wait, and that is seen.

Theory. A player that holds audio up to the moment `dry_s` plays without a gap as long as more is handed over before then.
Audio that comes later than that has been waited for since `dry_s`, and playing goes on from when it came. So a cluster
that speaks faster than it is listened to, in gusts or not, gives no jitter at all, however its bytes are cut.

Of each wait, the time since the last handing over is divided: the write that blocked (the client's line), the time from
the bytes' coming to their handing over and what the event loop lagged (the edge), and what is left (the cluster). The
largest part has the blame.
"""

from enum import Enum

import msgspec

from edgecache.measures.ladder import place

#: A gap that is shorter is none: less than a sound device takes at once, and than a guess at a codec's pace is good for.
LEAST_GAP_S = 0.005


class Cause(Enum):
    """Whose fault a gap is."""

    EDGE = "edge"
    CLUSTER = "cluster"
    CLIENT = "client"


class Played(msgspec.Struct, frozen=True):
    """What became of one stream. pieces: how many followed the first one.

    jitter, jitter_s: of these, how many the player without a cushion waited for, for how long (by bucket of the ladder),
    and how long in all. gaps, silent_s: how often the one with a cushion ran dry, and for how long. All by cause.
    """

    pieces: int
    jitter: dict[Cause, dict[int, int]]
    jitter_s: dict[Cause, float]
    gaps: dict[Cause, int]
    silent_s: dict[Cause, float]

    @property
    def blamed(self) -> Cause | None:
        """Who made the most of the silence; None: there was none."""
        return max(self.silent_s, key=lambda cause: self.silent_s[cause]) if self.gaps else None


class Playback:
    """The players of one stream. Feed it `hand` before each write and `taken` after it, with a monotonic clock.

    cushion_s: how much audio the second player wants to hold before it begins.
    """

    __slots__ = (
        "_buffered_s",
        "_cushion_s",
        "_dry_s",
        "_handed_s",
        "_lag_s",
        "_pieces",
        "_played",
        "_ready_s",
        "_taken_s",
    )

    def __init__(self, cushion_s: float) -> None:
        self._cushion_s = cushion_s
        #: When the player without a cushion runs dry; None: it has not begun.
        self._ready_s: float | None = None
        #: When the other one does; None: it still gathers its cushion.
        self._dry_s: float | None = None
        self._buffered_s = 0.0
        self._handed_s = self._taken_s = self._lag_s = 0.0
        self._pieces = 0
        self._played = Played(0, {}, {}, {}, {})

    def __repr__(self) -> str:
        return f"<Playback {self._played!r}>"

    def hand(self, now: float, audio_s: float, arrived_s: float, lag_s: float = 0.0) -> None:
        """So much audio is about to be written. arrived_s: when its bytes came to the edge.

        lag_s: how long the edge's event loop has lagged since it began, in all.
        """
        if self._ready_s is None:
            self._ready_s = now
        else:
            self._pieces += 1
            wait_s, silent_s = now - self._ready_s, 0.0 if self._dry_s is None else now - self._dry_s
            if wait_s > 0 or silent_s > LEAST_GAP_S:
                self._wait(wait_s, silent_s, self._cause(now, arrived_s, lag_s))
        self._ready_s = max(self._ready_s, now) + audio_s
        self._buffer(now, audio_s)
        self._handed_s, self._lag_s = now, lag_s

    def taken(self, now: float) -> None:
        """The write has returned."""
        self._taken_s = now

    def played(self) -> Played | None:
        """What was heard; None: nothing was."""
        return None if self._ready_s is None else msgspec.structs.replace(self._played, pieces=self._pieces)

    def _buffer(self, now: float, audio_s: float) -> None:
        if self._dry_s is not None:
            self._dry_s = max(self._dry_s, now) + audio_s
            return
        self._buffered_s += audio_s
        if self._buffered_s >= self._cushion_s:
            self._dry_s = now + self._buffered_s

    def _wait(self, wait_s: float, silent_s: float, cause: Cause) -> None:
        """One player or both waited for this piece."""
        played = self._played
        if wait_s > 0:
            buckets, bucket = played.jitter.setdefault(cause, {}), place(wait_s)
            buckets[bucket] = buckets.get(bucket, 0) + 1
            played.jitter_s[cause] = played.jitter_s.get(cause, 0.0) + wait_s
        if silent_s > LEAST_GAP_S:
            played.gaps[cause] = played.gaps.get(cause, 0) + 1
            played.silent_s[cause] = played.silent_s.get(cause, 0.0) + silent_s

    def _cause(self, now: float, arrived_s: float, lag_s: float) -> Cause:
        blocked_s = max(0.0, self._taken_s - self._handed_s)
        waited_s = max(0.0, now - max(self._taken_s, self._handed_s))
        lingered_s = now - max(arrived_s, self._taken_s)
        edge_s = min(waited_s, max(lag_s - self._lag_s, lingered_s, 0.0))
        cluster_s = waited_s - edge_s
        if blocked_s >= edge_s and blocked_s >= cluster_s:
            return Cause.CLIENT
        return Cause.EDGE if edge_s >= cluster_s else Cause.CLUSTER
