"""Exchanges counted as they end: how many, how many bytes, how soon the first one came, and what was heard. Pure.

One `Count` for each kind of exchange, of which there are few: routes, methods, statuses and results are closed sets, the
clusters are those of the configuration, and nothing that a client chooses is a label. `/status` tells them; metrics and
SLOs are made of them. The fast lane counts its hits in a `Count` itself: what is done there is all that a hit pays.
"""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from edgecache.cache.status import WARM_UP, Outcome, Result, Worth
from edgecache.measures.ladder import BOUNDS_S, Spread, place
from edgecache.measures.playback import Cause, Played

#: So many errors are remembered, the newest.
ERRORS_KEPT = 64


class Kind(NamedTuple):
    """What is counted together."""

    route: str
    method: str
    status: int
    result: Result


class Count:
    """Exchanges of one kind (`kind`). broken: of these, how many the client was not given whole. first_byte_s: their sum.

    buckets: their first bytes, on the ladder. saved: how many of them would have been syntheses, had they not been
    answered otherwise, and of how many characters and milliseconds.
    """

    __slots__ = (
        *("_last_byte", "broken", "buckets", "exchanges", "first_byte_s", "kind", "last_byte_s", "saved"),
        *("saved_characters", "saved_ms", "sent_bytes"),
    )

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.exchanges = 0
        self.broken = 0
        self.sent_bytes = 0
        self.first_byte_s = self.last_byte_s = 0.0
        self.buckets = [0] * (len(BOUNDS_S) + 1)
        self.saved = self.saved_characters = self.saved_ms = 0
        #: By how much the buckets of last bytes differ from those of first bytes: most exchanges are over in one write.
        self._last_byte: Counter[int] = Counter()

    def add(self, sent_bytes: int, first_byte_s: float, worth: Worth | None = None) -> None:
        """One more, in one write. worth: what it would have cost to have it made."""
        self.exchanges += 1
        self.sent_bytes += sent_bytes
        self.first_byte_s += first_byte_s
        if worth is not None:
            self.saved += worth.syntheses
            self.saved_characters += worth.characters
            self.saved_ms += worth.spoken_ms
        self.buckets[bisect_left(BOUNDS_S, first_byte_s)] += 1

    def add_alike(self, many: int, sent_bytes: int, first_byte_s: float, worth: Worth | None) -> None:
        """Many that were alike: each with so many bytes, and so soon in sum. On the ladder they stand already."""
        self.exchanges += many
        self.sent_bytes += many * sent_bytes
        self.first_byte_s += first_byte_s
        if worth is not None:
            self.saved += many * worth.syntheses
            self.saved_characters += many * worth.characters
            self.saved_ms += many * worth.spoken_ms

    def lasted(self, first_byte_s: float, total_s: float) -> None:
        """The last one's end came later than its first byte."""
        self.last_byte_s += total_s - first_byte_s
        self._last_byte[place(first_byte_s)] -= 1
        self._last_byte[place(total_s)] += 1

    @property
    def first_byte(self) -> Spread:
        """How soon the first bytes came."""
        return Spread(list(self.buckets), self.first_byte_s)

    @property
    def last_byte(self) -> Spread:
        """How soon the last bytes came."""
        buckets = list(self.buckets)
        for bucket, more in self._last_byte.items():
            buckets[bucket] += more
        return Spread(buckets, self.first_byte_s + self.last_byte_s)


class Listened(msgspec.Struct):
    """Streams of one result that one cluster spoke: what their clients waited for, and what players would have heard.

    played: how many streams it is known of. pieces, jitter, gaps, silent_s: see `Played`. dry: in how many streams a player
    with a cushion would have run dry, by who is to blame for most of it.
    """

    first_byte: Spread = msgspec.field(default_factory=Spread)
    first_audio: Spread = msgspec.field(default_factory=Spread)
    streams: int = 0
    played: int = 0
    pieces: int = 0
    jitter: dict[Cause, Spread] = msgspec.field(default_factory=dict)
    dry: Counter[Cause] = msgspec.field(default_factory=Counter)
    gaps: Counter[Cause] = msgspec.field(default_factory=Counter)
    silent_s: dict[Cause, float] = msgspec.field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """One more."""
        self.streams += 1
        self.first_byte.add(outcome.first_byte_ms / 1000)
        if outcome.played is not None:
            self._play(outcome.played)

    @property
    def in_time(self) -> int:
        """Pieces that nobody would have waited for."""
        return self.pieces - sum(each.count for each in self.jitter.values())

    def _play(self, played: Played) -> None:
        self.played += 1
        self.pieces += played.pieces
        if played.blamed is not None:
            self.dry[played.blamed] += 1
        self.gaps.update(played.gaps)
        for cause, seconds in played.silent_s.items():
            self.silent_s[cause] = self.silent_s.get(cause, 0.0) + seconds
        for cause, buckets in played.jitter.items():
            spread = self.jitter.setdefault(cause, Spread())
            spread.total_s += played.jitter_s[cause]
            for bucket, many in buckets.items():
                spread.buckets[bucket] += many


