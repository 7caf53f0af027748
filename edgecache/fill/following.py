"""An attempt whose bytes another process gives, which leads a flight for the same key: its tail is heard in place of a
cluster.

Keeps rules 1, 2, 3, 5 and 6: whose speech it is was compared before a byte is heard; what is kept is what the leader sealed,
byte for byte; a tail that breaks off, falls silent or is not believed is a fault like a cluster's. It does not know how
entries come.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import msgspec

from edgecache.cache.recording import Recording, etag
from edgecache.clusters.fault import Fault, UpstreamFault
from edgecache.clusters.selection import Chosen, Why
from edgecache.fill.attempt import Answer, Attempt, Order, Terms
from edgecache.fill.flight import Flight, Head
from edgecache.fill.priority import Priority
from edgecache.fill.tail import Forged, State, Story
from edgecache.speech.formats import Measured
from edgecache.speech.timings import Timings
from edgecache.speech.wav import with_true_sizes

#: What one that follows is called where a cluster's name belongs, until it knows whom the leader asked.
NOBODY = Chosen("", "another-edge", Why.NEAREST, keep_to="")


class Lost(Exception):
    """No more entries can come. The message is safe for logs."""


class Tail(Protocol):
    """A tail being read, from its first entry. `lasts_s`: an entry comes at least as often, while its leader lives.
    `hold_on`: from now on a lost connection is no end of it, only silence is."""

    @property
    def lasts_s(self) -> float: ...
    async def next(self) -> bytes: ...
    def hold_on(self) -> None: ...
    def close(self) -> None: ...


class Held(Protocol):
    """Another process has the lease. `token`: its name for it. `void`: it is to be anyone's."""

    @property
    def token(self) -> str: ...
    def follow(self, priority: Priority) -> Tail: ...
    async def void(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Common:
    """What all that is followed keeps to. purged: whether a flight falls under a purge."""

    terms: Terms
    purged: Callable[[Flight], object]


class Told:
    """A tail as the answer of a cluster. Its head is known."""

    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, tail: Tail, story: Story, first: bytes) -> None:
        assert story.begun is not None, story
        self._tail = tail
        self._first = first
        self._story = story
        self.media_type = story.begun.media_type
        self.framed = story.begun.stored  # nothing else keeps what may be joined from being stored

    async def pour(self, take: Callable[[bytes], None]) -> None:
        """The bytes as they are told. UpstreamFault: they broke off."""
        take(self._first)
        await asyncio.sleep(0)  # what has come is heard before what follows is looked at
        while self._story.state is State.SPEAKING:
            if audio := await heard(self._tail, self._story, self._tail.lasts_s):
                take(audio)

    async def more(self) -> bytes:
        """What a cluster tells beside the audio comes with the recording's facts."""
        return b""


async def heard(tail: Tail, story: Story, within_s: float) -> bytes:
    """The audio of the next entry. UpstreamFault: it is the last, and no end; or none came in time."""
    cluster = NOBODY.cluster if story.begun is None else story.begun.cluster
    try:
        async with asyncio.timeout(within_s):
            value = await tail.next()
        audio = story.take(value)
    except TimeoutError as error:
        story.silent = True
        story.breaks()
        raise UpstreamFault(Fault.STALLED, cluster, "the edge that asked it fell silent") from error
    except (Lost, Forged) as error:
        story.breaks()
        raise UpstreamFault(Fault.BROKEN, cluster, f"the edge that asked it can't be followed: {error}") from error
    if story.state in (State.GONE, State.CUT):
        raise UpstreamFault(Fault.BROKEN, cluster, "the edge that asked it was told no more")
    return audio


class Following(Attempt):
    """One tail heard for one order."""

    def __init__(self, flight: Flight, order: Order, held: Held, common: Common) -> None:
        super().__init__(flight, order, NOBODY, common.terms)
        self._held = held
        self._purged = common.purged
        self._story = Story(order.asked)

    @property
    def answered(self) -> bool:
        """Whether who leads has said so."""
        return self._story.opened is not None

    @property
    def believed(self) -> bool:
        """Whether all that was told could be what a leader of ours tells."""
        return self._story.believed

    @property
    def silent(self) -> bool:
        """Whether it ended because nothing came in time."""
        return self._story.silent

    def _ask(self) -> AbstractAsyncContextManager[Answer]:
        return self._follow()

    @asynccontextmanager
    async def _follow(self) -> AsyncIterator[Answer]:
        tail, story = self._held.follow(self.flight.priority), self._story
        try:
            # One that leads answers at once, so who does not is soon taken for gone.
            await heard(tail, story, tail.lasts_s / 4)
            await self._know_of_purges()
            first = b""
            while story.begun is None:
                first = await heard(tail, story, tail.lasts_s)
            tail.hold_on()  # nobody else can be heard from here on
            self.chosen = msgspec.structs.replace(NOBODY, cluster=story.begun.cluster)
            yield Told(tail, story, first)
        finally:
            tail.close()

    async def _know_of_purges(self) -> None:
        """It falls under what the leader did not know of when it began; then it is led anew, by whoever takes the lease."""
        assert self._story.opened is not None
        newest, self.flight.after_purge = self.flight.after_purge, self._story.opened.after_purge
        if self._purged(self.flight):
            self.flight.after_purge = newest
            await self._held.void()
            raise self._fault(Fault.BROKEN, "it was begun before a purge")

    def _report(self, first_audio_s: float, real_time_factor: float | None) -> None:
        """It says nothing of any cluster that this edge could ask."""

    def _told(self, answer: Answer, first_byte_s: float) -> Head:
        assert self._story.begun is not None
        stored = self._story.begun.stored
        tags = self._story.begun.tags
        return msgspec.structs.replace(super()._told(answer, first_byte_s), stored=stored, tags=tags, followed=True)

    def _finish(self, framed: bool, head: Head | None, measured: Measured, timings: Timings) -> None:
        ended = self._story.ended
        if head is not None and framed and measured.complete and (ended is None or ended.facts is None):
            return self.flight.end("not sealed by who led")
        return super()._finish(framed, head, measured, timings)

    def _recording(self, head: Head, measured: Measured, timings: Timings) -> Recording:
        """What the leader made of the same bytes. UpstreamFault: it is not of these bytes."""
        assert self._story.ended is not None
        facts = self._story.ended.facts
        assert facts is not None
        audio = self.flight.rendering.collapse()
        if measured.container == "wav":
            audio = with_true_sizes(audio)
        if etag(audio) != facts.etag:
            raise self._fault(Fault.BROKEN, "what was sealed has other bytes")
        asked = self.order.asked
        return Recording(asked.key, asked.namespace, asked.canonical, facts, audio)
