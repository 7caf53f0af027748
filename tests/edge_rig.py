"""An edge over two dicts and scripted clusters, of which nothing may be left."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from edgecache.cache.key import Key, Naming
from edgecache.cache.lookup import Directives, Freshness
from edgecache.cache.recording import Facts, Recording, etag
from edgecache.fill.edge import Edge, Recorded, Speech, Then, Wish
from edgecache.fill.fills import Fills
from edgecache.fill.limits import FillLimits
from edgecache.speech.utterance import utterance
from tests.fake_clock import FakeClock
from tests.scripted_clusters import Barrier, Reply, ScriptedClusters

FRESHNESS = Freshness(ttl_s=100.0, stale_if_error_s=1000.0)
FRESH_S, STALE_S, GONE_S = 10.0, 500.0, 2000.0


@dataclass
class ScriptedTiers:
    """See `fill.edge.Tiers`. calls: what was asked, in order. barrier: waited at by every look into Redis."""

    shared: bool = True
    memory: dict[Key, Recording] = field(default_factory=dict)
    redis: dict[Key, Recording] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    barrier: Barrier | None = None
    looks: list[asyncio.Future[None]] = field(default_factory=list)

    def peek(self, key: Key, wall_now: float) -> Recording | None:
        self.calls.append("peek")
        return self.memory.get(key)

    def place(self, key: Key) -> None:
        """Nobody here asks so often."""

    def heard(self, times: int) -> None:
        raise AssertionError("nobody was given a place")

    def look(self, key: Key) -> Recording | None:
        self.calls.append("look")
        return self.memory.get(key)

    def ask(self, key: Key, then: Then) -> bool:
        self.calls.append("find")

        async def look() -> None:
            found = await self._found(key)
            if found is not None:
                self.memory[key] = found
            then(found)

        self.looks.append(asyncio.ensure_future(look()))
        return True

    def at_hand(self, key: Key) -> Recording | None:
        raise AssertionError("everything is asked for here")

    async def find(self, key: Key) -> Recording | None:
        self.calls.append("find without backfill")
        return await self._found(key)

    async def _found(self, key: Key) -> Recording | None:
        if self.barrier is not None:
            await self.barrier.passed()
        return self.redis.get(key)

    def keep(self, recording: Recording) -> None:
        self.memory[recording.key] = self.redis[recording.key] = recording


@dataclass
class Rig:
    edge: Edge
    tiers: ScriptedTiers
    fills: Fills
    clusters: ScriptedClusters
    clock: FakeClock

    def recording(self, wish: Wish, age_s: float = FRESH_S, audio: bytes = b"recorded") -> Recording:
        asked = self.edge.asked(wish)
        facts = Facts("audio/wav", "wav", 1000, 8000, 1, self.clock.wall() - age_s, 350.0, 200.0, "c9", etag(audio))
        return Recording(asked.key, asked.namespace, asked.canonical, facts, audio)

    def put(self, wish: Wish, *tiers: str, age_s: float = FRESH_S) -> Recording:
        made = self.recording(wish, age_s)
        for tier in tiers:
            getattr(self.tiers, tier)[made.key] = made
        return made


def wish(text: str = "Hello", directives: Directives | None = None, namespace: str = "default") -> Wish:
    return Wish(utterance({"text": text}), namespace, directives or Directives(), {"Via": "test"})


def built(*replies: Reply, shared: bool = True) -> Rig:
    clock, tiers = FakeClock(), ScriptedTiers(shared)
    clusters = ScriptedClusters(replies or (Reply(),), upstreams=1)
    fills = Fills(FillLimits(), clusters, tiers.keep, clock)
    return Rig(Edge(Naming(), FRESHNESS, tiers, fills, clock), tiers, fills, clusters, clock)


@asynccontextmanager
async def rig(*replies: Reply, shared: bool = True) -> AsyncIterator[Rig]:
    """An edge of which nothing is left in the end."""
    made = built(*replies, shared=shared)
    try:
        yield made
        await made.fills.drain()
        assert (made.fills.held_bytes, made.clusters.open) == (0, 0)
    finally:
        await made.fills.close()


async def heard(speech: Speech) -> bytes:
    return speech.recording.audio if isinstance(speech, Recorded) else await speech.flight.whole()
