"""One fill under way: what has been heard so far, and everyone who is listening.

Keeps rules 3, 4 and 5: readers read a shared buffer by position from byte zero, each at its own pace; what one of them
does changes nothing for the others; one flight is one upstream response; an end is an end only if the upstream's was.
It does not know clusters, tiers or HTTP.

Theory. The one writer (the fill) adds bytes and then says how it ended. A reader holds nothing but a position. Nobody
queues bytes for anybody, so a reader that stalls costs no memory beyond the rendering that all share. There are two ways to
read: a task waits (`Flight.read`), which costs it a turn of the event loop; or a callback is called in the very turn in
which the bytes came (`Listener`), which is for whoever can write them out there and then.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum

import msgspec

from edgecache.cache.key import Key
from edgecache.cache.recording import Recording
from edgecache.errors import SpeechError
from edgecache.fill.priority import Priority


class State(Enum):
    """How far a flight is."""

    __hash__ = object.__hash__  # without a call: a table is looked at for each

    ASKING = "asking"  # no audio yet: another cluster may still be asked
    SPEAKING = "speaking"  # readers have bytes: this rendering or none
    SEALED = "sealed"  # whole and proven so: a recording
    ENDED = "ended"  # whole as far as HTTP says, but not to be stored
    BROKEN = "broken"  # broke off after the first audio
    REFUSED = "refused"  # failed before the first audio


class Event(Enum):
    """What the fill's task says of it."""

    __hash__ = object.__hash__  # without a call: a table is looked at for each

    AUDIBLE = "audible"
    SEAL = "seal"
    END = "end"
    BREAK = "break"
    REFUSE = "refuse"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.ASKING, Event.AUDIBLE): State.SPEAKING,
    (State.ASKING, Event.REFUSE): State.REFUSED,
    (State.SPEAKING, Event.SEAL): State.SEALED,
    (State.SPEAKING, Event.END): State.ENDED,
    (State.SPEAKING, Event.BREAK): State.BROKEN,
}

#: A reader is handed at most this much at once, so that one write's time-out means something.
READ_BYTES = 64 << 10
#: So many bytes that came in pieces are put together while more come, and then so many of these: small pieces of many
#: renderings lie among each other in memory, and the holes that a whole one leaves are too small for the next.
GATHERED_BYTES, GATHERED_PARTS = 32 << 10, 8


class Head(msgspec.Struct, frozen=True):
    """What is known when the first audio is heard. followed: another process leads, and tells it."""

    media_type: str
    cluster: str
    first_byte_s: float
    first_audio_s: float
    stored: bool
    #: None: more than can be kept.
    tags: tuple[str, ...] | None = ()
    followed: bool = False


class Rendering:
    """The bytes of one upstream response, to be read by position."""

    __slots__ = ("_chunks", "_loose_bytes", "_parts", "_starts", "_together", "length")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._starts: list[int] = []
        #: How many of these are put together, and how many of them only once; how many bytes are not.
        self._together = self._parts = self._loose_bytes = 0
        self.length = 0

    def add(self, chunk: bytes) -> None:
        """The next bytes."""
        if chunk:
            self._chunks.append(chunk)
            self._starts.append(self.length)
            self.length += len(chunk)
            self._loose_bytes += len(chunk)
            if self._loose_bytes >= GATHERED_BYTES:
                self._gather()

    def _gather(self) -> None:
        self._join(self._together)
        self._parts, self._loose_bytes = self._parts + 1, 0
        if self._parts == GATHERED_PARTS:
            self._join(self._together - GATHERED_PARTS)
            self._parts = 0

    def _join(self, at: int) -> None:
        """All from there on is one."""
        self._chunks[at:] = [b"".join(self._chunks[at:])]
        del self._starts[at + 1 :]
        self._together = at + 1

    def collapse(self) -> bytes:
        """All bytes as one; readers' positions stay right."""
        if len(self._chunks) != 1:
            self._join(0)
            self._parts = self._loose_bytes = 0
        return self._chunks[0]

    def read(self, position: int) -> bytes:
        """Bytes from this position on, at most READ_BYTES; empty when there are none yet."""
        if position >= self.length:
            return b""
        starts = self._starts
        at = len(starts) - 1 if starts[-1] <= position else bisect_right(starts, position) - 1
        offset = position - starts[at]
        chunk = self._chunks[at]
        return chunk if offset == 0 and len(chunk) <= READ_BYTES else chunk[offset : offset + READ_BYTES]


