"""The fast lane: what it answers, what it leaves to aiohttp, and that no memo leads past a check that time can change."""

import asyncio
import gc
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgecache.cache.key import Key
from edgecache.cache.purges import Kind, Purge, Scope
from edgecache.delivery import connection, fastlane
from edgecache.delivery.auth import Auth, new_key
from edgecache.delivery.limits import FastLane, RequestLimits
from edgecache.delivery.prepared import Prepared, prepare
from edgecache.node import Node
from edgecache.ops import log
from edgecache.ops.log import Logging
from tests.fake_clock import FakeClock
from tests.houses import cluster, house, keys_file, settings, with_redis
from tests.redis_server import RedisServer

pytestmark = pytest.mark.net

BODY = b'{"text":"Said before","demo":{"bytes":4096}}'


def post(*lines: bytes, body: bytes = BODY, target: bytes = b"/v1/tts") -> bytes:
    head = [b"POST " + target + b" HTTP/1.1", b"Host: edge", *lines, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def get(target: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"Host: edge", *lines]) + b"\r\n\r\n"


class Told:
    """One answer."""

    def __init__(self, head: bytes, body: bytes) -> None:
        start, *lines = head.decode().removesuffix("\r\n\r\n").split("\r\n")
        self.status = int(start.split(" ")[1])
        self.headers = dict(line.split(": ", 1) for line in lines)
        self.body = body

    @property
    def cache(self) -> str:
        return self.headers.get("Cache-Status", "")


class Talk:
    """One connection to an edge."""

    def __init__(self, node: Node, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.node, self.reader, self.writer = node, reader, writer

    async def told(self) -> Told:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
        if length is not None:
            return Told(head, await self.reader.readexactly(int(length[1])))
        body = b""
        while b"chunked" in head and (size := int((await self.reader.readline()).strip(), 16)):
            body += (await self.reader.readexactly(size + 2))[:-2]
        if b"chunked" in head:
            await self.reader.readexactly(2)
        return Told(head, body)

    async def ask(self, *requests: bytes) -> Told:
        """Sends each by itself; the answer to the last."""
        for request in requests:
            self.writer.write(request)
            told = await self.told()
        return told

    async def known(self, request: bytes) -> Told:
        """Asks until the fast lane answers."""
        for _ in range(5):
            before = answered(self.node)
            told = await self.ask(request)
            if answered(self.node) > before:
                return told
        raise AssertionError("the fast lane never answers this")


def answered(node: Node) -> int:
    lane = node.status()["fast_lane"]
    assert isinstance(lane, dict)
    return int(lane["answered"])


@asynccontextmanager
async def talk(node: Node) -> AsyncIterator[Talk]:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    try:
        async with asyncio.timeout(20):
            yield Talk(node, reader, writer)
    finally:
        writer.close()


@asynccontextmanager
async def talking(clock: FakeClock | None = None, **changed: Any) -> AsyncIterator[Talk]:
    """A cluster, an edge and a connection to it."""
    async with cluster() as origin:
        node = Node(settings(origin.url, **changed), clock)
        await node.start()
        try:
            async with talk(node) as made:
                yield made
        finally:
            await node.close()


# What it answers.

ALIKE: list[tuple[str, Callable[[int], bytes]]] = [
    ("same bytes", lambda n: post()),
    ("another trace", lambda n: post(b"traceparent: 00-%032x-%016x-01" % (n, n))),
    ("another request id", lambda n: post(b"X-Request-Id: r%d" % n)),
    ("other headers", lambda n: post(b"User-Agent: client/%d" % n, b"Accept: audio/wav")),
    ("stream", lambda n: post(target=b"/v1/tts/stream")),
    ("query", lambda n: get(b"/v1/tts?text=Said%20before")),
    ("range", lambda n: get(b"/v1/tts?text=Said%20before", b"Range: bytes=0-99")),
]


@pytest.mark.parametrize("request_of", [row[1] for row in ALIKE], ids=[row[0] for row in ALIKE])
async def test_what_was_a_hit_before_is_answered_at_once(request_of: Callable[[int], bytes]) -> None:
    async with talking() as line:
        await line.ask(request_of(0))
        slow = await line.ask(request_of(1))
        before = answered(line.node)
        for number in range(2, 8):
            fast = await line.ask(request_of(number))
            assert (fast.status, fast.body) == (slow.status, slow.body)
            assert fast.headers.keys() == slow.headers.keys()
            assert "; hit; ttl=86" in fast.cache
        assert answered(line.node) == before + 6


async def test_a_recording_by_its_key() -> None:
    async with talking() as line:
        where = (await line.ask(post(), post())).headers["Content-Location"].encode()
        whole = await line.known(get(where))
        etag = whole.headers["ETag"].encode()
        assert (await line.known(get(where, b"If-None-Match: " + etag))).status == 304
        part = await line.known(get(where, b"Range: bytes=10-19", b"If-Range: " + etag))
        assert (part.status, part.body) == (206, whole.body[10:20])
        beyond = await line.ask(get(where, b"Range: bytes=999999-"))
        assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(whole.body)}")


