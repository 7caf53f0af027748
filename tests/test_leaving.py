"""An edge that leaves: nobody who has asked, or is about to, is cut off, and nobody who only connects ahead keeps it."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from edgecache.delivery import connection
from edgecache.demo import tone
from edgecache.node import Node
from tests.daemon import HANG_S
from tests.houses import cluster, running, settings

pytestmark = pytest.mark.net

ASKED = b'{"text":"To the end","demo":{"bytes":30000}}'
HEAD = b"POST /v1/tts HTTP/1.1\r\nHost: edge\r\nContent-Length: %d\r\n\r\n" % len(ASKED)
CHUNKED = HEAD.replace(b"Content-Length: %d" % len(ASKED), b"Transfer-Encoding: chunked")
AUDIO = tone.audio({"text": "To the end", "demo": {"bytes": 30000}})
LIVE = b"GET /livez HTTP/1.1\r\nHost: edge\r\n\r\n"

#: What has come of a request when the edge begins to leave, and the rest of it.
PARTS = {
    "nothing": (b"", HEAD + ASKED),
    "half a head": (HEAD[:30], HEAD[30:] + ASKED),
    "its head": (HEAD, ASKED),
    "half its body": (HEAD + ASKED[:9], ASKED[9:]),
    "half its body in chunks": (
        CHUNKED + b"9\r\n" + ASKED[:9],
        b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(ASKED) - 9, ASKED[9:]),
    ),
    "half a head behind another": (LIVE + HEAD[:30], HEAD[30:] + ASKED),
}


class Client:
    """One connection to an edge."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def told(self) -> tuple[bytes, bytes]:
        """The head of an answer, and its body to the connection's end."""
        async with asyncio.timeout(HANG_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            return head, await self.reader.read()


class Leaving:
    """An edge, and clients of it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.clients: list[Client] = []

    async def client(self, sent: bytes = b"") -> Client:
        """One whose connection was taken over, and who has said this."""
        made = Client(*await asyncio.open_connection("127.0.0.1", self.node.port))
        self.clients.append(made)
        made.writer.write(sent)
        while self.node.status()["connections"] != len(self.clients):
            await asyncio.sleep(0)
        return made

    async def idle(self) -> Client:
        """One who was answered, and asks no more."""
        made = await self.client(LIVE)
        await made.reader.readuntil(b"}}")
        return made


@asynccontextmanager
async def leaving() -> AsyncIterator[Leaving]:
    async with cluster() as origin, running(settings(origin.url, drain_s=HANG_S)) as node:
        made = Leaving(node)
        try:
            yield made
        finally:
            for each in made.clients:
                each.writer.close()


@pytest.mark.parametrize("how", PARTS)
async def test_who_asks_when_the_edge_begins_to_leave_is_answered(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_REQUEST_S", HANG_S)
    sent, rest = PARTS[how]
    async with leaving() as it:
        idle, client = await it.idle(), await it.client(sent)
        if sent.startswith(LIVE):
            await client.reader.readuntil(b"}}")
        draining = asyncio.create_task(it.node.drain())
        async with asyncio.timeout(HANG_S):
            assert await idle.reader.read() == b"", "idle connections are closed at once"
        client.writer.write(rest)
        head, body = await client.told()
        await draining

    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close\r\n" in head
    assert body.count(AUDIO[:1000]) == 1
    assert body.endswith((AUDIO[-1000:], b"0\r\n\r\n"))


async def test_who_waits_in_the_socket_when_it_stops_listening_is_answered() -> None:
    async with leaving() as it:
        waiting = socket.create_connection(("127.0.0.1", it.node.port))
        waiting.sendall(HEAD + ASKED)
        draining = asyncio.create_task(it.node.drain())  # before the loop has seen that there is somebody
        it.clients.append(Client(*await asyncio.open_connection(sock=waiting)))
        assert (await it.clients[0].told())[0].startswith(b"HTTP/1.1 200 ")
        await draining


async def test_who_has_only_connected_ahead_does_not_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_REQUEST_S", 0.4)
    async with leaving() as it:
        client = await it.client()
        async with asyncio.timeout(HANG_S / 2):
            await it.node.drain()
            assert await client.reader.read() == b""


async def test_while_the_edge_stands_still_nobody_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_REQUEST_S", 0.4)
    monkeypatch.setattr(connection, "LEAST_S", 0.4)
    async with leaving() as it:
        client = await it.client()
        draining = asyncio.create_task(it.node.drain())
        while not it.node.readiness.draining:
            await asyncio.sleep(0)
        await asyncio.sleep(0.03)  # it waits
        time.sleep(0.6)  # noqa: ASYNC251 - that is the fault
        client.writer.write(HEAD + ASKED)
        assert (await client.told())[0].startswith(b"HTTP/1.1 200 ")
        await draining
