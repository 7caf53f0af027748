"""A client's connection in time: heads and idle connections are timed, and so is what was written.

Keeps rule 7: a request head has to be whole within its time, however its bytes dribble in, idle connections are closed, and
one that takes nothing of what was written is reset. Which lane answers is `delivery.connection`'s.
"""

import asyncio
from typing import TYPE_CHECKING, cast

from edgecache.delivery.problem import headers, problem
from edgecache.errors import ClientError, SpeechError

if TYPE_CHECKING:
    from edgecache.delivery.server import Server

#: The loop's clock ticks in milliseconds, so a timer may come that much too soon.
CLOCK_S = 0.002
#: A connection that was in use when its time was over is looked at again after this.
IDLE_AGAIN_S = 0.05
#: So much is read of a client that asks on before it is answered.
HELD_BYTES = 64 << 10


class Bounded(asyncio.Protocol):
    """One client's connection, in time."""

    __slots__ = (
        *("_active_s", "_awaited", "_flush_timer", "_head_timer", "_held", "_held_timer", "_idle_timer", "_loop"),
        *("_server", "busy", "transport", "writing_paused"),
    )

    def __init__(self, server: "Server") -> None:
        self._server, self._loop = server, server.loop
        #: None: not yet, or no longer.
        self.transport: asyncio.Transport | None = None
        #: Whether what was written waits for the client to take it.
        self.writing_paused = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._flush_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._active_s = 0.0
        #: What was received and is not yet read: the beginning of a plain request of `_awaited` bytes, or what came while an
        #: answer is waited for.
        self._held = b""
        self._awaited = 0
        self._held_timer: asyncio.TimerHandle | None = None
        #: Whether a request of this connection is being answered.
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._active_s = self._loop.time()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.transport = None
        for timer in (self._head_timer, self._flush_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._flush_timer = self._idle_timer = None

    def force_close(self) -> None:
        """Behind what was written."""
        if self.transport is not None:
            self.transport.close()
            self.transport = None

    def watch(self) -> None:
        """It has stayed for a while: it is closed once it is idle for too long."""
        if self.transport is not None:
            self._close_if_unused()

    def _unheld(self) -> bytes:
        held, self._held, self._awaited = self._held, b"", 0
        if self._held_timer is not None:
            self._held_timer.cancel()
            self._held_timer = None
        return held

    def _wait_for_answer(self, received: bytes) -> None:
        """A client that goes on sends no more than this until it is answered."""
        before, self._held = len(self._held), self._held + received
        if self.transport is not None and before <= HELD_BYTES < len(self._held):
            self.transport.pause_reading()

    def _go_on(self) -> bytes:
        """What came while an answer was waited for."""
        held = self._unheld()
        if self.transport is not None and len(held) > HELD_BYTES:
            self.transport.resume_reading()
        return held

    def _await_head(self) -> None:
        """The rest of a request's head is to come in time."""
        if self._head_timer is None:
            self._head_timer = self._loop.call_later(self._server.limits.header_timeout_s, self._head_too_slow)

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

    def _close_if_unused(self) -> None:
        """Closes the connection once nothing was asked for on it for long enough."""
        unused_s = self._loop.time() - self._active_s
        left_s = self._server.limits.keep_alive_s - unused_s
        if left_s <= CLOCK_S and not self.busy and self._head_timer is None and not self._held:
            self.force_close()
            return
        self._idle_timer = self._loop.call_later(max(left_s, IDLE_AGAIN_S), self._close_if_unused)

    def _head_too_slow(self) -> None:
        self._head_timer = None
        self.refuse(ClientError(408, "head_too_slow", "The request head did not come in time."))

    def refuse(self, error: SpeechError) -> None:
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