async def test_request_ids_are_echoed_or_made() -> None:
    async with talking() as line:
        await line.known(post())
        assert (await line.known(post(b"X-Request-Id: mine"))).headers["X-Request-Id"] == "mine"
        made = {(await line.ask(post())).headers["X-Request-Id"] for _ in range(5)}
        made |= {(await line.ask(post(b"X-Request-Id: not one"))).headers["X-Request-Id"] for _ in range(5)}
        assert len(made) == 10


async def test_head_and_body_sent_apart_are_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HOLD_S", 60.0)  # however slow this machine is
    async with talking() as line:
        await line.known(post())
        before, request = answered(line.node), post()
        for cut in (len(request) - 1, len(request) - len(BODY), len(request) - 5):
            line.writer.write(request[:cut])
            await asyncio.sleep(0.001)  # the head is read by itself
            assert (await line.ask(request[cut:])).status == 200
        assert answered(line.node) == before + 3


async def test_a_body_that_does_not_come_is_aiohttps_business() -> None:
    limits = RequestLimits(body_timeout_s=0.2)
    async with talking(limits=limits) as line:
        await line.known(post())
        told = await line.ask(post()[:-3])
        assert told.status == 408
        assert json.loads(told.body)["error"]["code"] == "body_too_slow"
        assert await line.reader.read() == b""


async def test_off_is_off() -> None:
    async with talking(fast_lane=FastLane(enabled=False)) as line:
        assert "; hit; " in (await line.ask(*[post()] * 5)).cache
        assert line.node.status()["fast_lane"] == "off"


async def test_without_a_memo_everything_is_still_answered() -> None:
    async with talking(fast_lane=FastLane(memo_bytes=0)) as line:
        assert "; hit; " in (await line.ask(*[post()] * 5)).cache


# What time can change.


async def test_rule_1_a_memo_is_never_another_utterances_audio() -> None:
    async with talking() as line:
        first = await line.known(post())
        other = await line.known(post(body=BODY.replace(b"Said", b"Sung")))
        assert other.body != first.body
        node, key = line.node, Key(first.headers["Content-Location"].rpartition("/")[2])
        lie = node._memory._places[Key(other.headers["Content-Location"].rpartition("/")[2])]
        # As if two utterances had one key: the hash finds, the comparison decides.
        place = node._memory._places[key]
        place.audio, place.rest = lie.audio, lie.rest
        told = await line.ask(post())
        assert (told.body, "; fwd=uri-miss; " in told.cache) == (first.body, True)
        assert node.status()["record_mismatches"] == 1


