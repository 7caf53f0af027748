"""What Redis replies is checked before it is believed, and a late reply is nobody else's."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecache.cache.recording import BrokenRecord, frame, unframe
from edgecache.clock import SystemClock
from edgecache.store.breaker import BreakerState
from edgecache.store.redis import RedisTier
from edgecache.store.tiers import RedisAccess
from tests.redis_server import RedisServer, ScriptedRedis, bulk
from tests.redis_tier import FOREVER_S, HANG_S, NAMING, asked_quickly, key_of, spoken, stored, tier, until


@pytest.mark.redis
async def test_a_key_of_another_type_is_a_miss_and_can_be_filled_again(redis_server: RedisServer) -> None:
    where = NAMING.redis_key(key_of("hello"))
    redis_server.call("LPUSH", where, "not", "a", "recording")
    async with tier(redis_server.url) as redis:
        assert await redis.get(key_of("hello")) is None
        await redis.flush(5.0)
        assert redis_server.call("EXISTS", where) == 0
        assert redis.counters.broken_records == 1
        assert redis.state is BreakerState.CLOSED
        await stored(redis, spoken("hello"))
        assert await redis.get(key_of("hello")) is not None


WHOLE = frame(spoken("hello", made_at=1_000.0))


def flipped(at: int) -> bytes:
    return WHOLE[:at] + bytes([WHOLE[at] ^ 1]) + WHOLE[at + 1 :]


BROKEN = [
    pytest.param(b"", id="empty"),
    pytest.param(b"hello", id="too short"),
    pytest.param(WHOLE[:-1], id="cut by one"),
    pytest.param(WHOLE[: len(WHOLE) // 2], id="cut in half"),
    pytest.param(WHOLE + b"x", id="one too many"),
    pytest.param(flipped(0), id="magic"),
    pytest.param(flipped(4), id="version"),
    pytest.param(flipped(6), id="length of the namespace"),
    pytest.param(flipped(12), id="length of the utterance"),
    pytest.param(flipped(16), id="length of the facts"),
    pytest.param(flipped(24), id="length of the audio"),
    pytest.param(flipped(26), id="utterance"),
    pytest.param(flipped(40), id="facts"),
    pytest.param(flipped(len(WHOLE) // 2), id="audio"),
    pytest.param(flipped(len(WHOLE) - 1), id="checksum"),
]


@pytest.mark.redis
@pytest.mark.parametrize("value", BROKEN)
async def test_a_broken_value_is_a_miss_and_deleted(redis_server: RedisServer, value: bytes) -> None:
    where = NAMING.redis_key(key_of("hello"))
    redis_server.call("SET", where, value)
    async with tier(redis_server.url) as redis:
        assert await redis.get(key_of("hello")) is None
        await redis.flush(5.0)
        assert redis_server.call("EXISTS", where) == 0
        assert redis.counters.broken_records == 1
        assert redis.state is BreakerState.CLOSED


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
@settings(max_examples=200, deadline=None)
def test_no_changed_byte_is_believed(at: int, mask: int) -> None:
    with pytest.raises(BrokenRecord):
        unframe(key_of("hello"), WHOLE[:at] + bytes([WHOLE[at] ^ mask]) + WHOLE[at + 1 :])


@given(st.integers(0, len(WHOLE) - 1), st.binary(max_size=40))
@settings(max_examples=200, deadline=None)
def test_no_cut_or_mended_value_is_believed(length: int, more: bytes) -> None:
    if WHOLE[:length] + more == WHOLE:
        return
    with pytest.raises(BrokenRecord):
        unframe(key_of("hello"), WHOLE[:length] + more)


@pytest.mark.redis
@pytest.mark.parametrize("budget_s", [0.02, 10.0], ids=["in little time", "in much time"])
async def test_an_enormous_value_is_refused_within_the_budget(redis_server: RedisServer, budget_s: float) -> None:
    """It takes Redis longer than 20 ms to say how large it is; once it has, nothing of it is read."""
    where = NAMING.redis_key(key_of("hello"))
    redis_server.call("CONFIG", "SET", "proto-max-bulk-len", "512mb")
    redis_server.call("SETRANGE", where, 200 << 20, "x")
    async with tier(redis_server.url, budget_s=budget_s) as redis:
        assert await asked_quickly(redis, "hello") is None
        assert redis.counters.hits == 0
        if budget_s > 1:
            assert redis.counters.broken_records == 1
            await redis.flush(5.0)
            assert redis_server.call("EXISTS", where) == 0


async def test_a_recording_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecache.store.redis.MAX_VALUE_BYTES", len(WHOLE) - 1)
    async with ScriptedRedis(always(bulk(WHOLE))) as peer, tier(peer.url) as redis:
        assert await redis.get(key_of("hello")) is None
        assert redis.counters.broken_records == 1
        assert not redis.put(spoken("larger", len(WHOLE)), FOREVER_S)


# Replies that a script gives.

FIRST_OR_SECOND = {NAMING.redis_key(key_of(name)): name for name in ("first", "second")}


def always(reply: bytes | None) -> Callable[[list[bytes]], Awaitable[bytes | None]]:
    async def answer(_: list[bytes]) -> bytes | None:
        return reply

    return answer


@pytest.mark.parametrize(
    ("reply", "counter"),
    [
        pytest.param(b"-LOADING Redis is loading the dataset in memory\r\n", "faults", id="loading"),
        pytest.param(b"-MASTERDOWN Link with MASTER is down\r\n", "faults", id="master down"),
        pytest.param(b"-NOAUTH Authentication required.\r\n", "faults", id="not let in"),
        pytest.param(b"-NOPERM this user has no permissions\r\n", "faults", id="not allowed"),
        pytest.param(b"-ERR max number of clients reached\r\n", "faults", id="too many clients"),
        pytest.param(b"-BUSY Redis is busy running a script\r\n", "faults", id="busy"),
        pytest.param(b"-MOVED 3999 127.0.0.1:6381\r\n", "faults", id="moved"),
        pytest.param(b"-CLUSTERDOWN The cluster is down\r\n", "faults", id="cluster down"),
        pytest.param(b"-WRONGTYPE Operation against a key\r\n", "broken_records", id="another type"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", "faults", id="not Redis at all"),
        pytest.param(b"\x00\xff\x00\xff", "faults", id="noise"),
        pytest.param(None, "faults", id="closes"),
        pytest.param(b":1\r\n", "faults", id="a number"),
        pytest.param(b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", "faults", id="a list"),
        pytest.param(b"+OK\r\n", "faults", id="a word"),
        pytest.param(b"$-1\r\n", "misses", id="nothing"),
        pytest.param(b"$100000\r\nabc", "timeouts", id="never ends"),
        pytest.param(b"", "timeouts", id="silence"),
    ],
)
async def test_every_reply_ends_in_a_miss_and_its_counter(reply: bytes | None, counter: str) -> None:
    budget_s = 0.05 if counter == "timeouts" else 10.0
    async with ScriptedRedis(always(reply)) as peer, tier(peer.url, budget_s=budget_s) as redis:
        assert await redis.get(key_of("hello")) is None
        assert getattr(redis.counters, counter) == 1


async def test_a_late_reply_is_nobody_elses() -> None:
    """The first question's reply comes after its time, when a second question has been asked."""
    second_asked, first_answered = asyncio.Event(), asyncio.Event()

    async def answer(command: list[bytes]) -> bytes:
        where = command[1].decode()
        if where == NAMING.redis_key(key_of("first")):
            await second_asked.wait()
            first_answered.set()
            return bulk(frame(spoken("first")))
        second_asked.set()
        await first_answered.wait()
        return bulk(frame(spoken("second")))

    async with ScriptedRedis(answer) as peer, tier(peer.url, budget_s=0.3) as redis:
        assert await redis.get(key_of("first")) is None
        assert redis.counters.timeouts == 1
        found = await redis.get(key_of("second"))
        assert found is not None
        assert found.canonical == b"second"
        assert peer.connections == 2


