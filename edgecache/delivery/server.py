"""All client connections of a node: how many there are, and closing them without breaking what they are being told."""

import asyncio
import socket
from collections.abc import Callable

from edgecache.delivery.arrival import Arrivals
from edgecache.delivery.connection import BEGIN_S, Connection
from edgecache.delivery.fastlane import Lane
from edgecache.delivery.full import Fulls, Handle
from edgecache.delivery.limits import RequestLimits
from edgecache.delivery.misslane import MissLane
from edgecache.delivery.redislane import RedisLane

#: A new connection's first request comes within this, or its client can well ask elsewhere.
FIRST_REQUEST_S = 0.5


#: A connection that is no longer than this, as most are that are made for one request, needs no timer.
SHORT_S = 0.25


class Server:
    """Makes a `Connection` for each client, as many as there may be."""

    def __init__(
        self, handle: Handle, limits: RequestLimits, lane: Lane | None = None, misses: MissLane | None = None
    ) -> None:
        self.limits = limits
        self.lane, self.misses = lane, misses
        self.redis = None if lane is None else RedisLane(lane)
        self.loop = asyncio.get_running_loop()
        #: What aiohttp's parts of connections share.
        self.full = Fulls(handle)
        #: All of which anything is still under way.
        self.connections: set[Connection] = set()
        #: What clients waited for their connections.
        self.arrivals = Arrivals()
        self._open = 0
        self._empty = asyncio.Event()
        self._empty.set()
        #: Made of late, and not yet watched for being idle.
        self._young: list[Connection] = []
        self._growing: asyncio.TimerHandle | None = None
        #: For how many requests that aiohttp does not know of Redis is asked.
        self.asking = 0
        self._answered = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Server {len(self.connections)} connections>"

    def __call__(self) -> Connection:
        return Connection(self)

    def opened(self, connection: Connection, tcp: socket.SocketType) -> None:
        """A connection was made."""
        self.arrivals.add(tcp)
        self.connections.add(connection)
        self._young.append(connection)
        if self._growing is None:
            self._growing = self.loop.call_later(min(SHORT_S, self.limits.keep_alive_s), self._watch)
        self._open += 1
        self._empty.clear()

    def _watch(self) -> None:
        """Those that have stayed are watched from now on."""
        young, self._young, self._growing = self._young, [], None
        for each in young:
            each.watch()

    def closed(self) -> None:
        """A connection is over, and all that was written to it has been sent."""
        self._open -= 1
        if not self._open:
            self._empty.set()

    def asked(self) -> None:
        """Redis has answered one of them."""
        self.asking -= 1
        if not self.asking:
            self._answered.set()

    async def drain(self) -> None:
        """Closes idle connections now, and the others behind the last byte of what they are being told."""
        # A connection that came just before we stopped listening is no idle one: its request is on its way.
        await self._wait(lambda each: each.mute, FIRST_REQUEST_S)
        await self._fast_lane_empty()
        for each in self.connections:
            if not each.talking:  # it has been told, and still has to be heard
                each.close()
        await asyncio.sleep(BEGIN_S)
        for each in list(self.connections):
            if not each.busy:
                each.force_close()
        await self._empty.wait()

    async def close(self, timeout_s: float) -> None:
        """Closes all connections; what they are being told may end within this time."""
        for each in self.connections:
            each.close()
        await self._wait(lambda each: each.busy, timeout_s)
        await self.full.shutdown(timeout_s)
        for each in list(self.connections):
            each.force_close()
        if self._growing is not None:
            self._growing.cancel()

    async def _wait(self, like: Callable[[Connection], bool], within_s: float) -> None:
        """While there is any like this, and no longer."""
        until_s = self.loop.time() + within_s
        while self.loop.time() < until_s:
            if not any(like(each) for each in self.connections):
                return
            await asyncio.sleep(within_s / 50)

    async def _fast_lane_empty(self) -> None:
        """No more is begun once connections are closed, so the fast lane has to be done with them first."""
        for each in list(self.connections):
            each.let_go()
        while self.asking:
            self._answered.clear()
            await self._answered.wait()
