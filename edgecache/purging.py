"""Purges as one worker carries them out: what is asked for becomes orders that stand, here and in Redis, from now on.

An order is in force before anything is looked at: every look into memory or Redis and every fill is judged by it. What it
is about is then swept out of memory, a little at a time, so that its bytes are free and it can be told how much it was.
It does not know how operators ask, nor how many workers there are.
"""

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import msgspec

from edgecache.cache.key import Key
from edgecache.cache.purges import MAX_STANDING, Kind, Purge, Purges, Scope, matches
from edgecache.clock import Clock
from edgecache.delivery.auth import Gate
from edgecache.dialects import speeko
from edgecache.errors import SpeechError
from edgecache.fill.edge import Edge, Wish
from edgecache.fill.fills import Fills
from edgecache.fill.longform import all_of, sentence_wish
from edgecache.ops.daemon import Call, Told
from edgecache.settings import Settings
from edgecache.store.memory import MemoryTier
from edgecache.store.searching import Searching
from edgecache.store.standing import StandingPurges, horizon
from edgecache.store.tiers import Tiers

if TYPE_CHECKING:
    from edgecache.cache.recording import Recording

#: A sweep gives way when it has looked for so long; how long that is, is looked at once for so many recordings.
SLICE_S = 0.001
SLICE = 16
#: So long whoever purges waits to be told how much it was; the sweep goes on.
TELL_S = 1.0
#: So long Redis is searched in one call, which has to be answered in time.
SEARCH_S = 0.5
NO_REDIS: Told = {"cursor": "0", "recordings": 0, "found": 0, "fault": "off"}


@dataclass(slots=True)
class Found:
    """What in memory a purge is about. whole: all of it was looked at."""

    recordings: int = 0
    size_bytes: int = 0
    whole: bool = False

    def add(self, recording: "Recording") -> None:
        """One more."""
        self.recordings += 1
        self.size_bytes += recording.size_bytes

    def told(self) -> Told:
        """For the answer."""
        return {"recordings": self.recordings, "bytes": self.size_bytes, "whole": self.whole}


@dataclass(frozen=True, slots=True)
class Within:
    """Where purges are carried out."""

    memory: MemoryTier
    tiers: Tiers
    fills: Fills
    edge: Edge


