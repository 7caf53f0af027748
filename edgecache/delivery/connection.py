"""Client connections: aiohttp's HTTP/1.1, with the bounds that it lacks.

Keeps rule 7: connections are counted, and a request head has to be whole within its time, however its bytes dribble in.
(aiohttp closes idle connections itself; bodies and stalled writes are timed where they are read and written.) The fast
lane will look at bytes here too. It relies on three public methods of aiohttp's RequestHandler; a test guards them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from edgecache.delivery.limits import RequestLimits
from edgecache.delivery.problem import headers, problem
from edgecache.errors import ClientError, NodeError, SpeechError

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

SERVER = "edgecache"
#: A request that was read before the drain began becomes an exchange within this.
BEGIN_S = 0.05


class Server(web.Server):
    """Makes a `Connection` for each client, as many as there may be."""

    def __init__(self, handle: Handle, limits: RequestLimits) -> None:
        self.limits = limits
        self._options: dict[str, Any] = {
            "keepalive_timeout": limits.keep_alive_s,
            "access_log": None,
            "lingering_time": 1.0,
            "auto_decompress": False,
        }
        self._open = 0
        self._empty = asyncio.Event()
        self._empty.set()
        super().__init__(handle)

    def __call__(self) -> "Connection":
        return Connection(self, self._options)

    def opened(self) -> None:
        """A connection was made."""
        self._open += 1
        self._empty.clear()

    def closed(self) -> None:
        """A connection is over, and all that was written to it has been sent."""
        self._open -= 1
        if not self._open:
            self._empty.set()

    async def drain(self) -> None:
        """Closes idle connections now, and the others behind the last byte of what they are being told."""
        self.pre_shutdown()
        await asyncio.sleep(BEGIN_S)
        for each in self.connections:
            if isinstance(each, Connection) and not each.busy:
                each.force_close()
        await self._empty.wait()


class Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = ("_flush_timer", "_half_closed", "_head_timer", "_server", "busy")

    def __init__(self, server: Server, options: dict[str, Any]) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._server = server
        self._head_timer: asyncio.TimerHandle | None = None
        self._flush_timer: asyncio.TimerHandle | None = None
        self._half_closed = False
        #: Whether a request of this connection is being answered.
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server.opened()
        if len(self._server.connections) > self._server.limits.connections:
            self._refuse(NodeError(503, "too_many_connections", "This edge has too many connections.", None, 1))

    def data_received(self, data: bytes) -> None:
        # Empty lines between requests are nothing (RFC 9112 §2.2).
        if self._head_timer is None and not self.busy and data.strip(b"\r\n"):
            limits = self._server.limits
            self._head_timer = self._loop.call_later(limits.header_timeout_s, self._head_too_slow)
        super().data_received(data)

    def eof_received(self) -> bool | None:  # type: ignore[override]  # aiohttp closes; a half-closed client still listens
        """The client says no more; it is still told what it asked for."""
        super().eof_received()
        if not self.busy and self._head_timer is None:
            return None
        self._half_closed = True
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        super().connection_lost(exc)
        self._server.closed()

    def begin(self) -> None:
        """A whole head was read: its exchange begins."""
        self.busy = True
        self._stop_timer()

    def end(self) -> None:
        """The exchange is over; its last bytes may still wait for the client to read."""
        self.busy = False
        transport = self.transport
        if transport is not None and transport.get_write_buffer_size():
            self._watch_flush(transport)
        if self._half_closed:
            self._loop.call_later(BEGIN_S, self._close_if_idle)

    def _watch_flush(self, transport: asyncio.Transport) -> None:
        """Resets the connection if nothing more of what was written is taken for too long: closing waits without end."""
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        left_bytes = transport.get_write_buffer_size()

        def look() -> None:
            now_bytes = transport.get_write_buffer_size()
            if now_bytes and now_bytes >= left_bytes and not self.busy:
                transport.abort()
            elif now_bytes:
                self._watch_flush(transport)

        self._flush_timer = self._loop.call_later(self._server.limits.write_stall_s, look)

    def _close_if_idle(self) -> None:
        """A half-closed connection ends behind its last answer; a request that came before the end begins at once."""
        if not self.busy:
            self.force_close()

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
            error: SpeechError = NodeError(500, "internal_error", "This edge failed; the log has the reason.")
        else:
            error = ClientError(status, "bad_request", "This is not HTTP/1.1 as RFC 9112 has it.")
            if isinstance(exc, LineTooLong) or "many headers" in str(getattr(exc, "message", "")).lower():
                told = "The request line or a header is too long, or there are too many; long text goes into a POST."
                error = ClientError(431, "headers_too_large", told)
        answer = web.Response(
            status=error.status, body=problem(error, "-"), headers={**headers(error), "Server": SERVER}
        )
        answer.force_close()
        return answer

    def _head_too_slow(self) -> None:
        self._head_timer = None
        self._refuse(ClientError(408, "head_too_slow", "The request head did not come in time."))

    def _refuse(self, error: SpeechError) -> None:
        """Answers without a request, and closes."""
        if self.transport is None:
            return
        body = problem(error, "-")
        lines = [f"HTTP/1.1 {error.status} {error.code}", "Connection: close", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {text}" for name, text in headers(error).items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self._watch_flush(self.transport)
        self.force_close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
