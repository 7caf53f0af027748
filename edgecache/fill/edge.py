"""The meeting point: an utterance goes in, speech comes out.

HTTP, and later SSE, WebSocket, long form, prefetch and warm-up, are all callers of `Edge.speak`; none has a second way to
the cache or to a cluster. Keeps rules 1, 4 and 6. It does not know how it was asked, nor how speech is delivered.

The same steps as in docs/architecture.md: name it; look in memory; look in Redis; join the flight for it or lead one.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import msgspec

from edgecache.cache.key import Key, Naming
from edgecache.cache.lookup import Asked, Directives, Freshness, Hit, Miss, Reason, Stale, Tier, Verdict, judge
from edgecache.cache.recording import Recording
from edgecache.clock import Clock
from edgecache.errors import ClientError, NodeError, SpeechError
from edgecache.fill.attempt import Order
from edgecache.fill.fills import Fills
from edgecache.fill.flight import Flight, Head
from edgecache.speech.utterance import Utterance


class Tiers(Protocol):
    """The stores in order."""

    def peek(self, key: Key) -> Recording | None: ...
    async def find(self, key: Key, *, backfill: bool = True) -> Recording | None: ...
    def look(self, key: Key) -> Recording | None: ...
    @property
    def shared(self) -> bool: ...


class Wish(msgspec.Struct, frozen=True):
    """What one client asks for."""

    utterance: Utterance
    namespace: str
    directives: Directives = Directives()
    forwarding: Mapping[str, str] = MappingProxyType({})


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


Speech = Recorded | Live


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would happen to a wish, and why; finding it out changes nothing."""

    asked: Asked
    verdict: Verdict
    tier: Tier | None
    under_way: bool


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
        self._finding: dict[Key, asyncio.Task[Recording | None]] = {}
        self.counters = Counters()

    def asked(self, wish: Wish) -> Asked:
        """The wish under its name."""
        canonical = wish.utterance.canonical
        return Asked(self._naming.key(wish.namespace, canonical), wish.namespace, canonical)

    async def speak(self, wish: Wish) -> Speech:
        """The speech that was wished for. SpeechError: there is none, and why."""
        asked = self.asked(wish)
        directives = wish.directives
        if directives.no_store:
            _may_go_forward(directives)
            return await self._live(wish, asked, Reason.BYPASS)
        if directives.no_cache:
            _may_go_forward(directives)
            return await self._live(wish, asked, Reason.REQUEST)
        verdict = self._judge(asked, self._tiers.peek(asked.key))
        if isinstance(verdict, Hit):
            return _recorded(verdict, Tier.MEMORY)
        return await self._beyond_memory(wish, asked, verdict)

    async def _beyond_memory(self, wish: Wish, asked: Asked, remembered: Verdict) -> Speech:
        verdict, tier = await self._find(asked, remembered)
        if isinstance(verdict, Hit):
            return _recorded(verdict, tier)
        _may_go_forward(wish.directives)
        reason = verdict.reason if isinstance(verdict, Miss) else Reason.STALE
        try:
            return await self._live(wish, asked, reason)
        except ClientError:
            raise
        except SpeechError as error:
            if not isinstance(verdict, Stale):
                raise
            self.counters.stale_served += 1
            return _recorded(verdict, tier, error.status)

    async def recorded(self, key: Key, namespace: str) -> Recorded | None:
        """A recording by its key, for whom it belongs to; never goes forward."""
        hit = self._owned(key, namespace, self._tiers.peek(key), Tier.MEMORY)
        if hit is None and self._tiers.shared:
            hit = self._owned(key, namespace, await self._find_once(key), Tier.REDIS)
        return hit

    def _owned(self, key: Key, namespace: str, found: Recording | None, tier: Tier) -> Recorded | None:
        if found is None or found.namespace != namespace:
            return None
        if self._naming.key(namespace, found.canonical) != key:
            self.counters.mismatches += 1
            return None
        verdict = self._judge(Asked(key, namespace, found.canonical), found)
        return _recorded(verdict, tier) if isinstance(verdict, Hit) else None

    async def probe(self, wish: Wish) -> Recorded | None:
        """What a HEAD learns: a hit or nothing; never goes forward. NodeError 504: the wish forbids that anyway."""
        if not (wish.directives.no_store or wish.directives.no_cache):
            asked = self.asked(wish)
            verdict, tier = await self._find(asked, self._judge(asked, self._tiers.peek(asked.key)))
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
            found = await self._tiers.find(asked.key, backfill=False)
        verdict = judge(asked, found, self._freshness, self._clock.wall())
        return Explanation(
            asked, verdict, tier if found is not None else None, self._fills.flight(asked.key) is not None
        )

    def _judge(self, asked: Asked, found: Recording | None) -> Verdict:
        verdict = judge(asked, found, self._freshness, self._clock.wall())
        if isinstance(verdict, Miss) and verdict.mismatch:
            self.counters.mismatches += 1
        return verdict

    async def _find(self, asked: Asked, remembered: Verdict) -> tuple[Verdict, Tier]:
        """Redis, unless memory will do or the speech is on its way; then memory again, for a fill that ended meanwhile."""
        if not self._tiers.shared or self._fills.flight(asked.key) is not None:
            return remembered, Tier.MEMORY
        if isinstance(remembered, Hit):
            return remembered, Tier.MEMORY
        verdict = self._judge(asked, await self._find_once(asked.key))
        if not isinstance(verdict, Miss):
            return verdict, Tier.REDIS
        # Not `_judge`: a mismatch that memory has was counted when it was found.
        return judge(asked, self._tiers.look(asked.key), self._freshness, self._clock.wall()), Tier.MEMORY

    async def _find_once(self, key: Key) -> Recording | None:
        """Redis is asked once for all who ask at the same time."""
        task = self._finding.get(key)
        if task is None:
            task = asyncio.create_task(self._tiers.find(key), name=f"find {key[:8]}")
            self._finding[key] = task
            task.add_done_callback(lambda _: self._finding.pop(key))
        return await asyncio.shield(task)

    async def _live(self, wish: Wish, asked: Asked, reason: Reason) -> Live:
        flight = self._fills.join(asked.key) if reason in (Reason.URI_MISS, Reason.STALE) else None
        joined = flight is not None
        if flight is None:
            store = not wish.directives.no_store
            order = Order(asked, wish.utterance, wish.forwarding, store)
            flight = self._fills.lead(order, alone=not store)
        with flight.reading():
            head = await flight.begun()
        return Live(flight, head, reason, joined)


def _recorded(verdict: Hit | Stale, tier: Tier, forward_status: int | None = None) -> Recorded:
    return Recorded(verdict.recording, verdict.age_s, verdict.ttl_s, tier, forward_status)


def _may_go_forward(directives: Directives) -> None:
    if directives.only_if_cached:
        raise NodeError(504, "not_cached", "Not in the cache, and the request says only-if-cached (RFC 9111 §5.2.1.7).")
