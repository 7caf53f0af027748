"""Memory, then Redis: what is found further away is copied nearer, and a purge holds."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from edgecache.cache.key import Key
from edgecache.cache.lookup import Freshness
from edgecache.cache.purges import Kind, Purge, Purges, Scope
from edgecache.cache.record import Record
from edgecache.cache.recording import Recording
from edgecache.clock import SystemClock
from edgecache.store.memory import MemoryTier
from edgecache.store.redis import RedisTier
from edgecache.store.tiers import MemoryLimits, RedisAccess, Tiers
from tests.redis_server import RedisServer
from tests.redis_tier import NAMING, key_of, spoken


@asynccontextmanager
async def tiers(
    url: str, freshness: Freshness | None = None, purges: Purges | None = None
) -> AsyncIterator[tuple[Tiers, MemoryTier]]:
    memory = MemoryTier(MemoryLimits(8 << 20))
    redis = RedisTier(RedisAccess(budget_s=0.5), NAMING, SystemClock(), url)
    made = Tiers(memory, redis, freshness or Freshness(), SystemClock(), purges)
    await made.start()
    try:
        yield made, memory
    finally:
        await made.close()


def asked(of: Tiers, key: Key) -> asyncio.Future[Recording | None]:
    """What it is told, and can keep."""
    found: asyncio.Future[Recording | None] = asyncio.get_running_loop().create_future()
    assert of.ask(key, lambda told: found.set_result(told.whole() if isinstance(told, Record) else told))
    return found


@pytest.mark.redis
async def test_what_another_node_kept_is_found_and_copied_to_memory(redis_server: RedisServer) -> None:
    recording = spoken("hello", made_at=time.time() - 100)
    async with tiers(redis_server.url) as (first, _):
        first.keep(recording)
        assert first.peek(recording.key, time.time()) == recording
    async with tiers(redis_server.url, Freshness(150, 0)) as (second, memory):
        assert second.peek(recording.key, time.time()) is None
        assert await second.find(recording.key) == recording
        assert second.look(recording.key) is None
        assert await asked(second, recording.key) == recording
        assert second.peek(recording.key, time.time()) == recording
        assert memory.look(recording.key, time.time() + 60) is None  # it lives on for what is left of its lifetime


@pytest.mark.redis
async def test_what_is_discarded_while_redis_is_asked_does_not_come_back(redis_server: RedisServer) -> None:
    async with tiers(redis_server.url) as (first, memory):
        first.keep(spoken("hello"))
    async with tiers(redis_server.url) as (second, memory):
        finding = asked(second, key_of("hello"))
        second.discard(key_of("hello"))
        await finding
        assert len(memory) == 0
        assert await second.find(key_of("hello")) is None


@pytest.mark.redis
async def test_a_newer_rendering_is_not_replaced_by_an_older_one(redis_server: RedisServer) -> None:
    older, newer = spoken("hello", made_at=time.time() - 50), spoken("hello", 3000)
    async with tiers(redis_server.url) as (first, _):
        first.keep(older)
    async with tiers(redis_server.url) as (second, _):
        finding = asked(second, older.key)
        second.keep(newer)
        assert await finding == newer
        assert second.peek(newer.key, time.time()) == newer


async def test_memory_alone() -> None:
    alone = Tiers(MemoryTier(MemoryLimits()), None, Freshness(), SystemClock())
    await alone.start()
    recording = spoken("hello")
    alone.keep(recording)
    assert not alone.shared
    assert alone.peek(recording.key, time.time()) == recording
    assert await alone.find(key_of("other")) is None
    alone.discard(recording.key)
    assert alone.peek(recording.key, time.time()) is None
    await alone.close()


@pytest.mark.redis
async def test_what_was_purged_is_not_copied_to_memory(redis_server: RedisServer) -> None:
    recording = spoken("hello", made_at=time.time() - 100)
    purges = Purges()
    async with tiers(redis_server.url) as (first, _):
        first.keep(recording)
    async with tiers(redis_server.url, purges=purges) as (second, memory):
        purges.add(Purge(Scope.NAMESPACE, recording.namespace, Kind.HARD, 1))
        assert await asked(second, recording.key) == recording  # and then it is judged
        assert len(memory) == 0


@pytest.mark.redis
async def test_what_was_begun_after_a_purge_is_newer_whatever_the_clocks_say(redis_server: RedisServer) -> None:
    before = spoken("hello", made_at=time.time())
    after = replace(before, facts=replace(before.facts, made_at=time.time() - 100, after_purge=7))
    async with tiers(redis_server.url) as (another, _):
        another.keep(after)
    async with tiers(redis_server.url) as (here, memory):
        memory.put(before, time.time() + 1000, time.time())
        assert await asked(here, before.key) == after
        assert memory.look(before.key, time.time()) == after