async def test_a_revoked_key_is_refused_from_the_next_request_on(tmp_path: Path) -> None:
    (key, line_of_key), (_, other) = new_key("ann"), new_key("bob")
    path = keys_file(tmp_path, line_of_key, other)
    async with talking(auth=Auth(str(path))) as line:
        request = post(b"X-API-Key: " + key.encode())
        assert (await line.known(request)).status == 200
        path.write_text(other + "\n")
        line.node.reload_keys()
        assert (await line.ask(request)).status == 401
        path.write_text(f"{line_of_key}\n{other}\n")
        line.node.reload_keys()
        async with talk(line.node) as again:
            assert (await again.known(request)).status == 200


async def test_a_key_that_moved_to_another_namespace_hears_nothing_of_the_old_one(tmp_path: Path) -> None:
    key, line_of_key = new_key("ann", "old")
    path = keys_file(tmp_path, line_of_key)
    async with talking(auth=Auth(str(path))) as line:
        request = post(b"Authorization: Bearer " + key.encode())
        await line.known(request)
        path.write_text(line_of_key.replace("=old", "=new") + "\n")
        line.node.reload_keys()
        assert "fwd=uri-miss" in (await line.ask(request)).cache


async def test_what_is_purged_is_asked_for_again() -> None:
    async with talking() as line:
        heard = await line.known(post())
        line.node.tiers.discard(Key(heard.headers["Content-Location"].rpartition("/")[2]))
        assert "fwd=uri-miss" in (await line.ask(post())).cache
        assert "; hit; " in (await line.known(post())).cache


async def test_a_new_take_is_heard_at_once() -> None:
    async with talking() as line:
        take = b'{"text":"Again","demo":{"bytes":4096,"take":true}}'
        first = await line.known(post(body=take))
        again = await line.ask(post(b"Cache-Control: no-cache", body=take))
        assert again.body != first.body
        assert (await line.known(post(body=take))).body == again.body


async def test_age_and_time_to_live_go_on_and_end() -> None:
    clock = FakeClock()
    async with talking(clock) as line:
        await line.known(post())
        clock.advance(7)
        told = await line.ask(post())
        assert (told.headers["Age"], told.headers["Date"]) == ("7", "Thu, 01 Jan 1970 00:16:47 GMT")
        assert "ttl=86393" in told.cache
        clock.advance(86393 - 0.5)
        told = await line.ask(post())
        assert (told.headers["Age"], "; hit; ttl=0; " in told.cache) == ("86399", True)
        before = answered(line.node)
        clock.advance(0.5)
        assert "fwd=stale" in (await line.ask(post())).cache
        assert answered(line.node) == before


async def test_a_new_second_costs_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """At every full second the heads of all recordings change: rendered anew they would hold up whoever asks then."""
    clock, rendered = FakeClock(), 0

    def counted(*how: Any) -> Prepared:
        nonlocal rendered
        rendered += 1
        return prepare(*how)

    monkeypatch.setattr(fastlane, "prepare", counted)
    async with talking(clock) as line:
        first = await line.known(post())
        for age_s in range(1, 6):
            clock.advance(1)
            told = await line.ask(post())
            assert (told.headers["Age"], f"ttl={86400 - age_s};" in told.cache) == (str(age_s), True)
            assert (told.headers["Date"] != first.headers["Date"], told.body) == (True, first.body)
        assert rendered == 1


async def test_a_hit_that_took_long_says_so_and_keeps_its_head() -> None:
    class Slow(FakeClock):
        """Time goes by whenever it is asked for."""

        step_s = 0.0

        def monotonic(self) -> float:
            self.now += self.step_s
            return self.now

    clock = Slow()
    async with talking(clock) as line:
        await line.known(post())
        clock.advance(0.5)  # in mid-second
        swift = await line.ask(*[post()] * 3)
        clock.step_s = 0.0071
        slow = await line.ask(post())
        clock.step_s = 0.0
        assert [each.headers["Server-Timing"].partition(", ")[0] for each in (swift, slow)] == [
            "cache;desc=memory;dur=0.00",
            "cache;desc=memory;dur=7.10",
        ]
        for name in {*swift.headers} - {"Server-Timing", "X-Request-Id"}:
            assert slow.headers[name] == swift.headers[name]
        assert slow.headers["X-Request-Id"] != swift.headers["X-Request-Id"]


