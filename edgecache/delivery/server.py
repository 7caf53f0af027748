"""All client connections of a node: how many there are, and closing them without breaking what they are being told."""

import asyncio
import socket

from edgecache.delivery.arrival import Arrivals
from edgecache.delivery.connection import Connection
from edgecache.delivery.fastlane import Lane
from edgecache.delivery.full import Fulls, Handle
from edgecache.delivery.limits import RequestLimits
from edgecache.delivery.misslane import MissLane
from edgecache.delivery.redislane import RedisLane

#: In so many turns of the event loop a connection that was made is taken over, and what was said on it is read.
TURNS = 5
#: How often those are looked at again that may not yet be closed.
LOOK_S = 0.02
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

    async def drain(self) -> None:
        """Closes idle connections, and the others behind the last byte of what they are being told, or still ask."""
        for _ in range(TURNS):  # what lies in the kernel is heard: connections, and requests on them
            await asyncio.sleep(0)
        began_s, waited_s = self.loop.time(), 0.0
        # What we waited is counted, not read from a clock: while we stand still nobody is heard.
        while not self._left(began_s, waited_s):
            await asyncio.sleep(LOOK_S)
            waited_s += LOOK_S
        await self._empty.wait()

    def _left(self, began_s: float, waited_s: float) -> bool:
        """Whether every connection ends by itself; those that may be closed now, are."""
        each_has = [each.leave(began_s, waited_s) for each in list(self.connections)]
        return all(each_has)

    async def close(self, timeout_s: float) -> None:
        """Closes all connections; what they are being told may end within this time."""
        for each in self.connections:
            each.close()
        await self._until_none_is_busy(timeout_s)
        await self.full.shutdown(timeout_s)
        for each in list(self.connections):
            each.force_close()
        if self._growing is not None:
            self._growing.cancel()

    async def _until_none_is_busy(self, within_s: float) -> None:
        until_s = self.loop.time() + within_s
        while self.loop.time() < until_s:
            if not any(each.busy for each in self.connections):
                return
            await asyncio.sleep(within_s / 50)
