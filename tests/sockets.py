"""WebSocket clients that nobody here wrote, `websockets` and aiohttp, behind one face; and raw frames for hostile ones."""

import asyncio
import json
import os
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp
from websockets.asyncio.client import connect

PATH = "/ws/tts/stream"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Client(Protocol):
    """One session as its client sees it. What comes after a close: None."""

    async def send(self, message: str | bytes) -> None: ...
    async def next(self) -> str | bytes | None: ...


class OfWebsockets:
    """The library `websockets`."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def send(self, message: str | bytes) -> None:
        await self.connection.send(message)

    async def next(self) -> str | bytes | None:
        async for message in self.connection:
            return message  # type: ignore[no-any-return]
        return None


class OfAiohttp:
    """aiohttp's client."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, message: str | bytes) -> None:
        await (self.socket.send_str(message) if isinstance(message, str) else self.socket.send_bytes(message))

    async def next(self) -> str | bytes | None:
        message = await self.socket.receive()
        return message.data if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY) else None


@asynccontextmanager
async def with_websockets(port: int, headers: Mapping[str, str], protocols: tuple[str, ...]) -> AsyncIterator[Client]:
    offered: Any = list(protocols) or None
    url = f"ws://127.0.0.1:{port}{PATH}"
    async with connect(url, additional_headers=dict(headers), subprotocols=offered, proxy=None) as made:
        assert made.subprotocol == (protocols[0] if protocols else None)
        assert not made.response or "permessage" not in str(made.response.headers)
        yield OfWebsockets(made)


@asynccontextmanager
async def with_aiohttp(port: int, headers: Mapping[str, str], protocols: tuple[str, ...]) -> AsyncIterator[Client]:
    url = f"http://127.0.0.1:{port}{PATH}"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, headers=headers, protocols=protocols, compress=15) as socket,
    ):
        assert socket.compress == 0
        yield OfAiohttp(socket)


Connecting = Callable[[int, Mapping[str, str], tuple[str, ...]], AbstractAsyncContextManager[Client]]
LIBRARIES: Mapping[str, Connecting] = {"websockets": with_websockets, "aiohttp": with_aiohttp}


@dataclass
class Told:
    """What was said of one text. frames: sizes of the binary ones."""

    audio: bytes = b""
    frames: list[int] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)
    before: list[dict[str, Any]] = field(default_factory=list)


async def say(client: Client, **said: Any) -> None:
    await client.send(json.dumps(said))


async def hear(client: Client, *ends: str) -> Told:
    """All up to a text of such a type."""
    told = Told()
    async with asyncio.timeout(20):
        while True:
            message = await client.next()
            assert message is not None, "the session is over"
            if isinstance(message, bytes):
                told.audio += message
                told.frames.append(len(message))
                continue
            text = json.loads(message)
            if text["type"] in (ends or ("synthesis_complete", "error", "cancelled")):
                told.end = text
                return told
            told.before.append(text)


# Raw frames.


def frame(opcode: int, content: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """One frame as a client sends it (RFC 6455 §5.2)."""
    head = bytes([fin << 7 | rsv << 4 | opcode])
    mark = 0x80 if masked else 0
    if len(content) < 126:
        head += bytes([mark | len(content)])
    elif len(content) < 1 << 16:
        head += bytes([mark | 126]) + struct.pack(">H", len(content))
    else:
        head += bytes([mark | 127]) + struct.pack(">Q", len(content))
    if not masked:
        return head + content
    mask = os.urandom(4)
    return head + mask + bytes(each ^ mask[at % 4] for at, each in enumerate(content))


def handshake(*lines: str, path: str = PATH, host: str = "edge") -> bytes:
    """A plain handshake, with these lines more."""
    fixed = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13"]
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *fixed, *lines, "", ""]).encode()


class Raw:
    """A connection on which anything can be sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def frame(self) -> tuple[int, bytes]:
        """The next frame of the edge's: opcode and content. IncompleteReadError: the connection is over."""
        first, second = await self.reader.readexactly(2)
        assert first & 0x70 == 0
        assert second < 0x80, "an edge masks nothing"
        size = second
        if size == 126:
            [size] = struct.unpack(">H", await self.reader.readexactly(2))
        elif size == 127:
            [size] = struct.unpack(">Q", await self.reader.readexactly(8))
        return first & 0x0F, await self.reader.readexactly(size)

    async def close_code(self) -> int:
        """The code of the edge's Close, whatever comes before it; 1006: there is none."""
        try:
            while True:
                opcode, content = await self.frame()
                if opcode == 8:
                    return int(struct.unpack(">H", content[:2])[0])
        except (asyncio.IncompleteReadError, ConnectionError):
            return 1006


@asynccontextmanager
async def raw_session(port: int, *lines: str) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(20):
            writer.write(handshake(*lines))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 "), head
            yield Raw(reader, writer)
    finally:
        writer.close()
