"""Redis as a tier: nothing it does, or fails to do, is an error or costs more than its budget."""

import asyncio
import socket
import time
from collections.abc import Callable

import pytest
import uvloop

from edgecache.clock import SystemClock
from edgecache.errors import SettingsError
from edgecache.store.breaker import BreakerState
from edgecache.store.redis import RedisTier
from edgecache.store.tiers import RedisAccess
from tests.redis_server import RedisServer
from tests.redis_tier import FOREVER_S, HANG_S, NAMING, asked_quickly, closed, key_of, spoken, stored, tier, until

# A healthy Redis.


@pytest.mark.redis
async def test_what_is_put_is_found_with_its_lifetime(redis_server: RedisServer) -> None:
    recording = spoken("hello", 200_000)
    async with tier(redis_server.url) as redis:
        await stored(redis, recording)
        assert await redis.get(recording.key) == recording
        assert await redis.get(key_of("other")) is None
        assert (redis.counters.hits, redis.counters.misses) == (1, 1)
    left_ms = redis_server.call("PTTL", NAMING.redis_key(recording.key))
    assert 0 < left_ms <= FOREVER_S * 1000


@pytest.mark.redis
async def test_a_discarded_recording_is_gone_at_once_and_then_from_redis(redis_server: RedisServer) -> None:
    recording = spoken("hello")
    async with tier(redis_server.url) as redis:
        await stored(redis, recording)
        redis.discard(recording.key)
        assert await redis.get(recording.key) is None
        await redis.flush(5.0)
        assert redis_server.call("EXISTS", NAMING.redis_key(recording.key)) == 0


@pytest.mark.redis
async def test_a_burst_does_not_open_the_breaker(redis_server: RedisServer) -> None:
    recording = spoken("hello", 100_000)
    async with tier(redis_server.url, budget_s=0.25, breaker_failures=2) as redis:
        await stored(redis, recording)
        found = await asyncio.gather(*[redis.get(recording.key) for _ in range(3000)])
        assert all(each is None or each == recording for each in found)
        assert redis.state is BreakerState.CLOSED


@pytest.mark.redis
async def test_a_thousand_questions_at_once_go_over_one_connection(redis_server: RedisServer) -> None:
    names = [f"utterance {n}" for n in range(50)]
    async with tier(redis_server.url, budget_s=10.0) as redis:
        await stored(redis, *[spoken(name, 100 * n) for n, name in enumerate(names)])
        before = redis_server.call("INFO")["total_connections_received"]
        found = await asyncio.gather(*[redis.get(key_of(names[n % 50])) for n in range(1000)])
        assert [each and each.canonical.decode() for each in found] == names * 20
        connections = redis_server.call("INFO")["total_connections_received"] - before
        assert connections == 2, "ours, and that of who asks here"


@pytest.mark.redis
async def test_a_question_is_sent_in_the_turn_in_which_it_is_asked_and_takes_no_task(redis_server: RedisServer) -> None:
    async with tier(redis_server.url) as redis:
        await stored(redis, spoken("hello"))
        assert await redis.get(key_of("hello")) is not None
        tasks = asyncio.all_tasks()
        asking = redis.get(key_of("hello"))
        assert asyncio.all_tasks() == tasks
        await asyncio.sleep(0)
        hits: int = redis_server.call("INFO", "stats")["keyspace_hits"]  # the loop stands still meanwhile
        assert hits == 2
        assert await asking is not None


@pytest.mark.redis
async def test_the_probe_tells_what_an_operator_wants_to_know(redis_server: RedisServer) -> None:
    redis_server.call("CONFIG", "SET", "maxmemory", "64mb")
    async with tier(redis_server.url) as redis:
        found = await redis.probe()
    assert found.fault is None
    assert found.version == redis_server.call("INFO", "server")["redis_version"]
    assert (found.max_memory_bytes, found.policy) == (64 << 20, "noeviction")
    assert found.pong_ms is not None
    assert found.pong_ms > 0


@pytest.mark.redis
async def test_no_secret_no_entry_and_no_error(redis_server: RedisServer) -> None:
    recording = spoken("hello")
    async with tier(redis_server.url, password="swordfish") as locked:  # type: ignore[arg-type]  # a word
        redis_server.call("CONFIG", "SET", "requirepass", "swordfish")
        await stored(locked, recording)
        assert await locked.get(recording.key) == recording
    async with tier(redis_server.url) as redis:
        assert await asked_quickly(redis, "hello") is None
        assert redis.counters.faults == 1
        assert "NOAUTH" in str((await redis.probe()).fault)


# A Redis that is down, dies, hangs or comes back.


async def test_down_at_start_is_a_miss_and_opens_the_breaker() -> None:
    changes: list[tuple[BreakerState, str]] = []
    access = RedisAccess(breaker_failures=3)
    redis = RedisTier(access, NAMING, SystemClock(), "unix:///nowhere/at/all", lambda *change: changes.append(change))
    await redis.start()
    for _ in range(5):
        assert await asked_quickly(redis, "hello") is None
    assert (redis.counters.faults, redis.counters.skipped) == (3, 2)
    assert redis.state is BreakerState.OPEN
    [(state, why)] = changes
    assert state is BreakerState.OPEN
    assert why.startswith("3 faults in a row; the last: not connected")
    assert "not connected" in str((await redis.probe()).fault)
    await redis.close()


