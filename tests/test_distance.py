"""Distance on one machine: bytes take their time, keep their order, and end as they were ended."""

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from edgecache.demo import tone
from edgecache.demo.distance import Relay, hang_up
from edgecache.demo.knobs import Knobs
from edgecache.demo.origin import Origin

pytestmark = pytest.mark.net

LONG = "A long story, told slowly. " * 20


async def test_distance_costs_a_handshake_and_then_a_round_trip() -> None:
    one_way_s = 0.025
    cluster = Origin(Knobs(voice="tone", distance_ms=one_way_s * 1000))
    await cluster.start()
    took_s = []
    async with aiohttp.ClientSession() as client:
        for _ in range(2):
            started_s = time.monotonic()
            async with client.post(f"{cluster.url}/v1/tts", json={"text": LONG}) as answer:
                first = await answer.content.readany()
                took_s.append(time.monotonic() - started_s)
                body = first + await answer.content.read()
            assert tone.owner_mismatch(body, {"text": LONG}) is None
    await cluster.close()

    assert took_s[0] >= 4 * one_way_s, "handshake and request"
    assert took_s[1] >= 2 * one_way_s, "the same connection again"


class Echo:
    """A server that sends back what it hears, and half-closes when its peer has."""

    def __init__(self) -> None:
        self.ended: asyncio.Queue[str] = asyncio.Queue()

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address: tuple[str, int] = self.server.sockets[0].getsockname()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
            self.ended.put_nowait("FIN")
        except ConnectionError:
            self.ended.put_nowait("reset")
        writer.close()

    async def close(self) -> None:
        self.server.close()
        await self.server.wait_closed()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    server = Echo()
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def relay(echo: Echo) -> AsyncIterator[Relay]:
    between = Relay(echo.address, 0.005)
    await between.start()
    yield between
    await between.close()


async def test_the_relay_keeps_order_and_content(relay: Relay, echo: Echo) -> None:
    sent = tone.audio({"text": "x", "format": "pcm", "demo": {"bytes": 12 << 20}})
    reader, writer = await asyncio.open_connection(relay.host, relay.port)

    async def speak() -> None:
        for start in range(0, len(sent), 100_001):
            writer.write(sent[start : start + 100_001])
            await writer.drain()
        writer.write_eof()

    speaking = asyncio.create_task(speak())
    heard = await reader.read()
    await speaking
    writer.close()
    await writer.wait_closed()

    assert heard == sent
    assert await echo.ended.get() == "FIN"


async def test_the_relay_passes_a_reset_on(relay: Relay, echo: Echo) -> None:
    reader, writer = await asyncio.open_connection(relay.host, relay.port)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"

    hang_up(writer.transport, reset=True)

    assert await echo.ended.get() == "reset"


async def test_the_relay_resets_when_nobody_is_there(echo: Echo, relay: Relay) -> None:
    await echo.close()
    reader, writer = await asyncio.open_connection(relay.host, relay.port)

    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    writer.close()
