"""What is written to Redis behind the answer: bounded, in order, and a purge is not lost."""

import asyncio

import pytest

from edgecache.clock import SystemClock
from edgecache.store.redis import RedisTier
from edgecache.store.tiers import RedisAccess
from tests.redis_server import RedisServer, ScriptedRedis
from tests.redis_tier import FOREVER_S, NAMING, closed, key_of, spoken, stored, tier, until


@pytest.mark.redis
async def test_the_last_of_many_writes_and_discards_holds(redis_server: RedisServer) -> None:
    async with tier(redis_server.url) as redis:
        for n in range(100):
            redis.put(spoken("a", 1000 + n), FOREVER_S)
            redis.discard(key_of("b")) if n % 2 else redis.put(spoken("b"), FOREVER_S)
            if n % 7 == 0:
                await asyncio.sleep(0)
        await redis.flush(5.0)
        found = await redis.get(key_of("a"))
        assert found is not None
        assert len(found.audio) == 1099
        assert redis_server.call("EXISTS", NAMING.redis_key(key_of("b"))) == 0


@pytest.mark.redis
async def test_a_full_redis_takes_no_writes_and_goes_on_answering() -> None:
    server = RedisServer("--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
    try:
        server.start()
        async with tier(server.url) as redis:
            await stored(redis, spoken("first"))
            for n in range(4):
                redis.put(spoken(f"large {n}", 1_000_000), FOREVER_S)
            await redis.flush(5.0)
            status = redis.status()
            assert (status["failed_writes"], status["last_write_failure"]) != (0, "")
            assert "OOM" in str(status["last_write_failure"])
            assert await redis.get(key_of("first")) is not None
            assert closed(redis)
    finally:
        server.close()


async def test_what_waits_to_be_written_is_bounded() -> None:
    access = RedisAccess(max_pending_bytes=10_000)
    redis = RedisTier(access, NAMING, SystemClock(), "unix:///nowhere/at/all")
    taken = [redis.put(spoken(f"{n}", 2000), FOREVER_S) for n in range(10)]
    assert taken == [True] * 3 + [False] * 7
    assert redis.pending_bytes <= 10_000
    assert redis.status()["dropped_writes"] == 7
    redis.discard(key_of("0"))
    waiting = await redis.get(key_of("1"))
    assert waiting is not None  # what waits to be written is found already
    assert await redis.get(key_of("0")) is None
    await redis.close()
    assert redis.pending_bytes == 0


async def test_a_write_under_way_is_found_already() -> None:
    asked, let = asyncio.Event(), asyncio.Event()

    async def answer(_: list[bytes]) -> bytes:
        asked.set()
        await let.wait()
        return b"+OK\r\n"

    async with ScriptedRedis(answer) as peer, tier(peer.url) as redis:
        recording = spoken("hello")
        redis.put(recording, FOREVER_S)
        await asked.wait()
        assert await redis.get(recording.key) is recording
        let.set()
        assert await redis.flush(5.0)


async def test_a_discard_that_got_no_answer_is_tried_again() -> None:
    said: list[bytes] = []

    async def answer(command: list[bytes]) -> bytes | None:
        said.append(command[0])
        return b":1\r\n" if len(said) > 2 else None

    async with ScriptedRedis(answer) as peer, tier(peer.url) as redis:
        redis.discard(key_of("hello"))
        await until(lambda: bool(said))
        assert await redis.get(key_of("hello")) is None
        assert await redis.flush(5.0)
        assert said == [b"DEL"] * 3
        assert (redis.status()["failed_writes"], redis.pending_bytes) == (0, 0)


@pytest.mark.parametrize("lifetime_s", [0.0, -1.0])
async def test_what_has_no_time_left_is_not_written(lifetime_s: float) -> None:
    redis = RedisTier(RedisAccess(), NAMING, SystemClock(), "unix:///nowhere/at/all")
    assert not redis.put(spoken("hello"), lifetime_s)
    assert redis.pending_bytes == 0
