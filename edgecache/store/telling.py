"""A flight told to those who follow it in other processes: one more reader of it, that writes what it hears to a stream.

Keeps rules 3, 4 and 7: it reads by position as every reader does, so it delays nobody; one entry is on its way at a time,
and what comes meanwhile goes together into the next. An end is told only of a flight that ended. It does not know Redis.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import xxhash

from edgecache.cache.lookup import Asked
from edgecache.errors import SpeechError
from edgecache.fill.flight import Flight, State
from edgecache.fill.tail import CHUNK_BYTES, VERSION, Alive, Begun, Broken, Ended, Entry, More, Opened, frame

#: No flight needs more; one that would is broken off for those who follow it.
MAX_ENTRIES = 16_384

Send = Callable[[bytes, int], Awaitable[None]]
Heard = TypeVar("Heard")


class Untold(Exception):
    """An entry did not get through."""


class Telling:
    """One flight being told."""

    def __init__(self, asked: Asked, flight: Flight, alive_s: float) -> None:
        """alive_s: when there is nothing to tell, that is told so often."""
        self._asked = asked
        self._flight = flight
        self._alive_s = alive_s
        self._number = 0
        self._position = 0
        self._sum = xxhash.xxh3_128()

    async def run(self, send: Send) -> None:
        """Tells it to its end. Untold: an entry did not get through; then it is told that it broke off, if that does."""
        try:
            with self._flight.reading():
                asked, flight = self._asked, self._flight
                await self._tell(Opened(VERSION, asked.namespace, asked.canonical, flight.after_purge), send)
                try:
                    await self._listen(send)
                except SpeechError as error:
                    return await self._tell(Broken(error.code), send)
            recording = flight.recording
            facts = recording.facts if recording is not None and flight.state is State.SEALED else None
            await self._tell(Ended(self._position, self._sum.digest(), facts), send)
        except Untold:
            await self._tell(Broken("untold"), send)
            raise

    async def _listen(self, send: Send) -> None:
        head = await self._patiently(self._flight.begun, send)
        first = await self._more()  # there is some: a flight is not begun before
        await self._tell(Begun(head.media_type, head.cluster, head.stored, head.tags, first), send)
        while True:
            position = self._position
            audio = await self._patiently(self._more, send)
            if not audio:
                return
            await self._tell(More(position, audio), send)

    async def _more(self) -> bytes:
        """All that has come since, up to what is told at once; empty at the end."""
        parts, length = [await self._flight.read(self._position)], 0
        while parts[-1] and (length := length + len(parts[-1])) < CHUNK_BYTES:
            parts.append(self._flight.rendering.read(self._position + length)[: CHUNK_BYTES - length])
        audio = b"".join(parts)
        self._position += len(audio)
        self._sum.update(audio)
        return audio

    async def _patiently(self, hear: Callable[[], Awaitable[Heard]], send: Send) -> Heard:
        while True:
            try:
                async with asyncio.timeout(self._alive_s):
                    return await hear()
            except TimeoutError:
                await self._tell(Alive(), send)

    async def _tell(self, entry: Entry, send: Send) -> None:
        self._number += 1
        if self._number > MAX_ENTRIES and not isinstance(entry, Ended | Broken):
            raise Untold
        await send(frame(entry), self._number)
