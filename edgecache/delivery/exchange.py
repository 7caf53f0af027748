"""One request and its answer: who asks, since when, and writing bytes to a client that may not read them.

Keeps rules 3 and 7: an answer that began and can't be finished is broken off, and never ended; a client that reads
nothing is dropped after a while. What an exchange came to is one `Outcome`, made after its last byte.
"""

import asyncio
import re
import secrets
from collections.abc import Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from edgecache.cache.status import Outcome, Result
from edgecache.clock import Clock
from edgecache.delivery.auth import ANYONE, Caller
from edgecache.delivery.connection import SERVER
from edgecache.delivery.problem import headers as problem_headers
from edgecache.delivery.problem import problem
from edgecache.errors import SpeechError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: A write of more than this says too little about whether the client reads.
WRITE_BYTES = 64 << 10


class Exchange:
    """One request under way."""

    __slots__ = (
        "_began_s",
        "_clock",
        "_first_byte_s",
        "_sent_bytes",
        "_write_stall_s",
        "caller",
        "closing",
        "cluster",
        "error",
        "request",
        "request_id",
        "result",
        "route",
        "status",
    )

    def __init__(self, request: web.BaseRequest, clock: Clock, write_stall_s: float) -> None:
        self.request = request
        given = request.headers.get("X-Request-Id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        self.caller: Caller = ANYONE
        self.route = "other"
        self.result = Result.NONE
        self.status = 0
        self.cluster = ""
        self.error = ""
        #: Whether the connection is to be closed behind the answer.
        self.closing = False
        self._clock = clock
        self._write_stall_s = write_stall_s
        self._began_s = clock.monotonic()
        self._first_byte_s: float | None = None
        self._sent_bytes = 0

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
            route=self.route,
            status=self.status,
            result=self.result,
            sent_bytes=self._sent_bytes,
            first_byte_ms=first_byte_ms,
            total_ms=total_ms,
            whole=whole,
            cluster=self.cluster,
            error=self.error,
        )

    async def send(self, status: int, headers: Mapping[str, str], body: bytes) -> web.StreamResponse:
        """An answer that is there whole. A HEAD is told its length, and given no body."""
        answer = self._answer(status, headers)
        if status != 304:
            answer.content_length = len(body)
        await answer.prepare(self.request)
        if self.request.method != "HEAD" and status != 304:
            for start in range(0, len(body), WRITE_BYTES):
                await self._write(answer, body[start : start + WRITE_BYTES] if len(body) > WRITE_BYTES else body)
        await self._end(answer)
        return answer

    async def send_head(self, headers: Mapping[str, str]) -> web.StreamResponse:
        """The answer to a HEAD whose length is not known."""
        answer = self._answer(200, headers)
        await self._end(answer)
        return answer

    async def send_problem(self, error: SpeechError, extra: Mapping[str, str]) -> web.StreamResponse:
        """An error, before any byte of audio."""
        self.error = error.code
        if self.result is Result.NONE:
            self.result = Result.ERROR
        if not self.request.content.at_eof():
            self.closing = True
        return await self.send(error.status, {**problem_headers(error), **extra}, problem(error, self.request_id))

    @asynccontextmanager
    async def stream(self, headers: Mapping[str, str]) -> "AsyncIterator[Stream]":
        """A chunked answer: ended when the block is left, broken off when the block fails."""
        answer = self._answer(200, headers)
        answer.enable_chunked_encoding()
        await answer.prepare(self.request)
        yield Stream(self, answer)
        await self._end(answer)

    def _answer(self, status: int, headers: Mapping[str, str]) -> web.StreamResponse:
        self.status = status
        answer = web.StreamResponse(status=status, headers=headers)
        answer.headers["Server"] = SERVER
        answer.headers["X-Request-Id"] = self.request_id
        if self.closing:
            answer.force_close()
        return answer

    async def _write(self, answer: web.StreamResponse, chunk: bytes) -> None:
        if self._first_byte_s is None:
            self._first_byte_s = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._write_stall_s):
                await answer.write(chunk)
        except TimeoutError as error:
            self._drop()
            raise ConnectionResetError("The client reads nothing.") from error
        self._sent_bytes += len(chunk)

    async def _end(self, answer: web.StreamResponse) -> None:
        try:
            async with asyncio.timeout(self._write_stall_s):
                await answer.prepare(self.request)
                await answer.write_eof()
        except TimeoutError as error:
            self._drop()
            raise ConnectionResetError("The client reads nothing.") from error

    def _drop(self) -> None:
        """Resets the connection: what is buffered for a client that doesn't read is not kept."""
        self.error = "client_stalled"
        if isinstance(self.request.transport, asyncio.WriteTransport):
            self.request.transport.abort()


class Stream:
    """A chunked answer under way."""

    __slots__ = ("_answer", "_exchange")

    def __init__(self, exchange: Exchange, answer: web.StreamResponse) -> None:
        self._exchange = exchange
        self._answer = answer

    @property
    def answer(self) -> web.StreamResponse:
        """What aiohttp wants back."""
        return self._answer

    async def write(self, chunk: bytes) -> None:
        """More bytes. ConnectionError: the client is gone, or reads nothing."""
        await self._exchange._write(self._answer, chunk)
