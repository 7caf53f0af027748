"""The fast lane: a hit that needs nothing unusual is answered at once, without a task, a parser or aiohttp.

Keeps rules 1 and 7. What a request's bytes ask for is remembered, in two memos: whole requests as they were received, and
what was asked for (namespace, target and body). A memo leads to a key and to decisions already taken, and never past one
that time can change: the keyring must be the one that admitted the request, the edge must not be draining, the recording
must be in a store now, hold the canonical utterance asked for, be fresh, and nothing may have been purged since it was
found to be so. Nothing is decided here: `Keyring`,
`lookup.judge`, `delivery.head` and `delivery.ranges` do, for both lanes. It learns from the other lane: what aiohttp
answered with a hit is what these bytes ask for. It does not know sockets: `delivery.connection` sends what it says.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from edgecache.cache.lookup import Tier
from edgecache.cache.recording import Recording
from edgecache.cache.status import Outcome, Result
from edgecache.cache.tally import Count, Tally
from edgecache.cache.trace import BeginSpan
from edgecache.clock import Clock
from edgecache.delivery import plain
from edgecache.delivery.account import worth
from edgecache.delivery.auth import Gate
from edgecache.delivery.head import LAST_DIGITS, duration, new_request_id, recorded, request_ids
from edgecache.delivery.heads import Heads, Known
from edgecache.delivery.limits import FastLane, RequestLimits
from edgecache.delivery.memo import Memo, Noted
from edgecache.delivery.plain import TRACE_MARK
from edgecache.delivery.prepared import Prepared, prepare, spelled, spelled_duration
from edgecache.delivery.ranges import Conditions, narrowed
from edgecache.delivery.readiness import Readiness
from edgecache.delivery.said import Answer, Awaited, Heard, Said, Seen, Wanted
from edgecache.delivery.sheets import Sheet, Sheets
from edgecache.errors import ClientError
from edgecache.fill.edge import Edge, Place, Recorded
from edgecache.measures.ladder import BOUNDS_S

#: About what Python adds to a remembered request or utterance.
OVERHEAD_BYTES = 1000
#: Texts are far shorter; to look for something longer costs more than aiohttp does.
MEMORABLE_BYTES = 32 << 10
#: Requests are remembered when they come for the second time: one that is never sent again would push out another.
NOTED_AT_MOST = 8192
#: So many are answered by `again` between two counts.
QUICK_AT_MOST = 4096
#: A recording that was heard so often since hits were last counted is hot: worth a sheet, for so long.
HOT_HITS, HOT_S = 16, 10.0
#: Told as no time at all.
AT_ONCE_S = 0.000_005
_AT_ONCE = spelled_duration(0.0)
_TOLD = {Tier.MEMORY: Result.HIT_MEMORY, Tier.REDIS: Result.HIT_REDIS}


@dataclass(frozen=True, slots=True)
class Ways:
    """What the lane goes by; all of it is the node's."""

    node: str
    edge: Edge
    gate: Gate
    readiness: Readiness
    clock: Clock
    tally: Tally
    limits: RequestLimits
    settings: FastLane
    log: Callable[[Outcome], None] | None
    #: Begins a span within the client's; None: no spans are told.
    begin_span: BeginSpan | None = None