async def test_a_connection_that_dies_when_it_is_used_again_is_not_noticed() -> None:
    """As behind a firewall that forgets idle connections: it seems alive until something is sent."""
    async with ScriptedRedis(always(bulk(WHOLE)), commands_each=1) as peer, tier(peer.url, budget_s=10.0) as redis:
        for _ in range(4):
            assert await redis.get(key_of("hello")) is not None
        assert (peer.connections, redis.counters.faults) == (4, 0)


async def test_a_question_goes_on_when_who_asked_has_left() -> None:
    """Its reply is read in its turn, counted, and dropped; the next one's is the next one's."""
    go_on = asyncio.Event()

    async def answer(command: list[bytes]) -> bytes:
        await go_on.wait()
        return bulk(frame(spoken(FIRST_OR_SECOND[command[1].decode()])))

    async with ScriptedRedis(answer) as peer, tier(peer.url, budget_s=10.0) as redis:
        leaving, staying = redis.get(key_of("first")), redis.get(key_of("second"))
        leaving.cancel()
        go_on.set()
        found = await staying
        assert found is not None
        assert found.canonical == b"second"
        assert (redis.counters.hits, peer.connections) == (2, 1)


NAMES = [f"utterance {n}" for n in range(12)]
NAME_OF = {NAMING.redis_key(key_of(name)): name for name in NAMES}