@pytest.mark.redis
async def test_killed_and_started_again_is_noticed_both_times(redis_server: RedisServer) -> None:
    async with tier(redis_server.url, breaker_failures=2) as redis:
        await stored(redis, spoken("hello"))
        redis_server.kill()
        while closed(redis):
            assert await asked_quickly(redis, "hello") is None
        redis_server.start()
        await until(lambda: redis_server.call("PING") is True)
        while not closed(redis):
            assert await asked_quickly(redis, "hello") is None
            await asyncio.sleep(0.005)
        await stored(redis, spoken("hello"))
        assert await redis.get(key_of("hello")) is not None


@pytest.mark.redis
async def test_a_hung_redis_costs_the_budget_and_then_nothing(redis_server: RedisServer) -> None:
    async with tier(redis_server.url, budget_s=0.1, breaker_open_s=0.2, write_timeout_s=0.05) as redis:
        await stored(redis, spoken("hello"))
        assert await asked_quickly(redis, "hello") is not None
        redis_server.stop()
        redis.put(spoken("big", 4_000_000), FOREVER_S)
        while closed(redis):
            assert await asked_quickly(redis, "hello") is None
        assert redis.counters.timeouts == 5
        skipped = redis.counters.skipped
        for _ in range(50):
            assert await asked_quickly(redis, "hello") is None
        assert redis.counters.skipped >= skipped + 49  # one of them may be the probe
        redis_server.go_on()
        while not closed(redis):
            await redis.get(key_of("hello"))
            await asyncio.sleep(0.005)
        assert await redis.get(key_of("hello")) is not None


@pytest.mark.redis
@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_redis_is_not_blamed_for_our_being_late(
    redis_server: RedisServer, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """The loop stands still for longer than the budget, while the reply arrives."""

    async def stand_still() -> None:
        async with tier(redis_server.url, budget_s=0.2) as redis:
            await stored(redis, spoken("hello"))
            assert await redis.get(key_of("hello")) is not None
            here, there = socket.socketpair()
            with here, there:
                # Standing still as the sockets are read, after which uvloop looks at its timers first.
                asyncio.get_running_loop().add_reader(here, lambda: time.sleep(0.25) if here.recv(1) else None)
                redis_server.call("CLIENT", "PAUSE", 50)
                asking = redis.get(key_of("hello"))
                for _ in range(3):
                    await asyncio.sleep(0)
                there.send(b"!")
                found = await asking
                asyncio.get_running_loop().remove_reader(here)
            assert found is not None
            assert redis.counters.timeouts == 0

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(stand_still())


@pytest.mark.redis
async def test_close_ends_in_time_though_redis_hangs(redis_server: RedisServer) -> None:
    async with tier(redis_server.url, budget_s=30.0, write_timeout_s=30.0) as redis:
        await stored(redis, spoken("hello"))
        redis_server.stop()
        asking = redis.get(key_of("hello"))
        redis.put(spoken("big", 8_000_000), FOREVER_S)
        await asyncio.sleep(0)
        async with asyncio.timeout(HANG_S):
            await redis.close()
        assert await asking is None
        redis_server.go_on()


@pytest.mark.redis
async def test_idle_connections_that_were_killed_are_not_noticed(redis_server: RedisServer) -> None:
    async with tier(redis_server.url) as redis:
        await stored(redis, spoken("hello"))
        for _ in range(10):
            assert None not in await asyncio.gather(*[redis.get(key_of("hello")) for _ in range(8)])
            redis_server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await stored(redis, spoken("hello"))
        assert redis.counters.faults == redis.counters.timeouts == 0
        assert redis.status()["failed_writes"] == 0


@pytest.mark.redis
async def test_no_room_for_another_client_is_a_miss(redis_server: RedisServer) -> None:
    redis_server.call("CONFIG", "SET", "maxclients", "1")
    async with tier(redis_server.url) as first, tier(redis_server.url) as second:
        assert await first.get(key_of("hello")) is None
        assert (first.counters.misses, first.counters.faults) == (1, 0)
        assert await asked_quickly(second, "hello") is None
        assert (second.counters.misses, second.counters.faults) == (0, 1)


# A Redis that is full, or does not want to.


@pytest.mark.redis
async def test_a_replica_that_takes_no_writes_is_read_from(redis_server: RedisServer) -> None:
    async with tier(redis_server.url) as redis:
        await stored(redis, spoken("hello"))
        redis_server.call("CONFIG", "SET", "replica-serve-stale-data", "yes")
        redis_server.call("REPLICAOF", "127.0.0.1", "1")
        redis.put(spoken("new"), FOREVER_S)
        await redis.flush(5.0)
        assert "READONLY" in str(redis.status()["last_write_failure"])
        assert await redis.get(key_of("hello")) is not None
        redis_server.call("CONFIG", "SET", "replica-serve-stale-data", "no")
        assert await asked_quickly(redis, "hello") is None  # MASTERDOWN
        assert redis.counters.faults == 1


# The address.


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:6379",
        "127.0.0.1:6379",
        "redis://127.0.0.1:port/0",
        "redis://127.0.0.1/?no_such_option=1",
        "",
    ],
)
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(SettingsError, match=r"cache\.redis\.url"):
        RedisTier(RedisAccess(url=url), NAMING, SystemClock())
