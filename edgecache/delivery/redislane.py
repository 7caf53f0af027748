"""A hit out of Redis in the fast lane: asked for by a callback, and answered in one write as Redis replies.

Keeps rules 1, 6 and 7. No task, no future, no copy of the audio: it goes to the client's socket out of what was received
from Redis, and only what the socket does not take at once is copied. A connection waits for one answer; what its client
sends meanwhile is held, and nothing more is read of it. Whatever is no plain hit goes to aiohttp as it came.

What is said and decided is `fastlane.Lane`'s here too. A head that was rendered before is used again while it is true, of
records that begin with the very same bytes (`cache.record`).
"""

from typing import Protocol

from edgecache.cache.lookup import Hit, Miss, Tier
from edgecache.cache.record import Record
from edgecache.cache.recording import Recording
from edgecache.delivery.fastlane import Lane
from edgecache.delivery.prepared import Prepared
from edgecache.delivery.said import Answer, Seen
from edgecache.fill.edge import Recorded


class Line(Protocol):
    """The connection that asks."""

    def told(self, asking: "Asking", answer: Answer | None) -> None: ...


class Asking:
    """A request that Redis is asked for. over: the client is gone. in_vain: Redis has nothing that may be served."""

    __slots__ = ("_lane", "_line", "began_s", "in_vain", "over", "received", "seen")

    def __init__(self, lane: "RedisLane", line: Line, seen: Seen, received: bytes, began_s: float) -> None:
        self._lane, self._line = lane, line
        self.seen, self.received, self.began_s = seen, received, began_s
        self.over = self.in_vain = False

    def told(self, found: Recording | Record | None) -> None:
        """Redis has this."""
        self._line.told(self, None if self.over else self._lane.answer(self, found))


class RedisLane:
    """The fast lane's second half."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        ways = lane.ways
        self._edge, self._purges, self._wall = ways.edge, ways.edge.purges, ways.clock.wall

    def ask(self, line: Line, seen: Seen, received: bytes, began_s: float) -> Asking | None:
        """Asks Redis; the line is told, later. None: there is nothing to wait for."""
        asking = Asking(self, line, seen, received, began_s)
        return asking if self._edge.fetch(seen.said.asked.key, asking.told) else None

    def answer(self, asking: Asking, found: Recording | Record | None) -> Answer | None:
        """The answer with what Redis has; None: aiohttp is to give it."""
        seen, ready = asking.seen, asking.seen.said.prepared
        if (
            type(found) is Record
            and ready is not None
            and ready.facts is found.bare.facts
            and ready.tier is Tier.REDIS
            and seen.conditions is None
        ):
            return self._lent(asking, found, ready)
        hit = self._hit(asking, found.whole() if isinstance(found, Record) else found)
        if hit is None:
            return None
        seen.said.prepared = None  # of another record; facts may be alike of audio that is not
        return self._lane.answer(seen, hit, asking.began_s)

    def _lent(self, asking: Asking, found: Record, ready: Prepared) -> Answer | None:
        """The head was rendered for a record that begins with the same bytes."""
        said, bare = asking.seen.said, found.bare
        wall_now, purges = self._wall(), self._purges.changes
        if not (
            ready.serves(bare, Tier.REDIS, wall_now, purges)
            and bare.canonical == said.asked.canonical
            and bare.namespace == said.asked.namespace
        ):
            hit = self._hit(asking, bare)
            if hit is None:
                return None
            ready = said.prepared = ready.renewed(hit, wall_now, purges)
        return self._lane.rendered(asking.seen, ready, found.audio, asking.began_s)

    def _hit(self, asking: Asking, found: Recording | None) -> Recorded | None:
        verdict = self._edge.fetched(asking.seen.said.asked, found)
        if isinstance(verdict, Hit):
            return Recorded(verdict.recording, verdict.age_s, verdict.ttl_s, Tier.REDIS)
        asking.in_vain = isinstance(verdict, Miss)
        return None
