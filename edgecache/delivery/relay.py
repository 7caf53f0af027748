"""A flight passed on to one client, each piece in the turn of the event loop in which it came.

Keeps rules 3 and 4: it ends only if the speech did, and raises if that broke off; a client that takes nothing is given
nothing, and slows nobody down. Its task sleeps meanwhile, and wakes when the client is behind or all is said. It does not
know what is written to.
"""

import asyncio
from contextlib import closing
from typing import Protocol

from edgecache.errors import SpeechError
from edgecache.fill.flight import Flight, Listener


class Outlet(Protocol):
    """The client's side. put: writes a piece; False: `room` is to be awaited before the next. Both raise ConnectionError
    if the client is gone."""

    def put(self, chunk: bytes, audio_s: float, arrived_s: float) -> bool: ...
    async def write(self, chunk: bytes, audio_s: float, arrived_s: float) -> None: ...
    async def room(self) -> None: ...


async def relay(flight: Flight, outlet: Outlet) -> None:
    """All of it, from byte zero. SpeechError: it broke off; ConnectionError: the client is gone, or reads nothing."""
    relaying = _Relaying(flight, outlet)
    with closing(relaying.listener):
        await relaying.run()


class _Relaying:
    """One flight to one client."""

    __slots__ = ("_flight", "_full", "_outlet", "_waiter", "listener")

    def __init__(self, flight: Flight, outlet: Outlet) -> None:
        self._flight = flight
        self._outlet = outlet
        self._full = False
        #: While the task waits, and only then, what comes is passed on without it.
        self._waiter: asyncio.Future[None] | None = None
        self.listener = Listener(flight, self._told)

    async def run(self) -> None:
        """See `relay`."""
        if first := self.listener.take():  # with the head of the answer
            await self._outlet.write(first, self.listener.audio_s, self._flight.arrived_s)
        while not self.listener.ended:
            if self._full:
                await self._outlet.room()
                self._full = False
            if not self._pass_on():
                await self._wait()

    def _pass_on(self) -> bool:
        """All that is there, as long as the client takes it. Whether its task has something to do now."""
        listener, put = self.listener, self._outlet.put
        while chunk := listener.take():
            if not put(chunk, listener.audio_s, self._flight.arrived_s):
                self._full = True
                return True
        return listener.ended

    def _told(self) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        try:
            if self._pass_on():
                waiter.set_result(None)
        except (SpeechError, ConnectionError) as error:
            waiter.set_exception(error)
        except BaseException as error:
            waiter.set_exception(error)
            raise

    async def _wait(self) -> None:
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            await waiter
        finally:
            self._waiter = None
