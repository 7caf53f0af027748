"""What a client hears, to the byte and to the end: whole, broken off, or without an end that could be told."""

import asyncio
import http.client
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.beside.acts import Act, Asked, told

PATIENCE_S = 60.0
_ENDS = (ConnectionError, asyncio.IncompleteReadError, ValueError)


@dataclass(slots=True)
class Heard:
    """One answer. ended: `whole`, `broken off`, or `unframed`: the connection ended, and nothing says whether too soon."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: str = "broken off"
    first_s: float | None = None

    @property
    def told(self) -> bool:
        """The client knows that this is no whole speech."""
        return self.status != 200 or self.ended == "broken off"


def request(said: Mapping[str, Any] | bytes, headers: str = "") -> bytes:
    """For speech. said: as bytes, the body as it is."""
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    head = "POST /v1/tts HTTP/1.1\r\nHost: edge\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def hear(port: int, asked: bytes, began: Callable[[], None] = lambda: None, leave_at: int | None = None) -> Heard:
    """The answer on a connection of its own. began: called at the first byte of the body. leave_at: bytes heard after
    which the client goes. TimeoutError: nothing ends within a minute."""
    heard, start_s = Heard(), time.monotonic()

    def take(piece: bytes) -> None:
        if heard.first_s is None and piece:
            heard.first_s = time.monotonic() - start_s
            began()
        heard.body += piece

    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(asked)
            await _read_head(reader, heard)
            await _read_body(reader, heard, take, leave_at)
        except _ENDS:
            pass  # which it was is told by `ended`
        finally:
            writer.transport.abort()
    return heard


async def _read_head(reader: asyncio.StreamReader, heard: Heard) -> None:
    line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    heard.status = int(line.split()[1])
    for name, _, value in (each.partition(":") for each in fields if each):
        heard.headers[name.lower()] = value.strip()


async def _read_body(
    reader: asyncio.StreamReader, heard: Heard, take: Callable[[bytes], None], leave_at: int | None
) -> None:
    """Up to its end, or past `leave_at`."""
    chunked = "chunked" in heard.headers.get("transfer-encoding", "")
    if not chunked and "content-length" not in heard.headers:
        heard.ended = "unframed"
        while piece := await reader.read(1 << 16):
            take(piece)
        return
    left = 0 if chunked else int(heard.headers["content-length"])
    while True:
        if chunked and not left and not (left := int(await reader.readline(), 16)):
            await reader.readline()
            break
        piece = await reader.read(left)
        if left and not piece:
            return
        take(piece)
        left -= len(piece)
        if leave_at is not None and len(heard.body) >= leave_at:
            return
        if chunked and not left:
            await reader.readline()
        elif not left:
            break
    heard.ended = "whole"


async def until(true: Callable[[], Awaitable[bool]], seconds: float = PATIENCE_S) -> bool:
    """Whether it came true in time."""
    deadline_s = time.monotonic() + seconds
    while not await true():
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(0.02)
    return True


@dataclass(frozen=True, slots=True)
class Remote:
    """A scripted cluster's control, from here."""

    name: str
    control: int

    def act(self, act: Act) -> None:
        """It answers so from now on."""
        self._call("POST", "/act", told(act))

    def go(self) -> None:
        """Whoever it holds goes on."""
        self._call("POST", "/go")

    def asked(self) -> list[Asked]:
        """Every request for speech since it began."""
        return [Asked(**each) for each in json.loads(self._call("GET", "/asked"))]

    def _call(self, method: str, path: str, body: bytes = b"") -> bytes:
        line = http.client.HTTPConnection("127.0.0.1", self.control, timeout=PATIENCE_S)
        try:
            line.request(method, path, body)
            return line.getresponse().read()
        finally:
            line.close()
