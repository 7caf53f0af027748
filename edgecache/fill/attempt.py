"""One upstream response, teed to a flight's readers and, when it is proven whole, made a recording.

Keeps rules 2, 3 and 5. An attempt that fails before the first audio leaves the flight as it was, so that another may
follow; one that fails later breaks the flight.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Protocol, assert_never

from edgecache.cache.lookup import Asked
from edgecache.cache.recording import Facts, Recording, etag
from edgecache.clock import Clock
from edgecache.clusters.fault import Fault, UpstreamFault
from edgecache.clusters.selection import Chosen, NoneLeft
from edgecache.errors import NodeError
from edgecache.fill.flight import Flight, Head
from edgecache.fill.seal import BreakOff, EndUnstored, Seal, ending
from edgecache.speech.formats import Expected, Inspector, Measured, NotAudio, inspector
from edgecache.speech.utterance import Utterance
from edgecache.speech.wav import with_true_sizes


class Answer(Protocol):
    """What a cluster answered with status 200."""

    @property
    def media_type(self) -> str: ...
    @property
    def framed(self) -> bool: ...
    def chunks(self) -> AsyncGenerator[bytes, None]: ...


class Clusters(Protocol):
    """Who can be asked, and asking."""

    def choose(self, tried: Collection[str]) -> Chosen | NoneLeft: ...
    def ask(
        self, chosen: Chosen, utterance: Utterance, forwarding: Mapping[str, str]
    ) -> AbstractAsyncContextManager[Answer]: ...


@dataclass(frozen=True, slots=True)
class Order:
    """What a fill is to get, and what is to be done with it."""

    asked: Asked
    utterance: Utterance
    forwarding: Mapping[str, str]
    store: bool = True


@dataclass(frozen=True, slots=True)
class Terms:
    """What every attempt of this node keeps to."""

    clock: Clock
    #: Stores what a flight turned out to be, unless it is outdated.
    keep: Callable[[Flight, Recording], None]
    max_rendering_bytes: int
    first_audio_s: float
    #: Counts so many more bytes as held by this node; False when they may not be.
    hold: Callable[[int], bool]


def full() -> NodeError:
    """There is no room for more bytes; it says nothing about any cluster."""
    return NodeError(503, "busy", "This edge holds as much unfinished audio as it may.", retry_after_s=1)


class Attempt:
    """One cluster asked for one order."""

    def __init__(self, flight: Flight, order: Order, chosen: Chosen, terms: Terms) -> None:
        self._flight = flight
        self._order = order
        self._chosen = chosen
        self._terms = terms
        self._began_s = terms.clock.monotonic()

    async def run(self, clusters: Clusters) -> None:
        """Ends with the flight sealed or ended. UpstreamFault: the cluster failed; NodeError: this edge is full."""
        async with clusters.ask(self._chosen, self._order.utterance, self._order.forwarding) as answer:
            try:
                listening = inspector(answer.media_type, self._expected())
                head = await self._hear(answer, listening)
                measured = listening.finish()
            except NotAudio as error:
                raise self._fault(Fault.NOT_AUDIO, error.reason) from error
            self._finish(answer.framed, head, measured)

    def _expected(self) -> Expected:
        utterance = self._order.utterance
        return Expected(utterance.format, utterance.sample_rate_hz, len(utterance.text), utterance.speaking_rate)

    def _fault(self, fault: Fault, detail: str) -> UpstreamFault:
        return UpstreamFault(fault, self._chosen.cluster, detail)

    async def _hear(self, answer: Answer, listening: Inspector) -> Head | None:
        """Tees the body. None: it ended without any audio."""
        first_byte_s: float | None = None
        head: Head | None = None
        try:
            async with asyncio.timeout(self._terms.first_audio_s - self._elapsed_s()) as patience:
                async with aclosing(answer.chunks()) as chunks:
                    async for chunk in chunks:
                        first_byte_s = self._elapsed_s() if first_byte_s is None else first_byte_s
                        self._take(chunk, listening)
                        if head is None and listening.audible:
                            patience.reschedule(None)
                            head = self._head(answer, first_byte_s)
                            self._flight.audible(head)
                            await asyncio.sleep(0)  # what has come is heard before what follows is looked at
        except TimeoutError as error:
            raise self._fault(Fault.FIRST_BYTE_TIMEOUT, "no audio in time") from error
        return head

    def _elapsed_s(self) -> float:
        return self._terms.clock.monotonic() - self._began_s

    def _take(self, chunk: bytes, listening: Inspector) -> None:
        if self._flight.rendering.length + len(chunk) > self._terms.max_rendering_bytes:
            raise self._fault(Fault.TOO_LARGE, "longer than a rendering may be")
        if not self._terms.hold(len(chunk)):
            raise full()
        self._flight.add(chunk)
        listening.feed(chunk)

    def _head(self, answer: Answer, first_byte_s: float) -> Head:
        return Head(
            media_type=answer.media_type,
            cluster=self._chosen.cluster,
            first_byte_s=first_byte_s,
            first_audio_s=self._elapsed_s(),
            stored=self._order.store and answer.framed,
        )

    def _finish(self, framed: bool, head: Head | None, measured: Measured) -> None:
        flight = self._flight
        if head is None:
            raise self._fault(Fault.NOT_AUDIO, "empty_audio")
        match ending(framed=framed, measured=measured, wanted=self._order.store):
            case Seal():
                recording = self._recording(head, measured)
                self._terms.keep(flight, recording)
                flight.seal(recording)
            case EndUnstored(reason):
                flight.end(reason)
            case BreakOff(reason):
                raise self._fault(Fault.BROKEN, reason)
            case _ as never:
                assert_never(never)

    def _recording(self, head: Head, measured: Measured) -> Recording:
        audio = self._flight.rendering.collapse()
        if measured.container == "wav":
            audio = with_true_sizes(audio)
        facts = Facts(
            media_type=head.media_type,
            container=measured.container,
            duration_ms=measured.duration_ms,
            sample_rate_hz=measured.sample_rate_hz,
            channels=measured.channels,
            made_at=self._terms.clock.wall(),
            made_in_ms=self._elapsed_s() * 1000,
            first_audio_ms=head.first_audio_s * 1000,
            cluster=head.cluster,
            etag=etag(audio),
        )
        asked = self._order.asked
        return Recording(asked.key, asked.namespace, asked.canonical, facts, audio)
