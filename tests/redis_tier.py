"""A RedisTier for tests, and recordings to put into it that say whose they are."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from edgecache.cache.key import Key, Naming
from edgecache.cache.recording import Facts, Recording, etag
from edgecache.clock import SystemClock
from edgecache.store.breaker import BreakerState
from edgecache.store.redis import RedisTier
from edgecache.store.tiers import RedisAccess

NAMING = Naming()
#: Not a figure of ours: it tells a hang (redis-py's own takes 4.8 s) from an answer on a machine under load.
HANG_S = 60.0
FOREVER_S = 3600.0


def key_of(name: str) -> Key:
    return NAMING.key("", name.encode())


def spoken(name: str, audio_bytes: int = 2000, made_at: float | None = None) -> Recording:
    """Audio that says whose it is."""
    audio = (name.encode() + b" ").ljust(audio_bytes, b"~")
    made = time.time() if made_at is None else made_at
    facts = Facts("audio/wav", "wav", 1000, 24_000, 1, made, 350.0, 200.0, "syd", etag(audio))
    return Recording(key_of(name), "", name.encode(), facts, audio)


@asynccontextmanager
async def tier(url: str, **access: float) -> AsyncIterator[RedisTier]:
    """A started tier. Its budget is generous where a test is not about time."""
    settled = RedisAccess(**({"budget_s": 1.5, "breaker_open_s": 0.05} | access))  # type: ignore[arg-type]  # by name
    made = RedisTier(settled, NAMING, SystemClock(), url)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


async def stored(redis: RedisTier, *recordings: Recording) -> None:
    for recording in recordings:
        assert redis.put(recording, FOREVER_S)
    assert await redis.flush(5.0)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG_S):
        while not true():
            await asyncio.sleep(0.005)


async def asked_quickly(redis: RedisTier, name: str) -> Recording | None:
    async with asyncio.timeout(HANG_S):
        return await redis.get(key_of(name))


def closed(redis: RedisTier) -> bool:
    return redis.state is BreakerState.CLOSED
