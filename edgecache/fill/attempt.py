"""One upstream response, teed to a flight's readers and, when it is proven whole, made a recording.

Keeps rules 2, 3 and 5. An attempt that fails before the first audio leaves the flight as it was, so that another may
follow; one that fails later breaks the flight.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, assert_never

import msgspec

from edgecache.cache.lookup import Asked
from edgecache.cache.recording import Facts, Recording, etag
from edgecache.cache.tags import TooMany, tags
from edgecache.clock import Clock
from edgecache.clusters.fault import Fault, UpstreamFault
from edgecache.clusters.patience import Patience
from edgecache.clusters.routing import Whose
from edgecache.clusters.selection import Chosen, NoneLeft
from edgecache.fill.flight import Flight, Head, Rendering, State
from edgecache.fill.hedging import Beaten, Race
from edgecache.fill.priority import Priority
from edgecache.fill.refusal import full
from edgecache.fill.seal import BreakOff, EndUnstored, Seal, ending
from edgecache.fill.trickle import Come, Trickle, Watch
from edgecache.speech.formats import Expected, Inspector, Measured, NotAudio, inspector
from edgecache.speech.timings import Timings
from edgecache.speech.timings import read as read_timings
from edgecache.speech.utterance import Utterance
from edgecache.speech.wav import with_true_sizes


class Answer(Protocol):
    """What a cluster answered with status 200."""

    @property
    def media_type(self) -> str: ...
    @property
    def framed(self) -> bool: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    async def pour(self, take: Callable[[bytes], None]) -> None: ...
    async def more(self) -> bytes: ...


class Exchange(AbstractAsyncContextManager[Answer], Protocol):
    """One asking, to be entered. `begin`: asks now, if that needs no waiting; `hear` is then given the answer as soon as its
    head is there, and what that gives is handed the body. `abandon`: it was begun, and nobody enters it."""

    def begin(self, hear: Callable[[Answer], Callable[[bytes], None]], /) -> None: ...
    def abandon(self) -> None: ...


class Clusters(Protocol):
    """Who can be asked, and asking."""

    def choose(self, tried: Collection[str], whose: Whose) -> Chosen | NoneLeft: ...
    def ask(self, chosen: Chosen, utterance: Utterance, forwarding: Mapping[str, str]) -> Exchange: ...
    def heard(self, chosen: Chosen, first_audio_s: float, real_time_factor: float | None) -> None: ...
    def late_s(self, upstream: str) -> float | None: ...
    def on_room(self, told: Callable[[], None]) -> None: ...


class Order(msgspec.Struct, frozen=True):
    """What a fill is to get, and what is to be done with it."""

    asked: Asked
    utterance: Utterance
    forwarding: Mapping[str, str]
    store: bool = True
    priority: Priority = Priority.INTERACTIVE
    #: Whether anyone may join it who asks for the same, in another process too.
    joinable: bool = False

    @property
    def whose(self) -> Whose:
        """What routes go by."""
        return Whose(self.asked.namespace, self.utterance.voice, self.utterance.language)


@dataclass(frozen=True, slots=True)
class Terms:
    """What every attempt of this node keeps to."""

    clusters: Clusters
    clock: Clock
    #: Stores what a flight turned out to be, unless it is outdated; False: it was purged meanwhile.
    keep: Callable[[Flight, Recording], bool]
    max_rendering_bytes: int
    first_audio_s: float
    #: Counts so many more bytes as held by this node; False when they may not be.
    hold: Callable[[int], bool]
    #: So many of them are held no more.
    release: Callable[[int], None]
    trickle: Trickle
    #: For how long this process stood still, in all.
    stood_still_s: Callable[[], float]


class Attempt:
    """One cluster asked for one order. Its bytes are its own until they are heard; then the flight has them."""

    def __init__(self, flight: Flight, order: Order, chosen: Chosen, terms: Terms) -> None:
        self.flight = flight
        self.order = order
        self._terms = terms
        self._race: Race | None = None
        self._exchange: Exchange | None = None
        self._rendering = Rendering()
        self._began_s = terms.clock.monotonic()
        #: How long it took to its last byte of audio.
        self._ended_s = 0.0
        self._watch = Watch(terms.trickle)
        self._expected: Expected | None = None
        #: How much speech has come, and when the last of it did.
        self._heard = (0.0, self._began_s)
        self.chosen = chosen
        # From when the cluster answers.
        self._answer: Answer | None = None
        self._listening: Inspector | None = None
        self._first_byte_s: float | None = None
        self._head: Head | None = None
        #: What ends with the first audio.
        self._patience: list[Patience] = []

    def __repr__(self) -> str:
        return f"<Attempt {self.chosen.upstream} {'heard' if self.audible else 'not heard'}>"

    @property
    def audible(self) -> bool:
        """Whether it is the one that is heard."""
        return self.flight.rendering is self._rendering

    @property
    def elapsed_s(self) -> float:
        """Since it began."""
        return self._terms.clock.monotonic() - self._began_s

    def enter(self, race: Race) -> "Attempt":
        """It is to say there when it is heard."""
        self._race = race
        return self

    def beside(self, chosen: Chosen) -> "Attempt":
        """Another one at the same."""
        return Attempt(self.flight, self.order, chosen, self._terms)

    def begin(self) -> Exchange:
        """Asks now, if that needs no waiting, and hears what is said at once; `run` has to follow, or `abandon`."""
        exchange = self._exchange = self._terms.clusters.ask(self.chosen, self.order.utterance, self.order.forwarding)
        exchange.begin(self._listen)
        return exchange

    def abandon(self) -> None:
        """It was begun, and nobody will run it."""
        if self._exchange is not None:
            self._exchange.abandon()
            self._let_go()

    async def run(self, within_s: float) -> None:
        """Ends with the flight sealed or ended. within_s: until the first audio. UpstreamFault: the cluster failed;
        NodeError: this edge is full; Beaten: another was heard first."""
        deadline = Patience(within_s)
        self._patience.append(deadline)
        try:
            self._expect()  # by then nothing has come; there will be less time
            async with deadline, self._ask() as answer:
                await self._take_down(answer)
        except TimeoutError as error:
            raise self._fault(Fault.FIRST_BYTE_TIMEOUT, "no audio before the fill's deadline") from error
        finally:
            self._let_go()

    def _let_go(self) -> None:
        # Either knows this attempt: nothing is to wait for the garbage collector.
        self._exchange = self._answer = None
        if not self.audible:
            self._terms.release(self._rendering.length)

    def _ask(self) -> AbstractAsyncContextManager[Answer]:
        return self._exchange or self.begin()

    def _report(self, first_audio_s: float, real_time_factor: float | None) -> None:
        self._terms.clusters.heard(self.chosen, first_audio_s, real_time_factor)

    async def _take_down(self, answer: Answer) -> None:
        hear = self._hear if self._listening is not None else self._listen(answer)
        listening = self._listening
        assert listening is not None
        try:
            if self._head is not None:
                self._be_heard()
                await answer.pour(hear)
            else:
                await self._await_audio(answer, hear)
            measured = listening.finish()
        except NotAudio as error:
            raise self._fault(Fault.NOT_AUDIO, error.reason) from error
        self._ended_s = self.elapsed_s
        timings, head = Timings(), self._head
        if answer.framed and measured.complete and self.order.store:
            timings = read_timings(await answer.more(), len(self.order.utterance.text), measured.duration_ms)
        self._finish(answer.framed, head, measured, timings)
        if head is not None and measured.duration_ms:
            self._report(head.first_audio_s, self._ended_s * 1000 / measured.duration_ms)

    async def _await_audio(self, answer: Answer, hear: Callable[[bytes], None]) -> None:
        """To the end of the body, of which nothing has been heard yet."""
        try:
            async with Patience(self._terms.first_audio_s - self.elapsed_s) as patience:
                self._patience.append(patience)
                await answer.pour(hear)
        except TimeoutError as error:
            raise self._fault(Fault.FIRST_BYTE_TIMEOUT, "no audio in time") from error

    def _be_heard(self) -> None:
        for each in self._patience:
            each.end()

    def _expect(self) -> Expected:
        if self._expected is None:
            it = self.order.utterance
            self._expected = Expected(it.format, it.sample_rate_hz, len(it.text), it.speaking_rate)
        return self._expected

    def _fault(self, fault: Fault, detail: str) -> UpstreamFault:
        return UpstreamFault(fault, self.chosen.cluster, detail)

    # What the cluster says, in the turn of the event loop in which it comes.

    def _listen(self, answer: Answer) -> Callable[[bytes], None]:
        """The head of the answer is there: what is to be handed its body. UpstreamFault: it is no audio."""
        try:
            listening = inspector(answer.media_type, self._expect())
        except NotAudio as error:
            raise self._fault(Fault.NOT_AUDIO, error.reason) from error
        self._answer, self._listening = answer, listening
        return self._hear

    def _hear(self, chunk: bytes) -> None:
        """Tees the body."""
        listening, answer = self._listening, self._answer
        assert listening is not None
        if self._head is not None:
            return self._take(chunk, listening)
        assert answer is not None
        if self._first_byte_s is None:
            self._first_byte_s = self.elapsed_s
        self._take(chunk, listening)
        if listening.audible:
            self._be_heard()
            self._head = head = self._told(answer, self._first_byte_s)
            self._win(head)
        return None

    def _win(self, head: Head) -> None:
        """The first audio is there. Beaten: another's was, before."""
        if self.flight.state is not State.ASKING:
            raise Beaten
        self.flight.heard(*self._heard)  # first: listeners are called by what follows
        self.flight.audible(head, self._rendering)
        self._report(head.first_audio_s, None)
        self._look()
        if self._race is not None:
            self._race.heard(self)

    def _take(self, chunk: bytes, listening: Inspector) -> None:
        flight, rendering, terms = self.flight, self._rendering, self._terms
        if rendering.length + len(chunk) > terms.max_rendering_bytes:
            raise self._fault(Fault.TOO_LARGE, "longer than a rendering may be")
        if not terms.hold(len(chunk)):
            raise full()
        rendering.add(chunk)
        listening.feed(chunk)
        heard_s, now = self._heard = listening.heard_s, terms.clock.monotonic()
        if flight.rendering is rendering:  # `audible`
            flight.heard(heard_s, now)
            if now >= self._watch.due_s:
                self._look()

    def _look(self) -> None:
        """UpstreamFault: it is far too slow to be listened to."""
        sound_s, now = self._heard
        slow = self._watch.look(Come(now, self._terms.stood_still_s(), sound_s, self._rendering.length))
        if slow:
            raise self._fault(Fault.TRICKLED, slow)

    def _told(self, answer: Answer, first_byte_s: float) -> Head:
        try:
            put_on, findable = tags(answer.headers), True
        except TooMany:
            put_on, findable = (), False
        return Head(
            media_type=answer.media_type,
            cluster=self.chosen.cluster,
            first_byte_s=first_byte_s,
            first_audio_s=self._heard[1] - self._began_s,
            stored=self.order.store and answer.framed and findable,
            tags=put_on if findable else None,
        )

    def _finish(self, framed: bool, head: Head | None, measured: Measured, timings: Timings) -> None:
        flight = self.flight
        if head is None:
            raise self._fault(Fault.NOT_AUDIO, "empty_audio")
        match ending(framed=framed, measured=measured, wanted=self.order.store, findable=head.tags is not None):
            case Seal():
                recording = self._recording(head, measured, timings)
                if self._terms.keep(flight, recording):
                    flight.seal(recording)
                else:
                    flight.recording = recording  # it is heard to its end, with all that is told of it
                    flight.end("purged")
            case EndUnstored(reason):
                flight.end(reason)
            case BreakOff(reason):
                raise self._fault(Fault.BROKEN, reason)
            case _ as never:
                assert_never(never)

    def _recording(self, head: Head, measured: Measured, timings: Timings) -> Recording:
        audio = self.flight.rendering.collapse()
        if measured.container == "wav":
            audio = with_true_sizes(audio)
        facts = Facts(
            media_type=head.media_type,
            container=measured.container,
            duration_ms=measured.duration_ms,
            sample_rate_hz=measured.sample_rate_hz,
            channels=measured.channels,
            made_at=self._terms.clock.wall(),
            made_in_ms=self._ended_s * 1000,
            first_audio_ms=head.first_audio_s * 1000,
            cluster=head.cluster,
            etag=etag(audio),
            timings=timings,
            tags=head.tags or (),
            after_purge=self.flight.after_purge,
        )
        asked = self.order.asked
        return Recording(asked.key, asked.namespace, asked.canonical, facts, audio)
