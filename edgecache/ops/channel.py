"""The private channel between the supervisor and one worker: calls and their answers, and words that await none.

A Unix socket pair that nobody else can reach. A frame is its length in four bytes and a msgpack array. Keeps rule 7: a
frame has a largest size, calls under way are counted, and each has its time; a channel that broke ends all of them.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from edgecache.ops.daemon import NOTHING, Told

#: Whole tables of metrics go this way, and nothing larger.
MAX_FRAME_BYTES = 16 << 20
MAX_CALLS = 256
_LENGTH = struct.Struct(">I")

Reply = Callable[[str, Told], Awaitable[Told]]


class ChannelBroken(Exception):
    """The other side is gone, does not answer in time, or says what nobody understands."""


class Channel:
    """One end. answer: what calls of the other side are answered with; hear: told words that await no answer."""

    def __init__(self, answer: Reply, hear: Callable[[str, Told], None]) -> None:
        self._answer = answer
        self._hear = hear
        self._pending: dict[int, asyncio.Future[Told]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._count = 0
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        #: Set when the other side is gone.
        self.ended = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Channel {'ended' if self.ended.is_set() else 'open'}, {len(self._pending)} calls>"

    async def open(self, end: socket.socket) -> None:
        """Begins to listen to the other side."""
        reader, self._writer = await asyncio.open_connection(sock=end)
        self._reading = asyncio.create_task(self._read(reader), name="read the control channel")

    async def call(self, name: str, argument: Told = NOTHING, within_s: float = 2.0) -> Told:
        """The other side's answer. ChannelBroken: none came in time."""
        if self.ended.is_set() or len(self._pending) >= MAX_CALLS:
            raise ChannelBroken("the channel has ended" if self.ended.is_set() else "too many calls are under way")
        self._count += 1
        number = self._count
        reply: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._pending[number] = reply
        try:
            self._send(["call", number, name, argument])
            async with asyncio.timeout(within_s):
                return await reply
        except TimeoutError as error:
            raise ChannelBroken(f"no answer to {name!r} in {within_s:g} s") from error
        finally:
            self._pending.pop(number, None)

    def tell(self, name: str, argument: Told = NOTHING) -> None:
        """A word that awaits no answer; nobody hears it if the other side is gone."""
        if not self.ended.is_set():
            self._send(["word", 0, name, argument])

    async def flush(self, within_s: float = 1.0) -> None:
        """Waits, not for ever, until what was said has left."""
        if self._writer is not None:
            try:
                async with asyncio.timeout(within_s):
                    await self._writer.drain()
            except (OSError, TimeoutError):
                self._end()

    async def close(self) -> None:
        """Hangs up."""
        if self._reading is not None:
            self._reading.cancel()
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*filter(None, (self._reading,)), *self._answering, return_exceptions=True)
        self._end()

    def _end(self) -> None:
        self.ended.set()
        for reply in self._pending.values():
            if not reply.done():
                reply.set_exception(ChannelBroken("the other side is gone"))
        if self._writer is not None:
            self._writer.close()

    def _send(self, frame: list[Any]) -> None:
        assert self._writer is not None, "not open"
        content = msgspec.msgpack.encode(frame)
        if len(content) > MAX_FRAME_BYTES or self._writer.is_closing():
            raise ChannelBroken("a frame is too large" if not self._writer.is_closing() else "the channel has ended")
        self._writer.write(_LENGTH.pack(len(content)) + content)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                if length > MAX_FRAME_BYTES:
                    return
                self._take(await reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError, msgspec.DecodeError, ValueError):
            return  # what it was makes no difference: `_end` tells whoever waits
        finally:
            self._end()

    def _take(self, content: bytes) -> None:
        kind, number, name, told = msgspec.msgpack.decode(content)
        if kind == "word":
            self._hear(name, told)
        elif kind == "call":
            task = asyncio.create_task(self._reply(number, name, told), name=f"answer {name}")
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        elif (reply := self._pending.get(number)) is not None and not reply.done():
            if kind == "answer":
                reply.set_result(told)
            else:
                reply.set_exception(ChannelBroken(f"{name!r} failed there; its log has the reason"))

    async def _reply(self, number: int, name: str, argument: Told) -> None:
        told: Told | None = None
        try:
            told = await self._answer(name, argument)
        finally:  # an error is the task's, which tells the log; the other side is not kept waiting
            if not self.ended.is_set():
                self._send(["failed" if told is None else "answer", number, name, plain(told or NOTHING)])


def plain(told: Mapping[str, Any]) -> Told:
    """The same, of kinds that msgpack carries."""
    kept: Told = msgspec.to_builtins(told, builtin_types=(bytes,), enc_hook=str)
    return kept