class Failure(msgspec.Struct, frozen=True):
    """An exchange that went wrong, for operators: no text, nothing of a query. at_s: Unix seconds."""

    at_s: float
    code: str
    status: int
    route: str
    result: str
    cluster: str
    request_id: str


#: Methods that have a name here; any other is counted as this.
_METHODS, _OTHER = frozenset({"GET", "HEAD", "POST", "WS"}), "other"
#: What is told to the client as it is made.
_STREAMED = frozenset({Result.MISS, Result.COLLAPSED, Result.BYPASS})


class Tally:
    """All counts of this process."""

    __slots__ = ("_counts", "errors", "listened", "streaming", "under_way")

    def __init__(self) -> None:
        self._counts: dict[Kind, Count] = {}
        #: By result and cluster.
        self.listened: dict[tuple[Result, str], Listened] = {}
        self.errors: deque[Failure] = deque(maxlen=ERRORS_KEPT)
        #: Exchanges that are being answered, by route, and streams that are being told, by how.
        self.under_way: Counter[str] = Counter()
        self.streaming: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Count]:
        return iter(self._counts.values())

    def count(self, route: str, method: str, status: int, result: Result) -> Count:
        """Where exchanges of this kind are counted."""
        kind = Kind(route, method if method in _METHODS else _OTHER, status, result)
        found = self._counts.get(kind)
        if found is None:
            found = self._counts[kind] = Count(kind)
        return found

    @contextmanager
    def during(self, counted: Counter[str], name: str) -> Iterator[None]:
        """Counts one more, for as long as it lasts."""
        counted[name] += 1
        try:
            yield
        finally:
            counted[name] -= 1

    def add(self, outcome: Outcome, wall_now: float) -> None:
        """One exchange, after its last byte."""
        counted = self.count(outcome.route, outcome.method, outcome.status, outcome.result)
        first_byte_s, total_s = outcome.first_byte_ms / 1000, outcome.total_ms / 1000
        counted.add(outcome.sent_bytes, first_byte_s, outcome.worth)
        counted.lasted(first_byte_s, total_s)
        counted.broken += not outcome.whole
        if outcome.result in _STREAMED and outcome.cluster and outcome.route != WARM_UP:
            self._listened(outcome.result, outcome.cluster).add(outcome)
        for cluster, first_audio_s in outcome.first_audios:
            self._listened(outcome.result, cluster).first_audio.add(first_audio_s)
        if outcome.error:
            self.errors.append(
                Failure(
                    at_s=wall_now,
                    code=outcome.error,
                    status=outcome.status,
                    route=outcome.route,
                    result=outcome.result.value,
                    cluster=outcome.cluster,
                    request_id=outcome.request_id,
                )
            )

    def _listened(self, result: Result, cluster: str) -> Listened:
        found = self.listened.get((result, cluster))
        if found is None:
            found = self.listened[result, cluster] = Listened()
        return found

    def told(self) -> list[dict[str, object]]:
        """Every count by name, the most frequent first."""
        ordered = sorted(self._counts.items(), key=lambda each: -each[1].exchanges)
        return [
            {
                "route": kind.route,
                "method": kind.method,
                "status": kind.status,
                "result": kind.result.value,
                "exchanges": count.exchanges,
                "broken": count.broken,
                "sent_bytes": count.sent_bytes,
                "first_byte_ms_mean": round(count.first_byte_s / count.exchanges * 1000, 3),
            }
            for kind, count in ordered
            if count.exchanges
        ]