@pytest.mark.parametrize("kind", ["hard", "soft"])
async def test_a_purge_is_heard_in_the_same_second_and_in_the_next(kind: str) -> None:
    clock = FakeClock()
    async with talking(clock) as line:
        for seconds in (0, 1):
            heard = await line.known(post())
            line.node.purges.add(Purge(Scope.ALL, "", Kind(kind), line.node.purges.newest + 1))
            clock.advance(seconds)
            told = await line.ask(post())
            assert "; hit; " not in told.cache
            assert told.body == heard.body


async def test_a_draining_edge_says_that_it_closes() -> None:
    async with talking() as line:
        await line.known(post())
        line.node.readiness.draining = True
        told = await line.ask(post())
        assert (told.headers["Connection"], "; hit; " in told.cache) == ("close", True)
        assert await line.reader.read() == b""


# Connections.


async def test_both_lanes_in_turn_on_one_connection() -> None:
    async with talking() as line:
        await line.known(post())
        for _ in range(3):
            before = answered(line.node)
            assert (await line.ask(post())).status == 200
            assert (await line.ask(get(b"/nothing"))).status == 404
            assert (await line.ask(post(b"Cache-Control: max-age=5"))).status == 200
            assert (await line.ask(post())).status == 200
            assert answered(line.node) == before + 2


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with talking() as line:
        await line.known(post())
        other = post(body=BODY.replace(b"Said", b"Sung"))
        line.writer.write(post(b"X-Request-Id: a") + other + get(b"/nothing") + post(b"X-Request-Id: b"))
        told = [await line.told() for _ in range(4)]
        assert [each.status for each in told] == [200, 200, 404, 200]
        assert [each.headers["X-Request-Id"] for each in (told[0], told[3])] == ["a", "b"]


async def test_rule_7_a_client_that_does_not_read_lets_nothing_grow() -> None:
    body = BODY.replace(b"4096", b"262144")
    async with talking(limits=RequestLimits(write_stall_s=0.5)) as line:
        await line.known(post(body=body))
        (connection,) = line.node._server.connections  # type: ignore[union-attr]
        transport = connection.transport
        assert transport is not None
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        highest = 0
        for _ in range(200):
            line.writer.write(post(body=body))
            await asyncio.sleep(0)
            highest = max(highest, transport.get_write_buffer_size())
        while connection.transport is not None:
            await asyncio.sleep(0.05)
            highest = max(highest, transport.get_write_buffer_size())
        assert highest < 512 << 10


async def test_a_connection_is_kept_while_it_is_used_and_closed_when_it_is_not() -> None:
    async with talking(limits=RequestLimits(keep_alive_s=2.0)) as line:
        await line.known(post())
        before = answered(line.node)
        for _ in range(6):
            await asyncio.sleep(0.5)
            await line.ask(post())
        assert answered(line.node) == before + 6
        assert await line.reader.read() == b""


async def test_a_half_closed_client_gets_its_hit() -> None:
    async with talking() as line:
        await line.known(post())
        line.writer.write(post())
        line.writer.write_eof()
        assert (await line.told()).status == 200
        assert await line.reader.read() == b""


async def test_hits_leave_nothing_for_the_collector() -> None:
    async with talking() as line:
        await line.known(post())
        gc.collect()
        gc.disable()
        try:
            before = answered(line.node)
            await line.ask(*[post()] * 300)
            assert answered(line.node) == before + 300
            assert gc.collect() < 30
        finally:
            gc.enable()


# Redis.


