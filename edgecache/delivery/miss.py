"""One plain miss being answered without aiohttp: written as the flight speaks, by callbacks and without a task.

Keeps rules 3, 4 and 7. An error before the first audio is a problem, as in aiohttp's lane; what breaks off later is broken
off, never ended. It holds nothing but its place in the flight: while the client takes nothing, nothing is taken of the
flight, and after a while the client is dropped. A client that leaves changes nothing for the flight. All that is said and
counted comes from where aiohttp's lane has it: `Edge`, `delivery.head`, `delivery.problem`, `Course`.
"""

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, Protocol, assert_never

import msgspec

from edgecache.cache.status import Result
from edgecache.delivery.accept import Way
from edgecache.delivery.course import Course
from edgecache.delivery.head import duration, forwarded_result, recorded
from edgecache.delivery.prepared import spelled
from edgecache.delivery.problem import failure, headers, problem
from edgecache.delivery.ranges import Reply
from edgecache.errors import SpeechError
from edgecache.fill.edge import Begun, Recorded, Speech
from edgecache.fill.flight import Listener, State

if TYPE_CHECKING:
    from edgecache.delivery.http import Service

#: So much is written at once: more says too little about whether the client reads.
WRITE_BYTES = 64 << 10
_END = b"0\r\n\r\n"
_RAW = Way.RAW.value


class Found(msgspec.Struct, frozen=True):
    """What came of asking for speech, of a text of so many characters."""

    begun: Begun | Recorded | Exception
    characters: int


class Line(Protocol):
    """The client's connection."""

    @property
    def transport(self) -> asyncio.Transport | None: ...
    @property
    def writing_paused(self) -> bool: ...
    def send(self, *pieces: bytes) -> None: ...
    def missed(self, *, kept: bool) -> None: ...


class Stage(Enum):
    """How far the answer is."""

    __hash__ = object.__hash__  # without a call: a table is looked at for each

    WAITING = "waiting"  # nothing is written: it may still become an error
    TELLING = "telling"  # the head is out
    ENDING = "ending"  # all is written, and not all taken
    OVER = "over"


class Event(Enum):
    """What happens to it."""

    __hash__ = object.__hash__

    SPEAKS = "speaks"  # the first audio is there
    ENDS = "ends"  # the last bytes were written, and the client is behind
    DONE = "done"  # answered, broken off, or the client is gone


TRANSITIONS: dict[tuple[Stage, Event], Stage] = {
    (Stage.WAITING, Event.SPEAKS): Stage.TELLING,
    (Stage.WAITING, Event.DONE): Stage.OVER,
    (Stage.TELLING, Event.ENDS): Stage.ENDING,
    (Stage.TELLING, Event.DONE): Stage.OVER,
    (Stage.ENDING, Event.DONE): Stage.OVER,
}


