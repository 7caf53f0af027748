"""A raw peer that does exactly as its script says, byte for byte, and remembers what it was asked.

`ScriptedUpstream([step, step, ...], [...])`: the n-th request is answered by the n-th script, and by the last from then on.
Steps: bytes are written; an `asyncio.Event` is waited for; `FIN`, `RST` and `HOLD` end a script; a function is called.
A request for `probe_path` is answered by `probe_script` and counted apart. Nothing here waits for time to pass.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Self


class End(Enum):
    """How a script may end; without one the connection waits for the next request."""

    FIN = "fin"
    RST = "rst"
    HOLD = "hold"  # says nothing more until the other side goes away


FIN, RST, HOLD = End.FIN, End.RST, End.HOLD

Step = bytes | asyncio.Event | End | Callable[[], object]
Script = Sequence[Step]

OK: Script = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]


@dataclass(frozen=True)
class Received:
    """One request as it came. Header names are in lower case; a repeated one keeps its last value."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int


def head(status: str = "200 OK", *fields: str) -> bytes:
    """The head of an answer."""
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode()


def whole(body: bytes, media_type: str = "audio/wav") -> bytes:
    """An answer with its length."""
    return head("200 OK", f"Content-Type: {media_type}", f"Content-Length: {len(body)}") + body


def chunk(body: bytes) -> bytes:
    """A chunk of a chunked body; `chunk(b"")` ends it."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def chunked(*parts: bytes, media_type: str = "audio/wav") -> bytes:
    """A whole chunked answer."""
    return (
        head("200 OK", f"Content-Type: {media_type}", "Transfer-Encoding: chunked")
        + b"".join(chunk(each) for each in parts)
        + chunk(b"")
    )


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


class ScriptedUpstream:
    """A server of scripts. `async with` it; `url` is its base URL."""

    def __init__(
        self,
        *scripts: Script,
        probe_path: str = "/healthz",
        probe_script: Script = OK,
        on_connect: Script = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._scripts = scripts or (OK,)
        self._probe_path = probe_path
        self.probe_script = probe_script
        self._on_connect = on_connect
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()
        self.url = ""
        self.port = 0
        self.requests: list[Received] = []
        self.probes: list[Received] = []
        self.connections = 0
        self.closed = 0  # connections that are over

    def __repr__(self) -> str:
        return f"<ScriptedUpstream {self.url} {len(self.requests)} requests over {self.connections} connections>"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        await self._server.wait_closed()

    # Waiting, on counters and never on time.

    async def until(self, true: Callable[[], bool]) -> None:
        """Waits until this holds; it is looked at when a request arrives or a connection begins or ends."""
        async with self._changed:
            await self._changed.wait_for(true)

    async def asked(self, times: int = 1) -> None:
        """Waits for so many requests, probes not counted."""
        await self.until(lambda: len(self.requests) >= times)

    async def probed(self, times: int = 1) -> None:
        """Waits for so many probes."""
        await self.until(lambda: len(self.probes) >= times)

    async def left(self, times: int = 1) -> None:
        """Waits until so many connections are over."""
        await self.until(lambda: self.closed >= times)

    # Serving.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        number = self.connections
        try:
            await self._notify()
            if await self._play(self._on_connect, reader, writer):
                while (received := await _receive(reader, number)) is not None:
                    if not await self._answer(received, reader, writer):
                        break
        except (ConnectionError, asyncio.CancelledError):
            pass  # the other side went away, or the test is over: either way this task ends here
        finally:
            writer.transport.abort() if writer.transport.is_closing() else writer.close()
            self.closed += 1
            await self._notify()

    async def _answer(self, received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if received.target.partition("?")[0] == self._probe_path:
            self.probes.append(received)
            script = self.probe_script
        else:
            self.requests.append(received)
            script = self._scripts[min(len(self.requests), len(self._scripts)) - 1]
        await self._notify()
        return await self._play(script, reader, writer)

    async def _play(self, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        for step in script:
            match step:
                case bytes():
                    writer.write(step)
                    await writer.drain()
                case asyncio.Event():
                    await step.wait()
                case End.FIN:
                    return False
                case End.RST:
                    reset(writer)
                    return False
                case End.HOLD:
                    await reader.read()
                    return False
                case _:
                    step()
        return True

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends the connection with a TCP reset: what is still unsent is thrown away."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _receive(reader: asyncio.StreamReader, connection: int) -> Received | None:
    """The next request; None when the other side has closed."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
        lines = raw.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    except asyncio.IncompleteReadError:
        return None
    return Received(method, target, headers, body, connection)
