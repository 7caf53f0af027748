"""The streaming path: what a cluster says leaves for its listeners as it arrives, alone, and on sockets that do not wait."""

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgecache.cache.key import Key
from edgecache.demo import tone
from edgecache.fill.flight import Flight, Head
from tests.houses import house, running, settings
from tests.scripted_upstream import ScriptedUpstream, chunk, head

ASKED = {"text": "Every piece by itself", "format": "wav"}
STREAMED = head("200 OK", "Content-Type: audio/wav", "Transfer-Encoding: chunked")
HANG_S = 60.0


class Listener:
    """A client of bare sockets, who reads a chunked answer as it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def asking(cls, port: int) -> "Listener":
        listener = cls(*await asyncio.open_connection("127.0.0.1", port))
        body = json.dumps(ASKED).encode()
        listener._writer.write(b"POST /v1/tts HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        return listener

    async def begun(self) -> bytes:
        return await self._reader.readuntil(b"\r\n\r\n")

    async def piece(self) -> bytes:
        """The next chunk; empty: it was the last."""
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        return (await self._reader.readexactly(size + 2))[:-2]

    def close(self) -> None:
        self._writer.close()


@pytest.mark.net
@pytest.mark.parametrize("size", [64, 1000, 4096])
async def test_each_piece_is_heard_before_the_cluster_says_the_next(size: int) -> None:
    """The cluster goes on only when the last of its listeners has what it said so far: anything held back would stop it."""
    audio = tone.audio(ASKED)[: 20 * size + 44]
    pieces = [audio[at : at + size] for at in range(0, len(audio), size)]
    heard = [asyncio.Event() for _ in pieces]
    script = [STREAMED, *(step for piece, event in zip(pieces, heard, strict=True) for step in (chunk(piece), event))]
    async with (
        asyncio.timeout(HANG_S),
        ScriptedUpstream([*script, chunk(b"")]) as peer,
        running(settings(peer.url)) as node,
    ):
        listeners = [await Listener.asking(node.port) for _ in range(3)]
        for listener in listeners:
            assert b" 200 OK" in await listener.begun()
        for piece, event in zip(pieces, heard, strict=True):
            assert [await listener.piece() for listener in listeners] == [piece] * 3
            event.set()
        for listener in listeners:
            listener.close()


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_reader_has_what_was_said_within_a_turn_of_the_loop() -> None:
    flight, heard = Flight(Key("0" * 64)), [bytearray() for _ in range(50)]

    async def listen(into: bytearray) -> None:
        while piece := await flight.read(len(into)):
            into += piece

    readers = [asyncio.create_task(listen(each)) for each in heard]
    flight.add(b"head")
    flight.audible(Head("audio/wav", "c0", 0.0, 0.0, stored=True))
    await turns(2)
    said = bytearray(b"head")
    for number in range(10):
        flight.add(b"%d" % number)
        said += b"%d" % number
        await turns(2)  # one that wakes the readers, and theirs
        assert heard == [said] * 50
    flight.end("")
    await asyncio.gather(*readers)


@contextmanager
def connections() -> Iterator[list[socket.socket]]:
    """All connected TCP sockets of this process, as copies."""
    found: list[socket.socket] = []
    try:
        for number in map(int, os.listdir("/proc/self/fd")):
            try:
                copy = socket.socket(fileno=os.dup(number))
            except OSError:
                continue
            found.append(copy)
        yield [each for each in found if each.family == socket.AF_INET and connected(each)]
    finally:
        for each in found:
            each.close()


def connected(one: socket.socket) -> bool:
    try:
        one.getpeername()
    except OSError:
        return False
    return True


def no_delay(one: socket.socket) -> bool:
    return bool(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


@pytest.mark.net
async def test_neither_side_waits_for_more_to_send() -> None:
    async with house() as home, home.client.post(f"{home.url}/v1/tts", json=ASKED) as answer:
        await answer.content.readany()
        with connections() as here:
            towards_clients = [each for each in here if each.getsockname()[1] == home.node.port]
            towards_clusters = [each for each in here if each.getpeername()[1] == home.origin.port]
            assert towards_clients
            assert towards_clusters
            assert all(map(no_delay, towards_clients + towards_clusters))
        await answer.read()
