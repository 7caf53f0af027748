"""HTTP in full: aiohttp's part of one connection. It is made when the first bytes are handed on to it, and then it stays.

What the other lanes answer needs neither its parser nor its task, which cost more than such an answer. It relies on a few
methods of aiohttp's RequestHandler and, when a connection ends, on three private attributes: `_waiter`, by which aiohttp
waits for a request, `_task_handler`, which does, and `_messages`, which it has read and not begun; tests guard them. When
there is a request, and whether a head comes in time, is `delivery.connection`'s.
"""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import CORO_CREATED, getcoroutinestate
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from edgecache.delivery.head import SERVER
from edgecache.delivery.plain import Boundary
from edgecache.delivery.problem import failure, headers, problem
from edgecache.errors import ClientError, SpeechError

if TYPE_CHECKING:
    from aiohttp.streams import StreamReader

    from edgecache.delivery.connection import Connection

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

#: aiohttp's own watch over idle connections knows nothing of the other lanes, so it never gets to act.
NEVER_S = 10 * 365 * 24 * 3600.0
#: What an exchange's id is under, in aiohttp's request.
REQUEST_ID = web.RequestKey("request_id", str)


class Fulls(web.Server):
    """What all of them share."""

    def __init__(self, handle: Handle) -> None:
        super().__init__(handle)
        self.options: dict[str, Any] = {
            "keepalive_timeout": NEVER_S,
            "access_log": None,
            "lingering_time": 1.0,
            "auto_decompress": False,
        }


class Full(web.RequestHandler):
    """aiohttp's part of one connection, which is its `line`."""

    __slots__ = ("_body", "_boundary", "_ended", "line")

    def __init__(self, fulls: Fulls, line: "Connection", transport: asyncio.Transport) -> None:
        super().__init__(fulls, loop=asyncio.get_running_loop(), **fulls.options)
        self.line = line
        #: Where the parser stands.
        self._boundary = Boundary()
        #: How many of the requests that it was given are over; -1: the last answer ends the connection.
        self._ended = 0
        #: Of the newest request whose head is whole.
        self._body: StreamReader | None = None
        self.connection_made(transport)
        if line.writing_paused:
            self.pause_writing()

    def receive(self, received: bytes) -> None:
        """These bytes came next. What may be wrong goes apart: it would cost aiohttp what was right before it."""
        known = self._boundary.pass_over(received)
        if 0 < known < len(received):
            self.data_received(received[:known])
            received = received[known:]
        self.data_received(received)
        if self._messages:
            self._body = self._messages[-1][1]

    def cut(self) -> None:
        """Nothing more comes: a body that is not whole by now never will be, and whoever reads it need not wait."""
        if self._body is not None and not self._body.is_eof():
            self._body.set_exception(web.RequestPayloadError("the client ended within a body"))
            self._body.feed_eof()

    @property
    def at_rest(self) -> bool:
        """Whether it stands between two requests and owes no answer.

        It need not wait for the next one yet: that takes it a turn of the loop, and its client may be faster.
        """
        return self._ended == self._boundary.requests and self._boundary.clean

    @property
    def owes(self) -> bool:
        """Whether it was given a whole request that it has not yet begun with, or not ended."""
        return 0 <= self._ended < self._boundary.requests or bool(self._messages)

    @property
    def within(self) -> bool:
        """Whether it stands within a request that is not whole."""
        return self._boundary.within

    def ended(self, *, kept: bool) -> None:
        """An exchange is over. kept: the connection goes on, as HTTP."""
        self._ended = self._ended + 1 if kept and self._ended >= 0 else -1

    def force_close(self) -> None:
        super().force_close()
        self.line.transport = None  # the descriptor may be another connection's soon

    def lost(self, exc: BaseException | None) -> "asyncio.Task[None] | None":
        """The connection is. What may still be under way here."""
        task, waiter = self._task_handler, self._waiter
        if task is not None and (_unbegun(task) or (waiter is not None and waiter.done())):
            # aiohttp 3.14 would begin with a request that came just before the connection was lost, and stumble.
            task.cancel()
        self.connection_lost(exc)
        return None if task is None or task.done() else task

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """aiohttp met malformed HTTP, or an exchange failed: a problem, unless an answer has begun."""
        if isinstance(exc, ConnectionError):
            raise exc  # the client is gone: nobody is there to be told
        if request.writer.output_size > 0:
            raise ConnectionResetError("An answer that has begun can only be broken off.")
        if status == 500:
            self._loop.call_exception_handler({"message": "an exchange failed", "exception": exc})
            error: SpeechError = failure()
        else:
            error = ClientError(status, "bad_request", "This is not HTTP/1.1 as RFC 9112 has it.")
            if isinstance(exc, LineTooLong) or "many headers" in str(getattr(exc, "message", "")).lower():
                told = "The request line or a header is too long, or there are too many; long text goes into a POST."
                error = ClientError(431, "headers_too_large", told)
        request_id = request.get(REQUEST_ID, "-")
        answer = web.Response(
            status=error.status,
            body=problem(error, request_id),
            headers={**headers(error), "Server": SERVER, "X-Request-Id": request_id},
        )
        answer.force_close()
        return answer


def line_of(request: web.BaseRequest) -> "Connection":
    """The connection that it came on."""
    full = request.protocol
    assert isinstance(full, Full)
    return full.line


def _unbegun(task: "asyncio.Task[None]") -> bool:
    """Whether it has not had a turn yet."""
    coroutine: Any = task.get_coro()
    return getcoroutinestate(coroutine) == CORO_CREATED
