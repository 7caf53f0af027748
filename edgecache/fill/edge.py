"""The meeting point: an utterance goes in, speech comes out.

HTTP, and later SSE, WebSocket, long form, prefetch and warm-up, are all callers of `Edge.speak`; none has a second way to
the cache or to a cluster. Keeps rules 1, 4 and 6. It does not know how it was asked, nor how speech is delivered.

The same steps as in docs/architecture.md: name it; look in memory; look in Redis; join the flight for it or lead one.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Protocol

import msgspec

from edgecache.cache.key import Key, Naming
from edgecache.cache.lookup import Asked, Directives, Freshness, Hit, Miss, Reason, Stale, Tier, Verdict, judge
from edgecache.cache.record import Record
from edgecache.cache.recording import Recording
from edgecache.clock import Clock
from edgecache.errors import ClientError, NodeError, SpeechError
from edgecache.fill.attempt import Order
from edgecache.fill.fills import Fills
from edgecache.fill.flight import Flight, Head
from edgecache.fill.priority import Priority
from edgecache.speech.utterance import Utterance, decode

#: What Redis has, to be judged; what is lent is gone when who is told returns.
Then = Callable[[Recording | Record | None], None]


#: As `judge` says of what nobody has.
_NOTHING = Miss(Reason.URI_MISS)


class Place(Protocol):
    """Where a recording stands in memory. gone: it does not any more. Who asks for it without looking it up touches it."""

    @property
    def recording(self) -> Recording: ...
    @property
    def audio(self) -> bytes: ...
    @property
    def gone(self) -> bool: ...

    touched: bool

    def asked_for(self) -> None: ...


class Tiers(Protocol):
    """The stores in order."""

    def peek(self, key: Key, wall_now: float) -> Recording | None: ...
    def place(self, key: Key) -> Place | None: ...
    def heard(self, times: int) -> None: ...
    def ask(self, key: Key, then: Then) -> bool: ...
    def at_hand(self, key: Key) -> Recording | None: ...
    async def find(self, key: Key) -> Recording | None: ...
    def look(self, key: Key) -> Recording | None: ...
    @property
    def shared(self) -> bool: ...


class Wish(msgspec.Struct, frozen=True):
    """What one client asks for."""

    utterance: Utterance
    namespace: str
    directives: Directives = Directives()
    forwarding: Mapping[str, str] = MappingProxyType({})
    #: Memory and Redis were just asked for this key and have no hit, or Redis is not to be asked now.
    looked_for: Key | None = None
    priority: Priority = Priority.INTERACTIVE


class Recorded(msgspec.Struct, frozen=True):
    """Speech that is there whole. forward_status: set when it is stale and the clusters failed with this status."""

    recording: Recording
    age_s: float
    ttl_s: float
    tier: Tier
    forward_status: int | None = None


class Live(msgspec.Struct, frozen=True):
    """Speech that is being made; its head is known."""

    flight: Flight
    head: Head
    reason: Reason
    joined: bool


class Begun(msgspec.Struct, frozen=True):
    """A flight for a wish, which may give audio or not. spare: what is stale, if it gives none."""

    flight: Flight
    reason: Reason
    joined: bool
    spare: Recorded | None = None

    @property
    def live(self) -> Live:
        """The speech, once its first audio is there."""
        head = self.flight.head
        assert head is not None, self
        return Live(self.flight, head, self.reason, self.joined or head.followed)


Speech = Recorded | Live


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would happen to a wish, and why; finding it out changes nothing."""

    asked: Asked
    verdict: Verdict
    tier: Tier | None
    under_way: bool

    def told(self, freshness: Freshness) -> Mapping[str, object]:
        """The same as a mapping, for JSON. It holds the text: for operators alone."""
        verdict, asked = self.verdict, self.asked
        told: dict[str, object] = {
            "key": asked.key,
            "namespace": asked.namespace,
            "utterance": decode(asked.canonical),
            "canonical_hex": asked.canonical.hex(),
            "verdict": type(verdict).__name__.lower(),
            "tier": self.tier.value if self.tier else None,
            "fill_under_way": self.under_way,
        }
        match verdict:
            case Hit() | Stale():
                facts = verdict.recording.facts
                told |= {
                    "ttl_s": round(verdict.ttl_s, 1),
                    "age_s": round(verdict.age_s, 1),
                    "gone_in_s": round(freshness.lifetime_s - verdict.age_s, 1),
                    "bytes": len(verdict.recording.audio),
                    "media_type": facts.media_type,
                    "duration_ms": facts.duration_ms,
                    "cluster": facts.cluster,
                }
            case Miss(reason):
                told["reason"] = reason.value
        return told


@dataclass(slots=True)
class Counters:
    """What can only be known here. Mismatches must stay at zero."""

    mismatches: int = 0
    stale_served: int = 0


