"""One request and its answer in aiohttp's lane: writing bytes to a client that may not read them.

Keeps rules 3 and 7: an answer that began and can't be finished is broken off, and never ended; a client that reads
nothing is dropped after a while.
"""

import asyncio
import math
from collections.abc import Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from edgecache.cache.status import Result
from edgecache.clock import Clock
from edgecache.delivery.accept import Way
from edgecache.delivery.course import Course
from edgecache.delivery.head import SERVER, may_be_id, new_request_id
from edgecache.delivery.problem import headers as headers_of
from edgecache.delivery.problem import problem
from edgecache.errors import SpeechError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgecache.delivery.listening import Listening

#: A write of more than this says too little about whether the client reads.
WRITE_BYTES = 64 << 10


class Unhurried(web.StreamResponse):
    """An answer whose head leaves with its first bytes, in one system call and one packet.

    The head of a `StreamResponse` leaves at once; a stream of ours only begins when there is audio.
    """

    _send_headers_immediately = False


class Exchange(Course):
    """One request under way, in aiohttp's lane."""

    __slots__ = ("_write_stall_s", "body", "closing", "problem_headers", "request", "way")

    def __init__(self, request: web.BaseRequest, clock: Clock, write_stall_s: float) -> None:
        given = request.headers.get("X-Request-Id", "")
        request_id = given if may_be_id(given) else new_request_id()
        super().__init__(request.method, request_id, clock, clock.monotonic())
        self.request = request
        #: The request's body, once it was read.
        self.body = b""
        #: How the speech is to be told; None: in no way that is on offer.
        self.way: Way | None = Way.RAW
        #: What goes with an error besides what every error has, such as `Allow`.
        self.problem_headers: dict[str, str] = {}
        #: Whether the connection is to be closed behind the answer.
        self.closing = False
        self._write_stall_s = write_stall_s

    async def send(self, status: int, headers: Mapping[str, str], body: bytes) -> web.StreamResponse:
        """An answer that is there whole. A HEAD is told its length, and given no body."""
        answer = self._answer(status, headers)
        if status != 304:
            answer.content_length = len(body)
        await answer.prepare(self.request)
        silent = self.request.method == "HEAD" or status == 304
        rest: bytes | memoryview = b"" if silent else memoryview(body) if len(body) > WRITE_BYTES else body
        while len(rest) > WRITE_BYTES:
            await self._write(answer, rest[:WRITE_BYTES])
            rest = rest[WRITE_BYTES:]
        await self._end(answer, rest)
        return answer

    async def send_head(self, headers: Mapping[str, str]) -> web.StreamResponse:
        """The answer to a HEAD whose length is not known."""
        answer = self._answer(200, headers)
        await self._end(answer)
        return answer

    async def send_problem(self, error: SpeechError) -> web.StreamResponse:
        """An error, before any byte of audio."""
        self.error = error.code
        if self.result is Result.NONE:
            self.result = Result.ERROR
        body = self.request.content
        if not body.at_eof() or body.exception() is not None:  # not all of it was read, or ever will be
            self.closing = True
        return await self.send(
            error.status, {**headers_of(error), **self.problem_headers}, problem(error, self.request_id)
        )

    @asynccontextmanager
    async def stream(self, headers: Mapping[str, str]) -> "AsyncIterator[Stream]":
        """A chunked answer: ended when the block is left, broken off when the block fails.

        HTTP/1.0 has no chunks; there the connection ends with the answer, so that it must be one that says where it ends.
        """
        chunked = self.request.version >= (1, 1)
        answer = self._answer(200, headers, Unhurried)
        if chunked:
            answer.enable_chunked_encoding()
        await answer.prepare(self.request)
        yield Stream(self, answer, chunked=chunked)
        await self._end(answer)

    def _answer(
        self, status: int, headers: Mapping[str, str], kind: type[web.StreamResponse] = web.StreamResponse
    ) -> web.StreamResponse:
        self.status = status
        answer = kind(status=status, headers=headers)
        answer.headers["Server"] = SERVER
        answer.headers["X-Request-Id"] = self.request_id
        if self.closing:
            answer.force_close()
        return answer

    async def _write(self, answer: web.StreamResponse, chunk: bytes | memoryview) -> None:
        if self._first_byte_s is None:
            self._first_byte_s = self._clock.monotonic()
        with self.patience():
            await answer.write(chunk)
        self._sent_bytes += len(chunk)

    def put(self, chunk: bytes) -> bool:
        """One chunk of a chunked answer whose head is out, past aiohttp. False: the client is behind; next is `room`."""
        transport = self.request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("The client is gone.")
        transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if self.request.protocol.writing_paused:
            return False
        self._sent_bytes += len(chunk)
        return True

    async def room(self, chunk_bytes: int) -> None:
        """The client has made room for the last chunk, which was of so many bytes."""
        with self.patience():
            await self.request.writer.drain()
        self._sent_bytes += chunk_bytes

    async def _end(self, answer: web.StreamResponse, last: bytes | memoryview = b"") -> None:
        """The end, in one write with the last bytes and, where nothing was written yet, the head."""
        if last and self._first_byte_s is None:
            self._first_byte_s = self._clock.monotonic()
        with self.patience():
            await answer.prepare(self.request)
            await answer.write_eof(last)  # type: ignore[arg-type]  # it takes what a transport takes
        self._sent_bytes += len(last)

    @contextmanager
    def patience(self) -> Iterator[None]:
        """Resets the connection of a client that reads nothing for too long; the write then fails as it is."""
        dropping = asyncio.get_running_loop().call_later(self._write_stall_s, self._drop)
        try:
            yield
        finally:
            dropping.cancel()

    def _drop(self) -> None:
        """Resets the connection: what is buffered for a client that doesn't read is not kept."""
        self.error = "client_stalled"
        if self.request.transport is not None:
            self.request.transport.abort()


