"""Client connections: two lanes behind one socket.

An idle connection's bytes are shown to the fast lane first; what that does not answer goes on to aiohttp as it came. So
everything else about HTTP is aiohttp's: partial heads, pipelines, chunked bodies, errors. Its part of a connection is
`delivery.full`; most connections never have one.

Keeps rule 7: connections are counted, and no lane writes to a client that has not taken what was written before. (Bodies
and stalled writes of aiohttp's lane are timed where they are read and written, all else in `delivery.bounded`.)
"""

import asyncio
from os import writev
from typing import TYPE_CHECKING

from edgecache.delivery.bounded import Bounded
from edgecache.delivery.fastlane import Lane
from edgecache.delivery.full import Full
from edgecache.delivery.redislane import Asking
from edgecache.delivery.said import Answer, Awaited, Seen
from edgecache.delivery.sheets import Outlet
from edgecache.errors import NodeError

if TYPE_CHECKING:
    from edgecache.cache.key import Key
    from edgecache.delivery.miss import Miss
    from edgecache.delivery.server import Server

#: Many clients send head and body apart; the body of a plain request is waited for so long before aiohttp begins with it.
HOLD_S = 0.02
#: A request that was read becomes an exchange within this.
BEGIN_S = 0.05
#: A client's first request comes so soon after its connection was made, on the longest line and with a packet lost (a second
#: until it is sent again). One that was silent for longer connects ahead; when its edge leaves it has at least so much.
FIRST_REQUEST_S, LEAST_S = 2.0, 0.5