class Purging:
    """Of one worker. given: purges that it was the one to be asked for, by scope and kind."""

    def __init__(self, settings: Settings, purges: Purges, clock: Clock, gate: Gate) -> None:
        self._lifetime_s = settings.cache.freshness.lifetime_s
        self._long_text = settings.long_text
        self._longest = max(settings.limits.text_characters, settings.long_text.max_characters)
        self._cache = settings.cache
        self._purges = purges
        self._clock = clock
        self._gate = gate
        self._within: Within | None = None
        self._sweeps: set[asyncio.Task[Found]] = set()
        self._counted: object = None
        self._searching: Searching | None = None
        self.standing: StandingPurges | None = None
        self.given: dict[tuple[Scope, Kind], int] = {}
        self.calls: Mapping[str, Call] = {
            "purge begin": self._begin,
            "purge": self._purge,
            "purge count": self._count,
            "purge search": self._search,
            "purge erase": self._erase,
        }

    def __repr__(self) -> str:
        return f"<Purging {self._purges!r}, {len(self._sweeps)} sweeps>"

    # Life.

    def connect(self, redis_url: str | None) -> None:
        """There is a Redis, in which others may purge too."""
        if redis_url is not None:
            self.standing = StandingPurges(redis_url, self._cache.redis, self._cache.key, self._purges, self._news)
            self._searching = Searching(redis_url, self._cache.redis, self._cache.key)

    async def start(self, memory: MemoryTier, tiers: Tiers, fills: Fills, edge: Edge) -> None:
        """Learns what stands, before anything is served."""
        self._within = Within(memory, tiers, fills, edge)
        self._prune()
        if self.standing is not None:
            await self.standing.start()

    async def close(self) -> None:
        """Hears no more."""
        if self.standing is not None and self._searching is not None:
            await self.standing.close()
            await self._searching.close()
        for task in self._sweeps:
            task.cancel()
        await asyncio.gather(*self._sweeps, return_exceptions=True)

    def status(self) -> Told:
        """For `/status`. redis: why it can't be asked; empty if it can."""
        return {"standing": len(self._purges), "redis": "off" if self.standing is None else self.standing.fault}

    # What the workers are asked.

    async def _begin(self, asked: Told) -> Told:
        """A serial that is larger than any known here or in Redis, room for so many more, and the keys of an utterance."""
        await asyncio.wait([asyncio.create_task(self._look(), name="look before a purge")], timeout=TELL_S)
        self._prune()
        try:
            keys = await self._keys(asked)
        except SpeechError as error:
            return {"refused": {"status": error.status, "code": error.code, "message": error.message}}
        serial = self._purges.serial(self._clock.wall())
        return {"pid": os.getpid(), "serial": serial, "room": MAX_STANDING - len(self._purges), "keys": keys}

    async def _purge(self, asked: Told) -> Told:
        """These purges are in force from now on. counted_by: the worker that counts them, once if it is asked twice."""
        given = _purges(asked)
        if asked.get("counted_by") == os.getpid() and asked["serial"] != self._counted:
            self._counted = asked["serial"]
            for purge in given:
                kind = purge.scope, purge.kind
                self.given[kind] = self.given.get(kind, 0) + 1
        sweep = self._take([purge for purge in given if self._purges.add(purge)] or given)
        looking = asyncio.create_task(self._look(), name="tell Redis of a purge")
        await asyncio.wait([sweep, looking], timeout=TELL_S)
        return {**self._told(sweep), "redis": looking.result() if looking.done() else "it has not answered yet"}

    async def _look(self) -> str:
        return "off" if self.standing is None else await self.standing.look()

    async def _count(self, asked: Told) -> Told:
        """What they would be about, without any effect."""
        given = _purges(asked)
        counting = self._swept(given, Found(), keep=True)
        in_redis = await self._counted_in_redis(given)
        await asyncio.wait([counting], timeout=TELL_S)
        return {**self._told(counting), "redis_keys": in_redis}

    async def _search(self, asked: Told) -> Told:
        """Some of the recordings in Redis, from this cursor on, and how many of them they would be about."""
        if self._searching is None:
            return NO_REDIS
        given = _purges(asked)

        def wanted(seen: "Recording") -> bool:
            falls = any(seen.facts.after_purge < each.serial and matches(each, seen) for each in given)
            return falls and self._purges.on(seen) is None

        return msgspec.structs.asdict(await self._searching.some(str(asked["cursor"]), wanted, SEARCH_S))

    async def _erase(self, asked: Told) -> Told:
        """Deletes some of what is gone out of Redis, from this cursor on; what it holds is looked at one by one."""
        if self._searching is None:
            return NO_REDIS
        await asyncio.wait([asyncio.create_task(self._look(), name="look before erasing")], timeout=TELL_S)

        def gone(seen: "Recording") -> bool:
            return self._purges.on(seen) is Kind.HARD

        return msgspec.structs.asdict(await self._searching.some(str(asked["cursor"]), gone, SEARCH_S, erase=True))

    def _told(self, sweep: "asyncio.Task[Found]") -> Told:
        within = self._where
        found = sweep.result() if sweep.done() and not sweep.cancelled() else Found()
        return {"pid": os.getpid(), "memory": found.told(), "fills": within.fills.purged_under_way}

    @property
    def _where(self) -> Within:
        assert self._within is not None, "not started"
        return self._within

    async def _keys(self, asked: Told) -> list[str]:
        """The key of an utterance; of a long text those of its sentences too."""
        body, query, namespace = asked.get("body"), asked.get("query"), asked.get("namespace")
        if isinstance(body, bytes):
            wanted = speeko.request(body, self._longest)
        elif isinstance(query, str):
            wanted = speeko.query_request(query, self._longest)
        else:
            return []
        assert isinstance(namespace, str | None)
        whole = Wish(wanted.utterance, self._gate.ring.whose(namespace))
        wishes, text = [whole], wanted.utterance.text
        if wanted.chunking == "sentence" or len(text) > self._long_text.from_characters:
            sentences = all_of(text, wanted.utterance.language, self._long_text.lengths)
            wishes += [sentence_wish(whole, each, now=False) async for each in sentences]
        return list(dict.fromkeys(self._where.edge.asked(wish).key for wish in wishes))

    async def _counted_in_redis(self, given: Sequence[Purge]) -> int | str | None:
        """How many of these keys it has; None: it can't be counted by anything else, as Redis is not searched."""
        if self.standing is None:
            return "off"
        if any(purge.scope is not Scope.KEY for purge in given):
            return None
        found = [await self._where.tiers.find(Key(purge.value)) for purge in given]
        return sum(each is not None and self._purges.on(each) is None for each in found)

    # Carrying them out.

    def _prune(self) -> None:
        """Forgets what can be about nothing any more. Nobody has to do it in time: what is too old is a miss anyhow."""
        self._purges.prune(horizon(self._clock, self._lifetime_s))

    def _news(self, purges: Sequence[Purge]) -> None:
        """Others purged."""
        self._prune()
        self._take(purges)

    def _take(self, purges: Sequence[Purge]) -> "asyncio.Task[Found]":
        """Begins to sweep out what they are about. By key there is nothing to look for."""
        found = Found()
        for purge in purges:
            if purge.scope is Scope.KEY:
                self._drop(purge, found)
        return self._swept([purge for purge in purges if purge.scope is not Scope.KEY], found, keep=False)

    def _drop(self, purge: Purge, found: Found) -> None:
        within, key = self._where, Key(purge.value)
        held = within.tiers.look(key)
        if held is not None and held.facts.after_purge < purge.serial:
            found.add(held)
            if purge.kind is Kind.HARD:
                within.memory.discard(key)
        if purge.kind is Kind.HARD and (held is None or held.facts.after_purge < purge.serial):
            within.tiers.discard(key)

    def _swept(self, purges: Sequence[Purge], found: Found, *, keep: bool) -> "asyncio.Task[Found]":
        task = asyncio.create_task(self._sweep(purges, found, keep=keep), name="sweep out what was purged")
        self._sweeps.add(task)
        task.add_done_callback(self._sweeps.discard)
        return task

    async def _sweep(self, purges: Sequence[Purge], found: Found, *, keep: bool) -> Found:
        """keep: only count."""
        memory = self._where.memory
        keys = memory.keys() if purges else []
        began_s = self._clock.monotonic()
        for at in range(0, len(keys), SLICE):
            for key in keys[at : at + SLICE]:
                held = memory.look(key, self._clock.wall())
                if held is None:
                    continue
                falls = [each for each in purges if held.facts.after_purge < each.serial and matches(each, held)]
                if not falls or (keep and self._purges.on(held) is not None):
                    continue
                found.add(held)
                if not keep and any(each.kind is Kind.HARD for each in falls):
                    memory.discard(key)
            if self._clock.monotonic() - began_s > SLICE_S:
                await asyncio.sleep(0)
                began_s = self._clock.monotonic()
        found.whole = True
        return found


def _purges(asked: Told) -> list[Purge]:
    rows = cast("Iterable[Mapping[str, Any]]", asked["purges"])
    serial = cast("int", asked["serial"])
    return [Purge(Scope(row["scope"]), str(row["value"]), Kind(row["kind"]), serial) for row in rows]