class Stream:
    """A chunked answer under way."""

    __slots__ = ("_answer", "_begun", "_chunked", "_exchange", "_listening", "_put_bytes")

    def __init__(self, exchange: Exchange, answer: web.StreamResponse, *, chunked: bool) -> None:
        self._exchange = exchange
        self._answer = answer
        self._begun = False
        self._chunked = chunked
        #: Of what was put last: how much, and who is imagined to hear it.
        self._put_bytes = 0
        self._listening: Listening | None = None

    @property
    def answer(self) -> web.StreamResponse:
        """What aiohttp wants back."""
        return self._answer

    async def write(self, chunk: bytes, audio_s: float = 0.0, arrived_s: float = math.inf) -> None:
        """More bytes. audio_s: how long they speak, 0 if nobody knows; arrived_s: when they came here, inf if nobody knows.

        ConnectionError: the client is gone, or reads nothing.
        """
        if self._begun and self._chunked:
            if not self.put(chunk, audio_s, arrived_s):
                await self.room()
            return
        self._begun = True
        listening = self._hand(audio_s, arrived_s)
        await self._exchange._write(self._answer, chunk)
        if listening is not None:
            listening.taken()

    def put(self, chunk: bytes, audio_s: float, arrived_s: float) -> bool:
        """The same without waiting, of a chunked answer that has begun. False: the client is behind; next is `room`."""
        listening = self._hand(audio_s, arrived_s)
        if not self._exchange.put(chunk):
            self._put_bytes, self._listening = len(chunk), listening
            return False
        if listening is not None:
            listening.taken()
        return True

    async def room(self) -> None:
        """The client has made room for what was put last. ConnectionError: it is gone, or reads nothing."""
        await self._exchange.room(self._put_bytes)
        if self._listening is not None:
            self._listening.taken()

    def _hand(self, audio_s: float, arrived_s: float) -> "Listening | None":
        listening = self._exchange.listening if audio_s > 0 else None
        if listening is not None:
            listening.hand(audio_s, arrived_s)
        return listening
