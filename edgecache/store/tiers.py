"""The stores in order, and how each is configured.

Keeps rules 6 and 7: memory answers at once or not at all; Redis is asked only then, and what it has is copied to memory
(backfill) for as long as it still may live. It does not know what a store is made of, nor whether what it found may be
served: `cache.lookup` judges that.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from edgecache.cache.key import Key
from edgecache.cache.lookup import Freshness
from edgecache.cache.purges import Kind, Purges
from edgecache.cache.record import Record
from edgecache.cache.recording import Facts, Recording
from edgecache.clock import Clock
from edgecache.fill.edge import Place, Then
from edgecache.option import option

if TYPE_CHECKING:
    import asyncio

#: How long `close` waits for what is still to be written to Redis.
FLUSH_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """The memory tier."""

    max_size_bytes: int = option(512 << 20, "How much audio memory may hold; 0 turns the tier off.", minimum=0)


@dataclass(frozen=True, slots=True)
class RedisAccess:
    """The region's shared tier. Never needed to speak: a fault costs at most `budget`."""

    url: str | None = option(
        None,
        "redis://, rediss:// or unix:// URL of the region's Redis. Absent: a private one if redis-server is installed. "
        '"off": memory alone.',
    )
    password: str | None = option(None, "Password, where the URL has none.", secret=True)
    budget_s: float = option(0.020, "How long a hit may wait for Redis before it counts as a miss.", minimum=0.001)
    write_timeout_s: float = option(1.0, "How long a write behind the answer may take.", minimum=0.01)
    connect_timeout_s: float = option(0.5, "How long connecting may take.", minimum=0.01)
    max_pending_bytes: int = option(
        64 << 20, "How much may wait to be written; more is dropped and counted.", minimum=0
    )
    breaker_failures: int = option(5, "Faults in a row after which Redis is left alone for a while.", minimum=1)
    breaker_open_s: float = option(1.0, "How long it is left alone before a single probe.", minimum=0.05)
    lease: Literal["auto", "on", "off"] = option(
        "auto",
        "Whether a key that several workers or nodes are asked for at once is synthesized once for all of them. auto: with "
        "several workers, or a Redis that others may share.",
    )
    lease_ttl_s: float = option(
        2.0, "How long who synthesizes may be silent before another takes over; renewed all the while.", minimum=0.2
    )
    private_max_memory_bytes: int = option(1 << 30, "maxmemory of the private Redis.", minimum=1 << 20)
    private_directory: str | None = option(
        None, "Where the private Redis has its socket and pid file. Absent: under the runtime directory."
    )


class Memory(Protocol):
    """The first tier: see `store.memory`."""

    max_size_bytes: int

    def get(self, key: Key, wall_now: float) -> Recording | None: ...
    def place(self, key: Key) -> Place | None: ...
    def heard(self, times: int) -> None: ...
    def look(self, key: Key, wall_now: float) -> Recording | None: ...
    def put(self, recording: Recording, expires_at: float, wall_now: float) -> bool: ...
    def discard(self, key: Key) -> bool: ...


class Shared(Protocol):
    """The second tier: see `store.redis`."""

    async def start(self) -> None: ...
    async def flush(self, timeout_s: float) -> bool: ...
    async def close(self) -> None: ...
    def ask_for(self, key: Key, then: Then) -> bool: ...
    def waiting(self, key: Key) -> Recording | None: ...
    def get(self, key: Key) -> "asyncio.Future[Recording | None]": ...
    def put(self, recording: Recording, lifetime_s: float) -> bool: ...
    def discard(self, key: Key) -> None: ...


class Tiers:
    """Memory, then Redis."""

    def __init__(
        self, memory: Memory, redis: Shared | None, freshness: Freshness, clock: Clock, purges: Purges | None = None
    ) -> None:
        self._memory = memory
        self._redis = redis
        self._freshness = freshness
        self._clock = clock
        self._purges = Purges() if purges is None else purges
        self._discards = 0
        #: What memory has; never suspends. Its own methods, with nothing in between: every hit comes by here.
        self.peek, self.place, self.heard = memory.get, memory.place, memory.heard
        #: Whether there is a tier beyond memory.
        self.shared = redis is not None
        #: Asks Redis; who asks is told what it has, or memory by then if that is newer, and without a memory is lent it.
        #: False: Redis is not asked.
        self.ask = redis.ask_for if redis is not None and not memory.max_size_bytes else self._ask_and_keep

    def __repr__(self) -> str:
        return f"<Tiers {self._memory!r}, {self._redis!r}>"

    async def start(self) -> None:
        """Begins to write behind."""
        if self._redis is not None:
            await self._redis.start()

    async def close(self) -> None:
        """Writes what still waits, within bounds, and lets go of Redis."""
        if self._redis is not None:
            await self._redis.flush(FLUSH_TIMEOUT_S)
            await self._redis.close()

    def look(self, key: Key) -> Recording | None:
        """What memory has, without any effect on what is kept or counted."""
        return self._memory.look(key, self._clock.wall())

    def _ask_and_keep(self, key: Key, then: Then) -> bool:
        """What Redis has is copied to memory."""
        if self._redis is None:
            raise RuntimeError("There is no tier beyond memory: see `shared`.")
        return self._redis.ask_for(key, partial(self._told, self._discards, then))

    def at_hand(self, key: Key) -> Recording | None:
        """What is still on its way to Redis."""
        found = None if self._redis is None else self._redis.waiting(key)
        return None if found is None else self._settle(found, self._discards)

    async def find(self, key: Key) -> Recording | None:
        """What Redis has, without any effect on what memory keeps."""
        return None if self._redis is None else await self._redis.get(key)

    def _told(self, discards: int, then: Then, found: Recording | Record | None) -> None:
        found = found.whole() if isinstance(found, Record) else found
        then(None if found is None else self._settle(found, discards))

    def _settle(self, found: Recording, discards: int) -> Recording:
        """Copies it to memory, unless it was purged, a newer one was kept meanwhile, or any discarded.

        discards: how many there had been when Redis was asked.
        """
        held = self.look(found.key)
        if held is not None and _newness(held.facts) >= _newness(found.facts):
            return held
        if discards == self._discards and self._purges.on(found) is not Kind.HARD:
            self._memory.put(found, self._expires_at(found), self._clock.wall())
        return found

    def keep(self, recording: Recording) -> None:
        """Memory now, Redis behind."""
        wall_now, expires_at = self._clock.wall(), self._expires_at(recording)
        self._memory.put(recording, expires_at, wall_now)
        if self._redis is not None:
            self._redis.put(recording, expires_at - wall_now)

    def remember(self, recording: Recording) -> None:
        """Memory alone: another process keeps it in Redis."""
        self._memory.put(recording, self._expires_at(recording), self._clock.wall())

    def discard(self, key: Key) -> None:
        """Gone from memory now, from Redis behind."""
        self._discards += 1
        self._memory.discard(key)
        if self._redis is not None:
            self._redis.discard(key)

    def _expires_at(self, recording: Recording) -> float:
        return recording.facts.made_at + self._freshness.lifetime_s


def _newness(facts: Facts) -> tuple[int, float]:
    """A rendering that was begun after a purge is newer than one before it, whatever the clocks of their nodes say."""
    return facts.after_purge, facts.made_at
