"""One connection to an upstream: a line.

Keeps rule 1 on the wire: one exchange at a time, and a line on which bytes came while nobody was asking, or more than the
answer had, is never used again; rule 3: whoever reads an answer hears of its connection's end at once; rule 7: what is
unread is bounded. It does not know what is asked, nor of other lines.

Theory. A body is poured out: its bytes are handed on in the very turn of the event loop in which they came, since a task
that waits for each part costs more than all that is done with it. Who may be slow reads instead, and what is unread is held.
A line has one timer, for whatever it waits for: an answer, more of it, or its next use. The time that is meant is
a number; the timer is only set anew when it would come too late, and when it comes too soon it sets itself to that number.
So an exchange costs no timer at all while lines are busy.
"""

import asyncio
import errno
import select
import socket
import struct
from collections.abc import Callable
from enum import Enum
from os import write
from typing import cast

from edgecache.clusters.deadlines import Deadlines
from edgecache.clusters.fault import Fault
from edgecache.clusters.patience import MOMENT_S, moments
from edgecache.clusters.wire import Malformed, Peer, Reading, Stage

#: A reader that is so far behind lets TCP slow the upstream down; when it is half as far, the upstream goes on.
MAX_UNREAD_BYTES = 256 << 10
#: The loop's clock ticks in milliseconds, so a timer may come that much too soon.
CLOCK_S = 0.002
#: Where Linux has the smoothed round trip in its `struct tcp_info`, in microseconds (include/uapi/linux/tcp.h).
_TCPI_RTT = struct.Struct("@68xI")


class State(Enum):
    """What a line is doing."""

    __hash__ = object.__hash__  # without a call: a table is looked at for each

    IDLE = "idle"  # warm; nobody is asking
    ASKED = "asked"  # a request was sent; its answer's head is not whole
    ANSWERING = "answering"  # the body comes in, or is there and not yet read
    GONE = "gone"


class Event(Enum):
    """What happens to a line."""

    __hash__ = object.__hash__  # without a call: a table is looked at for each

    ASK = "ask"
    HEAD = "head"
    DONE = "done"  # read to the end of an answer behind which it may be used again
    END = "end"  # closed, by whichever side, or thrown away


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.IDLE, Event.ASK): State.ASKED,
    (State.ASKED, Event.HEAD): State.ANSWERING,
    (State.ANSWERING, Event.DONE): State.IDLE,
    (State.IDLE, Event.END): State.GONE,
    (State.ASKED, Event.END): State.GONE,
    (State.ANSWERING, Event.END): State.GONE,
}


class LineFault(Exception):
    """What went wrong with a line or with getting one. detail: safe for logs."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail


def named(error: OSError) -> str:
    """The system's name for an error."""
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


