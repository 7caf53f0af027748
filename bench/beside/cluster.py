"""`python -m bench.beside.cluster`: a cluster that answers as it was told to, and says what it was asked.

It says its two ports, that for speech and that for control. On the latter: `POST /act` with an act, `POST /go` for those
that it holds, `GET /asked` for what it was asked so far.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, replace

import uvloop

from bench.beside.acts import Act, Asked, read_act, speech

PIECES = 40
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"
Answer = Callable[[str, dict[str, str], bytes, asyncio.StreamWriter], Awaitable[bool]]


class Cluster:
    """Both of its ports."""

    def __init__(self) -> None:
        self.port = 0
        self._act = Act()
        self._asked: list[Asked] = []
        self._go = asyncio.Event()
        self._listening: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listens for requests for speech."""
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            await serve(self._speak, reader, writer)
        finally:
            self._open.discard(writer)

    async def control(self, line: str, _: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> bool:
        """One order; True: the connection goes on."""
        if line.startswith("POST /act "):
            await self._turn(read_act(body))
        if line.startswith("POST /go "):
            self._go.set()
        answer = json.dumps([asdict(each) for each in self._asked]).encode()
        writer.write(_OK % (len(answer), answer))
        return True

    async def _turn(self, act: Act) -> None:
        self._go.set()
        self._go = asyncio.Event()
        self._act = act
        if act.dead and self._listening is not None:
            self._listening.close()
            self._listening = None
            for each in list(self._open):
                each.transport.abort()
        elif not act.dead and self._listening is None:
            await self.start()

    async def _speak(self, line: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> bool:
        if not line.startswith("POST "):
            writer.write(_OK % (2, b"ok"))
            return True
        act, go, at = self._act, self._go, len(self._asked)
        self._asked.append(Asked(json.loads(body), headers))
        sent = act.body.encode() if act.body is not None else speech(self._asked[at].said, at, act.announced)
        await asyncio.sleep(act.thinks_s)
        writer.write(act.head(len(sent)))
        await self._say(act, go, sent[: round(len(sent) * act.sent)], writer)
        if act.sent < 1:
            return False
        writer.write(act.end)
        self._asked[at] = replace(self._asked[at], ended=True)
        return act.framing != "close"

    @staticmethod
    async def _say(act: Act, go: asyncio.Event, sent: bytes, writer: asyncio.StreamWriter) -> None:
        size = max(1, -(-len(sent) // PIECES))
        for at in range(0, len(sent), size):
            if act.holds and at >= len(sent) // 2:
                await go.wait()
            writer.write(act.framed(sent[at : at + size]))
            await writer.drain()
            if act.lasts_s:
                await asyncio.sleep(act.lasts_s / PIECES)


async def serve(answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Requests of one connection, one after the other, for as long as `answer` says so."""
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in fields)}
            if not await answer(line, headers, await _body(reader, headers), writer):
                break
            await writer.drain()
    with suppress(ConnectionError):
        await writer.drain()
    writer.close()


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """Of a request, with its length or in chunks."""
    if "chunked" not in headers.get("transfer-encoding", ""):
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


async def _run() -> None:
    cluster = Cluster()
    await cluster.start()

    async def orders(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(cluster.control, reader, writer)

    server = await asyncio.start_server(orders, "127.0.0.1", 0)
    print(cluster.port, server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_run())
