"""Hits out of Redis in the fast lane: what is lent is never heard by anybody else, nor after it is gone."""

import asyncio
import socket
import struct
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from edgecache.delivery.limits import RequestLimits
from edgecache.node import Node
from edgecache.ops import log
from edgecache.ops.log import Logging
from tests.fake_clock import FakeClock
from tests.houses import cluster, settings, with_redis
from tests.redis_houses import written
from tests.redis_server import RedisServer
from tests.test_fastlane import BODY, Talk, answered, get, post, talk, talking

if TYPE_CHECKING:
    from edgecache.cache.status import Outcome

pytestmark = [pytest.mark.net, pytest.mark.redis]

LARGE = BODY.replace(b"4096", b"1500000")


def socket_of(line: Talk) -> Any:
    return line.writer.get_extra_info("socket")


async def in_redis(line: Talk, *requests: bytes) -> list[bytes]:
    """What is said in answer to these, by now out of Redis and the fast lane."""
    bodies = []
    for request in requests:
        while "detail=redis" not in (await line.ask(request)).cache:
            await asyncio.sleep(0.01)
        await written(line.node)  # until then it need not be asked for
        bodies.append((await line.known(request)).body)
    return bodies


async def test_rule_7_who_does_not_read_keeps_what_he_was_given_and_holds_nobody_up(redis_server: RedisServer) -> None:
    limits = RequestLimits(write_stall_s=20.0)
    async with talking(limits=limits, cache=with_redis(redis_server.url, memory_bytes=0, budget_s=15.0)) as line:
        others = [post(body=BODY.replace(b"before", b"%d" % n).replace(b"4096", b"200000")) for n in range(8)]
        large, *rest = await in_redis(line, post(body=LARGE), *others)
        async with talk(line.node) as slow:
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            before = answered(line.node)
            slow.writer.write(post(body=LARGE))
            while answered(line.node) == before:
                await asyncio.sleep(0.01)
            for _ in range(3):
                for request, body in zip(others, rest, strict=True):
                    assert (await line.ask(request)).body == body
            slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert (await slow.told()).body == large
            assert (await slow.ask(post(body=LARGE))).body == large


async def test_rule_1_many_at_once_are_each_told_their_own(redis_server: RedisServer) -> None:
    async with talking(cache=with_redis(redis_server.url, memory_bytes=0, budget_s=15.0)) as line:
        sizes = (2, 100, 5000, 70_000, 300_000)
        requests = [
            post(body=BODY.replace(b"before", b"%d" % n).replace(b"4096", b"%d" % (44 + sizes[n % 5])))
            for n in range(15)
        ]
        bodies = await in_redis(line, *requests)

        async def asks(first: int) -> None:
            async with talk(line.node) as other:
                for n in range(first, first + 30):
                    assert (await other.ask(requests[n * 7 % 15])).body == bodies[n * 7 % 15]

        before = answered(line.node)
        await asyncio.gather(*(asks(first) for first in range(12)))
        assert answered(line.node) > before + 300


async def test_who_leaves_while_redis_is_asked_takes_nobody_along(redis_server: RedisServer) -> None:
    async with talking(cache=with_redis(redis_server.url, memory_bytes=0, budget_s=15.0)) as line:
        [body] = await in_redis(line, post())
        async with talk(line.node) as other:
            redis_server.stop()
            other.writer.write(post())
            line.writer.write(post())
            while not all(each.busy for each in line.node._server.connections):  # type: ignore
                await asyncio.sleep(0.01)
            socket_of(other).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            other.writer.transport.abort()  # else it might still listen
            while len(line.node._server.connections) > 1:  # type: ignore[union-attr]
                await asyncio.sleep(0.01)
            redis_server.go_on()
        assert (await line.told()).body == body


async def test_conditions_are_met_out_of_redis_too(redis_server: RedisServer) -> None:
    async with talking(cache=with_redis(redis_server.url, memory_bytes=0, budget_s=15.0)) as line:
        where = b"/v1/tts?text=Said%20before"
        [body] = await in_redis(line, get(where))
        part = await line.known(get(where, b"Range: bytes=10-99"))
        assert (part.status, part.body) == (206, body[10:100])
        whole = await line.ask(get(where))
        told = await line.known(get(where, b"If-None-Match: " + whole.headers["ETag"].encode()))
        assert (told.status, told.body) == (304, b"")


async def test_a_damaged_record_is_no_hit_however_often_it_was_one(redis_server: RedisServer) -> None:
    async with talking(cache=with_redis(redis_server.url, memory_bytes=0, budget_s=15.0)) as line:
        await in_redis(line, post())
        [name] = redis_server.call("KEYS", "tts:*")
        redis_server.call("SETRANGE", name, "1000", "damaged")
        assert "fwd=uri-miss" in (await line.ask(post())).cache


async def test_access_log_and_status_tell_of_them(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[Outcome] = []
    monkeypatch.setattr(log, "access", outcomes.append)
    async with talking(
        log=Logging(access=True), cache=with_redis(redis_server.url, memory_bytes=0, budget_s=15.0)
    ) as line:
        [body] = await in_redis(line, post())
        outcomes.clear()
        await line.ask(post(b"X-Request-Id: mine"))
        [told] = outcomes
        assert (told.request_id, told.result.value, told.sent_bytes) == ("mine", "hit_redis", len(body))
        assert (told.status, told.whole, told.cluster) == (200, True, "c0")


async def test_age_goes_on_and_what_is_stale_is_served_if_no_cluster_answers(redis_server: RedisServer) -> None:
    clock = FakeClock(1000.25)
    cache = replace(with_redis(redis_server.url, memory_bytes=0, budget_s=15.0), ttl_s=100.0, stale_if_error_s=1000.0)
    async with cluster() as origin, AsyncExitStack() as stack:
        node = Node(settings(origin.url, cache=cache), clock)
        stack.push_async_callback(node.close)
        await node.start()
        line = await stack.enter_async_context(talk(node))
        [body] = await in_redis(line, post())
        for step_s in (0.5, 0.5, 7.0, 90.0):
            clock.advance(step_s)
            before = answered(line.node)
            told = await line.ask(post())
            assert (told.headers["Age"], told.body) == (str(int(clock.now - 1000.25)), body)
            assert f"; hit; ttl={int(1100.25 - clock.now)}; detail=redis" in told.cache
            assert answered(line.node) == before + 1
        await origin.close()
        clock.advance(10.0)
        told = await line.ask(post())
        assert "fwd=stale; fwd-status=" in told.cache
        assert told.body == body


async def test_what_is_still_to_be_written_is_a_hit_already(redis_server: RedisServer) -> None:
    cache = with_redis(redis_server.url, memory_bytes=0, budget_s=0.05, write_timeout_s=20.0, lease="off")
    async with talking(cache=cache) as line:
        redis_server.stop()
        try:
            first = await line.ask(post())
            assert "fwd=uri-miss" in first.cache
            await line.node.fills.drain()
            before = answered(line.node)
            for _ in range(3):
                told = await line.ask(post())
                assert "; hit; " in told.cache
                assert told.body == first.body
            assert answered(line.node) > before
        finally:
            redis_server.go_on()
