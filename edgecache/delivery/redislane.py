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
from edgecache.delivery.head import LAST_DIGITS, request_ids
from edgecache.delivery.prepared import Prepared, spelled_duration
from edgecache.delivery.said import Answer, Lent, Said, Seen
from edgecache.fill.edge import Recorded


class Line(Protocol):
    """The connection that asks."""

    def told(self, asking: "Asking", answer: Answer | None) -> None: ...
    def lent(self, head: bytes, audio: memoryview) -> bytes: ...
    def data_received(self, data: bytes) -> None: ...


class Asking:
    """A request that Redis is asked for. over: the client is gone. in_vain: Redis has nothing that may be served."""

    __slots__ = ("_lane", "began_s", "in_vain", "line", "over", "received", "seen")

    def __init__(self, lane: "RedisLane", line: Line, seen: Seen, received: bytes, began_s: float) -> None:
        self._lane, self.line = lane, line
        self.seen, self.received, self.began_s = seen, received, began_s
        self.over = self.in_vain = False

    def told(self, found: Recording | Record | None) -> None:
        """Redis has this."""
        answer = None
        if found is None:
            self.in_vain = True
        elif not self.over:
            lent = self.seen.said.lent
            if (
                lent is not None
                and type(found) is Record
                and found.bare is lent[0]
                and self._lane.lend(self, found, lent)
            ):
                return
            answer = self._lane.answer(self, found)
        self.line.told(self, answer)


class RedisLane:
    """The fast lane's second half."""

    def __init__(self, lane: Lane) -> None:
        self._lane, self._requests, ways = lane, lane.requests, lane.ways
        self._edge, self._purges = ways.edge, ways.edge.purges
        self._gate, self._readiness, self._log = ways.gate, ways.readiness, ways.log
        self._peek, self._fetch = ways.edge.peek, ways.edge.fetch
        self._now, self._wall = lane.now, ways.clock.wall
        self._ids = request_ids()

    # Asking.

    def again(self, line: Line, received: bytes) -> Asking | None:
        """Asks Redis for what it gave of late; None: `Lane.read` it. The same decisions as by that and `recorded`."""
        remembered = self._requests.young.get(received)
        if remembered is None:
            return None
        seen = remembered[0]
        if seen.said.lent is None or seen.ring is not self._gate.ring or self._readiness.draining:
            return None
        began_s, key = self._now(), seen.said.asked.key
        if seen.conditions is not None or self._peek(key, self._wall()) is not None:
            return None
        asking = Asking(self, line, seen, received, began_s)
        return asking if self._fetch(key, asking.told) else None

    def ask(self, line: Line, seen: Seen, received: bytes, began_s: float) -> Asking | None:
        """Asks Redis; the line is told, later. None: there is nothing to wait for."""
        if not self._edge.shared:
            return None
        asking = Asking(self, line, seen, received, began_s)
        return asking if self._fetch(seen.said.asked.key, asking.told) else None

    # Answering.

    def lend(self, asking: Asking, found: Record, lent: Lent) -> bool:
        """Answers with this record, if what was found out of it still is true. What most hits take, so it is written out."""
        _, until_s, purges, (first, second, third), count = lent
        now_s, seen = self._now(), asking.seen
        if now_s >= until_s or purges != self._purges.changes or seen.conditions is not None:
            return False
        block, digits = seen.request_id, b""
        if block is None:  # as `Ids.take`
            ids = self._ids
            ids.last = last = ids.last + 1
            block, digits = (ids.block, LAST_DIGITS[last]) if last < 1000 else ids.renewed()
        head = b"".join((first, spelled_duration(now_s - asking.began_s), second, block, digits, third))
        audio, worth = found.audio, seen.said.worth
        held = asking.line.lent(head, audio)
        took_s = self._now() - asking.began_s
        count.add(len(audio), took_s, worth)
        self._lane.answered += 1
        if self._log is not None:
            answer = Answer(b"", audio, (block + digits).decode(), found.bare.facts.cluster, count, worth)
            self._lane.tell(seen, answer, took_s, asking.received)
        if held:
            asking.line.data_received(held)
        return True

    def answer(self, asking: Asking, found: Recording | Record) -> Answer | None:
        """The answer with what Redis has; None: aiohttp is to give it."""
        seen, ready = asking.seen, asking.seen.said.prepared
        if (
            type(found) is Record
            and ready is not None
            and ready.facts is found.bare.facts
            and ready.tier is Tier.REDIS
            and seen.conditions is None
        ):
            return self._answer_again(asking, found, ready)
        hit = self._hit(asking, found.whole() if isinstance(found, Record) else found)
        if hit is None:
            return None
        seen.said.prepared = None  # of another record; facts may be alike of audio that is not
        answer = self._lane.answer(seen, hit, asking.began_s)
        if type(found) is Record:
            self._keep(seen.said, found.bare)
        return answer

    def _answer_again(self, asking: Asking, found: Record, ready: Prepared) -> Answer | None:
        """The head was rendered for a record that begins with the same bytes; its times go on."""
        hit = self._hit(asking, found.bare)
        if hit is None:
            return None
        said = asking.seen.said
        ready = said.prepared = ready.renewed(hit, self._wall(), self._purges.changes)
        answer = self._lane.rendered(asking.seen, ready, found.audio, asking.began_s)
        self._keep(said, found.bare)
        return answer

    def _keep(self, said: Said, bare: Recording) -> None:
        """From now on `lend` answers with the head that was rendered for this, for as long as it is true."""
        ready = said.prepared
        if ready is not None and said.count is not None and ready.facts is bare.facts:
            until_s = self._now() + ready.until_s - self._wall()
            said.lent = bare, until_s, ready.purges, (ready.first, ready.second, ready.third), said.count

    def _hit(self, asking: Asking, found: Recording) -> Recorded | None:
        verdict = self._edge.fetched(asking.seen.said.asked, found)
        if isinstance(verdict, Hit):
            return Recorded(verdict.recording, verdict.age_s, verdict.ttl_s, Tier.REDIS)
        asking.in_vain = isinstance(verdict, Miss)
        return None
