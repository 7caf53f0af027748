"""Fills over scripted clusters, of which nothing may be left, and who listens to them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from edgecache.cache.key import Key
from edgecache.cache.lookup import Asked
from edgecache.cache.recording import Recording
from edgecache.clusters.fault import Fault, UpstreamFault
from edgecache.errors import SpeechError
from edgecache.fill.attempt import Order
from edgecache.fill.fills import Fills
from edgecache.fill.flight import Flight, State
from edgecache.fill.limits import FillLimits
from edgecache.speech.utterance import utterance
from tests.fake_clock import FakeClock
from tests.scripted_clusters import WAV, Reply, ScriptedClusters

KEY = Key("ab" * 32)
#: A WAV's header, before any sample.
SILENT = WAV[:44]
#: A whole one, and other tasks run between.
PIECES = (WAV[:10], None, WAV[10:44], None, WAV[44:1000], None, WAV[1000:])


def order(text: str = "Hello", *, store: bool = True, key: Key = KEY) -> Order:
    wanted = utterance({"text": text})
    return Order(Asked(key, "default", wanted.canonical), wanted, {"Via": "test"}, store)


def fault(kind: Fault, status: int | None = None, retry_after_s: float | None = None) -> UpstreamFault:
    return UpstreamFault(kind, "c0", "so it was", status, retry_after_s)


async def settle() -> None:
    """Lets every task come to where it waits."""
    for _ in range(25):
        await asyncio.sleep(0)


@dataclass
class Listener:
    """Who hears a flight, from byte zero."""

    flight: Flight
    heard: bytearray = field(default_factory=bytearray)
    end: str = ""
    #: Waited for before each read.
    ready: asyncio.Event | None = None

    async def listen(self) -> None:
        with self.flight.reading():
            try:
                await self.flight.begun()
                while True:
                    if self.ready is not None:
                        await self.ready.wait()
                    chunk = await self.flight.read(len(self.heard))
                    if not chunk:
                        break
                    self.heard += chunk
            except SpeechError as error:
                self.end = error.code
            else:
                self.end = "whole"


@dataclass
class Rig:
    fills: Fills
    clusters: ScriptedClusters
    clock: FakeClock
    kept: list[Recording]
    unforeseen: list[object]

    async def listen(self, given: Order | None = None) -> tuple[Flight, Listener]:
        """A fill from its beginning to its end, and who heard it."""
        flight = self.fills.lead(given or order())
        listener = Listener(flight)
        await listener.listen()
        await self.fills.drain()
        return flight, listener

    async def refused(self) -> SpeechError:
        """The error that a fill comes to before it is heard."""
        flight = self.fills.lead(order())
        with pytest.raises(SpeechError) as told:
            await flight.begun()
        await self.fills.drain()
        assert flight.state is State.REFUSED
        return told.value


@asynccontextmanager
async def rig(*replies: Reply, clusters: ScriptedClusters | None = None, **limits: Any) -> AsyncIterator[Rig]:
    """Fills over scripted clusters, of which nothing is left in the end."""
    asked = clusters or ScriptedClusters(replies or (Reply(),))
    kept: list[Recording] = []
    unforeseen: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unforeseen.append(context.get("exception")))
    clock = FakeClock()
    fills = Fills(FillLimits(**limits), asked, kept.append, clock)
    made = Rig(fills, asked, clock, kept, unforeseen)
    try:
        yield made
        assert made.unforeseen == []
        await settle()
        assert (fills.under_way, fills.held_bytes, asked.open) == (0, 0, 0)
        assert fills.flight(KEY) is None
        assert fills.sealed + fills.unstored.total() + fills.broken + fills.refused == fills.led
    finally:
        await fills.close()
        loop.set_exception_handler(None)
