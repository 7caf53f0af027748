"""One request and its answer: who asks, since when, and writing bytes to a client that may not read them.

Keeps rules 3 and 7: an answer that began and can't be finished is broken off, and never ended; a client that reads
nothing is dropped after a while. What an exchange came to is one `Outcome`, made after its last byte.
"""

import asyncio
import math
from collections.abc import Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from edgecache.cache.status import WARM_UP, Outcome, Result
from edgecache.clock import Clock
from edgecache.delivery.accept import Way
from edgecache.delivery.account import Account
from edgecache.delivery.auth import ANYONE, Caller
from edgecache.delivery.head import SERVER, may_be_id, new_request_id
from edgecache.delivery.problem import headers as headers_of
from edgecache.delivery.problem import problem
from edgecache.errors import SpeechError
from edgecache.fill.priority import Priority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgecache.cache.trace import Trace
    from edgecache.delivery.listening import Listening

#: A write of more than this says too little about whether the client reads.
WRITE_BYTES = 64 << 10
#: A part of a recording is asked for by who has bought the whole of it.
_WHOLLY_ANSWERED = frozenset({200, 304})


class Unhurried(web.StreamResponse):
    """An answer whose head leaves with its first bytes, in one system call and one packet.

    The head of a `StreamResponse` leaves at once; a stream of ours only begins when there is audio.
    """

    _send_headers_immediately = False


class Exchange:
    """One request under way."""

    __slots__ = (
        "_began_s",
        "_clock",
        "_first_byte_s",
        "_sent_bytes",
        "_write_stall_s",
        "account",
        "body",
        "broken",
        "caller",
        "closing",
        "cluster",
        "error",
        "listening",
        "priority",
        "problem_headers",
        "request",
        "request_id",
        "result",
        "route",
        "status",
        "trace",
        "way",
    )

    def __init__(self, request: web.BaseRequest, clock: Clock, write_stall_s: float) -> None:
        self.request = request
        given = request.headers.get("X-Request-Id", "")
        self.request_id = given if may_be_id(given) else new_request_id()
        self.caller: Caller = ANYONE
        self.route = "other"
        #: The request's body, once it was read.
        self.body = b""
        #: How the speech is to be told; None: in no way that is on offer.
        self.way: Way | None = Way.RAW
        self.priority = Priority.INTERACTIVE
        self.result = Result.NONE
        self.status = 0
        self.cluster = ""
        self.error = ""
        #: What the speech of this answer comes to.
        self.account = Account()
        #: Who is imagined to hear it, if it is a stream.
        self.listening: Listening | None = None
        #: The span that this exchange is, where spans are told.
        self.trace: Trace | None = None
        #: What goes with an error besides what every error has, such as `Allow`.
        self.problem_headers: dict[str, str] = {}
        #: Whether the connection is to be closed behind the answer.
        self.closing = False
        #: Whether the client was told, in the answer itself, that it broke off.
        self.broken = False
        self._clock = clock
        self._write_stall_s = write_stall_s
        self._began_s = clock.monotonic()
        self._first_byte_s: float | None = None
        self._sent_bytes = 0

    @property
    def background(self) -> bool:
        """Whether nobody waits for the answer: then it is counted apart, and nobody is imagined to hear it."""
        return self.priority is not Priority.INTERACTIVE

    def elapsed_ms(self) -> float:
        """Since the request's head was read."""
        return (self._clock.monotonic() - self._began_s) * 1000

    def outcome(self, *, whole: bool) -> Outcome:
        """What it came to."""
        total_ms = self.elapsed_ms()
        first_byte_ms = total_ms if self._first_byte_s is None else (self._first_byte_s - self._began_s) * 1000
        return Outcome(
            request_id=self.request_id,
            caller=self.caller.name,
            method=self.request.method,
            route=WARM_UP if self.background else self.route,
            status=self.status,
            result=self.result,
            sent_bytes=self._sent_bytes,
            first_byte_ms=first_byte_ms,
            total_ms=total_ms,
            whole=whole and not self.broken,
            cluster=self.cluster,
            error=self.error,
            first_audios=self.account.first_audios,
            worth=self.account.worth if whole and self.status in _WHOLLY_ANSWERED and not self.background else None,
            played=None if self.listening is None or self.background else self.listening.played(),
            trace=self.trace,
        )

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
        if not self.request.content.at_eof():
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

    async def _pass_on(self, chunk: bytes) -> None:
        """One chunk of a chunked answer whose head is out, past aiohttp: it costs a timer only if the client is behind."""
        transport = self.request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("The client is gone.")
        transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if self.request.protocol.writing_paused:
            with self.patience():
                await self.request.writer.drain()
        self._sent_bytes += len(chunk)

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

    __slots__ = ("_answer", "_begun", "_chunked", "_exchange")

    def __init__(self, exchange: Exchange, answer: web.StreamResponse, *, chunked: bool) -> None:
        self._exchange = exchange
        self._answer = answer
        self._begun = False
        self._chunked = chunked

    @property
    def answer(self) -> web.StreamResponse:
        """What aiohttp wants back."""
        return self._answer

    async def write(self, chunk: bytes, audio_s: float = 0.0, arrived_s: float = math.inf) -> None:
        """More bytes. audio_s: how long they speak, 0 if nobody knows; arrived_s: when they came here, inf if nobody knows.

        ConnectionError: the client is gone, or reads nothing.
        """
        listening = self._exchange.listening if audio_s > 0 else None
        if listening is not None:
            listening.hand(audio_s, arrived_s)
        if self._begun and self._chunked:
            await self._exchange._pass_on(chunk)
        else:
            self._begun = True
            await self._exchange._write(self._answer, chunk)
        if listening is not None:
            listening.taken()
