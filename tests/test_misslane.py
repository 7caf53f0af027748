"""The lane for misses, where its client is slow, and where it is bounded."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from edgecache.delivery.limits import FastLane, RequestLimits
from edgecache.delivery.miss import TRANSITIONS, Event, Miss, Stage
from edgecache.demo import tone
from edgecache.ops import log
from edgecache.ops.log import Logging
from tests.houses import PATIENT, House, house, running, settings
from tests.scripted_upstream import ScriptedUpstream, chunked, reset

if TYPE_CHECKING:
    from edgecache.cache.status import Outcome

pytestmark = pytest.mark.net

HANG_S = 20.0
#: More than lies in all buffers between an edge and a client that reads nothing.
LONG: dict[str, Any] = {"text": "long", "demo": {"bytes": 2_000_000}}
lanes = pytest.mark.parametrize("lanes", [True, False], ids=["own lanes", "aiohttp alone"])


@asynccontextmanager
async def slow_client(home: House) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client that takes little at once, and has asked."""
    for row in home.node._rows:
        for listening in row:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    made.setblocking(False)
    await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", home.node.port))
    reader, writer = await asyncio.open_connection(sock=made, limit=1024)
    try:
        body = json.dumps(LONG).encode()
        writer.write(b"POST /v1/tts HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        yield reader, writer
    finally:
        writer.transport.abort()


async def chunks(reader: asyncio.StreamReader) -> bytes:
    """A whole chunked body."""
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readexactly(2)
    return b"".join(parts)


def taken(home: House) -> int:
    assert home.node._server is not None
    return 0 if home.node._server.misses is None else home.node._server.misses.taken


@lanes
async def test_rule_4_who_reads_late_hears_all_and_keeps_nobody_waiting(lanes: bool) -> None:
    async with (
        asyncio.timeout(HANG_S),
        house(fast_lane=FastLane(enabled=lanes)) as home,
        slow_client(home) as (reader, writer),
    ):
        await home.origin.until(lambda counters: counters.syntheses == 1)
        while home.node.fills.under_way:  # it was led, or the cluster had not been asked
            await asyncio.sleep(0)
        assert b" 200 OK" in await reader.readuntil(b"\r\n\r\n")
        heard = await chunks(reader)
        assert len(heard) == 2_000_000
        assert tone.owner_mismatch(heard, LONG, whole=True) is None
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 OK" in await reader.readline(), "the connection goes on"
        assert taken(home) == lanes


@lanes
async def test_rule_7_who_reads_nothing_is_dropped(lanes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[Outcome] = []
    monkeypatch.setattr(log, "access", outcomes.append)
    changed: dict[str, Any] = {"limits": RequestLimits(write_stall_s=0.2), "log": Logging(access=True)}
    async with asyncio.timeout(HANG_S), house(fast_lane=FastLane(enabled=lanes), **changed) as home, slow_client(home):
        while not outcomes:
            await asyncio.sleep(0)
        [outcome] = outcomes
        assert (outcome.status, outcome.whole, outcome.error) == (200, False, "client_stalled")
        assert outcome.sent_bytes < 2_000_000
        assert not any(home.node.tally.under_way.values())
        assert not any(home.node.tally.streaming.values())
        assert taken(home) == lanes


async def test_rule_7_what_is_sent_meanwhile_is_bounded() -> None:
    """A client that asks and asks while it is told something is read no further than its bound."""
    async with asyncio.timeout(HANG_S), house(knobs={"stall_after_bytes": 8000}, timeouts=PATIENT) as home:
        reader, writer = await asyncio.open_connection("127.0.0.1", home.node.port)
        body = b'{"text":"hi"}'
        asks = b"POST /v1/tts HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        writer.write(asks)
        assert b" 200 OK" in await reader.readuntil(b"\r\n\r\n")
        assert home.node._server is not None
        [connection] = home.node._server.connections
        for _ in range(64):
            writer.write(asks * 1000)
            await asyncio.sleep(0)
        assert len(connection._held) < 1_000_000
        writer.transport.abort()


@pytest.mark.parametrize("stage", list(Stage))
def test_a_miss_that_is_over_stays_so(stage: Stage) -> None:
    assert ((stage, Event.DONE) in TRANSITIONS) == (stage is not Stage.OVER)
    assert all(after is not Stage.WAITING for after in TRANSITIONS.values())
    assert Miss.__slots__


async def test_rule_7_nothing_stays_of_clients_that_ask_and_are_gone() -> None:
    """Their places are free at once, so that there may be any number of them while one speech is waited for."""
    goes_on = asyncio.Event()
    async with (
        asyncio.timeout(HANG_S),
        ScriptedUpstream([goes_on, chunked(tone.audio({"text": "hi"}))]) as cluster,
        running(settings(cluster.url, timeouts=PATIENT)) as node,
    ):
        assert node._server is not None
        body = b'{"text":"hi"}'
        for number in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", node.port)
            writer.write(b"POST /v1/tts HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            while node.fills.led + node.fills.joined <= number:
                await asyncio.sleep(0)
            reset(writer)
            await node._server._empty.wait()
        assert (node.fills.led, node.fills.joined) == (1, 19)
        assert node._server.misses is not None
        assert node._server.misses.taken == 20
        [flight] = node.fills._tasks.values()
        assert flight.readers == 0
        assert not flight._listeners
        assert not any(node.tally.under_way.values())
        goes_on.set()