def _nobody_minds(_: "Flight") -> None:
    """Nobody has asked to be told."""


class Flight:
    """A fill under way, for one key."""

    __slots__ = (
        "_listeners",
        "_waiters",
        "after_purge",
        "arrived_s",
        "error",
        "head",
        "heard_s",
        "key",
        "left",
        "not_stored",
        "others",
        "outdated",
        "priority",
        "readers",
        "recording",
        "rendering",
        "state",
    )

    def __init__(self, key: Key, priority: Priority = Priority.INTERACTIVE) -> None:
        self.key = key
        #: The most urgent of all who asked for it.
        self.priority = priority
        self.state = State.ASKING
        self.head: Head | None = None
        self.recording: Recording | None = None
        self.error: SpeechError | None = None
        self.not_stored = ""
        self.rendering = Rendering()
        self.readers = 0
        #: How many joined it.
        self.others = 0
        #: Told when the last reader has left before the end.
        self.left: Callable[[Flight], None] = _nobody_minds
        #: How long the speech is that has come so far, where its bytes say; and when the last of them came.
        self.heard_s = self.arrived_s = 0.0
        #: Whether a take that began later has been kept already.
        self.outdated = False
        #: The serial of the newest purge that was known when it was begun.
        self.after_purge = 0
        self._waiters: set[asyncio.Future[None]] = set()
        #: In the order in which they came.
        self._listeners: dict[Listener, None] = {}

    def __repr__(self) -> str:
        return f"<Flight {self.key[:8]} {self.state.value} {self.rendering.length} bytes, {self.readers} readers>"

    @property
    def over(self) -> bool:
        """Whether no more bytes will come."""
        return self.state not in (State.ASKING, State.SPEAKING)

    # The writer's side: called by the fill's task alone.

    def add(self, chunk: bytes) -> None:
        """More bytes of the rendering that is heard."""
        self.rendering.add(chunk)
        if self.state is State.SPEAKING:
            self._wake()

    def heard(self, heard_s: float, now: float) -> None:
        """So much speech is in what has come up to now, which readers may read."""
        self.heard_s, self.arrived_s = heard_s, now
        if self.state is State.SPEAKING:
            self._wake()

    def audible(self, head: Head, rendering: Rendering | None = None) -> None:
        """The first audio is there. rendering: what is heard, from its beginning (rule 5: this one and no other)."""
        self.rendering = self.rendering if rendering is None else rendering
        self.head = head
        self._move(Event.AUDIBLE)

    def seal(self, recording: Recording) -> None:
        """Whole, and proven so."""
        self.recording = recording
        self._move(Event.SEAL)

    def end(self, not_stored: str) -> None:
        """Over as HTTP says it must be, but for this reason not to be stored."""
        self.not_stored = not_stored
        self._move(Event.END)

    def fail(self, error: SpeechError) -> None:
        """It goes no further: a proper error before the first audio, a break after it."""
        self.error = error
        self._move(Event.REFUSE if self.state is State.ASKING else Event.BREAK)

    def _move(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]
        self._wake()

    def _wake(self) -> None:
        if self._waiters:
            waiters, self._waiters = self._waiters, set()
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        if self._listeners:
            for listener in tuple(self._listeners):
                self._call(listener)

    def _call(self, listener: "Listener") -> None:
        try:
            listener.told()
        except Exception as error:  # a root like a task's: what one reader does changes nothing for the others (rule 4)
            self._listeners.pop(listener, None)
            context = {"message": f"a listener failed: {listener!r}", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    # The readers' side.

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Counts a reader while it listens."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self, listener: "Listener | None" = None) -> None:
        """One more reader. listener: it is to be called."""
        self.readers += 1
        if listener is not None:
            self._listeners[listener] = None

    def leave(self, listener: "Listener | None" = None) -> None:
        """One reader less."""
        if listener is not None:
            self._listeners.pop(listener, None)
        self.readers -= 1
        if not self.readers and not self.over:
            self.left(self)

    async def begun(self) -> Head:
        """Waits for the first audio. SpeechError: there will be none."""
        while self.state is State.ASKING:
            await self._changed()
        if self.head is None:
            raise self.refusal()
        return self.head

    async def read(self, position: int) -> bytes:
        """The next bytes from this position; empty at the end. SpeechError: it broke off."""
        while True:
            chunk = self.rendering.read(position)
            if chunk:
                return chunk
            if self.state is State.BROKEN:
                raise self.refusal()
            if self.over:
                return b""
            await self._changed()

    def intact(self) -> None:
        """SpeechError: it has broken off already, whatever of it can still be read."""
        if self.state is State.BROKEN:
            raise self.refusal()

    async def whole(self) -> bytes:
        """All bytes, once it is over; shared, not a copy. SpeechError: it broke off."""
        while not self.over:
            await self._changed()
        if self.error is not None:
            raise self.refusal()
        return self.rendering.collapse()

    def refusal(self) -> SpeechError:
        """Why there is no more. Each reader's own: one that is raised again and again keeps all who raised it alive."""
        assert self.error is not None, self
        return replace(self.error)

    async def _changed(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)


class Listener:
    """A reader that is called instead of waiting, in the turn of the event loop in which there is something new.

    `told` is called with nothing, by the fill itself: when the first audio is there, when more of it is, and when the flight
    is over. It is not called for what is there already, nor by `close`. It has to be quick and must not wait; it may `take`,
    write, and `close`. If it raises, that is logged and it is never called again.

    There is no queue, so flow control is not to take: who can't write now takes nothing, and takes what is there by itself
    when it can again. It counts as a reader until it is closed, which it must be once, also if the flight is over.

    audio_s: about how long the last piece speaks, 0 where its bytes do not say.
    """

    __slots__ = ("_closed", "_flight", "_spoken_s", "audio_s", "position", "told")

    def __init__(self, flight: Flight, told: Callable[[], None]) -> None:
        self._flight = flight
        self._spoken_s = 0.0
        self.position = 0
        self.audio_s = 0.0
        self.told = told
        self._closed = False
        flight.enter(self)

    def __repr__(self) -> str:
        return f"<Listener at {self.position} of {self._flight!r}>"

    def take(self) -> bytes:
        """The next piece of what is there; empty: no more for now, or at all (`ended`). SpeechError: it broke off there, or
        there is no audio and never will be."""
        flight = self._flight
        if flight.state is State.ASKING:
            return b""
        chunk, length = flight.rendering.read(self.position), flight.rendering.length
        if not chunk:
            if flight.error is not None:
                raise flight.refusal()
            self.audio_s = 0.0
            return chunk
        self.position = position = self.position + len(chunk)
        # Speech is taken for as dense here as it is on the whole so far; what was guessed wrongly is made up for later.
        audio_s = flight.heard_s * position / length - self._spoken_s
        self.audio_s = audio_s = audio_s if audio_s > 0 else 0.0
        self._spoken_s += audio_s
        return chunk

    @property
    def ended(self) -> bool:
        """Whether all was taken and the speech has ended as it should."""
        flight = self._flight
        return flight.over and flight.error is None and self.position == flight.rendering.length

    def close(self) -> None:
        """It listens no more."""
        if not self._closed:
            self._closed, self.told = True, _hears_nothing
            self._flight.leave(self)


def _hears_nothing() -> None:
    """What is called of one that was closed by another, while it was its turn."""