@pytest.mark.redis
async def test_a_hit_in_redis_is_answered_by_the_fast_lane(redis_server: RedisServer) -> None:
    async with talking(cache=with_redis(redis_server.url, memory_bytes=0, budget_s=2.0)) as line:
        first = await line.ask(post())
        while "detail=redis" not in (await line.ask(post())).cache:
            await asyncio.sleep(0.01)  # until it is written behind
        before = answered(line.node)
        told = [await line.known(post()) for _ in range(3)]
        assert all(each.body == first.body and "; hit; " in each.cache for each in told)
        line.writer.write(post(b"X-Request-Id: a") + post(b"X-Request-Id: b"))
        line.writer.write(post(b"X-Request-Id: c"))
        ids = [(await line.told()).headers["X-Request-Id"] for _ in range(3)]
        assert ids == ["a", "b", "c"]
        assert answered(line.node) > before


@pytest.mark.redis
async def test_what_redis_no_longer_has_is_asked_for_once_there_and_then_of_a_cluster(
    redis_server: RedisServer,
) -> None:
    async with talking(cache=with_redis(redis_server.url, memory_bytes=0, budget_s=2.0, lease="off")) as line:
        while "detail=redis" not in (await line.ask(post())).cache:
            await asyncio.sleep(0.01)
        await line.known(post())
        redis_server.call("FLUSHALL")
        redis_server.call("CONFIG", "RESETSTAT")
        assert "fwd=uri-miss" in (await line.ask(post())).cache
        assert redis_server.call("INFO", "commandstats")["cmdstat_get"]["calls"] == 1


async def test_connections_share_what_is_remembered() -> None:
    async with house() as home, talk(home.node) as one, talk(home.node) as two:
        await one.known(post())
        before = answered(home.node)
        told = await asyncio.gather(*[line.ask(*[post()] * 10) for line in (one, two)])
        assert told[0].body == told[1].body
        assert answered(home.node) == before + 20


async def test_a_client_that_is_faster_than_aiohttp_is_answered_by_the_fast_lane(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the end of an answer to waiting for the next request aiohttp takes a turn of the loop.

    A client that asked sooner used to stay in its lane, and under load all of them did.
    """
    ended: list[Callable[[], None]] = []
    monkeypatch.setattr(log, "access", lambda outcome: ended.pop()() if outcome.route == "/livez" else None)
    async with talking(log=Logging(access=True)) as line:
        await line.known(post())
        server, before = line.node._server, answered(line.node)
        assert server is not None
        (served,) = server.connections
        ended.append(lambda: served.data_received(post()))
        assert (await line.ask(get(b"/livez"))).status == 200
        assert "; hit; " in (await line.told()).cache
        assert answered(line.node) == before + 1


async def test_a_client_that_says_no_more_is_told_all_that_it_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The turns between the end of one answer and the beginning of the next used to be taken for the end of all."""
    monkeypatch.setattr(connection, "BEGIN_S", 0.0)
    large = post(body=b'{"text":"Large","demo":{"bytes":300000}}')
    async with talking() as line:
        first = [await line.ask(large), await line.ask(post())]
        line.writer.write((large + post()) * 2)
        line.writer.write_eof()
        told = [await line.told() for _ in range(4)]
        assert [each.body for each in told] == [each.body for each in first] * 2
        assert await line.reader.read() == b""


TRACED = b"\r\ntraceparent: 00-%032x-%016x-01" % (7, 7)
MISPLACED = [
    pytest.param(post().replace(b"\r\n\r\n", b"\r\n" + TRACED + b"\r\n"), [400], id="right behind the head"),
    pytest.param(post().replace(b'","demo', b'",' + TRACED + b"\r\n" + b'"demo'), [400], id="in the body"),
    pytest.param(post() + TRACED + b"\r\n\r\n", [200, 400], id="behind the body"),
]


@pytest.mark.parametrize(("misread", "due"), MISPLACED)
async def test_only_a_line_of_the_head_is_set_aside_as_a_trace(misread: bytes, due: list[int]) -> None:
    async with talking() as line:
        await line.known(post(b"traceparent: 00-%032x-%016x-01" % (1, 1)))
        await line.known(post(b"traceparent: 00-%032x-%016x-01" % (2, 2)))
        before = answered(line.node)
        line.writer.write(misread)
        assert [(await line.told()).status for _ in due] == due
        assert answered(line.node) == before, "aiohttp is to read it"
