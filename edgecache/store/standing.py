"""The purges that stand, kept in Redis too: how all nodes that share one come to know the same.

Keeps rule 6: nothing waits for it but who purges, and that for a bounded time; what Redis says is checked before it is
believed; when Redis is gone each node keeps to what it knows, and tells it when Redis is back. One hash has a field for
each purge, and one more, which is another whenever anything was written. That one is read several times a second, and the
rest only if it changed: a subscription would be no sooner than is asked for, and could die without a word. What Redis has
lost (flushed, evicted) whoever knows it writes again. It does not know what a purge is about.
"""

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress

from edgecache.cache.key import Naming
from edgecache.cache.purges import MAX_STANDING, MICROSECONDS, Purge, Purges, read
from edgecache.clock import Clock
from edgecache.store.connections import Address, Argument, Connections, Refusal, Reply, Unanswered
from edgecache.store.tiers import RedisAccess

#: Between two looks: what is purged elsewhere is known here after this, a round trip, and what the loop is late.
EVERY_S = 0.25
#: One question to Redis; nobody who asks for speech waits for it.
ANSWER_S = 1.0
#: Past the lifetime of what it is about a purge stands so much longer: by so much may clocks of nodes differ.
GRACE_S = 3600.0
#: More fields are no list of ours: nodes refuse to purge at half of it.
MAX_FIELDS = 2 * MAX_STANDING
_CHANGE = "change"
#: So often nothing has changed: all is read.
_NOTHING = -1


class StandingPurges:
    """Of one node. on_news: called when a purge came from elsewhere."""

    def __init__(
        self, url: str, access: RedisAccess, naming: Naming, purges: Purges, on_news: Callable[[list[Purge]], None]
    ) -> None:
        self._where = naming.prefix + "purges"
        self._purges = purges
        self._on_news = on_news
        self._connections = Connections(Address(url, access.password), 1, access.connect_timeout_s)
        self._seen: bytes | None = None
        #: How often the purges known here had changed when Redis was told of them.
        self._told = _NOTHING
        self._one_at_a_time = asyncio.Lock()
        self._looks: set[asyncio.Task[str]] = set()
        self._wake = asyncio.Event()
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        #: Why Redis did not answer the last time; empty if it did.
        self.fault = "not asked yet"

    def __repr__(self) -> str:
        return f"<StandingPurges {self._where} {self.fault or 'known'}>"

    async def start(self) -> None:
        """Learns what stands, if Redis says so in time, and keeps knowing it."""
        await self.look()
        self._task = asyncio.create_task(self._keep_looking(), name="look for purges in Redis")

    async def close(self) -> None:
        """Looks no more."""
        self._closed = True
        self._wake.set()
        await self._connections.close()
        await asyncio.gather(*filter(None, (self._task,)), *self._looks)

    async def look(self) -> str:
        """Learns what others purged, and tells Redis what it does not know. Why not, if not; nothing is lost then."""
        looking = asyncio.create_task(self._look_once(), name="look for purges")
        self._looks.add(looking)
        looking.add_done_callback(self._looks.discard)
        return await asyncio.shield(looking)  # who asked may leave; questions to Redis are not cancelled

    async def _look_once(self) -> str:
        async with self._one_at_a_time:
            try:
                await self._look()
            except (Unanswered, Refusal) as fault:
                self.fault = str(fault)
            else:
                self.fault = ""
            return self.fault

    async def _keep_looking(self) -> None:
        while not self._closed:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), EVERY_S)
            if not self._closed:
                await self.look()

    async def _look(self) -> None:
        change = await self._ask("HGET", self._where, _CHANGE)
        change = change if isinstance(change, bytes) else None
        if change == self._seen and self._told == self._purges.changes:
            return
        listed = await self._listed()
        news = [purge for purge in listed.values() if self._purges.add(purge)]
        told = self._purges.changes
        wrote = await self._repair(listed)
        # What was read is at least as new as this. What we wrote is read once more, with what others wrote meanwhile.
        self._seen, self._told = change, _NOTHING if wrote else told
        if news:
            self._on_news(news)

    async def _listed(self) -> dict[str, Purge]:
        count = await self._ask("HLEN", self._where)
        if not isinstance(count, int) or count > MAX_FIELDS:
            raise Unanswered("its list of purges is too long to be one")
        told = await self._ask("HGETALL", self._where)
        fields = told if isinstance(told, list) else []
        found: dict[str, Purge] = {}
        for name, serial in zip(fields[::2], fields[1::2], strict=False):
            purge = read(_text(name), _text(serial))
            if purge is not None:
                found[purge.name] = purge
        return found

    async def _repair(self, listed: dict[str, Purge]) -> bool:
        """Redis is told what it lacks, and what no longer stands is taken out. Whether there was anything."""
        ours = {purge.name: purge for purge in self._purges}
        lacking = [each for name, each in ours.items() if name not in listed or listed[name].serial < each.serial]
        if lacking:
            fields = [part for each in lacking for part in (each.name, str(each.serial))]
            await self._ask("HSET", self._where, _CHANGE, secrets.token_hex(8), *fields)
        over = [name for name, each in listed.items() if name not in ours and self._is_over(each)]
        if over:
            await self._ask("HDEL", self._where, *over)
            # Somebody may have purged the same just now: everyone looks again, and whose purge is missing repeats it.
            await self._ask("HSET", self._where, _CHANGE, secrets.token_hex(8))
        return bool(lacking or over)

    def _is_over(self, purge: Purge) -> bool:
        """Whether no node may still think that it stands: a larger one says as much, or all clocks agree on its age."""
        floor = self._purges.floor
        return purge.serial >= floor or purge.serial < floor - int(GRACE_S * MICROSECONDS)

    async def _ask(self, *command: Argument) -> Reply:
        return await self._connections.ask(command, ANSWER_S)


def horizon(clock: Clock, lifetime_s: float) -> int:
    """Purges with a smaller serial are about nothing that could still be kept anywhere."""
    return int((clock.wall() - lifetime_s - GRACE_S) * MICROSECONDS)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""