class Lane:
    """The fast lane of a node."""

    def __init__(self, ways: Ways) -> None:
        self.ways = ways
        self._edge, self._gate = ways.edge, ways.gate
        self._peek, self._purges = ways.edge.peek, ways.edge.purges
        self._log, self._readiness, self._begin_span = ways.log, ways.readiness, ways.begin_span
        #: When something is received.
        self.now = ways.clock.monotonic
        self._wall = ways.clock.wall
        half_bytes = ways.settings.memo_bytes // 2
        self._requests: Memo[bytes, Seen] = Memo(half_bytes)
        self._said: Memo[tuple[str, bytes, bytes], Said] = Memo(half_bytes)
        self._noted = Noted(NOTED_AT_MOST)
        self._heads = Heads(ways.gate)
        self._quick: list[tuple[Said, Count, int, Heard]] = []
        self._ids = request_ids()
        self._sheets = Sheets(ways.settings.sheets_bytes)
        #: Reads what was never heard before.
        self.unheard: Callable[[Known, bytes], Seen | None] | None = None
        #: Requests that aiohttp never saw; `settle` first.
        self.answered = 0

    @property
    def requests(self) -> Memo[bytes, Seen]:
        """What was received before."""
        return self._requests

    def __repr__(self) -> str:
        return f"<Lane {self._requests!r} requests, {self._said!r} utterances>"

    def status(self) -> dict[str, int]:
        """What an operator may ask. answered: requests that aiohttp never saw."""
        self.settle()
        held_bytes = self._requests.held_bytes + self._said.held_bytes
        sheets = {"sheets": self._sheets.count, "sheet_bytes": self._sheets.held_bytes}
        return {"answered": self.answered, "requests": len(self._requests), "memo_bytes": held_bytes, **sheets}

    # All of it at once.

    def again(self, received: bytes) -> tuple[bytes, bytes, Sheet | None] | None:
        """Head and body, and the sheet of that, for a request that was answered from memory of late; None: `read` it.

        What most hits take, so it is written out: the same decisions as by `read`, `recorded` and `sent`, as far as time can
        change them. The others were taken when `Quick` was made, of things that never change.
        """
        remembered = self._requests.young.get(received)
        if remembered is None:  # as `plain.untraced`, written out
            front, mark, rest = received.partition(TRACE_MARK)
            if not mark or rest[55:57] != b"\r\n" or not rest[:55].replace(b"-", b"").isalnum():
                return None
            remembered = self._requests.young.get(front + rest[55:])
            if remembered is None or len(front) > remembered[0].body_at - 4:
                return None
        seen = remembered[0]
        quick = seen.said.quick
        if quick is None or seen.ring is not self._gate.ring or seen.conditions is not None or self._readiness.draining:
            return None
        until_s, purges, place, (begin, end), heard = quick
        began_s = self.now()
        if began_s >= until_s or place.gone or purges != self._purges.changes:
            renewed = None if place.gone else self._renewed(seen.said, place, began_s)
            if renewed is None:
                return None
            begin, end = renewed
        if not place.touched:
            place.touched = True
        audio = place.audio
        took_s = self.now() - began_s
        heard[0] += 1
        heard[1] += took_s
        if took_s >= AT_ONCE_S:
            begin = self._late(seen, heard, took_s, begin)
        block, digits = seen.request_id, b""
        if block is None:  # as `Ids.take`
            ids = self._ids
            ids.last = last = ids.last + 1
            if last < 1000:
                block, digits = ids.block, LAST_DIGITS[last]
            else:
                block, digits = ids.renewed()
        if self._log is not None:
            self._tell_again(seen, (block + digits).decode(), took_s, received)
        return b"".join((begin, block, digits, end)), audio, heard[3]

    def _late(self, seen: Seen, heard: "Heard", took_s: float, begin: bytes) -> bytes:
        """The begin of the head with how long it took; it stands on a rung of its own."""
        said = seen.said
        if took_s > BOUNDS_S[0] and said.count is not None:
            heard[2] += 1
            said.count.buckets[bisect_left(BOUNDS_S, took_s)] += 1
        behind = b"" if said.prepared is None else said.prepared.second
        return begin[: -len(_AT_ONCE + behind)] + spelled_duration(took_s) + behind

    def _quicken(self, said: Said, ready: Prepared, recording: Recording, count: Count) -> None:
        """From now on `again` answers with this head, for as long as it is true and the recording stands in memory."""
        place = self._edge.place(said.asked.key)
        if ready.tier is not Tier.MEMORY or place is None or place.audio is not recording.audio:
            return
        if len(self._quick) >= QUICK_AT_MOST:
            self.settle()
        until_s = self.now() + ready.until_s - self._wall()
        heard: Heard = [0, 0.0, 0, None, 0.0]
        head = ready.first + _AT_ONCE + ready.second, ready.third
        said.quick = until_s, ready.purges, place, head, heard
        self._quick.append((said, count, len(recording.audio), heard))
        self._warm(heard, recording.audio)

    def _renewed(self, said: Said, place: Place, began_s: float) -> tuple[bytes, bytes] | None:
        """Another second: the head of the same recording, if it still is a hit, with the times as they are now."""
        ready, quick, wall_now, purges = said.prepared, said.quick, self._wall(), self._purges.changes
        if ready is None or quick is None:
            return None
        times = ready.aged(wall_now) if ready.purges == purges else None
        if times is None:
            found = self._edge.judged(said.asked, place.recording)
            if found is None:
                return None
            ready = said.prepared = ready.renewed(found, wall_now, purges)
            times = ready.first, ready.third, ready.until_s - wall_now
        first, third, left_s = times
        head = first + _AT_ONCE + ready.second, third
        said.quick = began_s + left_s, purges, place, head, quick[4]
        place.asked_for()
        self._warm(quick[4], place.audio)
        return head

    def _renew(self, said: Said, ready: Prepared, audio: bytes) -> None:
        """From now on this is told of the same recording. What is known of its hits stays known."""
        said.prepared, quick = ready, said.quick
        if quick is not None:
            until_s = self.now() + ready.until_s - ready.from_s
            same = not quick[2].gone and quick[2].audio is audio
            head = ready.first + _AT_ONCE + ready.second, ready.third
            said.quick = (until_s, ready.purges, quick[2], head, quick[4]) if same else None

    def _warm(self, heard: Heard, audio: bytes) -> None:
        """What is heard often gets a sheet."""
        if heard[3] is None and heard[0] >= HOT_HITS:
            heard[3], heard[4] = self._sheets.make(audio), self.now() + HOT_S

    def settle(self) -> None:
        """Counts what was answered since the last time, for whoever reads counts."""
        now, quick, self._quick = self.now(), self._quick, []
        for each in quick:
            said, count, size_bytes, heard = each
            times, first_byte_s, late = heard[:3]
            if times >= HOT_HITS:
                heard[4] = now + HOT_S
            if said.quick is not None and said.quick[-1] is heard:
                if now >= heard[4] or said.quick[2].gone:
                    heard[3] = None
                if times or heard[3] is not None:
                    self._quick.append(each)
                else:
                    said.quick = None
            count.add_alike(times, size_bytes, first_byte_s, said.worth)
            count.buckets[0] += times - late
            self._edge.heard(times)
            self.answered += times
            heard[:3] = 0, 0.0, 0

    # Reading.

    def read(self, received: bytes) -> Seen | Awaited | None:
        """The request that these bytes are, if it was seen before in one way or the other. None: aiohttp is to read it."""
        if self._readiness.draining or len(received) > MEMORABLE_BYTES:
            return None
        alike, seen = received, self._requests.get(received)
        if seen is None and (untraced := plain.untraced(received)) is not None:
            alike, seen = untraced, self._requests.get(untraced)
        if seen is not None and seen.ring is self._gate.ring:
            return seen
        return self._parse(received, alike)

    def _parse(self, received: bytes, alike: bytes) -> Seen | Awaited | None:
        """alike: under which bytes it is remembered."""
        known = self._heads.read(received)
        if known is None or known.found.length > self.ways.limits.body_bytes:
            return None
        found, ring, caller = known
        missing = found.body_at + found.length - len(received)
        if missing:
            return Awaited(len(received) + missing) if missing > 0 else None
        said = self._said.get((caller.namespace, found.target, received[found.body_at :]))
        if said is None:
            return None if self.unheard is None else self.unheard(known, received[found.body_at :])
        request_id = None if found.request_id is None else found.request_id.encode()
        seen = Seen(said, ring, caller, request_id, found.conditions, found.body_at - len(received) + len(alike))
        if self._noted.again(alike):
            self._requests.put(alike, seen, len(alike) + OVERHEAD_BYTES)
        return seen

    # Answering.

    def recorded(self, seen: Seen, began_s: float) -> Answer | None:
        """The answer, if memory has it. began_s: when the request was received."""
        said, wall_now = seen.said, self._wall()
        asked, ready = said.asked, said.prepared
        recording = self._peek(asked.key, wall_now)
        if recording is None:
            return None
        if (
            ready is not None
            and ready.serves(recording, Tier.MEMORY, wall_now, self._purges.changes)
            and recording.canonical == asked.canonical
            and recording.namespace == asked.namespace
            and seen.conditions is None
        ):
            return self._whole(seen, ready, recording, began_s)
        found = self._edge.judged(asked, recording)
        return None if found is None else self.answer(seen, found, began_s)

    def answer(self, seen: Seen, found: Recorded, began_s: float) -> Answer | None:
        """The answer with this hit; None if it is an error, which aiohttp is to tell."""
        if seen.conditions is not None:
            return self._narrowed(seen, seen.conditions, found, began_s)
        said, wall_now = seen.said, self._wall()
        ready = said.prepared
        purges = self._purges.changes
        if ready is None or not ready.tells_of(found.recording, found.tier):
            ready = said.prepared = prepare(self.ways.node, found, said.method, wall_now, purges)
            said.count = said.quick = None
            if said.characters:
                said.worth = worth(found, said.characters)
        elif not ready.serves(found.recording, found.tier, wall_now, purges):
            ready = ready.renewed(found, wall_now, purges)
            self._renew(said, ready, found.recording.audio)
        return self._whole(seen, ready, found.recording, began_s)

    def _whole(self, seen: Seen, ready: Prepared, recording: Recording, began_s: float) -> Answer:
        answer = self.rendered(seen, ready, recording.audio, began_s)
        if seen.said.quick is None:
            self._quicken(seen.said, ready, recording, answer.count)
        return answer

    def rendered(self, seen: Seen, ready: Prepared, audio: bytes | memoryview, began_s: float) -> Answer:
        """The answer with this head, which is true, and this audio, of which it is true."""
        said = seen.said
        count = said.count
        if count is None:
            count = said.count = self.ways.tally.count(said.route, said.method, 200, _TOLD[ready.tier])
        request_id = id_of(seen)
        head = ready.head(self.now() - began_s, request_id)
        return Answer(head, audio, request_id, ready.facts.cluster, count, said.worth)

    def _narrowed(self, seen: Seen, conditions: Conditions, found: Recorded, began_s: float) -> Answer | None:
        """The answer to a conditional or range request."""
        said = seen.said
        took = duration((self.now() - began_s) * 1000)
        headers = recorded(self.ways.node, found, said.method, took)
        try:
            reply = narrowed(found.recording.audio, found.recording.facts.etag, conditions)
        except ClientError:
            return None
        request_id = id_of(seen)
        head = spelled(reply, headers, request_id, self._wall())
        count = self.ways.tally.count(said.route, said.method, reply.status, _TOLD[found.tier])
        worth = said.worth if reply.status == HTTPStatus.NOT_MODIFIED else None
        return Answer(head, reply.body, request_id, found.recording.facts.cluster, count, worth)

    # What comes of it.

    def sent(self, seen: Seen, answer: Answer, began_s: float, received: bytes) -> None:
        """The answer to what was received was handed over whole."""
        self.answered += 1
        took_s = self.now() - began_s
        answer.count.add(len(answer.body), took_s, answer.worth)
        if isinstance(seen, Wanted):
            self.learn(seen.said, seen.said.route.encode(), seen.body)
        self.tell(seen, answer, took_s, received)

    def _tell_again(self, seen: Seen, request_id: str, took_s: float, received: bytes) -> None:
        said = seen.said
        if said.prepared is not None and said.count is not None and said.quick is not None:
            cluster, audio = said.prepared.facts.cluster, said.quick[2].audio
            self.tell(seen, Answer(b"", audio, request_id, cluster, said.count, said.worth), took_s, received)

    def tell(self, seen: Seen, answer: Answer, took_s: float, received: bytes) -> None:
        """One line of the access log, if there is one."""
        if self._log is not None:
            self._log(
                Outcome(
                    request_id=answer.request_id,
                    caller=seen.caller.name,
                    method=answer.count.kind.method,
                    route=answer.count.kind.route,
                    status=answer.count.kind.status,
                    result=answer.count.kind.result,
                    sent_bytes=len(answer.body),
                    first_byte_ms=took_s * 1000,
                    total_ms=took_s * 1000,
                    whole=True,
                    cluster=answer.cluster,
                    trace=None if self._begin_span is None else self._begin_span(plain.trace(received)),
                )
            )

    def learn(self, said: Said, target: bytes, body: bytes) -> None:
        """This target and body were answered with a hit for the first time, in the namespace of what was asked for."""
        words = (said.asked.namespace, target, body)
        if self._said.get(words) is None:
            weight_bytes = len(target) + len(body) + len(said.asked.canonical) + OVERHEAD_BYTES
            self._said.put(words, said, weight_bytes)


def id_of(seen: Seen) -> str:
    """The request's own id, or a new one."""
    return new_request_id() if seen.request_id is None else seen.request_id.decode()
