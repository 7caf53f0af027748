"""What a connection costs comes late: nothing of it may be missing where it is needed, nor be left where it was not."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from edgecache.delivery.full import Full
from tests.test_fastlane import get, post, talk, talking
from tests.test_sheets import narrow

pytestmark = pytest.mark.net

#: Whoever closes a socket with this resets its connection.
RESET = b"\1\0\0\0\0\0\0\0"
HANDSHAKE = (
    *(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
ASKED = {
    "nothing": b"",
    "a hit": post(),
    "what aiohttp answers": get(b"/livez"),
    "two at once": get(b"/livez") * 2,
    "half a head": post()[:30],
    "no HTTP": b"\x16\x03\x01\x02\x00" * 9,
    "a session": get(b"/ws/tts/stream", *HANDSHAKE),
}


@asynccontextmanager
async def listened() -> AsyncIterator[list[dict[str, Any]]]:
    """What the event loop complains of."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    yield complaints


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
async def test_a_client_that_asks_and_is_gone_in_the_same_moment_leaves_nothing(asked: bytes) -> None:
    """Its bytes and its reset are both there before this edge has a turn."""
    async with talking() as line, listened() as complaints:
        await line.known(post())
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", line.node.port)) as gone:
                gone.sendall(asked)
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        async with talk(line.node) as last:  # they are taken over in order
            assert (await last.ask(post())).status == 200
        while line.node.status()["connections"] != 1:
            await asyncio.sleep(0)
        gc.collect()  # a task that failed says so when it is collected
        assert not complaints


async def test_a_connection_is_aiohttps_only_when_something_is_handed_on_to_it() -> None:
    def parts() -> int:
        return sum(isinstance(each, Full) for each in gc.get_objects())

    async with talking() as line:
        gc.collect()
        before = parts()
        hit = await line.known(post())
        assert parts() == before
        assert (await line.ask(get(b"/livez"))).status == 200
        assert parts() == before + 1
        assert (await line.ask(post())).body == hit.body
        assert parts() == before + 1


async def test_what_aiohttp_answers_waits_behind_a_hit_that_the_client_has_not_yet_taken() -> None:
    big = post(body=b'{"text":"Said at length","demo":{"bytes":%d}}' % (256 << 10))
    async with talking() as line, listened() as complaints:
        (ours,) = line.node._server.connections  # type: ignore[union-attr]
        narrow(line.writer.get_extra_info("socket").fileno(), socket.SO_RCVBUF, 64 << 10)
        known = await line.known(big)
        narrow(ours._fd, socket.SO_SNDBUF, 8 << 10)
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        line.writer.write(big)
        while not ours.writing_paused:
            await asyncio.sleep(0)
        line.writer.write(get(b"/livez"))
        while ours._full is None:
            await asyncio.sleep(0)
        line.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert (await line.told()).body == known.body
        assert (await line.told()).status == 200
        assert not complaints


async def test_what_is_handed_on_as_the_connection_is_lost_is_not_begun() -> None:
    """As when Redis has nothing, and says so in the turn in which the client resets its connection."""
    async with talking() as line, listened() as complaints:
        await line.known(post())
        (ours,) = line.node._server.connections  # type: ignore[union-attr]
        ours.transport.abort()  # type: ignore[union-attr]
        ours.data_received(get(b"/livez"))
        while line.node.status()["connections"]:
            await asyncio.sleep(0)
        gc.collect()
        assert not complaints