async def test_replies_that_come_in_crumbs_are_each_their_askers_own() -> None:
    async def answer(command: list[bytes]) -> bytes:
        return bulk(frame(spoken(NAME_OF[command[1].decode()], 200)))

    async with ScriptedRedis(answer, crumbs=True) as peer, tier(peer.url, budget_s=30.0) as redis:
        found = await asyncio.gather(*(redis.get(key_of(name)) for name in NAMES))
        assert [each and each.canonical.decode() for each in found] == NAMES
        assert peer.connections == 1


@pytest.mark.parametrize("cut", [0, 1, 5, 1000, -1], ids=lambda at: f"after {at} bytes of a reply")
@pytest.mark.parametrize("whole", [0, 1, 7])
async def test_a_cut_among_many_questions_costs_nobody_more_than_an_answer(whole: int, cut: int) -> None:
    """So many replies, a part of the next, and an end; then a Redis that works."""
    left = whole

    async def answer(command: list[bytes]) -> bytes | None:
        nonlocal left
        reply = bulk(frame(spoken(NAME_OF[command[1].decode()])))
        if peer.connections > 1:
            return reply
        left -= 1
        return reply if left >= 0 else reply[:cut] if left == -1 else None

    async with ScriptedRedis(answer) as peer, tier(peer.url, budget_s=10.0) as redis:
        found = await asyncio.gather(*(redis.get(key_of(name)) for name in NAMES))
        right = NAMES if whole else [None] * len(NAMES)  # it had never replied, so nobody is asked again
        assert [each and each.canonical.decode() for each in found] == right
        assert redis.counters.faults == (0 if whole else len(NAMES))
        last = await redis.get(key_of(NAMES[0]))
        assert last is not None
        assert (last.canonical.decode(), peer.connections) == (NAMES[0], 2)


async def test_a_reply_nobody_asked_for_is_nobodys() -> None:
    """A peer that answers twice: the connection is out of step, and not used again."""

    async def answer(command: list[bytes]) -> bytes:
        name = "first" if command[1].decode() == NAMING.redis_key(key_of("first")) else "second"
        return bulk(frame(spoken(name))) * 2

    async with ScriptedRedis(answer) as peer, tier(peer.url) as redis:
        for name in ("first", "second", "first"):
            found = await redis.get(key_of(name))
            assert found is not None
            assert found.canonical == name.encode()


async def test_a_connection_that_takes_longer_than_the_budget_comes_about_all_the_same() -> None:
    let_in = asyncio.Event()

    async def answer(command: list[bytes]) -> bytes:
        if command[0] == b"AUTH":
            await let_in.wait()
            return b"+OK\r\n"
        return bulk(frame(spoken("hello")))

    async with ScriptedRedis(answer) as peer:
        access = RedisAccess(budget_s=0.02, password="x", connect_timeout_s=5.0, breaker_failures=100)
        redis = RedisTier(access, NAMING, SystemClock(), peer.url)
        assert await redis.get(key_of("hello")) is None
        let_in.set()
        async with asyncio.timeout(HANG_S):
            while await redis.get(key_of("hello")) is None:
                pass
        assert peer.connections == 1
        await redis.close()


@pytest.mark.redis
@pytest.mark.parametrize("budget_s", [0.5, 0.002])
async def test_whoever_is_cancelled_nobody_gets_another_ones_recording(
    redis_server: RedisServer, budget_s: float
) -> None:
    chance = random.Random(7)
    names = [f"utterance {n}" for n in range(20)]
    async with tier(redis_server.url, budget_s=budget_s, breaker_failures=10_000, connect_timeout_s=5.0) as redis:
        await stored(redis, *[spoken(name, chance.randrange(100, 60_000)) for name in names])
        heard = 0

        async def ask(name: str) -> None:
            nonlocal heard
            found = await redis.get(key_of(name))
            if found is not None:
                assert found.canonical == name.encode()
                heard += 1

        for _ in range(60):
            asking = [asyncio.create_task(ask(chance.choice(names))) for _ in range(10)]
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            for task in chance.sample(asking, 5):
                task.cancel()
            for outcome in await asyncio.gather(*asking, return_exceptions=True):
                assert outcome is None or isinstance(outcome, asyncio.CancelledError)
        assert redis.counters.broken_records == 0
        assert heard > 0 or budget_s < 0.1
        await until(lambda: not redis._reads.asking)
