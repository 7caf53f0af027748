"""Distance on one machine: a TCP relay in which every byte, end and reset travels for a while.

Keeps two rules: bytes keep their order and none is lost or made up; and what is on the way is bounded. It does not
know what the bytes mean.

Theory. A direction is a queue of what was read and when it is due at the other side, one way later. The system accepts
a connection before the relay can delay anything, so the handshake is paid later: what a client sends first is due one
round trip later than it otherwise were, just as if it had waited for the SYN-ACK. The relay connects onward at once.
"""

import asyncio
import socket
import struct
from asyncio import StreamReader, StreamWriter
from enum import Enum

_READ_BYTES = 64 << 10
#: How much may be on the way in one direction; past it the relay reads no more, as a TCP window would.
_ON_THE_WAY_BYTES = 4 << 20


_NO_LINGERING = struct.pack("ii", 1, 0)


def hang_up(transport: asyncio.BaseTransport | None, *, reset: bool) -> None:
    """Ends a connection after what was written to it, by a FIN or by a TCP reset."""
    if transport is None or transport.is_closing():
        return
    tcp = transport.get_extra_info("socket")
    if reset and tcp is not None:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
    transport.close()


def _drop(writer: StreamWriter | None) -> None:
    """Ends a connection by a reset, at once."""
    if writer is not None:
        hang_up(writer.transport, reset=True)
        writer.transport.abort()


class _End(Enum):
    FIN = "fin"
    RESET = "reset"


class _Way:
    """One direction of one connection."""

    def __init__(self, reader: StreamReader, writer: StreamWriter, one_way_s: float, not_before_s: float) -> None:
        self._reader = reader
        self._writer = writer
        self._one_way_s = one_way_s
        self._not_before_s = not_before_s
        self._travelling: asyncio.Queue[tuple[float, bytes | _End]] = asyncio.Queue()
        self._bytes = 0
        self._room = asyncio.Event()

    async def carry(self) -> _End:
        """Carries everything to the other side; how it ended."""
        reading = asyncio.create_task(self._read())
        try:
            return await self._write()
        except OSError:
            return _End.RESET
        finally:
            reading.cancel()
            await asyncio.wait([reading])

    async def _read(self) -> None:
        while True:
            try:
                read: bytes | _End = await self._reader.read(_READ_BYTES) or _End.FIN
            except OSError:
                read = _End.RESET
            departed_s = max(asyncio.get_running_loop().time(), self._not_before_s)
            self._travelling.put_nowait((departed_s + self._one_way_s, read))
            if isinstance(read, _End):
                return
            self._bytes += len(read)
            while self._bytes >= _ON_THE_WAY_BYTES:
                self._room.clear()
                await self._room.wait()

    async def _write(self) -> _End:
        loop = asyncio.get_running_loop()
        while True:
            due_s, read = await self._travelling.get()
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            if isinstance(read, _End):
                if read is _End.FIN and self._writer.can_write_eof():
                    self._writer.write_eof()
                return read
            self._writer.write(read)
            await self._writer.drain()
            self._bytes -= len(read)
            self._room.set()


class Relay:
    """Listens on one address and carries every connection to another that is `one_way_s` away."""

    def __init__(self, target: tuple[str, int], one_way_s: float, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.port = port
        self._target = target
        self._one_way_s = one_way_s
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Relay {self.host}:{self.port} to {self._target}, {len(self._connections)} connections>"

    async def start(self) -> None:
        """Listens; `port` is known from here on."""
        self._server = await asyncio.start_server(self._accepted, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stops listening and drops every connection."""
        if self._server:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        if self._connections:
            await asyncio.wait(list(self._connections))
        self._server = None

    def _accepted(self, near_reader: StreamReader, near: StreamWriter) -> None:
        task = asyncio.create_task(self._connected(near_reader, near))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connected(self, near_reader: StreamReader, near: StreamWriter) -> None:
        accepted_s = asyncio.get_running_loop().time()
        far: StreamWriter | None = None
        try:
            far_reader, far = await asyncio.open_connection(*self._target)
            shaken_s = accepted_s + 2 * self._one_way_s
            there = _Way(near_reader, far, self._one_way_s, shaken_s)
            back = _Way(far_reader, near, self._one_way_s, 0.0)
            await _both(there, back)
        except asyncio.CancelledError:
            _drop(near)
            _drop(far)
            raise
        except OSError:
            _drop(near)
            _drop(far)
        finally:
            for writer in (near, far):
                if writer is not None:
                    await _closed(writer)


async def _both(there: _Way, back: _Way) -> None:
    """Carries both ways until both have ended, or one has broken. ConnectionResetError: one has broken."""
    carrying = {asyncio.create_task(there.carry()), asyncio.create_task(back.carry())}
    try:
        while carrying:
            done, carrying = await asyncio.wait(carrying, return_when=asyncio.FIRST_COMPLETED)
            if any(task.result() is _End.RESET for task in done):
                raise ConnectionResetError
    finally:
        for task in carrying:
            task.cancel()
        if carrying:
            await asyncio.wait(carrying)


async def _closed(writer: StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        return
