"""How a connection goes over from redis-py to us: from its private side, so these fail when that changes."""

import asyncio
import gc
from collections.abc import Callable

import pytest
import uvloop

from edgecache.cache.recording import frame
from edgecache.clock import SystemClock
from edgecache.store.connections import Address, Unanswered, Wire
from edgecache.store.redis import RedisTier
from edgecache.store.tiers import RedisAccess
from tests.redis_server import RedisServer, ScriptedRedis, bulk, trusted_only_by_tests
from tests.redis_tier import NAMING, key_of, spoken, stored, tier, until

on_both_loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class Taking(asyncio.Protocol):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.taken = b""
        self.ended = False

    def data_received(self, data: bytes) -> None:
        self.taken += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True


async def connected(url: str, password: str | None = None) -> Wire:
    wire = Wire(Address(url, password).connection())
    await wire.connect(5.0)
    return wire


@pytest.mark.redis
@on_both_loops
def test_all_that_comes_after_the_takeover_is_ours_and_redis_py_lets_go(
    redis_server: RedisServer, loop_factory: LoopFactory
) -> None:
    """Password and database are redis-py's work, and are done."""

    async def take_over() -> None:
        redis_server.call("CONFIG", "SET", "requirepass", "swordfish")
        wire = await connected(f"{redis_server.url}?db=3", "swordfish")
        taking = Taking()
        writer = await wire.hand_over(taking)
        assert writer.transport.get_protocol() is taking
        del wire
        gc.collect()  # redis-py closes what it still holds, with a warning
        writer.transport.write(b"PING\r\nCLIENT LIST\r\n")
        await until(lambda: taking.taken.endswith(b"\n\r\n"))
        assert taking.taken.startswith(b"+PONG\r\n$")
        assert b" db=3 " in taking.taken
        assert not writer.transport.is_closing()
        writer.transport.abort()
        await until(lambda: taking.ended)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(take_over())


@on_both_loops
@pytest.mark.parametrize("early", [b"$1\r\na\r\n", b"$1\r", b"+"], ids=repr)
def test_what_had_come_before_the_takeover_is_noticed(early: bytes, loop_factory: LoopFactory) -> None:
    """In the same read as the reply to the password, and so in redis-py's buffers."""

    async def take_over() -> None:
        async def answer(_: list[bytes]) -> bytes:
            return b"+OK\r\n" + early

        async with ScriptedRedis(answer) as peer:
            wire = await connected(peer.url, "swordfish")
            with pytest.raises(Unanswered, match="out of step"):
                await wire.hand_over(Taking())

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(take_over())


@on_both_loops
def test_an_end_before_the_takeover_is_noticed(loop_factory: LoopFactory) -> None:
    async def take_over() -> None:
        async def answer(_: list[bytes]) -> bytes:
            return b"+OK\r\n"

        async with ScriptedRedis(answer) as peer:
            wire = await connected(peer.url, "swordfish")
        for _ in range(5):  # until the end has been read
            await asyncio.sleep(0)
        with pytest.raises(Unanswered):
            await wire.hand_over(Taking())

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(take_over())


@on_both_loops
def test_over_tls(loop_factory: LoopFactory) -> None:
    recording = spoken("hello", 300_000)

    async def ask() -> None:
        async def answer(command: list[bytes]) -> bytes:
            return b"+OK\r\n" if command[0] == b"AUTH" else bulk(frame(recording))

        async with ScriptedRedis(answer, tls=trusted_only_by_tests()) as peer:
            access = RedisAccess(budget_s=10.0, connect_timeout_s=10.0, password="swordfish")
            redis = RedisTier(access, NAMING, SystemClock(), peer.url)
            for _ in range(3):
                assert await asyncio.gather(*(redis.get(recording.key) for _ in range(10))) == [recording] * 10
            assert (peer.connections, redis.counters.hits) == (1, 30)
            await redis.close()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(ask())


def clients(server: RedisServer) -> int:
    """Who is connected, whoever asks here included."""
    listed: bytes = server.call("CLIENT", "LIST")
    return listed.count(b"\n")


@pytest.mark.redis
@on_both_loops
def test_nothing_is_left_after_close(redis_server: RedisServer, loop_factory: LoopFactory) -> None:
    """Neither a task nor a client of Redis's."""

    async def come_and_go() -> None:
        async with tier(redis_server.url) as redis:
            await stored(redis, spoken("hello"))
            assert await redis.get(key_of("hello")) is not None
            assert clients(redis_server) == 3
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await until(lambda: clients(redis_server) == 1)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(come_and_go())