class Miss(Course):
    """One exchange. Its line tells it when the client takes more again (`resumed`), or is gone (`lost`)."""

    __slots__ = ("_found", "_line", "_listener", "_pending", "_service", "_stage", "_stalling")

    def __init__(self, service: "Service", line: Line, found: Found, request_id: str, began_s: float) -> None:
        super().__init__("POST", request_id, service.clock, began_s)
        self._service = service
        self._line = line
        self._found = found
        self._listener: Listener | None = None
        self._stage = Stage.WAITING
        #: How many bytes of audio were written that the client has not made room for.
        self._pending = 0
        self._stalling: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Miss {self._stage.value} of {self._found!r}>"

    # The answer that it becomes.

    def begin(self) -> None:
        """Answers, now or when there is audio."""
        self._service.tally.under_way[self.route] += 1
        begun = self._found.begun
        match begun:
            case Begun():
                self._listener = Listener(begun.flight, self._told)
                if begun.flight.state is not State.ASKING:
                    self._told()
            case Recorded():
                self._serve(begun)
            case SpeechError():
                self._refuse(begun)
            case Exception():
                self._fail(begun)
            case _ as never:
                assert_never(never)

    def _refuse(self, error: SpeechError) -> None:
        """A problem."""
        self.error = error.code
        if self.result is Result.NONE:
            self.result = Result.ERROR
        self._send_whole(Reply(error.status, headers(error), problem(error, self.request_id)), {})

    def _serve(self, found: Recorded) -> None:
        """A recording, in place of what nobody gave."""
        self._take_down(found)
        said = recorded(self._service.node, found, "POST", duration(self.elapsed_ms()))
        self._send_whole(Reply(200, {}, found.recording.audio), said)

    def _send_whole(self, reply: Reply, said: dict[str, str]) -> None:
        self.status = reply.status
        if self._gone:
            return self._leave()
        self._first_byte_s = self._clock.monotonic()
        self._line.send(spelled(reply, said, self.request_id, self._clock.wall()), reply.body)
        self._sent_bytes = len(reply.body)
        return self._finish(whole=True)

    def _take_down(self, speech: Speech) -> None:
        self.account.add(speech, self._found.characters)
        self.result, self.cluster = self.account.result, self.account.cluster

    # What the flight says.

    def _told(self) -> None:
        """There is something new."""
        try:
            if self._stage is Stage.WAITING:
                self._open()
            elif self._stage is Stage.TELLING and not self._line.writing_paused:
                self._pass_on()
        except Exception as error:  # a root: the client must not wait for what failed
            self._fail(error)

    def _open(self) -> None:
        begun = self._found.begun
        assert isinstance(begun, Begun), self
        if begun.flight.state is State.ASKING:
            return
        if begun.flight.head is None:
            self._refused(begun, begun.flight.refusal())
            return
        self.status = 200
        if self._gone:
            self._take_down(begun.live)
            self._leave()
            return
        self._move(Event.SPEAKS)
        elapsed_s = self._clock.monotonic() - self._began_s
        self._pass_on(self._service.heads.head(begun.live, elapsed_s, self.request_id, self._clock.wall()))

    def _note(self) -> None:
        """What is counted of a stream that began. After its first byte is out: somebody waits for that."""
        begun = self._found.begun
        assert isinstance(begun, Begun), self
        self._take_down(begun.live)
        self.listening = self._service.audience.listening()
        self._service.tally.streaming[_RAW] += 1

    def _refused(self, begun: Begun, error: SpeechError) -> None:
        try:
            spare = self._service.edge.instead(begun, error)
        except SpeechError as told:
            self._refuse(told)
        else:
            self._serve(spare)

    def _pass_on(self, head: bytes = b"") -> None:
        """What was spoken and not yet told, as long as the client takes it. head: goes out with the first of it."""
        while self._write_some(head) and self._stage is Stage.TELLING and not self._line.writing_paused:
            head = b""

    def _write_some(self, head: bytes) -> bool:
        """As much as goes into one write. Whether there may be more."""
        if self._gone:
            self._leave()
            return False
        listener, chunks, handed, error = self._listener, [head], list[tuple[int, float]](), None
        pending = self._pending
        assert listener is not None, self
        try:
            while pending < WRITE_BYTES and (chunk := listener.take()):
                handed.append((len(chunk), listener.audio_s))
                pending += len(chunk)
                chunks += (b"%x\r\n" % len(chunk), chunk, b"\r\n")
        except SpeechError as told:
            error = told
        ended = error is None and listener.ended
        if ended:
            chunks.append(_END)
        if handed and self._first_byte_s is None:
            self._first_byte_s = self._clock.monotonic()
        if len(chunks) > 1 or head:
            self._write(chunks, direct=bool(head))
        if head:
            self._note()
        self._hand(handed)
        if error is not None:
            self.error = error.code
            self._taken()
            self._finish(whole=False)
        elif self._line.writing_paused:
            self._await_room()
            if ended:
                self._move(Event.ENDS)
        else:
            self._taken()
            if ended:
                self._finish(whole=True)
        return pending >= WRITE_BYTES

    def _hand(self, handed: list[tuple[int, float]]) -> None:
        """Counts what was written."""
        begun = self._found.begun
        for size_bytes, audio_s in handed:
            self._pending += size_bytes
            if self.listening is not None and isinstance(begun, Begun):
                self.listening.hand(audio_s, begun.flight.arrived_s)

    def _write(self, chunks: list[bytes], *, direct: bool) -> None:
        """direct: nothing else waits to be written."""
        transport = self._line.transport
        if direct:
            self._line.send(*chunks)
        elif transport is not None:
            transport.write(b"".join(chunks))

    def _await_room(self) -> None:
        """The client is dropped if it makes none for too long."""
        if self._stalling is None:
            self._stalling = asyncio.get_running_loop().call_later(self._service.limits.write_stall_s, self._drop)

    def _taken(self) -> None:
        """The client has made room for all that was written."""
        if self._pending and self.listening is not None:
            self._sent_bytes += self._pending
            self._pending = 0
            self.listening.taken()

    # What the client does.

    @property
    def _gone(self) -> bool:
        transport = self._line.transport
        return transport is None or transport.is_closing()

    def resumed(self) -> None:
        """It takes more again."""
        if self._stalling is not None:
            self._stalling.cancel()
            self._stalling = None
        self._taken()
        if self._stage is Stage.ENDING:
            self._finish(whole=True)
        else:
            self._told()

    def lost(self) -> None:
        """It is gone. Nothing of it stays, not even until there is audio: it may come again and again (rule 7)."""
        if self._stage is Stage.OVER:
            return
        begun = self._found.begun
        if self._stage is Stage.WAITING and isinstance(begun, Begun):
            self.result = forwarded_result(begun.reason, joined=begun.joined)
        self._leave()

    def _drop(self) -> None:
        """It has read nothing for too long."""
        self.error = "client_stalled"
        if self._line.transport is not None:
            self._line.transport.abort()

    def _leave(self) -> None:
        self.error = self.error or "client_gone"
        self._finish(whole=False)

    # The end.

    def _fail(self, error: Exception) -> None:
        """This edge did: a 500 if nothing is written, and the connection ends."""
        asyncio.get_running_loop().call_exception_handler({"message": "an exchange failed", "exception": error})
        told = failure()
        self.error = told.code
        if self._stage is Stage.WAITING and not self._gone:
            self.status = told.status
            reply = Reply(told.status, {**headers(told), "Connection": "close"}, problem(told, self.request_id))
            self._line.send(spelled(reply, {}, self.request_id, self._clock.wall()), reply.body)
        if self._stage is not Stage.OVER:
            self._finish(whole=False)

    def _finish(self, *, whole: bool) -> None:
        """whole: the client was given all of it, and may ask the next thing on its connection."""
        tally = self._service.tally
        if self._stage is not Stage.WAITING and self._stalling is not None:
            self._stalling.cancel()
        if self.listening is not None:
            tally.streaming[_RAW] -= 1
        self._move(Event.DONE)
        tally.under_way[self.route] -= 1
        if self._listener is not None:
            self._listener.close()
        try:
            self._service.report(self.outcome(whole=whole))
        finally:
            self._line.missed(kept=whole)

    def _move(self, event: Event) -> None:
        self._stage = TRANSITIONS[self._stage, event]