class Line(asyncio.Protocol):
    """One connection to an upstream. used: it has been asked before. gone: told when it has ended.

    made_in_s: how long it took to make.
    """

    def __init__(self, peer: Peer, gone: Callable[["Line"], None]) -> None:
        self.peer = peer
        self._gone = gone
        self.state = State.IDLE
        self.used = False
        self.made_in_s = 0.0
        self.transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._peek: select.poll | None = None
        #: Where a request is written; -1: only the transport may (TLS).
        self._fd = -1
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._due_at = 0.0
        self._late = False
        # Of one exchange.
        self._reading = Reading()
        self._failure: Exception | None = None
        self._headed: Callable[[Reading], None] | None = None
        self._take: Callable[[bytes], None] | None = None
        self._deadlines: Deadlines | None = None
        self._unread: list[bytes] = []
        self._unread_bytes = 0
        self._held_back = False
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        #: How many moments more there are, now that the time is over; below 0: nobody knows whose fault that is.
        self._moments = -1

    def __repr__(self) -> str:
        return f"<Line {self.peer.host}:{self.peer.port} {self.state.value}>"

    # What whoever asks calls.

    def ask(self, request: bytes, headed: Callable[[Reading], None] | None = None) -> None:
        """Sends a request; the line was idle a moment ago. headed: called when its answer's head is whole."""
        self._reading, self._failure, self._headed = Reading(), None, headed
        transport = self.transport
        if self.state is State.GONE or transport is None:
            self._failure = LineFault(Fault.BROKEN, "closed the connection before it was asked")
            return
        self._move(Event.ASK)
        sent = 0
        if self._fd >= 0 and not transport.get_write_buffer_size():
            try:  # now, and not at the end of the event loop's turn
                sent = write(self._fd, request)
            except OSError:  # full, or gone: the transport sees the same, and deals with it
                sent = 0
        if sent < len(request):
            transport.write(request[sent:])

    def hand_to(self, take: Callable[[bytes], None], deadlines: Deadlines) -> None:
        """The body is handed over from now on, to be ended by `pour`. Called when the head is whole."""
        self._take, self._deadlines = take, deadlines

    async def head(self, due_at: float) -> Reading:
        """The answer, when its head is whole. LineFault; TimeoutError: not by then."""
        while self._failure is None and self._reading.stage is Stage.HEAD:
            await self._wait(due_at)
        if self._failure is not None and self._take is None:  # who is handed the body is told by `pour`
            raise self._failure
        return self._reading

    async def read(self, due_at: float) -> bytes:
        """More of the body, all that is there; empty at its end. LineFault: it broke off; TimeoutError: nothing by then."""
        while True:
            if self._failure is not None:
                raise self._failure
            if self._unread:
                return self._taken()
            if self._closed or self._reading.stage is Stage.END:
                return b""
            await self._wait(due_at)

    async def pour(self, take: Callable[[bytes], None], deadlines: Deadlines) -> None:
        """Hands over the body to its end, each part as it comes. LineFault: it broke off; TimeoutError: nothing by
        `deadlines.due_at`, or not all; and whatever `take` raises, after which it is not called again."""
        self._take, self._deadlines = take, deadlines
        try:
            if self._unread and self._failure is None:
                self._hand_over(self._taken())
                await asyncio.sleep(0)  # what has come is heard before what follows is looked at
            while self._failure is None and not (self._closed or self._reading.stage is Stage.END):
                await self._wait(deadlines.due_at)
            if self._failure is not None:
                raise self._failure
        finally:
            self._take = self._deadlines = None

    @property
    def unheard(self) -> bool:
        """Whether not a single byte of the answer came."""
        return not self._reading.begun

    @property
    def fit(self) -> bool:
        """Whether it may be asked: nobody has said anything on it, or closed it, as far as this side can know by now."""
        return self.state is State.IDLE and (self._peek is None or not self._peek.poll(0))

    def rest(self, keep_s: float) -> bool:
        """The exchange is over. True: it waits for its next; False: it could not, and is thrown away."""
        reading = self._reading
        self._headed = self._take = self._deadlines = None
        whole = self.state is State.ANSWERING and reading.stage is Stage.END and not self._held_back
        if not (whole and reading.keeps and reading.framed and self._failure is None):
            self.drop()
            return False
        self._unread.clear()  # an error's body, or that of somebody who left
        self._unread_bytes = 0
        self._move(Event.DONE)
        self.used = True
        self._watch(self._loop.time() + keep_s)
        return True

    def drop(self) -> None:
        """Throws it away, with all that is unread."""
        if self.state is not State.GONE:
            self._move(Event.END)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.transport is not None:
            self.transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if transport.get_extra_info("sslcontext") is None:  # TLS may well say something of its own
            self._fd = transport.get_extra_info("socket").fileno()
            self._peek = select.poll()
            self._peek.register(self._fd, select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if self.state is State.IDLE:
            self.drop()
            return
        if self._failure is not None or self.state is State.GONE:
            return
        reading = self._reading
        if reading.stage is Stage.END:  # the answer was whole; this is nobody's
            self._fail(LineFault(Fault.BROKEN, "more came than the whole answer"), heard=False)
            return
        try:
            body = reading.feed(data)
        except Malformed as error:
            fault = Fault.PROTOCOL if self.state is State.ASKED else Fault.BROKEN
            self._fail(LineFault(fault, str(error)))
            return
        begins = self.state is State.ASKED and reading.stage is not Stage.HEAD
        if begins:
            self._move(Event.HEAD)
            if self._headed is not None:
                self._headed(reading)
        if body and self._take is not None:
            self._hand_over(body)
            if self._failure is None and self._reading.stage is not Stage.END and not begins:
                return
        elif body:
            self._unread.append(body)
            self._unread_bytes += len(body)
            if self._unread_bytes > MAX_UNREAD_BYTES and not self._held_back and self.transport is not None:
                self._held_back = True
                self.transport.pause_reading()
        if body or self.state is State.ANSWERING:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        if self._failure is None and self.state in (State.ASKED, State.ANSWERING):
            self._failure = self._ended(exc)
        if self.state is not State.GONE:
            self._move(Event.END)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.transport = self._peek = None
        self._fd = -1
        self._wake()
        self._gone(self)

    def _ended(self, exc: Exception | None) -> LineFault | None:
        """What it is that the connection ended now; None: as the answer said."""
        reading = self._reading
        if reading.stage is Stage.END:
            return None
        if reading.stage is Stage.BODY and exc is None and not (reading.chunked or reading.length is not None):
            return None
        if isinstance(exc, OSError):
            return LineFault(Fault.BROKEN, f"the connection broke ({named(exc)})")
        when = "in mid-body" if reading.stage is Stage.BODY else "in the head" if reading.begun else "before an answer"
        return LineFault(Fault.BROKEN, f"closed the connection {when}")

    def _fail(self, fault: LineFault, *, heard: bool = True) -> None:
        """Nothing on it is to be believed any more; heard: nor is what came before."""
        if heard:
            self._failure = fault
        self.drop()
        self._wake()

    # Handing over, and waiting.

    def _hand_over(self, body: bytes) -> None:
        take, deadlines, now = self._take, self._deadlines, self._loop.time()
        assert take is not None
        assert deadlines is not None
        due_at = self._due_at = deadlines.came(now)
        self._moments = -1
        try:
            take(body)
        except Exception as error:  # for whoever pours, as if it had been raised there
            self._failure = error
            return
        if due_at < now and self._reading.stage is not Stage.END:  # all of it ought to be there
            self._late = True
            self._wake()

    def _taken(self) -> bytes:
        unread, self._unread, self._unread_bytes = self._unread, [], 0
        if self._held_back and self.transport is not None:
            self._held_back = False
            self.transport.resume_reading()
        return unread[0] if len(unread) == 1 else b"".join(unread)

    async def _wait(self, due_at: float) -> None:
        self._late, self._moments = False, -1
        self._watch(due_at)
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None
        if self._late:
            raise TimeoutError

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _watch(self, due_at: float) -> None:
        """Nothing by then is too late."""
        self._due_at = due_at
        if self._timer is None or self._timer_at > due_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_at = self._loop.call_at(due_at, self._tick), due_at

    def _tick(self) -> None:
        self._timer = None
        if self._loop.time() < self._due_at - CLOCK_S:
            self._watch(self._due_at)
        elif self.state is State.IDLE:
            self.drop()
        elif self._waiter is None or self._waiter.done():  # what it waited for came in this very turn
            return
        elif self._forgives():
            self._loop.call_soon(self._wait_a_moment)
        else:
            self._late = True
            self._wake()

    def _wait_a_moment(self) -> None:
        if self._waiter is not None:  # below 0: something came, and the time was moved on
            self._watch(self._due_at if self._moments < 0 else self._loop.time() + MOMENT_S)

    def _forgives(self) -> bool:
        """Whether it is we who are late, so that what was said meanwhile is still to be read."""
        if self._moments < 0:
            self._moments = moments(self._loop.time() - self._due_at)
        self._moments -= 1
        return self._moments >= 0

    def _move(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]


def tcp_rtt_s(transport: asyncio.BaseTransport | None) -> float | None:
    """The smoothed round trip as TCP itself measured it on this connection; None where the platform does not tell."""
    tcp = None if transport is None or transport.is_closing() else transport.get_extra_info("socket")
    if tcp is None or not hasattr(socket, "TCP_INFO") or tcp.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        told: bytes = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCPI_RTT.size)
    except OSError:  # the connection went away, or the platform has no such thing
        return None
    (rtt_us,) = _TCPI_RTT.unpack(told) if len(told) == _TCPI_RTT.size else (0,)
    return float(rtt_us) / 1e6 if rtt_us else None