class Connection(Bounded):
    """One client's connection."""

    __slots__ = (
        "_asking",
        "_at_ease",
        "_fd",
        "_full",
        "_half_closed",
        "_lane",
        "_leaving",
        "_miss",
        "_misses",
        "_outlet",
        "_unflushed",
        "looked_for",
        "mute",
        "talking",
    )

    def __init__(self, server: "Server") -> None:
        super().__init__(server)
        self._lane = server.lane
        self._misses = server.misses
        self._half_closed = False
        #: aiohttp's part, once anything was handed on to it.
        self._full: Full | None = None
        #: Where the fast lane writes; -1: only the transport may (TLS).
        self._fd = -1
        #: Whether it was at rest, as it is when it is new, and nothing has happened since but hits of the fast lane.
        self._at_ease = False
        #: Whether what was written may not all have been taken.
        self._unflushed = False
        self._asking: Asking | None = None
        #: The miss that is being answered here.
        self._miss: Miss | None = None
        #: Whether the connection ends behind it.
        self._leaving = False
        #: The key that Redis was just asked for in vain.
        self.looked_for: Key | None = None
        #: Whether nothing was ever received.
        self.mute = True
        #: Whether it goes on as a WebSocket.
        self.talking = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        server, fd = self._server, transport.get_extra_info("socket").fileno()
        self._outlet = Outlet(fd)
        server.opened(self, self._outlet.socket)
        if transport.get_extra_info("sslcontext") is None:
            self._fd, self._at_ease = fd, True
        if len(server.connections) > server.limits.connections:
            self._at_ease = False
            self.refuse(NodeError(503, "too_many_connections", "This edge has too many connections.", None, 1))

    def data_received(self, data: bytes) -> None:
        lane, self.mute = self._lane, False
        if self._at_ease and lane is not None:
            answer = lane.again(data)
            if answer is not None and self.transport is not None:  # as `_send`, written out
                self._active_s = self._loop.time()
                head, body, sheet = answer
                try:
                    sent = writev(self._fd, (head, body)) if sheet is None else self._outlet.send(head, sheet)
                except OSError:
                    sent = 0
                return None if sent == len(head) + len(body) else self._send_rest(head, body, sent)
            redis = self._server.redis
            self._asking = None if redis is None else redis.again(self, data)
            if self._asking is not None:  # as `_ask`
                self.busy, self._at_ease = True, False
                return None
        self._at_ease = False
        if lane is None:
            return self._hand_on(data)
        if not self._take(lane, data):
            # Apart, as it came: what is wrong with this would cost aiohttp what was right of that before.
            if held := self._unheld():
                self._hand_on(held)
            self._hand_on(data)
        return None

    def _hand_on(self, received: bytes) -> None:
        """To aiohttp, as it came."""
        if self._full is None:
            if self.transport is None or self._leaving:
                return
            self._full = Full(self._server.full, self, self.transport)
        # Empty lines between requests are nothing (RFC 9112 §2.2).
        if self._head_timer is None and not self.busy and received.strip(b"\r\n"):
            self._await_head()
        self._full.receive(received)

    def eof_received(self) -> bool | None:
        """The client says no more; it is still told what it asked for."""
        self.let_go()
        if self.talking:
            return None  # a WebSocket ends with a Close on both sides; without one the client is gone
        if not (self.busy or self._owes) and self._head_timer is None:
            return None
        self._half_closed = True
        if self._full is not None:
            self._full.cut()
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._asking is not None:
            self._asking.over, self._asking = True, None
        self._unheld()
        self._outlet.close()
        miss = self._miss
        left = None if self._full is None else self._full.lost(exc)
        super().connection_lost(exc)
        if miss is not None:
            miss.lost()
        self._server.closed()
        if left is None:
            self._gone()
        else:
            left.add_done_callback(self._gone)

    def _gone(self, _: "asyncio.Task[None] | None" = None) -> None:
        """Nothing of it is under way any more."""
        self._full = None
        self._server.connections.discard(self)

    # The fast lane.

    def _take(self, lane: Lane, data: bytes) -> bool:
        """Whether these bytes are seen to here."""
        if self._asking is not None or self._miss is not None:
            self._wait_for_answer(data)
            return True
        if self._leaving or not self._at_rest():
            return False
        began_s = lane.now()
        if self._held:
            data = self._held + data
            if len(data) < self._awaited:
                self._held = data
                return True
        seen = lane.read(data)
        if seen is None:
            return False
        if isinstance(seen, Awaited):
            self._wait_for_body(data, seen.length)
            return True
        answer = lane.recorded(seen, began_s)
        if answer is None and not self._ask(seen, data, began_s):
            return self._go_forward(seen, data, began_s, seen.said.asked.key)
        if self._held_timer is not None:
            self._unheld()
        if answer is not None:
            self._at_ease = self._fd >= 0
            self._send(answer.head, answer.body)
            lane.sent(seen, answer, began_s, data)
        return True

    def _at_rest(self) -> bool:
        """Whether aiohttp is, and all that was written was taken."""
        if self._full is not None and not self._full.at_rest:
            return False
        if self._unflushed:
            self._unflushed = self.transport is None or self.transport.get_write_buffer_size() > 0
        return not self._unflushed

    @property
    def _owes(self) -> bool:
        """Whether aiohttp was given a whole request that it has not yet begun with, or not ended."""
        return self._full is not None and self._full.owes

    def _send(self, head: bytes, *body: bytes | memoryview) -> bool:
        """Head and body in one system call; what is not taken now waits in the transport. Whether all was taken."""
        if self.transport is None:  # the descriptor may be another connection's by now
            return False
        self._active_s = self._loop.time()
        sent = 0
        if self._fd >= 0:
            try:
                sent = writev(self._fd, (head, *body))
            except OSError:  # full, or the client is gone: the transport sees the same, and deals with it
                sent = 0
        if sent < len(head) + sum(map(len, body)):
            self._send_rest(head, body[0] if len(body) == 1 else b"".join(body), sent)
            return False
        return True

    def _send_rest(self, head: bytes, body: bytes | memoryview, sent: int) -> None:
        transport = self.transport
        if transport is None:
            return
        if sent < len(head):
            transport.write(head[sent:])
        rest = memoryview(body)[max(0, sent - len(head)) :]
        transport.write(bytes(rest) if body is not rest.obj else rest)
        self._unflushed, self._at_ease = True, False
        self._watch_flush(transport)

    def _wait_for_body(self, received: bytes, length: int) -> None:
        """Many clients send head and body apart: aiohttp begins with the head only if the body does not follow at once."""
        self._unheld()
        self._held, self._awaited = received, length
        self._held_timer = self._loop.call_later(HOLD_S, self.let_go)

    def let_go(self) -> None:
        """What is held goes on to aiohttp as it is."""
        if self._held and not self.busy:
            self._hand_on(self._unheld())

    def _ask(self, seen: Seen, received: bytes, began_s: float) -> bool:
        """Asks Redis; False: there is no use in it."""
        redis = self._server.redis
        self._asking = None if redis is None else redis.ask(self, seen, received, began_s)
        if self._asking is None:
            return False
        self.busy, self._at_ease = True, False
        return True

    def told(self, asking: Asking, answer: Answer | None) -> None:
        """Redis was asked for this, and this is the answer. None: it is another lane's to give, if anybody still waits."""
        if asking.over:
            return
        self._asking, self.busy = None, False
        held = self._go_on() if self._held else b""
        if self.transport is None or self._lane is None:
            return
        if answer is None:
            self.looked_for = asking.seen.said.asked.key if asking.in_vain else None
            if not self._go_forward(asking.seen, asking.received, asking.began_s, self.looked_for):
                self._hand_on(asking.received)
        else:
            self._at_ease = self._send(answer.head, answer.body) and not self._half_closed
            if not self._at_ease:
                self._rest()
            self._lane.sent(asking.seen, answer, asking.began_s, asking.received)
        if held:
            self.data_received(held)

    def lent(self, head: bytes, audio: memoryview) -> bytes:
        """As `told` of a hit, written out. What came meanwhile, to be received when all is told of this."""
        self._asking, self.busy = None, False
        if self.transport is None:
            return b""
        self._active_s, sent = self._loop.time(), 0
        if self._fd >= 0:
            try:
                sent = writev(self._fd, (head, audio))
            except OSError:  # as in `_send`
                sent = 0
        self._at_ease = sent == len(head) + len(audio) and not self._half_closed
        if not self._at_ease:
            if sent < len(head) + len(audio):
                self._send_rest(head, audio, sent)
            self._rest()
        return self._go_on() if self._held else b""

    # The miss lane.

    def _go_forward(self, seen: Seen, received: bytes, began_s: float, looked_for: "Key | None") -> bool:
        """Whether a miss is answered here. looked_for: Redis need not be asked for it."""
        misses = self._misses
        wanted = None if misses is None else misses.again(seen, received)
        miss = None if misses is None or wanted is None else misses.begin(self, wanted, began_s, looked_for)
        if miss is None:
            return False
        self._unheld()
        self._miss, self.busy = miss, True
        miss.begin()
        return True

    def send(self, *pieces: bytes) -> None:
        """At once, where nothing else waits to be written."""
        self._send(*pieces)

    def missed(self, *, kept: bool) -> None:
        """The miss is answered, or broken off. kept: the connection goes on."""
        self._miss = None
        held = self._go_on()
        self._rest()
        if self._leaving or not kept:
            self.force_close()
        elif held:
            self.data_received(held)

    def pause_writing(self) -> None:
        self.writing_paused = True
        if self._full is not None:
            self._full.pause_writing()

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self._full is not None:
            self._full.resume_writing()
        if self._miss is not None:
            self._miss.resumed()

    def close(self) -> None:
        """Nothing more is begun. It is closed behind what is being told, or by whoever says this."""
        self._leaving = True
        if self._full is not None and self._miss is None:
            self._full.close()

    def force_close(self) -> None:
        if self._full is not None:
            self._full.force_close()
        super().force_close()

    def leave(self, began_s: float, waited_s: float) -> bool:
        """This edge leaves: closes the connection behind what was asked, in whole or in part; at once, if that is nothing.

        False: not yet, as a head or its rest may be on its way, or Redis is being asked. began_s: when the edge began to
        leave; waited_s: how long it has since listened.
        """
        if self.talking or self._leaving:
            return True
        self.let_go()
        begun = self.busy or self._owes
        if self._asking is not None or (not begun and waited_s < self._patience_s(began_s)):
            return False
        self._leaving, self._at_ease = True, False
        if not begun:
            self.force_close()
        return True

    def _patience_s(self, began_s: float) -> float:
        """For how long a request is waited for when this edge leaves."""
        if self.mute:
            return max(LEAST_S, FIRST_REQUEST_S - (began_s - self._active_s))
        within = self._head_timer is not None or (self._full is not None and self._full.within)
        return FIRST_REQUEST_S if within else 0.0

    # aiohttp's lane.

    def begin(self) -> None:
        """A whole head was read: its exchange begins."""
        self.busy = True
        self._stop_timer()

    def end(self, *, kept: bool) -> None:
        """aiohttp's exchange is over. kept: the connection goes on."""
        if self._full is not None:
            self._full.ended(kept=kept and not self.talking)
        self._rest()
        if self._leaving and self._full is not None:
            self._full.close()  # no sooner: it takes no more of a body then

    def _rest(self) -> None:
        """An exchange is over; its last bytes may still wait for the client to read."""
        self.busy = False
        self.looked_for = None
        self._unflushed = True
        self._active_s = self._loop.time()
        transport = self.transport
        if transport is not None and transport.get_write_buffer_size():
            self._watch_flush(transport)
        if self._half_closed:
            self._loop.call_later(BEGIN_S, self._close_if_idle)

    def _close_if_idle(self) -> None:
        """A half-closed connection ends behind its last answer; one more may still be to begin, at once or never."""
        if not (self.busy or self._owes):
            self.force_close()
