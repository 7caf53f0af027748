"""All client connections of a node: how many there are, and closing them without breaking what they are being told."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from edgecache.delivery.arrival import arrival
from edgecache.delivery.connection import BEGIN_S, Connection
from edgecache.delivery.fastlane import Lane
from edgecache.delivery.limits import RequestLimits
from edgecache.delivery.misslane import MissLane
from edgecache.delivery.redislane import RedisLane
from edgecache.measures.ladder import Spread

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

#: aiohttp's own watch over idle connections knows nothing of the fast lane, so it never gets to act.
NEVER_S = 10 * 365 * 24 * 3600.0


#: A new connection's first request comes within this, or its client can well ask elsewhere.
FIRST_REQUEST_S = 0.5


class Server(web.Server):
    """Makes a `Connection` for each client, as many as there may be."""

    def __init__(
        self, handle: Handle, limits: RequestLimits, lane: Lane | None = None, misses: MissLane | None = None
    ) -> None:
        self.limits = limits
        self.lane, self.misses = lane, misses
        self.redis = None if lane is None else RedisLane(lane)
        self._options: dict[str, Any] = {
            "keepalive_timeout": NEVER_S,
            "access_log": None,
            "lingering_time": 1.0,
            "auto_decompress": False,
        }
        #: What clients waited for their connections, by whose part it is.
        self.startup = {"client": Spread(), "edge": Spread()}
        self._open = 0
        self._empty = asyncio.Event()
        self._empty.set()
        #: For how many requests that aiohttp does not know of Redis is asked.
        self.asking = 0
        self._answered = asyncio.Event()
        super().__init__(handle)

    def __call__(self) -> Connection:
        return Connection(self, self._options)

    def opened(self, transport: asyncio.BaseTransport) -> None:
        """A connection was made."""
        times = arrival(transport)
        if times is not None:
            self.startup["client"].add(times.line_s)
            self.startup["edge"].add(times.waited_s)
        self._open += 1
        self._empty.clear()

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
        await self._all_have_asked()
        await self._fast_lane_empty()
        for each in self.connections:
            if not (isinstance(each, Connection) and each.talking):  # it has been told, and still has to be heard
                each.close()
        await asyncio.sleep(BEGIN_S)
        for each in self.connections:
            if isinstance(each, Connection) and not each.busy:
                each.force_close()
        await self._empty.wait()

    async def _all_have_asked(self) -> None:
        """A connection that came just before we stopped listening is no idle one: its request is on its way."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + FIRST_REQUEST_S
        while loop.time() < until_s:
            if not any(isinstance(each, Connection) and each.mute for each in self.connections):
                return
            await asyncio.sleep(FIRST_REQUEST_S / 50)

    async def _fast_lane_empty(self) -> None:
        """aiohttp closes connections that it believes to be idle, so the fast lane has to be done with them first."""
        for each in self.connections:
            if isinstance(each, Connection):
                each.let_go()
        while self.asking:
            self._answered.clear()
            await self._answered.wait()
