"""Exchanges counted as they end: how many, how many bytes, and how soon the first one came. Pure.

One `Count` for each kind of exchange, of which there are few: routes, methods, statuses and results are closed sets, and
nothing that a client chooses is a label. `/status` tells them; metrics are made of them.
"""

from bisect import bisect_left
from typing import NamedTuple

from edgecache.cache.status import Outcome, Result

#: Upper bounds of first-byte buckets, in seconds (inclusive, as Prometheus has it); one more bucket is above them all.
FIRST_BYTE_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Kind(NamedTuple):
    """What is counted together."""

    route: str
    method: str
    status: int
    result: Result


class Count:
    """Exchanges of one kind (`kind`). broken: of these, how many the client was not given whole. first_byte_s: their sum."""

    __slots__ = ("broken", "buckets", "exchanges", "first_byte_s", "kind", "sent_bytes")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.exchanges = 0
        self.broken = 0
        self.sent_bytes = 0
        self.first_byte_s = 0.0
        self.buckets = [0] * (len(FIRST_BYTE_BOUNDS_S) + 1)

    def add(self, sent_bytes: int, first_byte_s: float) -> None:
        """One more, whole."""
        self.exchanges += 1
        self.sent_bytes += sent_bytes
        self.first_byte_s += first_byte_s
        self.buckets[bisect_left(FIRST_BYTE_BOUNDS_S, first_byte_s)] += 1


#: Methods that have a name here; any other is counted as this.
_METHODS, _OTHER = frozenset({"GET", "HEAD", "POST", "WS"}), "other"


class Tally:
    """All counts of this process."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[Kind, Count] = {}

    def count(self, route: str, method: str, status: int, result: Result) -> Count:
        """Where exchanges of this kind are counted."""
        kind = Kind(route, method if method in _METHODS else _OTHER, status, result)
        found = self._counts.get(kind)
        if found is None:
            found = self._counts[kind] = Count(kind)
        return found

    def add(self, outcome: Outcome) -> None:
        """One exchange, after its last byte."""
        counted = self.count(outcome.route, outcome.method, outcome.status, outcome.result)
        counted.add(outcome.sent_bytes, outcome.first_byte_ms / 1000)
        counted.broken += not outcome.whole

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