class Edge:
    """Everything that turns a wish into speech."""

    def __init__(self, naming: Naming, freshness: Freshness, tiers: Tiers, fills: Fills, clock: Clock) -> None:
        self._naming = naming
        self._freshness = freshness
        self._tiers = tiers
        self._fills = fills
        self._clock = clock
        self._finding: dict[Key, list[Then]] = {}
        #: What was purged: judged by at every look.
        self.purges = fills.purges
        #: What memory has, still to be judged; where it stands, for who judged it before; how often that was heard.
        self.peek, self.place, self.heard = tiers.peek, tiers.place, tiers.heard
        self._ask_tiers = tiers.ask
        self.counters = Counters()

    def asked(self, wish: Wish) -> Asked:
        """The wish under its name."""
        canonical = wish.utterance.canonical
        return Asked(self._naming.key(wish.namespace, canonical), wish.namespace, canonical)

    async def speak(self, wish: Wish) -> Speech:
        """The speech that was wished for. SpeechError: there is none, and why."""
        asked = self.asked(wish)
        begun = self.begin(wish, asked)
        if begun is None:
            begun = self._beyond(wish, asked, *await self._found(asked))
        if isinstance(begun, Recorded):
            return begun
        try:
            with begun.flight.reading():
                await begun.flight.begun()
        except SpeechError as error:
            return self.instead(begun, error)
        return begun.live

    def begin(self, wish: Wish, asked: Asked) -> "Recorded | Begun | None":
        """The same as far as it goes without waiting. None: Redis is to be asked first. SpeechError: there is none."""
        directives = wish.directives
        if directives.no_store:
            _may_go_forward(directives)
            return self._go_forward(wish, asked, Reason.BYPASS)
        if directives.no_cache:
            _may_go_forward(directives)
            return self._go_forward(wish, asked, Reason.REQUEST)
        if wish.looked_for == asked.key:
            return self._beyond(wish, asked, *self._left(asked))
        verdict = self._judge(asked, self._tiers.peek(asked.key, self._clock.wall()))
        if not isinstance(verdict, Hit) and self._may_have(asked.key):
            return None
        return self._beyond(wish, asked, verdict, Tier.MEMORY)

    def _left(self, asked: Asked) -> tuple[Verdict, Tier]:
        """What there is where memory was asked, and Redis was or is not to be: a fill may have ended meanwhile."""
        kept, at_hand = self._tiers.look(asked.key), self._tiers.at_hand(asked.key)
        if kept is None and at_hand is None:
            return _NOTHING, Tier.MEMORY
        verdict = self._judge(asked, kept)
        if at_hand is not None and not isinstance(verdict, Hit):
            return self._judge(asked, at_hand), Tier.REDIS
        return verdict, Tier.MEMORY

    def _beyond(self, wish: Wish, asked: Asked, verdict: Verdict, tier: Tier) -> "Recorded | Begun":
        """With what the tiers have."""
        if isinstance(verdict, Hit):
            return _recorded(verdict, tier)
        _may_go_forward(wish.directives)
        if isinstance(verdict, Miss):
            return self._go_forward(wish, asked, verdict.reason)
        spare = _recorded(verdict, tier)
        try:
            return self._go_forward(wish, asked, Reason.STALE, spare)
        except SpeechError as error:
            return self._spared(spare, error)

    def instead(self, begun: "Begun", error: SpeechError) -> Recorded:
        """What is served because the flight gave nothing. SpeechError: nothing is."""
        return self._spared(begun.spare, error)

    def _spared(self, spare: Recorded | None, error: SpeechError) -> Recorded:
        if spare is None or isinstance(error, ClientError):
            raise error
        self.counters.stale_served += 1
        return msgspec.structs.replace(spare, forward_status=error.status)

    # Hits alone, for those who can't wait for anything else.

    def judged(self, asked: Asked, found: Recording) -> Recorded | None:
        """What memory has, if it is a hit. Counts nothing: what is none is asked for by `speak`."""
        verdict = self._verdict(asked, found)
        return _recorded(verdict, Tier.MEMORY) if isinstance(verdict, Hit) else None

    def fetch(self, key: Key, then: Then) -> bool:
        """Asks Redis; `then` is told what it has, later. False: there is nothing to wait for."""
        return self._tiers.shared and self._fills.flight(key) is None and self._ask(key, then)

    @property
    def shared(self) -> bool:
        """Whether there is a Redis to be asked."""
        return self._tiers.shared

    def fetched(self, asked: Asked, found: Recording | None) -> Verdict:
        """What is to be done with what `fetch` told."""
        return self._judge(asked, found)

    async def recorded(self, key: Key, namespace: str) -> Recorded | None:
        """A recording by its key, for whom it belongs to; never goes forward."""
        hit = self._owned(key, namespace, self._tiers.peek(key, self._clock.wall()), Tier.MEMORY)
        if hit is None and self._tiers.shared:
            hit = self._owned(key, namespace, await self._find_once(key), Tier.REDIS)
        return hit

    def fresh(self, asked: Asked, found: Recording) -> bool:
        """Whether this is a hit for what is asked."""
        return isinstance(self._verdict(asked, found), Hit)

    def _owned(self, key: Key, namespace: str, found: Recording | None, tier: Tier) -> Recorded | None:
        if found is None or found.namespace != namespace:
            return None
        if self._naming.key(namespace, found.canonical) != key:
            self.counters.mismatches += not self._naming.revised(found.canonical)
            return None
        verdict = self._judge(Asked(key, namespace, found.canonical), found)
        return _recorded(verdict, tier) if isinstance(verdict, Hit) else None

    async def probe(self, wish: Wish) -> Recorded | None:
        """What a HEAD learns: a hit or nothing; never goes forward. NodeError 504: the wish forbids that anyway."""
        if not (wish.directives.no_store or wish.directives.no_cache):
            asked = self.asked(wish)
            verdict, tier = self._judge(asked, self._tiers.peek(asked.key, self._clock.wall())), Tier.MEMORY
            if not isinstance(verdict, Hit) and wish.looked_for != asked.key and self._may_have(asked.key):
                verdict, tier = await self._found(asked)
            if isinstance(verdict, Hit):
                return _recorded(verdict, tier)
        _may_go_forward(wish.directives)
        return None

    async def explain(self, wish: Wish) -> Explanation:
        """Where the wish would be answered from, without any effect on what is kept."""
        asked = self.asked(wish)
        tier: Tier | None = Tier.MEMORY
        found = self._tiers.look(asked.key)
        if found is None:
            tier = Tier.REDIS
            found = await self._tiers.find(asked.key)
        verdict = self._verdict(asked, found)
        return Explanation(
            asked, verdict, tier if found is not None else None, self._fills.flight(asked.key) is not None
        )

    def _verdict(self, asked: Asked, found: Recording | None) -> Verdict:
        return judge(asked, found, self._freshness, self._clock.wall(), self.purges)

    def _judge(self, asked: Asked, found: Recording | None) -> Verdict:
        verdict = self._verdict(asked, found)
        if isinstance(verdict, Miss) and verdict.mismatch:
            self.counters.mismatches += 1
        return verdict

    async def _found(self, asked: Asked) -> tuple[Verdict, Tier]:
        """What Redis has, or else memory by now, if a fill ended meanwhile."""
        verdict = self._judge(asked, await self._find_once(asked.key))
        if not isinstance(verdict, Miss):
            return verdict, Tier.REDIS
        # Not `_judge`: a mismatch that memory has was counted when it was found.
        return self._verdict(asked, self._tiers.look(asked.key)), Tier.MEMORY

    def _may_have(self, key: Key) -> bool:
        """Whether Redis is worth asking: while speech is on its way, it isn't."""
        return self._tiers.shared and self._fills.flight(key) is None

    async def _find_once(self, key: Key) -> Recording | None:
        """Who is cancelled here leaves; the question goes on."""
        heard: asyncio.Future[Recording | None] = asyncio.get_running_loop().create_future()

        def told(found: Recording | Record | None) -> None:
            if not heard.done():
                heard.set_result(found.whole() if isinstance(found, Record) else found)

        return await heard if self._ask(key, told) else None

    def _ask(self, key: Key, then: Then) -> bool:
        """Redis is asked once for all who ask at the same time. False: it is not asked."""
        waiting = self._finding.get(key)
        if waiting is not None:
            waiting.append(then)
            return True
        self._finding[key] = [then]
        if not self._ask_tiers(key, partial(self._tell, key)):
            del self._finding[key]
            return False
        return True

    def _tell(self, key: Key, found: Recording | Record | None) -> None:
        for then in self._finding.pop(key):
            try:
                then(found)
            except Exception as error:  # the others wait too, and so does everyone whose reply comes next
                told = {"message": "what Redis has was not understood", "exception": error}
                asyncio.get_running_loop().call_exception_handler(told)

    def _go_forward(self, wish: Wish, asked: Asked, reason: Reason, spare: Recorded | None = None) -> "Begun":
        may_join = reason in (Reason.URI_MISS, Reason.STALE)
        flight = self._fills.join(asked.key, wish.priority) if may_join else None
        joined = flight is not None
        if flight is None:
            store = not wish.directives.no_store
            order = Order(asked, wish.utterance, wish.forwarding, store, wish.priority, may_join)
            flight = self._fills.lead(order, alone=not store)
        return Begun(flight, reason, joined, spare)


def _recorded(verdict: Hit | Stale, tier: Tier) -> Recorded:
    return Recorded(verdict.recording, verdict.age_s, verdict.ttl_s, tier)


def _may_go_forward(directives: Directives) -> None:
    if directives.only_if_cached:
        raise NodeError(504, "not_cached", "Not in the cache, and the request says only-if-cached (RFC 9111 §5.2.1.7).")
