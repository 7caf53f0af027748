"""WebSocket `/ws/tts/stream`: from the handshake to the end of the session, and all sessions of a node.

Keeps rules 7 and 8: who asks, from which page, and within which bounds is decided before a connection is taken over, and
whose key was taken out of the keys file since is asked again with each text. Audio is not compressed: it hardly shrinks.
"""

from aiohttp import web

from edgecache.cache.lookup import Directives
from edgecache.delivery.auth import Caller, Gate
from edgecache.delivery.exchange import Exchange
from edgecache.delivery.full import line_of
from edgecache.delivery.handshake import Offer, offer
from edgecache.delivery.head import SERVER
from edgecache.delivery.readiness import Readiness
from edgecache.delivery.session import CLOSE_S, Guest, Session
from edgecache.delivery.turn import Means
from edgecache.errors import NodeError
from edgecache.fill.edge import Wish
from edgecache.speech.utterance import Utterance


class Sockets:
    """All sessions of a node."""

    def __init__(self, means: Means, gate: Gate, readiness: Readiness) -> None:
        self._means = means
        self._gate = gate
        self._readiness = readiness
        self._sessions: set[Session] = set()

    def __repr__(self) -> str:
        return f"<Sockets {len(self._sessions)} sessions>"

    def __len__(self) -> int:
        return len(self._sessions)

    def leave(self) -> None:
        """Every session ends behind what it is saying."""
        for session in self._sessions:
            session.leave("this edge is stopping")

    async def respond(self, exchange: Exchange, forwarding: dict[str, str], *, no_store: bool) -> web.StreamResponse:
        """The handshake and the whole session. ClientError: no session is opened."""
        settings, request = self._means.settings, exchange.request
        offered = offer(request.headers, settings.origins)
        exchange.caller = self._gate.ring.admit(offered.presented)
        if self._readiness.draining:
            raise NodeError(503, "leaving", "This edge is stopping.", retry_after_s=1)
        socket = web.WebSocketResponse(
            timeout=CLOSE_S,
            autoping=False,  # they count as messages
            heartbeat=settings.heartbeat_s,
            protocols=(offered.answer,) if offered.answer else (),
            compress=False,
            max_msg_size=settings.message_bytes,
        )
        socket.headers.update({"Server": SERVER, "X-Request-Id": exchange.request_id})
        connection = line_of(request)
        connection.talking, exchange.status = True, 101
        await socket.prepare(request)
        session = Session(self._means, self._guest(exchange, offered, forwarding), socket, no_store=no_store)
        self._sessions.add(session)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
            _let_go(exchange)
        return socket

    def _guest(self, exchange: Exchange, offered: Offer, forwarding: dict[str, str]) -> Guest:
        def caller() -> Caller:
            return self._gate.ring.admit(offered.presented)

        def wish(utterance: Utterance, caller: Caller, directives: Directives) -> Wish:
            return Wish(utterance, caller.namespace, directives, forwarding)

        return Guest(exchange, offered.protocol, caller, wish)


def _let_go(exchange: Exchange) -> None:
    """What a client has not taken by the end of its session is not kept for it: it may have vanished."""
    transport = exchange.request.transport
    if transport is not None and transport.get_write_buffer_size():
        transport.abort()
