"""A listener: one connection, over HTTP or a WebSocket, that asks and notes when how much audio came."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import cast

from bench.delivery.framing import Body, Broken, Frames, Got, text_frame
from bench.houses import LOOPBACK
from bench.load import tts_request

#: Clients of 24 kHz speech hear so much in a second.
SECOND_BYTES = 48_000
HANG_S = 60.0
_HANDSHAKE = (
    b"GET /ws/tts/stream HTTP/1.1\r\nHost: edge\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
#: What asks for each way of delivery over HTTP.
ACCEPTS = {"raw": "audio/*", "SSE": "text/event-stream", "protobuf": "application/x-protobuf"}
SOCKET = "WebSocket"


@dataclass(slots=True)
class Told:
    """One answer. arrivals: when how many bytes of content came. wire_bytes: with framing, without HTTP's head."""

    asked_s: float
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    wire_bytes: int = 0
    cache: str = ""

    @property
    def first_s(self) -> float:
        """From asking to the first audio."""
        return self.arrivals[0][0] - self.asked_s

    @property
    def content_bytes(self) -> int:
        return sum(many for _, many in self.arrivals)


class Listener(asyncio.Protocol):
    """One connection. Ask, and await what is told; one after the other."""

    def __init__(self, way: str) -> None:
        self._way = way
        self._frames = Frames()
        self._body = Body()
        self._upgraded = way != SOCKET
        self._told = Told(0.0)
        self._done: asyncio.Future[Told] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def connected(cls, port: int, way: str) -> "Listener":
        """A connection that can be asked over. Broken: no WebSocket was opened."""
        loop = asyncio.get_running_loop()
        _, listener = await loop.create_connection(lambda: cls(way), LOOPBACK, port)
        if way == SOCKET:
            await listener._sent(_HANDSHAKE)
        return listener

    async def ask(self, text: str, path: str = "/v1/tts/stream") -> Told:
        """The answer. Broken: it failed."""
        body = json.dumps({"text": text, "voice_id": "tone", "language": "en"}).encode()
        if self._way == SOCKET:
            return await self._sent(text_frame(body))
        self._body = Body()
        return await self._sent(
            tts_request(body, f"Accept: {ACCEPTS[self._way]}\r\n").replace(b"/v1/tts", path.encode(), 1)
        )

    async def _sent(self, asked: bytes) -> Told:
        assert self._transport is not None
        self._told = Told(time.perf_counter())
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(asked)
        async with asyncio.timeout(HANG_S):
            return await self._done

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        now_s = time.perf_counter()
        try:
            if not self._upgraded:
                self._upgrade(data)
            elif self._way == SOCKET:
                self._of_frames(data, now_s)
            else:
                self._of_body(data, now_s)
        except Broken as error:
            self._end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(Broken("the connection was closed"))

    def _upgrade(self, received: bytes) -> None:
        if not received.startswith(b"HTTP/1.1 101") or not received.endswith(b"\r\n\r\n"):
            raise Broken(received[:80].decode(errors="replace"))
        self._upgraded = True
        self._end()

    def _of_body(self, received: bytes, now_s: float) -> None:
        content = self._body.feed(received)
        if content:
            self._told.arrivals.append((now_s, content))
        if self._body.over:
            self._told.wire_bytes = self._body.wire_bytes
            self._told.cache = "hit" if b"; hit" in self._body.head else "miss"
            self._end()

    def _of_frames(self, received: bytes, now_s: float) -> None:
        self._told.wire_bytes += len(received)
        content = 0
        for got, what in self._frames.feed(received):
            if got is Got.AUDIO:
                content += cast("int", what)
                continue
            said = json.loads(cast("bytes", what))
            if said["type"] != "synthesis_complete":
                raise Broken(str(said))
            self._told.cache = said["cache"]
        if content:
            self._told.arrivals.append((now_s, content))
        if self._told.cache:
            self._end()

    def _end(self, error: Exception | None = None) -> None:
        if self._done is None or self._done.done():
            return
        if error is None:
            self._done.set_result(self._told)
        else:
            self._done.set_exception(error)
